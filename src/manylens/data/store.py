"""Records and annotations as rows of two Parquet tables, and the folder that holds them.

The folder has ``dataset.json`` (format version, name, categories, types of columns), ``images.parquet`` (a row a
record) and ``annotations.parquet`` (a row an annotation, in the order of the images, so both are read side by side as
streams). ``dataset.json`` is written last; it and the tables carry one stamp, so tables of two saves are never mixed.
"""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.data import rle
from manylens.data.places import PATH_COLUMNS
from manylens.data.problems import DataError, Problems
from manylens.data.records import Annotation, Category, Record
from manylens.data.tables import Rows, Spool, Table, TableWriter
from manylens.errors import OutputError
from manylens.media import atomic_write

if TYPE_CHECKING:
    import pyarrow as pa

HEADER = "dataset.json"
IMAGES, ANNOTATIONS = "images.parquet", "annotations.parquet"
VERSION = 1
_AGAIN = "save the data set again"

IMAGE_FIELDS = ("id", "file", "width", "height", "split", "label", "annotations")
ANNOTATION_FIELDS = (
    *("image", "id", "category", "x0", "y0", "x1", "y1"),
    *("mask", "mask_height", "mask_width", "area", "crowd", "ignore"),
)


@dataclass(frozen=True, eq=False)
class Store:
    """The rows of a data set.

    Attributes:
        images: Table of the records.
        annotations: Table of the annotations.
        base: Folder that relative files are in; None where they are as they are.
        kinds: Type of each column of records.
        annotation_kinds: Type of each column of annotations.
    """

    images: Table
    annotations: Table
    base: Path | None
    kinds: Mapping[str, str]
    annotation_kinds: Mapping[str, str]

    @cached_property
    def offsets(self) -> Rows:
        """Number of the first annotation of each record, and one more for the end: int64 ``(records + 1,)``."""
        counts = self.images.column("annotations").to_numpy()
        offsets = np.concatenate([[0], np.cumsum(np.nan_to_num(counts), dtype=np.int64)]).astype(np.int64)
        if offsets[-1] != self.annotations.rows or (np.diff(offsets) < 0).any():
            raise DataError(f"{IMAGES}: its numbers of annotations are not those of {ANNOTATIONS}", _AGAIN)
        return offsets

    def column(self, name: str) -> pa.ChunkedArray:
        """A field or column of all records."""
        return self.images.column(name if name in IMAGE_FIELDS else stored_name(name, IMAGE_FIELDS))

    def annotation_column(self, name: str) -> pa.ChunkedArray:
        """A field or column of all annotations."""
        return self.annotations.column(name if name in ANNOTATION_FIELDS else stored_name(name, ANNOTATION_FIELDS))

    def annotation_rows(self, rows: Rows) -> Rows:
        """Numbers of the annotations of these records."""
        starts, counts = self.offsets[rows], self.offsets[rows + 1] - self.offsets[rows]
        shift = np.repeat(starts - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts) if len(rows) else starts
        return (np.arange(counts.sum()) + shift).astype(np.int64)

    def records(self, rows: Rows, batch: int) -> Iterator[Record]:
        """The records of these ascending numbers, in bounded memory."""
        images, annotations = self.images.cursor(), self.annotations.cursor()
        for start in range(0, len(rows), batch):
            part = rows[start : start + batch]
            pictures, parts = images.take(part), annotations.take(self.annotation_rows(part))
            owners = np.repeat(pictures.column("id").to_numpy(), self.offsets[part + 1] - self.offsets[part])
            if self.base is not None and (owners != parts.column("image").to_numpy()).any():
                raise DataError(f"{ANNOTATIONS}: names other images than {IMAGES} at the same places", _AGAIN)
            yield from _records(pictures, _annotations(parts, self.annotation_kinds), self.kinds, self.base)


def stored_name(name: str, fields: tuple[str, ...]) -> str:
    """The name of a free column in a table; one that is named as a field is set apart."""
    return f"column:{name}" if name in fields or name.startswith("column:") else name


def collect(records: Iterable[Record], problems: Problems) -> Store:
    """Keep a stream of records: few in memory, many in temporary files."""
    return _written(records, Spool(), Spool(), "", problems)


def save(
    records: Iterable[Record],
    folder: Path,
    *,
    name: str,
    categories: tuple[Category, ...],
    problems: Problems,
) -> None:
    """Write records as a folder; what stood there is replaced at the end, or stays when anything fails.

    Args:
        records: The records, with their paths as they shall stand in the table.
        folder: Made where it is missing.
        name: Of the data set.
        categories: Of the data set.
        problems: Takes columns of mixed types.

    Raises:
        OutputError: The disk is full, or the folder cannot be written to.
    """
    stamp = secrets.token_hex(8)
    parts = {final: folder / f".{final}.{stamp}.part" for final in (IMAGES, ANNOTATIONS, HEADER)}
    atomic_write(folder / f".{stamp}.part", b"")  # says in one line why a folder cannot be written to
    (folder / f".{stamp}.part").unlink()
    try:
        store = _written(records, parts[IMAGES], parts[ANNOTATIONS], stamp, problems)
        header = {
            "format": "manylens data set",
            "version": VERSION,
            "stamp": stamp,
            "name": name,
            "records": store.images.rows,
            "annotations": store.annotations.rows,
            "categories": [asdict(one) for one in categories],
            "columns": dict(store.kinds),
            "annotation_columns": dict(store.annotation_kinds),
        }
        atomic_write(parts[HEADER], json.dumps(header, indent=1, ensure_ascii=False).encode())
        _put(store, parts[HEADER], folder)
    finally:
        for left in folder.glob(f".*.{stamp}.part*"):
            left.unlink(missing_ok=True)


def _put(store: Store, header: Path, folder: Path) -> None:
    """Give what is written its names, the header last; only now is what stood there replaced."""
    tables = store.images.source, store.annotations.source
    assert all(isinstance(source, Path) for source in tables)
    try:
        for source in tables:
            with source.open("rb") as file:
                os.fsync(file.fileno())
        for source, name in zip((*tables, header), (IMAGES, ANNOTATIONS, HEADER), strict=True):
            source.replace(folder / name)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror})", "free some space") from error


def load(folder: Path) -> tuple[Store, str, tuple[Category, ...]]:
    """Open a folder: its store, name and categories. No row is read.

    Raises:
        DataError: It is no data set of ours, of a later version, or damaged.
    """
    try:
        header = json.loads((folder / HEADER).read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(
            f"{folder}: is no data set of ours, it has no {HEADER}", "make one with 'manylens dataset convert'"
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / HEADER}: cannot be read ({error})", _AGAIN) from error
    try:
        version = int(header["version"])
        if version > VERSION:
            raise DataError(
                f"{folder}: is of version {version}, this is made for {VERSION}", "install a later manylens"
            )
        store = Store(
            Table(folder / IMAGES, header["stamp"]),
            Table(folder / ANNOTATIONS, header["stamp"]),
            folder,
            header["columns"],
            header["annotation_columns"],
        )
        categories = tuple(Category(**one) for one in header["categories"])
        name = str(header["name"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{folder / HEADER}: lacks or has a wrong {error}", _AGAIN) from error
    for table, count in ((store.images, "records"), (store.annotations, "annotations")):
        if table.rows != header.get(count):
            raise DataError(f"{folder}: holds {table.rows} {count}, not {header.get(count)}", _AGAIN)
    _check_columns(store)
    return store, name, categories


def _check_columns(store: Store) -> None:
    """Refuse tables whose columns are not those that are written."""
    images, annotations = _schemas()
    for table, schema, kinds in (
        (store.images, images, store.kinds),
        (store.annotations, annotations, store.annotation_kinds),
    ):
        with table.open() as file:
            there = file.schema_arrow
        name = table.source.name if isinstance(table.source, Path) else "table"
        for column in schema:
            if column.name not in there.names or there.field(column.name).type != column.type:
                raise DataError(f"{name}: its column {column.name!r} is missing, or not of {column.type}", _AGAIN)
        for column in kinds:
            if stored_name(column, tuple(schema.names)) not in there.names:
                raise DataError(f"{name}: its column {column!r} is missing", _AGAIN)


def _written(
    records: Iterable[Record],
    images: Path | Spool,
    annotations: Path | Spool,
    stamp: str,
    problems: Problems,
) -> Store:
    def mixed(name: str, one: str, other: str) -> None:
        problems.add("mixed column", name, f"column {name!r}: holds {one} and {other}; kept as text", left_out=False)

    def writer(schema: pa.Schema, target: Path | Spool, fields: tuple[str, ...]) -> TableWriter:
        return TableWriter(schema, target, stamp=stamp, stored=lambda name: stored_name(name, fields), mixed=mixed)

    schemas = _schemas()
    pictures = writer(schemas[0], images, IMAGE_FIELDS)
    parts = writer(schemas[1], annotations, ANNOTATION_FIELDS)
    try:
        for record in records:
            row = (
                record.id,
                record.path.as_posix(),
                record.width,
                record.height,
                record.split,
                record.label,
                len(record.annotations),
            )
            pictures.add(row, record.columns)
            for one in record.annotations:
                parts.add(_annotation_row(record.id, one), one.columns)
        return Store(pictures.close(), parts.close(), None, pictures.kinds, parts.kinds)
    except BaseException:
        for left in (pictures, parts):
            with suppress(OSError):
                left.abandon()
        raise


def _schemas() -> tuple[pa.Schema, pa.Schema]:
    import pyarrow as pa

    types = {"file": pa.string(), "annotations": pa.int32(), "width": pa.int32(), "height": pa.int32()}
    images = pa.schema([(name, types.get(name, pa.string())) for name in IMAGE_FIELDS])
    types = {name: pa.float64() for name in ("x0", "y0", "x1", "y1", "area")}
    types |= {"mask_height": pa.int32(), "mask_width": pa.int32(), "crowd": pa.bool_(), "ignore": pa.bool_()}
    return images, pa.schema([(name, types.get(name, pa.string())) for name in ANNOTATION_FIELDS])


def _annotation_row(image: str, one: Annotation) -> tuple[Any, ...]:
    x0, y0, x1, y1 = (None, None, None, None) if one.box is None else map(float, one.box)
    try:
        mask = None if one.mask is None else rle.packed(one.mask)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"annotation {one.id}: its mask is no RLE ({error})", "give COCO run-length encoding"
        ) from error
    height, width = (None, None) if mask is None else mask["size"]
    counts = None if mask is None else mask["counts"]
    area = None if one.area is None else float(one.area)
    flags = bool(one.crowd), bool(one.ignore)
    return image, one.id, one.category, x0, y0, x1, y1, counts, height, width, area, *flags


def _records(
    table: pa.Table, annotations: list[Annotation], kinds: Mapping[str, str], base: Path | None
) -> Iterator[Record]:
    fields = (table.column(name).to_pylist() for name in IMAGE_FIELDS)
    free = _free_columns(table, kinds, IMAGE_FIELDS)
    start = 0
    for (id, file, width, height, split, label, count), columns in zip(zip(*fields, strict=True), free, strict=True):
        path = Path(file) if base is None else base / (file or "")
        if base is not None:
            columns |= {name: str(base / columns[name]) for name in PATH_COLUMNS if name in columns}
        held = tuple(annotations[start : start + count])
        start += count
        yield Record(id or "", path, width, height, split or "", label or "", held, columns)


def _annotations(table: pa.Table, kinds: Mapping[str, str]) -> list[Annotation]:
    fields = (table.column(name).to_pylist() for name in ANNOTATION_FIELDS)
    found = []
    for row, columns in zip(zip(*fields, strict=True), _free_columns(table, kinds, ANNOTATION_FIELDS), strict=True):
        _, id, category, x0, y0, x1, y1, counts, height, width, area, crowd, ignore = row
        box = None if x0 is None else (x0, *(math.nan if side is None else side for side in (y0, x1, y1)))
        mask = None if counts is None else {"size": [height, width], "counts": counts}
        found.append(Annotation(id or "", category or "", box, mask, area, bool(crowd), bool(ignore), columns))
    return found


def _free_columns(table: pa.Table, kinds: Mapping[str, str], fields: tuple[str, ...]) -> Iterable[dict[str, Any]]:
    """The known values of the other columns, a dict a row."""
    rows: list[dict[str, Any]] = [{} for _ in range(table.num_rows)]
    for name in kinds:
        for row, value in zip(rows, table.column(stored_name(name, fields)).to_pylist(), strict=True):
            if value is not None:
                row[name] = value
    return rows
