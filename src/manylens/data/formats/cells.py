"""The cells of a table: reading CSV and Parquet, the types of columns, and what stands in a cell."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from manylens.data.formats import shared
from manylens.data.formats.shapes import BrokenError
from manylens.data.problems import DataError, Problems
from manylens.errors import MediaError

if TYPE_CHECKING:
    import pyarrow as pa

_TRUE, _FALSE = ("true", "1", "1.0", "yes"), ("false", "0", "0.0", "no", "")
_BETWEEN = "|"
# What a number would not give back: leading zeros and pluses, blanks around, more digits than it holds.
_NO_NUMBER = r"^[+-]?0[0-9]|^\s|\s$|^\+|^-?[0-9]{19,}$"


def read_text(source: Path, problems: Problems) -> pa.Table:
    """Read a CSV or TSV with every cell as text, empty ones null; rows of another length are problems.

    Raises:
        DataError: It cannot be read, is empty or not UTF-8.
    """
    import pyarrow as pa

    faults: list[tuple[int, str]] = []  # an error must not leave through Arrow

    def broken(row: Any) -> str:
        message = (
            f"row {row.number} of {source.name}: has {row.actual_columns} cells, the header {row.expected_columns}"
        )
        faults.append((row.number, message))
        return "skip"

    try:
        with source.open("rb") as file:
            first = file.readline(1 << 20)
        if not first.strip():
            raise DataError(f"{source}: is empty", "give a table with a header")
        names = next(csv.reader([first.decode("utf-8-sig")], delimiter=_delimiter(source, first)))
        table = from_csv(source, _delimiter(source, first), names, broken)
    except (UnicodeDecodeError, pa.ArrowInvalid) as error:
        if isinstance(error, UnicodeDecodeError) or "UTF8" in str(error):
            raise DataError(f"{source}: not UTF-8", "save it as UTF-8") from error
        raise DataError(f"{source}: not a table ({str(error)[:160]})", "give a CSV with a header") from error
    except (OSError, csv.Error) as error:
        raise DataError(f"{source}: cannot be read ({error})", "check the file") from error
    for row, message in faults:
        problems.add("broken row", row, message)
    return table


def from_csv(
    source: Path | BinaryIO, delimiter: str, names: Sequence[str], broken: Callable[[Any], str] | None = None
) -> pa.Table:
    """Read a CSV with every column as text; ``broken`` is asked about rows of another length."""
    import pyarrow as pa
    from pyarrow import csv as arrow

    return arrow.read_csv(
        source,
        read_options=arrow.ReadOptions(use_threads=False),  # only then do rows know their numbers
        parse_options=arrow.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=broken),
        convert_options=arrow.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
        ),
    )


def _delimiter(source: Path, first: bytes) -> str:
    if source.suffix.lower() == ".tsv":
        return "\t"
    return ";" if b"," not in first and b";" in first else ","


def read_parquet(source: Path) -> pa.Table:
    """Read a Parquet file, its columns as they are typed.

    Raises:
        DataError: It cannot be read.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return parquet.read_table(source)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{source}: not Parquet ({str(error)[:160]})", "get a whole copy of it") from error


def numbered(cells: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """A number for each cell, the same for equal ones, from 0 in the order of first appearance."""
    encoded = cells.combine_chunks().dictionary_encode(null_encoding="encode")
    codes: npt.NDArray[np.int64] = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return codes


def is_nested(cells: pa.ChunkedArray) -> bool:
    """Whether the cells are lists or structures."""
    import pyarrow as pa

    return bool(pa.types.is_nested(cells.type))


def as_text(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """A known column as text, so that a class may be called 1; lists (of answers) stay lists.

    Raises:
        ValueError: Its values cannot be text.
    """
    import pyarrow as pa

    kind = cells.type
    try:
        return cells if pa.types.is_string(kind) or pa.types.is_list(kind) else cells.cast(pa.string())
    except pa.ArrowException as error:
        raise ValueError(f"holds {kind}") from error


def inferred(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """A text column as the narrowest of bool, whole numbers and numbers that holds all cells; 007 is text."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if cells.null_count == len(cells):
        return cells
    if pc.all(pc.is_in(pc.utf8_lower(cells.drop_null()), pa.array(["true", "false"]))).as_py():
        return pc.if_else(cells.is_valid(), pc.equal(pc.utf8_lower(cells), "true"), None)
    if pc.any(pc.match_substring_regex(cells, _NO_NUMBER)).as_py():
        return cells
    for kind in (pa.int64(), pa.float64()):
        try:
            numbers = cells.cast(kind)
        except pa.ArrowInvalid:
            continue
        return pc.if_else(pc.is_nan(numbers), None, numbers) if pa.types.is_floating(kind) else numbers
    return cells


def may_be_lists(cells: pa.ChunkedArray) -> bool:
    """Whether every cell that is not empty stands in brackets, as lists are written."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_string(cells.type) or cells.null_count == len(cells):
        return False
    return bool(pc.all(pc.match_substring_regex(cells, r"(?s)^\[.*\]$")).as_py())


def listed(cell: Any) -> Any:
    """A cell in brackets as the list of numbers or of texts that it is; as it stands where it is none."""
    try:
        found = json.loads(cell)
    except (TypeError, ValueError):
        return cell
    return cell if any(isinstance(one, list | dict) for one in found) else found


def joined(values: list[str]) -> str:
    """Texts as one cell, which `texts` takes apart again."""
    simple = all(one and one == one.strip() and _BETWEEN not in one for one in values) and not values[0].startswith("[")
    return _BETWEEN.join(values) if simple else json.dumps(values, ensure_ascii=False)


def texts(cell: Any) -> list[str]:
    """The texts in a cell: a list, a JSON list, or divided by ``|``."""
    if cell is None:
        return []
    if isinstance(cell, list):
        return [str(one) for one in cell]
    if cell.startswith("["):
        try:
            found = json.loads(cell)
        except ValueError:
            found = None
        if isinstance(found, list) and all(isinstance(one, str) for one in found):
            return found
    return [part.strip() for part in cell.split(_BETWEEN)]


def cell_of(value: Any) -> str:
    """A value of a column as a cell; lists and the like as JSON."""
    value = shared.plain(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return "" if value is None else str(value)


def number(cell: str, what: str) -> float:
    """The number in a cell; a `BrokenError` where it is none."""
    try:
        return float(cell)
    except ValueError as error:
        raise BrokenError(f"bad {what}", f"its {what} holds {cell[:40]!r}, not a number") from error


def side(cell: str | None) -> int | None:
    """A width or height; 0 where it is no number, which is found with the rows of all formats."""
    try:
        return None if cell is None else int(float(cell))
    except (ValueError, OverflowError):
        return 0


def truth(cell: str, what: str) -> bool:
    """Whether a cell says yes; a `BrokenError` where it says neither."""
    if cell.strip().lower() in _TRUE:
        return True
    if cell.strip().lower() in _FALSE:
        return False
    raise BrokenError(f"bad {what}", f"its {what} is {cell[:40]!r}, not true or false")


def read_mask(path: Path) -> Mapping[str, Any]:
    """A mask file as RLE; what is not black is object.

    Raises:
        DataError: It cannot be read.
    """
    from manylens.media import Mask

    try:
        return shared.encode(Mask.of(path))
    except MediaError as error:
        raise DataError(error.what, error.remedy) from error
