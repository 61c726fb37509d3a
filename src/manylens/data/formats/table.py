"""Tables: CSV, TSV and Parquet with a row for each picture, or for each box, mask, text, question or caption of one."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Callable, Iterator, Sequence
from operator import not_
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from manylens.data.formats import Source, cells, header, shared
from manylens.data.formats.header import OF_ANNOTATIONS, OF_RECORDS, Header
from manylens.data.formats.shapes import BrokenError
from manylens.data.problems import DataError, Problems
from manylens.data.records import Annotation, Box, Category, Record
from manylens.media import atomic_write, from_rle, save_mask_png

if TYPE_CHECKING:
    import pyarrow as pa

    from manylens.data.dataset import Dataset

Row = dict[str, Any]
PathOf = Callable[[str], Path]

_BATCH = 4096


def read(source: Path, images: Path | None, problems: Problems) -> Source:
    """Read a table; :mod:`manylens.data.formats.header` says which columns are known by which names.

    Rows of one id, or where there is none of one picture, are one record. A row with a box, mask, text, question or
    category is an annotation; its ``label`` is then the class of that part, unless the table has ``category`` too.
    Several answers or captions in a cell are divided by ``|`` or are a JSON list. An ``id`` that differs between the
    annotations of one picture is theirs. Other columns are whole numbers, numbers, true and false, lists in JSON or
    text, as all their values allow; one that differs between annotations of a picture, or begins with ``annotation.``,
    is theirs.

    Args:
        source: The file: comma or semicolon (``.csv``), tab (``.tsv``) or Parquet; UTF-8.
        images: Folder that the file names are in; None: the table's folder, or ``images`` in it.
        problems: Takes rows that are broken.

    Raises:
        DataError: The file cannot be read, is not UTF-8, or its header names no pictures.
    """
    table = cells.read_parquet(source) if _is_parquet(source) else cells.read_text(source, problems)
    columns = header.understood(table.column_names, source)
    if images is not None and not images.is_dir():
        raise DataError(f"{images}: no such folder", "give the folder of the pictures")
    folder = source.absolute().parent
    roots = [folder, folder / "images"] if images is None else [images.absolute()]
    reader = _Reader(table, columns, source, problems)
    path_of = shared.locator([name for name in reader.column("image")[:20].to_pylist() if name], roots)
    mask_of = shared.locator([name for name in reader.column("mask")[:20].to_pylist() if name], [folder, *roots])
    return Source(name=source.stem, categories=reader.categories(), records=reader.records(path_of, mask_of))


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() == ".parquet"


class _Reader:
    """A table, by picture; cells become Python objects a few thousand at a time."""

    def __init__(self, table: pa.Table, columns: Header, source: Path, problems: Problems) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        self.columns, self.problems = columns, problems
        for place, name in enumerate(table.column_names):
            column = table.column(place)
            try:
                if name not in columns.others or pa.types.is_temporal(column.type):
                    column = cells.as_text(column)
                elif not _is_parquet(source):
                    column = cells.inferred(column)
            except ValueError as error:
                raise DataError(f"{source}: its column {name!r} {error}", "make it text") from error
            table = table.set_column(place, name, column)
        empty = pc.is_null(table.column(columns.fields["image"])).to_numpy()
        for row in (np.flatnonzero(empty) + 2).tolist():  # people count the header as row 1
            problems.add("broken row", str(row), f"row {row} of {source.name}: names no picture")
        self.table = table.filter(pa.array(~empty))
        self.lists = [name for name in columns.others if cells.may_be_lists(self.table.column(name))]
        self.is_part = self._filled(columns.parts)
        self.ids_of_parts = self._ids_of_parts()

    def column(self, field: str) -> pa.ChunkedArray:
        """The cells of a field; none where the table has no such column."""
        import pyarrow as pa

        name = self.columns.fields.get(field)
        return pa.chunked_array([[]], pa.string()) if name is None else self.table.column(name)

    def categories(self) -> tuple[Category, ...]:
        """The classes that occur, sorted."""
        found = {*self.column("label").unique().to_pylist(), *self.column("category").unique().to_pylist()} - {None}
        return tuple(Category(number, name) for number, name in enumerate(sorted(found)))

    def records(self, path_of: PathOf, mask_of: PathOf) -> Iterator[Record]:
        """The records in the order of their first rows."""
        codes = self._codes()
        order = np.argsort(codes, kind="stable")
        starts = np.flatnonzero(np.diff(codes[order], prepend=-1)).tolist()
        theirs = self._annotation_columns(codes)
        for begin in range(0, len(starts), _BATCH):
            edges = [*starts[begin : begin + _BATCH + 1], len(order)][: _BATCH + 1]
            some = order[edges[0] : edges[-1]]
            rows, parts = self.table.take(some).to_pylist(), self.is_part[some].tolist()
            for name in self.lists:
                for row in rows:
                    row[name] = cells.listed(row[name])
            for first, last in itertools.pairwise(edges):
                mine = slice(first - edges[0], last - edges[0])
                yield self._record(rows[mine], parts[mine], theirs, path_of, mask_of)

    def _filled(self, names: Sequence[str]) -> npt.NDArray[np.bool_]:
        filled = np.zeros(len(self.table), dtype=bool)
        for name in names:
            filled |= self.table.column(name).is_valid().to_numpy()
        return filled

    def _codes(self) -> npt.NDArray[np.int64]:
        """A number for each row's record, in the order of first appearance."""
        import pyarrow.compute as pc

        pictures = self.column("image")
        if self.ids_of_parts or "id" not in self.columns.fields:
            return cells.numbered(pictures)
        return cells.numbered(pc.coalesce(self.column("id"), pictures))

    def _ids_of_parts(self) -> bool:
        """Whether the column ``id`` tells annotations apart and not pictures."""
        if "id" not in self.columns.fields or "annotation_id" in self.columns.fields or not self.is_part.any():
            return False
        return _varies(cells.numbered(self.column("id")), cells.numbered(self.column("image")))

    def _annotation_columns(self, codes: npt.NDArray[np.int64]) -> frozenset[str]:
        """Columns that belong to annotations: named so, or with several values for one picture."""
        theirs = {name for name in self.columns.others if name.startswith(OF_ANNOTATIONS)}
        if self.is_part.any():
            for name in set(self.columns.others) - theirs:
                column = self.table.column(name)
                if not cells.is_nested(column) and _varies(cells.numbered(column)[self.is_part], codes[self.is_part]):
                    theirs.add(name)
        return frozenset(theirs)

    def _record(
        self, rows: list[Row], parts: list[bool], theirs: frozenset[str], path_of: PathOf, mask_of: PathOf
    ) -> Record:
        image = rows[0][self.columns.fields["image"]]
        id = str(image if self.ids_of_parts else self._first("id", rows) or image)
        same = [row[self.columns.fields["image"]] == image for row in rows]
        if not all(same):
            other = rows[same.index(False)][self.columns.fields["image"]]
            self.problems.add("duplicate id", id, f"image {id}: is {image} and {other}; the second is left out")
            rows, parts = list(itertools.compress(rows, same)), list(itertools.compress(parts, same))
        for field in ("label", "split"):
            self._tell_other(field, id, rows if field == "split" else list(itertools.compress(rows, map(not_, parts))))
        of_parts = list(itertools.compress(rows, parts))
        # Without a column for their classes, the label of a row with a part is that part's.
        of_picture = rows if "category" in self.columns.fields else list(itertools.compress(rows, map(not_, parts)))
        columns: Row = {
            name.removeprefix(OF_RECORDS): next((row[name] for row in rows if row[name] is not None), None)
            for name in self.columns.others
            if name not in theirs
        }
        depth = self._first("depth", rows)
        columns |= {"captions": self._captions(rows) or None, "depth": None if depth is None else str(path_of(depth))}
        width, height = (None if name is None else cells.side(rows[0][name]) for name in self.columns.sides)
        return Record(
            id,
            path_of(image),
            width,
            height,
            self._first("split", rows) or "",
            self._first("label", of_picture) or "",
            tuple(self._annotations(id, of_parts, theirs, mask_of)),
            {name: value for name, value in columns.items() if value is not None},
        )

    def _tell_other(self, field: str, id: str, rows: list[Row]) -> None:
        """Take down that rows of one picture say different things; the first holds."""
        name = self.columns.fields.get(field)
        found = [] if name is None else list(dict.fromkeys(row[name] for row in rows if row[name] is not None))
        if len(found) > 1:
            message = f"image {id}: its {field} is {found[0]} and {found[1]}; the first holds"
            self.problems.add(f"two {field}s", id, message, left_out=False)

    def _first(self, field: str, rows: list[Row]) -> Any:
        name = self.columns.fields.get(field)
        return None if name is None else next((row[name] for row in rows if row[name] is not None), None)

    def _captions(self, rows: list[Row]) -> list[str]:
        one, several = (self.columns.fields.get(field) for field in ("caption", "captions"))
        found: dict[str, None] = {}  # a caption that is repeated beside each annotation is one
        for row in rows:
            found |= dict.fromkeys(cells.texts(row[several]) if several else ())
            found |= {row[one]: None} if one and row[one] is not None else {}
        return list(found)

    def _annotations(
        self, image_id: str, rows: list[Row], theirs: frozenset[str], mask_of: PathOf
    ) -> Iterator[Annotation]:
        name = self.columns.fields.get("id" if self.ids_of_parts else "annotation_id")
        for place, row in enumerate(rows):
            id = (row[name] if name else None) or f"{image_id}:{place}"
            try:
                yield self._annotation(id, row, theirs, mask_of)
            except BrokenError as error:
                self.problems.add(error.kind, id, f"annotation {id} of image {image_id}: {error}")

    def _annotation(self, id: str, row: Row, theirs: frozenset[str], mask_of: PathOf) -> Annotation:
        known = {field: row[name] for field, name in self.columns.fields.items() if row[name] is not None}
        columns = {name.removeprefix(OF_ANNOTATIONS): row[name] for name in sorted(theirs) if row[name] is not None}
        columns |= {field: known[field] for field in ("text", "question") if field in known}
        if "answers" in known:
            columns["answers"] = cells.texts(known["answers"])
        mask = None
        if "mask" in known:
            path = mask_of(known["mask"])
            if not shared.is_file(path):
                raise BrokenError("missing mask", f"there is no mask {path}")
            mask = cells.read_mask(path)
        category = known.get("category" if "category" in self.columns.fields else "label", "")
        area = cells.number(known["area"], "area") if "area" in known else None
        crowd, ignore = (cells.truth(known.get(field, ""), field) for field in ("crowd", "ignore"))
        return Annotation(id, category, self._box(row), mask, area, crowd, ignore, columns)

    def _box(self, row: Row) -> Box | None:
        sides = [row[name] for name in self.columns.box if row[name] is not None]
        if not sides:
            return None
        if len(sides) < 4:
            raise BrokenError("bad box", f"its box has {4 - len(sides)} empty cells")
        a, b, c, d = (cells.number(side, "box") for side in sides)
        return (a, b, a + c, b + d) if self.columns.sized else (a, b, c, d)


def _varies(values: npt.NDArray[np.int64], groups: npt.NDArray[np.int64]) -> bool:
    """Whether a group has several values; both are numbers from 0."""
    pairs = groups * (int(values.max(initial=0)) + 1) + values
    return len(np.unique(pairs)) > len(np.unique(groups))


def write(dataset: Dataset, target: Path) -> Path:
    """Write a table, with a row for each annotation or caption, and masks as PNGs in a folder beside it.

    Columns of annotations are written as ``annotation.name``, and one of a picture that is named as a known column as
    ``column.name``. Numbers, kinds and order of classes are lost; empty texts are nothing; text that reads as numbers
    becomes numbers.

    Args:
        dataset: What to write; it is gone through twice.
        target: ``.csv``, ``.tsv`` or ``.parquet``, or a folder to write a CSV named as the data set.
    """
    is_table = target.suffix.lower() in (".csv", ".tsv", ".parquet")
    path = target if is_table else target / f"{dataset.name or 'labels'}.csv"
    names = _names(dataset, path)
    if not _is_parquet(path):
        return atomic_write(path, lambda file: _write_rows(dataset, path, names, file))
    from pyarrow import parquet

    buffer = io.BytesIO()
    _write_rows(dataset, path, names, buffer)
    buffer.seek(0)
    table = cells.from_csv(buffer, ",", names)
    known = header.understood(names, path)
    for place, name in enumerate(names):
        if name in known.others:
            table = table.set_column(place, name, cells.inferred(table.column(place)))
    return atomic_write(path, lambda file: parquet.write_table(table, file))


def _names(dataset: Dataset, path: Path) -> list[str]:
    """The header: the columns that are filled somewhere, the known ones first."""
    found = dict.fromkeys(name for record in dataset.records() for row in _rows(record, path) for name in row)
    return [name for name in dict.fromkeys((*header.WRITTEN, *found)) if name in found]


def _write_rows(dataset: Dataset, path: Path, names: Sequence[str], file: BinaryIO) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    table = csv.DictWriter(text, names, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
    table.writeheader()
    number = itertools.count(1)
    for record in dataset.records():
        for row in _rows(record, path):
            if "mask" in row:
                mask = path.with_name(f"{path.stem}_masks") / f"{next(number):06d}.png"
                save_mask_png(from_rle(row["mask"]), mask)
                row["mask"] = shared.relative(mask, path.parent)
            table.writerow({name: cells.cell_of(value) for name, value in row.items()})
    text.detach()


def _rows(record: Record, path: Path) -> Iterator[Row]:
    """The rows of a record; only what it has, masks as RLE."""
    columns = {name: value for name, value in record.columns.items() if value is not None}
    captions = list(columns.pop("captions", ()))
    fixed: Row = {"id": record.id, "image": shared.relative(record.path, path.parent)}
    fixed |= {name: value for name in ("width", "height", "split", "label") if (value := getattr(record, name))}
    if "depth" in columns:
        fixed["depth"] = shared.relative(columns.pop("depth"), path.parent)
    fixed |= {OF_RECORDS + name if header.is_known(name) else name: value for name, value in columns.items()}
    for one, caption in itertools.zip_longest(record.annotations, captions):
        yield fixed | ({} if one is None else _cells_of(one)) | ({} if caption is None else {"caption": caption})
    if not record.annotations and not captions:
        yield fixed


def _cells_of(one: Annotation) -> Row:
    row: Row = {"annotation_id": one.id, "category": one.category}
    if one.box is not None:
        row |= zip(header.BOXES[0], one.box, strict=True)
    if one.mask is not None:
        row["mask"] = one.mask
    if one.area is not None:
        row["area"] = one.area
    row |= {name: True for name in ("crowd", "ignore") if getattr(one, name)}
    for name, value in one.columns.items():
        if name == "answers":
            row[name] = cells.joined(list(value)) if value else None
        elif value is not None:
            row[name if name in ("text", "question") else OF_ANNOTATIONS + name] = value
    return row
