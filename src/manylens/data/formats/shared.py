"""What the formats have in common: finding pictures, splits in names, JSON, copies, run lengths."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from manylens.data.problems import DataError
from manylens.data.records import Annotation, Record
from manylens.errors import MediaError, OutputError
from manylens.media import atomic_write

PICTURES = frozenset(
    (
        ".jpg",
        ".jpeg",
        ".png",
        ".bmp",
        ".gif",
        ".tif",
        ".tiff",
        ".webp",
        ".avif",
        ".jp2",
        ".ppm",
        ".pgm",
        ".dcm",
        ".heic",
    )
)
MASK_FOLDERS = ("masks", "labels", "annotations")

_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
_SPLIT_IN_NAME = re.compile(rf"(?<![a-z])({'|'.join(sorted(_SPLITS, key=len, reverse=True))})(?![a-z])")
_PROBED = 20
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")  # of a character beyond the 65,536th, alone or as a pair


def split_of(folder: str) -> str:
    """The split that a folder's name stands for; empty where it is none."""
    return _SPLITS.get(folder.lower(), "")


def split_in(path: Path) -> str:
    """The split that a file's name (``instances_val2017.json``), else its folder's, tells; empty where none."""
    found = _SPLIT_IN_NAME.search(path.stem.lower())
    return _SPLITS[found[1]] if found else split_of(path.parent.name)


def hidden(name: str) -> bool:
    """Files and folders that no reader looks at."""
    return name.startswith(".") or name == "__MACOSX"


def is_picture(name: str) -> bool:
    """Whether a file's name is that of a picture."""
    return not hidden(name) and os.path.splitext(name)[1].lower() in PICTURES  # noqa: PTH122 (called a million times)


def is_file(path: Path) -> bool:
    """Whether a file is there; a name that no disk takes is none, and a folder that may not be entered has none."""
    return os.path.isfile(path)  # noqa: PTH113 (Path.is_file raises for these)


def walk(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Every folder below, as a relative path with slashes, with its pictures; sorted, links followed once."""
    seen: set[str] = set()

    def below(relative: str) -> Iterator[tuple[str, list[str]]]:
        place = folder / relative
        real = os.path.realpath(place)
        if real in seen:
            return
        seen.add(real)
        with os.scandir(place) as entries:
            found = sorted((entry.name, entry.is_dir()) for entry in entries if not hidden(entry.name))
        for name, _ in found:
            if not name.isascii() and name != name.encode("utf-8", "replace").decode():
                raise DataError(f"{place}: the name {name!a} in it is not UTF-8", "rename it")
        yield relative, [name for name, is_folder in found if not is_folder and is_picture(name)]
        for name, is_folder in found:
            if is_folder:
                yield from below(f"{relative}/{name}" if relative else name)

    return below("")


def pictures_beside(folder: Path) -> bool:
    """Whether a folder itself holds pictures."""
    return any(is_picture(path.name) for path in folder.iterdir())


def mask_folder(folder: Path) -> Path | None:
    """Where the label pictures of a folder are: ``masks/`` and the like beside ``images/``, or itself; None if none."""
    if (folder / "images").is_dir():
        for name in MASK_FOLDERS:
            if (folder / name).is_dir() and any(_pngs(names) for _, names in walk(folder / name)):
                return folder / name
    if any(path.stem.endswith("_mask") for path in folder.iterdir() if is_picture(path.name)):
        return folder
    return None


def _pngs(names: Sequence[str]) -> bool:
    return any(name.lower().endswith(".png") for name in names)


def locator(names: Sequence[str], roots: Sequence[Path]) -> Callable[[str], Path]:
    """How names in a file become paths of files.

    The first names are looked for under each root, as they are and by their last part alone; what finds a file is used
    for all. Where nothing is found, names stand under the first root. Backslashes separate too.
    """
    probed = [_posix(name) for name in names[:_PROBED]]
    ways = [(root, whole) for root in roots for whole in (True, False)]
    root, whole = next(
        (way for way in ways if any(is_file(way[0] / _part(name, way[1])) for name in probed)), (roots[0], True)
    )

    def path_of(name: str) -> Path:
        if "\\" in name and is_file(root / name):
            return Path(os.path.abspath(root / name))  # noqa: PTH100
        return Path(os.path.abspath(root / _part(_posix(name), whole)))  # noqa: PTH100 (links stay links)

    return path_of


def _posix(name: str) -> str:
    # A POSIX file may have a backslash in its name, but labels written on Windows are met far more often.
    return name.replace("\\", "/")


def _part(name: str, whole: bool) -> str:
    return name if whole else PurePosixPath(name).name


def relative(path: str | Path, folder: Path) -> str:
    """A path as a file in ``folder`` names it: relative, with slashes."""
    return Path(os.path.relpath(path, folder)).as_posix()


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: It is missing, cannot be read, or is no JSON.
    """
    try:
        content = path.read_bytes()
        parsed = json.loads(content)
        if _HALF.search(content):  # rare, and no file that is made of it could hold it
            json.dumps(parsed, ensure_ascii=False).encode()
        return parsed
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})", "check the path") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}: {error.msg}"
        raise DataError(f"{path}: not JSON ({where})", "get a whole copy of it") from error
    except (UnicodeError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({type(error).__name__})", "save it as JSON in UTF-8") from error
    except ValueError as error:
        raise DataError(f"{path}: not JSON (a number of thousands of digits)", "write numbers as they are") from error


def write_json(path: Path, pieces: Iterable[tuple[str, Iterable[Any]]]) -> Path:
    """Write an object of lists, one row a line, without holding the rows."""

    def stream(file: Any) -> None:
        for i, (key, rows) in enumerate(pieces):
            file.write(f"{',' if i else '{'}\n{json.dumps(key)}: [".encode())
            for k, row in enumerate(rows):
                file.write((",\n" if k else "\n").encode() + json.dumps(plain(row), ensure_ascii=False).encode())
            file.write(b"\n]")
        file.write(b"\n}\n")

    return atomic_write(path, stream)


def filled(columns: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that hold something; objects, which a data set keeps as JSON text, are objects again."""
    return {key: _nested(value) for key, value in columns.items() if value is not None}


def _nested(value: Any) -> Any:
    if isinstance(value, list):
        return [_nested(one) for one in value]
    if not isinstance(value, str) or not value.startswith('{"'):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def plain(value: Any) -> Any:
    """A value as JSON can hold it; NaN and infinities become null."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)


def id_of(value: Any) -> str | None:
    """An id of a file as text; None where it is none."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return str(value)
    return str(int(value)) if isinstance(value, float) and value.is_integer() else None


def number_in(id: str) -> int | None:
    """The number that an id is, where it is one written the plain way."""
    return int(id) if id.isascii() and id.isdigit() and str(int(id)) == id else None


def part_number(id: str, record: str) -> int | None:
    """The number after the picture's id in ``picture:number``, as readers name parts of label pictures."""
    return number_in(id[len(record) + 1 :]) if id.startswith(f"{record}:") else None


def read_labels(path: Path) -> npt.NDArray[Any]:
    """The stored values of a label picture, not scaled and not turned to colours: ``(H, W)`` or ``(H, W, C)``.

    Raises:
        DataError: It is missing, cut short or no picture.
    """
    from manylens.media import formats
    from manylens.media.sources import find

    try:
        picture, _ = formats.decode_raw(find(path))
    except MediaError as error:
        raise DataError(error.what, error.remedy) from error
    return np.asarray(picture)


def encode(on: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """A mask ``(H, W)`` as COCO RLE."""
    from manylens.media import to_rle

    return dict(to_rle(on))


def write_png(values: npt.NDArray[Any], path: Path) -> Path:
    """Write the values of a label picture as they are: uint8 or uint16 ``(H, W)``, or uint8 ``(H, W, 3)``."""
    import PIL.Image

    picture = PIL.Image.fromarray(values)
    return atomic_write(path, lambda file: picture.save(file, "PNG"))


def painted(parts: Sequence[tuple[int, Annotation]], record: Record, ground: int = 0) -> npt.NDArray[np.int64]:
    """A label picture ``(H, W)``: each annotation's mask in its number, the first on top, on a ground.

    Raises:
        DataError: A mask is not of the picture's size, or nothing says how large the picture is.
    """
    from manylens.media import from_rle

    sizes = {tuple(one.mask["size"]) for _, one in parts if one.mask is not None}
    if record.width is not None and record.height is not None:
        sizes.add((record.height, record.width))
    if len(sizes) != 1:
        raise DataError(f"image {record.id}: its masks are of {len(sizes)} sizes", "give masks of the image's size")
    canvas = np.full(sizes.pop(), ground, dtype=np.int64)
    for number, one in reversed(parts):
        if one.mask is not None:
            canvas[from_rle(one.mask)] = number
    return canvas


def new_folder(target: Path) -> Path:
    """Make a folder to write into.

    Raises:
        OutputError: It cannot be made, or holds something already.
    """
    try:
        target.mkdir(parents=True, exist_ok=True)
        if any(target.iterdir()):
            raise OutputError(f"{target}: holds something already", "give a new or an empty folder")
    except OSError as error:
        raise OutputError(f"{target}: this folder cannot be made ({error.strerror})", "choose another") from error
    return target


def free(path: PurePosixPath, taken: set[str]) -> PurePosixPath:
    """A path that is not taken, told apart by a number, and now taken; upper and lower case are the same."""
    wish, number = path, 1
    while str(wish).lower() in taken:
        number += 1
        wish = path.with_name(f"{path.stem}-{number}{path.suffix}")
    taken.add(str(wish).lower())
    return wish


def copy(picture: Path, target: Path) -> Path:
    """Copy a picture, whole or not at all.

    Raises:
        DataError: It cannot be read.
        OutputError: It cannot be written.
    """
    try:
        with picture.open("rb") as file:
            return atomic_write(target, lambda out: shutil.copyfileobj(file, out, 1 << 20))
    except OSError as error:
        raise DataError(f"{picture}: cannot be read ({error.strerror or error})", "check the path") from error
