"""Rows in Parquet: written as a stream whose columns become known on the way, read by number in bounded memory."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from manylens.data.columns import arrow_array, arrow_type, kind_of, plain, widened
from manylens.data.problems import DataError
from manylens.errors import OutputError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

Rows = npt.NDArray[np.int64]

GROUP = 8192
"""Rows of a row group: what is held in memory of a table that is read or written."""

_STAMP = b"manylens.stamp"


class Spool:
    """A temporary folder, made when it is first needed; it goes with the last table that stands in it."""

    @cached_property
    def folder(self) -> Path:
        """The folder."""
        held = tempfile.TemporaryDirectory(prefix="manylens-data-")
        weakref.finalize(self, held.cleanup)
        return Path(held.name)


@dataclass(frozen=True, eq=False)
class Table:
    """A Parquet file, on the disk or in memory.

    Attributes:
        source: Path of the file, or the bytes of it.
        stamp: What it must be stamped with, so that it is known when another file has taken its place.
        spool: Keeps the temporary folder that it stands in.
    """

    source: Path | pa.Buffer
    stamp: str = ""
    spool: Spool | None = field(default=None, repr=False)

    def open(self) -> pq.ParquetFile:
        """Open the file; each reader opens its own, so threads do not meet.

        Raises:
            DataError: It is missing, is no Parquet, or is of another save.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        name = self.source.name if isinstance(self.source, Path) else "table"
        try:
            file = pq.ParquetFile(self.source if isinstance(self.source, Path) else pa.BufferReader(self.source))
        except FileNotFoundError as error:
            raise DataError(f"{name}: is missing in {self.source.parent}", "save the data set again") from error
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"{name}: cannot be read ({error})", "save the data set again") from error
        if self.stamp and (file.schema_arrow.metadata or {}).get(_STAMP, b"").decode() != self.stamp:
            raise DataError(f"{name}: is not of the same save as dataset.json", "save the data set again")
        return file

    @cached_property
    def rows(self) -> int:
        """How many rows there are."""
        with self.open() as file:
            return int(file.metadata.num_rows)

    def column(self, name: str) -> pa.ChunkedArray:
        """One whole column."""
        with self.open() as file:
            return file.read(columns=[name]).column(0)

    def cursor(self) -> Cursor:
        """A reader of rows by number."""
        return Cursor(self.open())


class Cursor:
    """Reads rows by ascending number; holds one row group.

    Args:
        file: The table, which it alone reads.
    """

    def __init__(self, file: pq.ParquetFile) -> None:
        self._file = file
        counts = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)
        self._held: tuple[int, pa.Table] | None = None

    def take(self, rows: Rows) -> pa.Table:
        """The rows of these ascending numbers."""
        import pyarrow as pa

        if not len(rows):
            return self._file.schema_arrow.empty_table()
        groups = np.searchsorted(self._starts, rows, side="right") - 1
        parts = []
        for group in np.unique(groups):
            wanted = rows[groups == group] - self._starts[group]
            table = self._group(int(group))
            whole = wanted[-1] - wanted[0] == len(wanted) - 1
            parts.append(table.slice(int(wanted[0]), len(wanted)) if whole else table.take(pa.array(wanted)))
        return pa.concat_tables(parts)

    def _group(self, group: int) -> pa.Table:
        if self._held is None or self._held[0] != group:
            self._held = None  # let go of the last before the next is read
            self._held = group, self._file.read_row_group(group)
        return self._held[1]


class TableWriter:
    """Writes rows as they come.

    A column that appears late, or whose type widens late, makes the writer copy what it has written so far, once.

    Args:
        fixed: The columns that every row has.
        target: File to write; or a spool, where few rows stay in memory and many go to a file of it.
        stamp: Written into the file.
        stored: Gives the stored name of a free column, which must not be one of ``fixed``.
        mixed: Told once of each column that is kept as text because its types differ: name and the two types.
    """

    def __init__(
        self,
        fixed: pa.Schema,
        target: Path | Spool,
        *,
        stamp: str = "",
        stored: Callable[[str], str] = str,
        mixed: Callable[[str, str, str], None] = lambda name, one, other: None,
    ) -> None:
        self.kinds: dict[str, str] = {}
        self.rows = 0
        self._schema, self._target, self._stamp, self._stored, self._mixed = fixed, target, stamp, stored, mixed
        self._told: set[str] = set()
        self._writer: pq.ParquetWriter | None = None
        self._sink: Path | pa.BufferOutputStream | None = None
        self._files = 0
        self._clear()

    def _clear(self) -> None:
        self._waiting = 0
        self._fixed: list[list[Any]] = [[] for _ in self._schema]
        self._free: dict[str, list[Any]] = {name: [] for name in self.kinds}

    def add(self, fixed: Sequence[Any], free: Mapping[str, Any]) -> None:
        """Take a row: the values of the fixed columns in their order, and of any others by name."""
        for values, value in zip(self._fixed, fixed, strict=True):
            values.append(value)
        for name, value in free.items():
            held = self._free.setdefault(name, [])
            held.extend([None] * (self._waiting - len(held)))
            held.append(plain(value))
        self._waiting += 1
        if self._waiting == GROUP:
            self._flush()

    def close(self) -> Table:
        """Write what waits, and finish.

        Returns:
            The table, to be read.
        """
        if self._waiting or self._writer is None:
            self._flush(last=True)
        assert self._writer is not None
        with self._writing():
            self._writer.close()
        if isinstance(self._sink, Path):
            return Table(self._sink, self._stamp, self._target if isinstance(self._target, Spool) else None)
        assert self._sink is not None
        return Table(self._sink.getvalue(), self._stamp)

    def abandon(self) -> None:
        """Leave no file."""
        if self._writer is not None:
            self._writer.close()
        if isinstance(self._sink, Path):
            self._sink.unlink(missing_ok=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:  # of Parquet's writer too
            folder = self._target.parent if isinstance(self._target, Path) else tempfile.gettempdir()
            raise OutputError(
                f"{folder}: cannot be written to ({error.strerror or error})", "free some space"
            ) from error

    def _flush(self, last: bool = False) -> None:
        before = dict(self.kinds)
        for name, values in self._free.items():
            values.extend([None] * (self._waiting - len(values)))
            self._widen(name, values)
        with self._writing():
            if self._writer is None:
                self._open(last)
            elif self.kinds != before:
                self._copy()
            self._write()
        self.rows += self._waiting
        self._clear()

    def _write(self) -> None:
        import pyarrow as pa

        arrays = [pa.array(values, type=one.type) for values, one in zip(self._fixed, self._schema, strict=True)]
        arrays += [arrow_array(self._free[name], kind) for name, kind in self.kinds.items()]
        assert self._writer is not None
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._full_schema()), row_group_size=GROUP)

    def _widen(self, name: str, values: list[Any]) -> None:
        known, found = self.kinds.get(name, ""), kind_of(values)
        self.kinds[name] = kind = widened(known, found)
        if kind != "text" or name in self._told:
            return
        met = {known} if known else set()
        if any(type(value) is not str for value in values):  # a look at each is slow, and most columns need none
            met |= {kind_of([value]) for value in values} - {""}
        else:
            met |= {"text"} if values else set()
        if len(met) > 1:
            self._told.add(name)
            self._mixed(name, *sorted(met)[:2])

    def _full_schema(self) -> pa.Schema:
        import pyarrow as pa

        schema = self._schema
        for name, kind in self.kinds.items():
            schema = schema.append(pa.field(self._stored(name), arrow_type(kind)))
        return schema.with_metadata({_STAMP: self._stamp.encode()} if self._stamp else None)

    def _open(self, last: bool) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if isinstance(self._target, Path):
            self._sink = self._target.with_name(f"{self._target.name}.{self._files}") if self._files else self._target
        elif last and not self.rows:
            self._sink = pa.BufferOutputStream()
        else:
            self._sink = self._target.folder / f"{id(self)}-{self._files}.parquet"
        self._files += 1
        self._writer = pq.ParquetWriter(self._sink, self._full_schema(), compression="zstd")

    def _copy(self) -> None:
        """Write what is written once more, with the columns and types of now."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        assert self._writer is not None
        self._writer.close()
        old = self._sink
        assert isinstance(old, Path)  # memory holds the last rows only
        self._open(last=False)
        schema = self._full_schema()
        with pq.ParquetFile(old) as file:
            for group in range(file.metadata.num_row_groups):
                table = file.read_row_group(group)
                arrays = [table.column(one.name) for one in self._schema]
                arrays += [self._recast(table, name, kind) for name, kind in self.kinds.items()]
                self._writer.write_table(pa.Table.from_arrays(arrays, schema=schema), row_group_size=GROUP)
        old.unlink()

    def _recast(self, table: pa.Table, name: str, kind: str) -> pa.Array:
        import pyarrow as pa

        stored = self._stored(name)
        if stored not in table.column_names:
            return pa.nulls(table.num_rows, arrow_type(kind))
        column = table.column(stored)
        if column.type == arrow_type(kind):
            return column
        return arrow_array(column.to_pylist(), kind)
