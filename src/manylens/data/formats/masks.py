"""Folders of label pictures: for each picture a PNG whose values are classes.

Layouts: ``images/x.jpg`` with ``masks/x.png`` (or ``labels/``, ``annotations/``), split folders in both, or
``x_mask.png`` beside ``x.jpg``. Values are classes as PASCAL VOC, ADE20K and Cityscapes number them: gray or palette.
As in VOC, 0 is the background where nothing else is said: a class that is judged, for there is known to be no object.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from manylens.data.formats import Source, shared
from manylens.data.problems import DataError, Problems
from manylens.data.records import BACKGROUND, Annotation, Category, Record
from manylens.data.sizes import upright_size
from manylens.media import atomic_write

if TYPE_CHECKING:
    from manylens.data.dataset import Dataset

Names = dict[int, str]

_NAME_FILES = ("classes.txt", "labels.txt", "classes.json")
_VOID_NAMES = frozenset({"void", "ignore", "unlabeled", "unlabelled", "dontcare"})
_MASK_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".pgm")  # JPEG blurs the values
_VOID = (255, 65535)  # where no class has this value
_NUMBERED = re.compile(r"\s*(\d+)\s*[:,\s]\s*(\S.*)")
_OBJECT = "object"
_BINARY = {0: BACKGROUND, 1: _OBJECT}


@dataclass(frozen=True)
class _Classes:
    """What the values of a mask mean: the class of each; void where the name says so; all else is unknown."""

    names: Mapping[int, str]
    void: frozenset[int]
    binary: bool = False

    def categories(self) -> tuple[Category, ...]:
        return tuple(
            Category(value, name, is_thing=False) for value, name in self.names.items() if value not in self.void
        )


def read(source: Path, images: Path | None, problems: Problems) -> Source:
    """Read label pictures; each class in one becomes an annotation with a mask, its id ``picture:value``.

    The names come from ``classes.txt`` or ``labels.txt`` (a name a line, from 0, or lines ``7 road``) or from
    ``classes.json`` (a list, or an object of either direction). Without such a file the masks are looked through once:
    where they hold only 0 and 255, or are of 1 bit, they are of two classes, ``background`` and ``object``; else a
    class is named by its value. A 0 that the file does not name is ``background``. 255 (65535 in 16 bits), and what the
    file names void, unlabeled or ignore, is an annotation that is not judged and has no category, so that nothing is
    lost.

    Args:
        source: The folder, or the folder of the masks alone where ``images`` is given.
        images: Folder of the pictures; None: ``images`` in the source, or the source.
        problems: Takes masks without a picture, pictures without a mask, and values without a name.

    Raises:
        DataError: It is no such folder, or names are not as described.
    """
    if not source.is_dir():
        raise DataError(f"{source}: no such folder", "give the folder that holds images and masks")
    if images is not None and not images.is_dir():
        raise DataError(f"{images}: no such folder", "give the folder of the pictures")
    source = source.absolute()
    masks = source if images is not None else shared.mask_folder(source)
    if masks is None:
        wanted = ", ".join(f"{source / name}" for name in shared.MASK_FOLDERS)
        raise DataError(f"{source}: no masks in it (looked for {wanted}, and *_mask.png)", "give such a folder")
    pictures = images.absolute() if images is not None else (source if masks == source else source / "images")
    pairs = _pairs(pictures, masks, problems)
    if not pairs:
        raise DataError(f"{source}: no mask has a picture", "name x.png or x_mask.png for x.jpg")
    files = [mask for _, mask in pairs]
    classes = _stated(source, masks, files) or _found(files)
    return Source(
        name=source.name, categories=classes.categories(), records=_records(pictures, pairs, classes, problems)
    )


def _pictures(folder: Path) -> Iterator[str]:
    for below, names in shared.walk(folder):
        yield from (f"{below}/{name}" if below else name for name in names)


def _pairs(pictures: Path, masks: Path, problems: Problems) -> list[tuple[str, Path]]:
    """Each picture, as a path below its folder, with its mask."""
    beside = pictures == masks
    stems = {name.rsplit(".", 1)[0]: name for name in _pictures(masks) if name.lower().endswith(_MASK_SUFFIXES)}
    if beside:
        stems = {stem: name for stem, name in stems.items() if stem.endswith("_mask")}
    pairs = []
    left = set(stems)
    for name in _pictures(pictures):
        stem = name.rsplit(".", 1)[0]
        if beside and stem in stems:
            continue
        found = next((key for key in (stem, f"{stem}_mask") if key in stems), None)
        if found is None:
            problems.add("missing mask", name, f"image {name}: has no mask in {masks}")
            continue
        left.discard(found)
        pairs.append((name, masks / stems[found]))
    for stem in sorted(left):
        problems.add("missing image", stems[stem], f"mask {stems[stem]}: has no picture in {pictures}")
    return pairs


def _stated(source: Path, folder: Path, masks: Iterable[Path]) -> _Classes | None:
    """The classes that a file of names states."""
    places = [place / name for place in dict.fromkeys((source, folder, folder.parent)) for name in _NAME_FILES]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        return None
    names = _json_names(path) if path.suffix == ".json" else _text_names(path)
    if not names or len(set(names.values())) != len(names):
        raise DataError(f"{path}: holds no names of classes, or one twice", "give each class a name of its own")
    void = {value for value, name in names.items() if _plain(name) in _VOID_NAMES}
    if BACKGROUND not in names.values():
        names = {value: BACKGROUND if _plain(name) == BACKGROUND else name for value, name in names.items()}
    if 0 not in names and BACKGROUND not in names.values() and _any_zero(masks):
        names = {0: BACKGROUND} | names
    return _Classes(names, frozenset(void | (set(_VOID) - names.keys())))


def _plain(name: str) -> str:
    return name.lower().strip("_ 0123456789")


def _any_zero(masks: Iterable[Path]) -> bool:
    for mask in masks:
        try:
            if not read_values(mask).all():
                return True
        except DataError:
            continue  # taken down when its picture's turn comes
    return False


def _text_names(path: Path) -> Names:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8", "save it as UTF-8, a name a line") from error
    numbered = [_NUMBERED.fullmatch(line) for line in lines if line.strip()]
    if all(numbered):
        return {int(found[1]): found[2].strip() for found in numbered if found}
    return {value: line.strip() for value, line in enumerate(lines) if line.strip()}


def _json_names(path: Path) -> Names:
    content = shared.read_json(path)
    try:
        if isinstance(content, list):
            return {value: str(name) for value, name in enumerate(content)}
        if all(isinstance(value, int) for value in content.values()):
            return {value: str(name) for name, value in content.items()}
        return {int(value): str(name) for value, name in content.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not names of classes", 'give a list, or an object such as {"0": "road"}') from error


def _found(masks: list[Path]) -> _Classes:
    """The classes that the masks themselves show."""
    values: set[int] = set()
    binary = True
    for mask in masks:
        try:
            labels = read_values(mask)
        except DataError:
            continue  # taken down when its picture's turn comes
        here = set(np.unique(labels).tolist())
        binary &= labels.dtype == np.bool_ or here <= {0, 255}
        values |= here
    if binary:
        return _Classes(_BINARY, frozenset(), binary=True)
    return _Classes({int(value): str(int(value)) for value in sorted(values - set(_VOID))}, frozenset(_VOID))


def read_values(path: Path) -> npt.NDArray[np.generic]:
    """The class at each pixel ``(H, W)``: bool, or whole numbers.

    Raises:
        DataError: It is cut short, or in colours.
    """
    values = shared.read_labels(path)
    if values.ndim == 3 and (values[..., :1] == values[..., :3]).all():
        values = values[..., 0]
    if values.ndim != 2 or values.dtype.kind not in "bui":
        raise DataError(f"{path}: its colours are no numbers of classes", "give a gray or palette PNG")
    return values


def numbered(labels: npt.NDArray[np.generic], binary: bool) -> npt.NDArray[np.integer]:
    """The number of the class at each pixel, for truth and for predictions alike.

    Args:
        labels: ``(H, W)`` as :func:`read_values` gives them.
        binary: Whether they are of one kind of object, so that all but 0 (1 or 255) is 1.
    """
    return np.asarray(labels != 0 if binary or labels.dtype == np.bool_ else labels).astype(np.int32)


def is_binary(categories: Iterable[Category]) -> bool:
    """Whether these are the classes of a folder of masks of 0 and 255."""
    return {category.id: category.name for category in categories} == _BINARY


def _records(pictures: Path, pairs: list[tuple[str, Path]], classes: _Classes, problems: Problems) -> Iterator[Record]:
    for name, mask in pairs:
        try:
            labels = read_values(mask)
        except DataError as error:
            problems.add("unreadable mask", name, f"image {name}: {error.what}")
            continue
        labels = numbered(labels, classes.binary)
        height, width = labels.shape
        if (size := upright_size(pictures / name) or (width, height)) != (width, height):
            what = f"image {name}: is {size[0]} x {size[1]} pixels, its mask {width} x {height}"
            problems.add("mask size", name, what)
            continue
        folder = name.split("/")[0] if "/" in name else ""
        annotations = tuple(_annotations(name, labels, classes, problems))
        yield Record(name, pictures / name, width, height, shared.split_of(folder), annotations=annotations)


def _annotations(
    name: str, labels: npt.NDArray[np.generic], classes: _Classes, problems: Problems
) -> Iterator[Annotation]:
    for value in np.unique(labels).tolist():
        id = f"{name}:{value}"
        void = value in classes.void
        if not void and value not in classes.names:
            problems.add("unknown category", id, f"mask of {name}: its value {value} has no name")
            continue
        on = labels == value
        category = "" if void else classes.names[value]
        yield Annotation(id, category, mask=shared.encode(on), area=float(on.sum()), ignore=void)


def write(dataset: Dataset, target: Path) -> Path:
    """Write ``images/``, ``masks/`` and ``classes.json``, in folders of the splits.

    The value of a class is its number where those are different and fit, else its place from 1. Pixels of no annotation
    are 0, the background, where no class has that value, else 255. A data set of one class ``object``, with or without
    background, is written as 0 and 255, without names, unless some of its pixels are not judged. What label pictures
    cannot hold is lost: boxes, instances of a class, labels, columns, pixels of a later annotation below an earlier
    one, ids that are not the path; a record without a size and without a mask has no mask.

    Args:
        dataset: What to write.
        target: A new or an empty folder.

    Raises:
        DataError: Masks are not of the picture's size, or a picture cannot be read.
        OutputError: The folder holds something, or cannot be written.
    """
    shared.new_folder(target)
    names = [category.name for category in dataset.categories]
    values = {category.name: category.id for category in dataset.categories}
    binary = names == [_OBJECT] or is_binary(dataset.categories)
    binary = binary and not any(one.ignore and one.mask for record in dataset.records() for one in record.annotations)
    if binary:
        values = {BACKGROUND: 0, _OBJECT: 255}
    elif len(set(values.values())) < len(names) or any(not 0 <= one < 65535 or one == 255 for one in values.values()):
        places = [place for place in range(1, len(names) + 2) if place != 255]
        values = dict(zip(names, places, strict=False))
    ground = 0 if binary or not (0 in values.values() or BACKGROUND in values) else 255
    bare = False  # whether a pixel is of no annotation
    highest = 65535 if not binary and max(values.values(), default=0) > 255 else 255
    void: set[int] = set()
    taken: set[str] = set()
    for record in dataset.records():
        name = _file_name(record, taken)
        shared.copy(record.path, target / "images" / name)
        parts = []
        for one in record.annotations:
            if one.mask is not None and one.category in values and not one.ignore:
                parts.append((values[one.category], one))
            elif one.mask is not None and one.ignore:
                parts.append((_void_value(one, record.id, values, highest), one))
                void.add(parts[-1][0])
        if not parts and None in (record.width, record.height):
            continue
        labels = shared.painted(parts, record, -1)
        bare = bare or bool((labels < 0).any())
        labels[labels < 0] = ground
        mask = target / "masks" / name.with_suffix(".png")
        shared.write_png(labels.astype(np.uint16 if highest > 255 else np.uint8), mask)
    if not binary:
        stated = {0: BACKGROUND} if bare and ground == 0 and not binary else {}
        stated |= {value: f"void {value}" for value in sorted(void - set(_VOID))}
        stated |= {value: name for name, value in values.items()}
        content = json.dumps(stated, ensure_ascii=False, indent=1)
        atomic_write(target / "classes.json", f"{content}\n".encode())
    return target


def _file_name(record: Record, taken: set[str]) -> PurePosixPath:
    """The path below ``images``: the one that it had as a label picture was read, else split and file."""
    path = PurePosixPath(record.id)
    split = shared.split_of(path.parts[0]) if len(path.parts) > 1 else ""
    odd = path.is_absolute() or any(shared.hidden(part) for part in path.parts)
    if odd or path.name != record.path.name or split != record.split:
        path = PurePosixPath(record.split, record.path.name)
    # A mask is named by the stem, so two pictures of one stem need different names.
    stem = shared.free(path.with_suffix(""), taken)
    return stem.with_name(stem.name + path.suffix)


def _void_value(one: Annotation, image_id: str, values: Mapping[str, int], highest: int) -> int:
    """The value of pixels that are not judged: the one that they had as a label picture was read, else 255."""
    kept = shared.part_number(one.id, image_id)
    return 255 if kept is None or kept in values.values() or kept > highest else kept
