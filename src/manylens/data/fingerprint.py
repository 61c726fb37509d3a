"""The content hash of a data set: what it says of which pictures, wherever and in whatever order and format it lies.

Each record is written in one canonical form and hashed; the sum of these hashes modulo 2**256 does not depend on their
order and needs no memory (the additive set hash of Bellare and Micciancio, 1997; made to tell data sets apart, not to
withstand someone who forges one).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from manylens.data.check import completed
from manylens.data.columns import canonical
from manylens.data.memo import FileMemo, stamp
from manylens.data.places import PATH_COLUMNS
from manylens.data.problems import DataError
from manylens.data.records import Annotation, Category, Record

_VERSION = b"manylens data 1\n"
_ENCODER = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))
_DIGITS = 3  # of a pixel: what changing xywh to xyxy and back rounds away


def fingerprint(records: Iterable[Record], categories: Iterable[Category], *, pixels: bool = True) -> str:
    """Hash a data set.

    What counts: ids of records, splits, labels, columns that are known, and of annotations the category, box, mask,
    area, flags and columns; names of the categories and which are things; bytes of the pictures. What does not: order,
    places of files, ids of annotations, numbers of categories, sizes of pictures.

    Args:
        records: All of them; gone through once.
        categories: All classes.
        pixels: Whether the bytes of the pictures count.

    Returns:
        64 hexadecimal digits.

    Raises:
        DataError: A picture is missing.
    """
    total = count = 0
    with FileHashes() as hashes:
        for record in records:
            digest = hashlib.sha256(_canonical(record, hashes if pixels else None)).digest()
            total = (total + int.from_bytes(digest, "big")) % 2**256
            count += 1
    classes = sorted((one.name, one.is_thing) for one in categories)
    end = _json({"records": count, "categories": classes, "pixels": pixels})
    return hashlib.sha256(_VERSION + total.to_bytes(32, "big") + end).hexdigest()


class FileHashes(FileMemo):
    """sha256 of files; see :class:`FileMemo`."""

    def __init__(self) -> None:
        super().__init__("files.sqlite", "files", "hash TEXT")

    def of(self, path: Path) -> str:
        """The hash of a file's bytes.

        Raises:
            OSError: It cannot be read.
        """
        at = stamp(path)
        found = self.recall(at)
        if found is not None:
            return str(found[0])
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self.keep(at, digest)
        return digest


def _canonical(record: Record, hashes: FileHashes | None) -> bytes:
    columns = {name: canonical(value) for name, value in record.columns.items() if value is not None}
    files = {"image": record.path} | {
        name: Path(columns.pop(name)) for name in PATH_COLUMNS if isinstance(columns.get(name), str)
    }
    row: dict[str, Any] = {"id": record.id, "split": record.split, "label": record.label, "columns": columns}
    row["annotations"] = sorted(_annotation(one) for one in record.annotations)
    if hashes is not None:
        row["files"] = {name: _file(record, file, hashes) for name, file in files.items()}
    return _json(row)


def _file(record: Record, file: Path, hashes: FileHashes) -> str:
    try:
        return hashes.of(file)
    except OSError as error:
        raise DataError(
            f"image {record.id}: {file} cannot be read ({error.strerror})", "see 'manylens dataset check'"
        ) from error


def _annotation(one: Annotation) -> str:
    try:
        one = completed(one)  # some formats keep no box beside a mask
    except ValueError as error:
        raise DataError(f"annotation {one.id}: its mask {error}", "see 'manylens dataset check'") from error
    columns = {name: canonical(value) for name, value in one.columns.items() if value is not None}
    row: dict[str, Any] = {"category": one.category, "columns": columns, "crowd": one.crowd, "ignore": one.ignore}
    row["box"] = None if one.box is None else [canonical(round(float(side), _DIGITS)) for side in one.box]
    row["area"] = None if one.area is None else canonical(round(float(one.area), _DIGITS))
    row["mask"] = None if one.mask is None else [list(one.mask["size"]), one.mask["counts"]]
    return _json(row).decode()


def _json(value: Any) -> bytes:
    return _ENCODER.encode(value).encode("utf-8", "surrogatepass")
