"""Which format a file or folder is in, by its name and what is in it."""

from __future__ import annotations

from pathlib import Path

from manylens.data.formats import OWN, shared
from manylens.data.problems import DataError

_TABLES = (".csv", ".tsv", ".parquet")
_OWN_HEADER = "dataset.json"
_PIECE = 1 << 22


def recognise(source: Path) -> str:
    """The name of the format.

    A JSON with segments is panoptic, any other COCO. A folder is our own where it has a ``dataset.json``, of masks
    where they are laid out as :mod:`manylens.data.formats.masks` says, else of class folders.

    Raises:
        DataError: It is in none, is not there, or is a folder that holds files of labels, one of which must be named.
    """
    try:
        if not source.exists():
            raise DataError(f"{source}: there is no such file or folder", "give a file of labels or a folder")
        return _of_folder(source) if source.is_dir() else _of_file(source)
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror or error})", "check its permissions") from error


def _of_file(source: Path) -> str:
    suffix = source.suffix.lower()
    if suffix in _TABLES:
        return "csv"
    if source.name == _OWN_HEADER:
        return OWN
    if suffix == ".json":
        return "panoptic" if _mentions(source, b'"segments_info"') else "coco"
    raise DataError(f"{source}: of no format that is known", "give a .json, .csv, .tsv or .parquet file, or a folder")


def _of_folder(source: Path) -> str:
    if (source / _OWN_HEADER).is_file():
        return OWN
    if shared.mask_folder(source) is not None:
        return "masks"
    labels = [path for path in _labels(source) if path.name != "classes.json"]
    if labels:
        raise DataError(f"{source}: holds files of labels", f"name the one to read, such as {labels[0]}")
    return "folders"


def _labels(source: Path) -> list[Path]:
    """Files of labels where they use to be: in the folder itself, or in its ``annotations``."""
    places = [place for place in (source, source / "annotations") if place.is_dir()]
    files = [path for place in places for path in sorted(place.iterdir()) if path.is_file()]
    return [path for path in files if path.suffix.lower() in (".json", *_TABLES) and not shared.hidden(path.name)]


def _mentions(path: Path, word: bytes) -> bool:
    """Whether a file holds a word; it is read in pieces, for such files are large."""
    end = b""
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            if word in end + piece:
                return True
            end = piece[1 - len(word) :]
    return False
