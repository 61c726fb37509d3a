"""Class folders: the folder that a picture is in names its class, as in ``train/cat/x.jpg`` or ``cat/x.jpg``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from manylens.data.formats import Source, shared
from manylens.data.problems import DataError, Problems
from manylens.data.records import Category, Record

if TYPE_CHECKING:
    from manylens.data.dataset import Dataset

Found = tuple[str, list[str]]


def read(source: Path, images: Path | None, problems: Problems) -> Source:
    """Read class folders; no picture is opened.

    Folders at the top are splits where every one that holds pictures is named train, val or test (or as these are
    often written). The class is the path below, so folders in folders give ``animals/cat``; a last folder ``images``
    is left out. Pictures in no class folder have no label. A picture's id is its path within the source. Hidden files
    and files that are no pictures are passed over.

    Args:
        source: The folder.
        images: Not used: the pictures are in the source.
        problems: Not used: nothing of this format can be broken.

    Raises:
        DataError: It is no folder, or no picture is in it.
    """
    if not source.is_dir():
        raise DataError(f"{source}: no such folder", "give the folder that holds the class folders")
    try:
        labels, splits, filled = _layout(source)
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror})", "check its permissions") from error
    if not filled:
        raise DataError(f"{source}: no picture is in it", "give the folder that holds the class folders")
    categories = tuple(Category(number, name) for number, name in enumerate(labels))
    return Source(name=source.absolute().name, categories=categories, records=_records(source.absolute(), splits))


def _layout(source: Path) -> tuple[list[str], bool, bool]:
    """The classes; whether the top folders are splits; whether there is any picture."""
    folders = [(folder, bool(names)) for folder, names in shared.walk(source)]
    tops = {folder.split("/")[0] for folder, filled in folders if filled}
    splits = bool(tops) and all(shared.split_of(top) for top in tops)
    # A class without a picture is one that has an empty folder.
    empty = {folder for folder, filled in folders if not filled and not any((source / folder).iterdir())}
    labels = {_place(folder, splits)[1] for folder, filled in folders if filled or folder in empty}
    return sorted(labels - {""}), splits, bool(tops)


def _place(folder: str, splits: bool) -> tuple[str, str]:
    """Split and label of the pictures in a folder."""
    parts = folder.split("/") if folder else []
    split = shared.split_of(parts.pop(0)) if splits and parts else ""
    if len(parts) > 1 and parts[-1] == "images":
        parts.pop()
    return split, "/".join(parts)


def _records(source: Path, splits: bool) -> Iterator[Record]:
    for folder, names in shared.walk(source):
        split, label = _place(folder, splits)
        for name in names:
            id = f"{folder}/{name}" if folder else name
            yield Record(id, source / id, split=split, label=label)


def write(dataset: Dataset, target: Path) -> Path:
    """Copy the pictures into class folders, below a folder for each split where there are splits.

    Annotations, columns and the numbers of classes are lost; ids become paths, and a file name that is taken gets a
    number.

    Args:
        dataset: What to write.
        target: A new or an empty folder.

    Raises:
        DataError: A label or a split cannot be the name of a folder, or a picture cannot be read.
        OutputError: The folder holds something, or cannot be written.
    """
    shared.new_folder(target)
    taken: set[str] = set()
    for record in dataset.records():
        folder = PurePosixPath(_folder(record.split), _folder(record.label))
        shared.copy(record.path, target / shared.free(folder / record.path.name, taken))
    splits = [_folder(split) for split in dataset.splits] or [""]
    for category in dataset.categories:
        if not any((target / split / _folder(category.name)).is_dir() for split in splits):
            (target / splits[0] / _folder(category.name)).mkdir(parents=True)
    return target


def _folder(name: str) -> str:
    parts = name.split("/")
    if name and any(not part or shared.hidden(part) or "\0" in part for part in parts):
        raise DataError(f"{name!r}: cannot be the name of a folder", "rename this class or split")
    return name
