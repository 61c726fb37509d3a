"""Measured series: time stamps and named columns with their units."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from manylens.errors import MediaError
from manylens.media.base import Media
from manylens.media.identity import content_id
from manylens.media.sources import Source, find, is_encoded

Column = npt.NDArray[np.float64]

_HEADER = re.compile(r"^\s*(?P<name>[^\[\](]*?)\s*(?:[\[(](?P<unit>[^\])]*)[\])])?\s*$")
_SECONDS = {"": 1.0, "s": 1.0, "sec": 1.0, "ms": 1e-3, "us": 1e-6, "min": 60.0, "h": 3600.0}
_TIME_REMEDY = "give seconds (or ms, min, h with the unit in the header) or ISO dates in the first column"


class Series(Media):
    """Values over time, never changed. Make one with `Series.of`.

    Attributes:
        times: Float64 ``(N,)``, seconds, strictly rising; for dates, seconds since 1970 in UTC.
        columns: Name to float64 ``(N,)``; NaN where nothing was measured.
        units: Name to unit; the empty string where none is stated.
        name: The file's name, or what it was given as.
        path: The file, or None.
    """

    json_format: ClassVar[str] = "series"
    json_description: ClassVar[str] = (
        "A table of values over time: the path of a CSV file, or its content as a data URI"
    )

    def __init__(
        self,
        times: npt.ArrayLike,
        columns: Mapping[str, npt.ArrayLike],
        units: Mapping[str, str] | None = None,
        *,
        name: str = "series",
        path: Path | None = None,
    ) -> None:
        """Check and copy the values.

        Raises:
            MediaError: The times are not finite and strictly rising, or a column has another length.
        """
        self.name = name
        self.path = path
        self.times = _column(times)
        self.columns: Mapping[str, Column] = MappingProxyType({key: _column(values) for key, values in columns.items()})
        self.units: Mapping[str, str] = MappingProxyType({key: (units or {}).get(key, "") for key in columns})
        if self.times.ndim != 1 or not self.times.size:
            raise MediaError(f"{name}: has no rows", "give at least one time with values")
        if len(bad := np.flatnonzero(~np.isfinite(self.times))):
            raise MediaError(f"{name}: the time in row {bad[0] + 1} is missing or not finite", _TIME_REMEDY)
        if len(bad := np.flatnonzero(np.diff(self.times) <= 0)):
            raise MediaError(
                f"{name}: the time in row {bad[0] + 2} is not later than the one before", "sort the rows by time"
            )
        for key, values in self.columns.items():
            if values.shape != self.times.shape:
                raise MediaError(f"{name}: column {key!r} has {values.size} values for {self.times.size} times", "")

    @classmethod
    def of(cls, source: Any) -> Self:
        """Make a series from a CSV file, its bytes, a ``data:`` URI, or a Series.

        The first line names the columns, each with its unit in brackets: ``time [s],speed [km/h]``. The first column
        is time: numbers, or ISO 8601 dates (UTC where no zone is given). Cells are parted by comma, semicolon or tab;
        an empty cell is NaN.

        Raises:
            MediaError: The file is not such a table; the message names the line.
        """
        if isinstance(source, cls):
            return source
        if not is_encoded(source):
            raise MediaError(f"{type(source).__name__}: not a series", "give a CSV file")
        return cls._from_csv(find(source))

    @classmethod
    def _from_csv(cls, source: Source) -> Self:
        try:
            text = source.read().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise MediaError(f"{source.name}: not a CSV table in UTF-8", "save it as CSV in UTF-8") from error
        first = text.partition("\n")[0]
        rows = csv.reader(io.StringIO(text), delimiter=max(",;\t", key=first.count), strict=True)
        try:
            lines = [(rows.line_num, row) for row in rows if any(cell.strip() for cell in row)]
        except csv.Error as error:
            raise MediaError(f"{source.name}: line {rows.line_num}: broken CSV ({error})", "save it again") from error
        if len(lines) < 2:
            raise MediaError(f"{source.name}: has no rows", "give a header line and at least one line of values")
        names, units = _header(lines[0][1], source.name)
        table = np.empty((len(lines) - 1, len(names)))
        for index, (number, row) in enumerate(lines[1:]):
            if len(row) != len(names):
                raise MediaError(
                    f"{source.name}: line {number} has {len(row)} cells, the header {len(names)}", "mend that line"
                )
            table[index, 0] = _time(row[0], units[0], f"{source.name}: line {number}")
            table[index, 1:] = [
                _number(cell, f"{source.name}: line {number}: {key}")
                for key, cell in zip(names[1:], row[1:], strict=True)
            ]
        columns = {key: table[:, index] for index, key in enumerate(names) if index}
        return cls(table[:, 0], columns, dict(zip(names, units, strict=True)), name=source.label, path=source.path)

    def __getitem__(self, column: str) -> Column:
        """The values of a column, read-only; NaN where nothing was measured."""
        try:
            return self.columns[column]
        except KeyError:
            raise MediaError(
                f"{self.name}: has no column {column!r}", f"the columns are {', '.join(self.columns)}"
            ) from None

    def __len__(self) -> int:
        return len(self.times)

    def between(self, start: float, end: float) -> Self:
        """The rows with ``start <= time < end``, in seconds.

        Raises:
            MediaError: There are none.
        """
        first, last = np.searchsorted(self.times, [start, end])
        columns = {key: values[first:last] for key, values in self.columns.items()}
        return type(self)(self.times[first:last], columns, self.units, name=self.name)

    @cached_property
    def id(self) -> str:
        """Hash of times, columns, names and units: 40 hexadecimal digits."""
        parts: list[Any] = [self.times]
        for key in sorted(self.columns):
            # Every NaN as the one NaN, and -0.0 as 0.0: they are equal as content.
            values = np.where(np.isnan(self.columns[key]), np.nan, self.columns[key]) + 0.0
            parts += [key, self.units[key], values]
        return content_id("series", parts)

    def summary(self) -> dict[str, Any]:
        """``name``, ``rows``, ``seconds``, ``columns`` (name to unit) and ``id``: how a series stands in JSON."""
        seconds = float(self.times[-1] - self.times[0])
        return {
            "name": self.name, "rows": len(self), "seconds": seconds, "columns": dict(self.units), "id": self.id
        }  # fmt: skip

    def __repr__(self) -> str:
        return f"<Series {self.name} {len(self)} rows: {', '.join(self.columns)}>"


def _column(values: npt.ArrayLike) -> Column:
    column = np.array(values, np.float64)
    column.flags.writeable = False
    return column


def _header(cells: list[str], name: str) -> tuple[list[str], list[str]]:
    matches = [_HEADER.match(cell) for cell in cells]
    if len(cells) < 2 or not all(match and match["name"] for match in matches):
        raise MediaError(f"{name}: line 1 does not name its columns", "write such as: time [s],speed [km/h]")
    names = [match["name"] for match in matches if match]
    if len(set(names)) < len(names):
        raise MediaError(f"{name}: line 1 names a column twice", "give each column its own name")
    units = [(match["unit"] or "").strip() for match in matches if match]
    if units[0] not in _SECONDS:
        raise MediaError(f"{name}: {units[0]!r} is no unit of time", _TIME_REMEDY)
    return names, units


def _time(cell: str, unit: str, where: str) -> float:
    try:
        return float(cell) * _SECONDS[unit]
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(cell.strip())
    except ValueError:
        raise MediaError(f"{where}: {cell.strip()!r} is no time", _TIME_REMEDY) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _number(cell: str, where: str) -> float:
    try:
        return float(cell) if cell.strip() else float("nan")
    except ValueError:
        raise MediaError(
            f"{where}: {cell.strip()!r} is not a number", "leave the cell empty or give a number"
        ) from None
