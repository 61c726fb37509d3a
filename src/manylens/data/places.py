"""Where the files of a data set lie when it is saved: named from its folder, or copied into it."""

from __future__ import annotations

import filecmp
import itertools
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from manylens.data.problems import DataError
from manylens.data.records import Record
from manylens.media import atomic_write

PATH_COLUMNS = ("depth",)
"""Columns of records that hold the path of a file."""

_IMAGES = "images"
_UNSAFE = re.compile(r"[^\w.()+=@ /-]+")
_LONGEST = 150


class Places:
    """Gives every file its place, and remembers what it copied so that a save that fails can be undone.

    Args:
        folder: Of the data set.
        copy: Whether files that are not in it are copied into it; else they are named where they lie.
    """

    def __init__(self, folder: Path, copy: bool) -> None:
        self._folder, self._copy = Path(os.path.realpath(folder)), copy
        self._real = lru_cache(maxsize=1024)(os.path.realpath)  # many pictures lie in few folders
        self._made: list[Path] = []
        self._taken: set[str] = set()

    def placed(self, records: Iterable[Record]) -> Iterator[Record]:
        """The records with each path as it shall stand in the table: from the folder, else absolute."""
        for record in records:
            path = self._place(record.path, record, _IMAGES)
            extra = {name: Path(record.columns[name]) for name in PATH_COLUMNS if record.columns.get(name)}
            columns = {name: self._place(file, record, name) for name, file in extra.items()}
            yield replace(record, path=Path(path), columns={**record.columns, **columns} if columns else record.columns)

    def undo(self) -> None:
        """Remove what was copied."""
        for file in self._made:
            file.unlink(missing_ok=True)
        for folder in sorted({file.parent for file in self._made}, reverse=True):
            with suppress(OSError):  # it held something before
                folder.rmdir()

    def _place(self, file: Path, record: Record, kind: str) -> str:
        source = Path(self._real(file.parent), file.name)
        if source.parts[: len(self._folder.parts)] == self._folder.parts:
            return source.relative_to(self._folder).as_posix()
        # A link is named as the user does, not where it points to.
        return self._copied(source, record, kind) if self._copy else file.absolute().as_posix()

    def _copied(self, source: Path, record: Record, kind: str) -> str:
        name = next(name for name in _names(source, record.id, kind) if self._free(name, source))
        self._taken.add(name.casefold())  # some disks do not tell case apart
        target = self._folder / name
        if not target.exists():
            try:
                with source.open("rb") as picture:
                    atomic_write(target, lambda file: shutil.copyfileobj(picture, file))
            except FileNotFoundError as error:
                raise DataError(
                    f"image {record.id}: there is no file {source}", "see 'manylens dataset check'"
                ) from error
            self._made.append(target)
        return name

    def _free(self, name: str, source: Path) -> bool:
        """Whether the name is no other picture's; the same picture of an earlier save may stay."""
        if name.casefold() in self._taken:
            return False
        target = self._folder / name
        return not target.exists() or (source.exists() and filecmp.cmp(source, target, shallow=False))


def _names(source: Path, id: str, kind: str) -> Iterator[str]:
    """Names for the copy of a file: after its id where that is a path, its own, and what is never taken."""
    suffix = source.suffix
    by_id = _safe(id.removesuffix(suffix) if suffix else id)
    if "/" in by_id:
        yield f"{kind}/{by_id}{suffix}"
    yield f"{kind}/{_safe(source.stem)}{suffix}"
    yield f"{kind}/{by_id}{suffix}"
    for number in itertools.count(2):
        yield f"{kind}/{by_id}~{number}{suffix}"


def _safe(name: str) -> str:
    """A relative path that every disk takes and that leads nowhere else."""
    parts = [part[:_LONGEST].lstrip(".") for part in _UNSAFE.sub("_", name).split("/") if part.strip(". ")]
    return "/".join(parts) or "image"
