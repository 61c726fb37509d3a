"""Types of columns: what a value is, what a column of mixed values becomes, and how each type is stored."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

KINDS = ("bool", "int", "float", "text", "texts", "numbers")
"""``texts`` and ``numbers`` are lists."""

_OF_TYPE: dict[type, str] = {bool: "bool", int: "int", float: "float", str: "text", list: "list"}
_INT64 = 2**63


def plain(value: Any) -> Any:
    """The value as a bool, int, float, str, list or None: NumPy scalars, arrays, tuples and paths are made plain.

    Anything else, such as a dict, becomes JSON.
    """
    if value is None or type(value) in (str, bool, float):
        return value
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, bool | float | str):  # subclasses, such as members of an enumeration
        return value
    if isinstance(value, int):
        return int(value) if -_INT64 <= value < _INT64 else str(value)
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple | set | frozenset):
        return _plain_list(sorted(value) if isinstance(value, set | frozenset) else value)
    return text(value)


def kind_of(values: Iterable[Any]) -> str:
    """The type that holds all of these plain values; ``text`` where they differ, empty where all are None."""
    kind = ""
    values = values if isinstance(values, Sequence) else list(values)
    for found in {type(value) for value in values} - {type(None)}:
        one = _OF_TYPE.get(found, "text")
        if one == "list":
            filled = [value for value in values if type(value) is list and value]
            one = "numbers" if filled and all(not isinstance(value[0], str) for value in filled) else "texts"
            if one == "texts" and any(not isinstance(value[0], str) for value in filled):
                one = "text"
        kind = widened(kind, one)
    return kind


def widened(one: str, other: str) -> str:
    """The type that holds values of both; numbers widen to float, all else that differs becomes text."""
    if not one or not other or one == other:
        return one or other
    return "float" if {one, other} == {"int", "float"} else "text"


def text(value: Any) -> str | None:
    """A plain value as text, as it stands in a column of mixed values."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def arrow_type(kind: str) -> pa.DataType:
    """How a type is stored; a column that holds nothing is stored as text."""
    import pyarrow as pa

    return {
        "bool": pa.bool_(),
        "int": pa.int64(),
        "float": pa.float64(),
        "texts": pa.list_(pa.string()),
        "numbers": pa.list_(pa.float64()),
    }.get(kind, pa.string())


def kind_stored_as(stored: pa.DataType) -> str:
    """The type that a column of Arrow holds."""
    return next((kind for kind in KINDS if arrow_type(kind) == stored), "text")


def arrow_array(values: list[Any], kind: str) -> pa.Array:
    """Plain values as a column of that type."""
    import pyarrow as pa

    if kind == "text":
        values = [text(value) for value in values]
    return pa.array(values, type=arrow_type(kind))


def canonical(value: Any) -> Any:
    """A plain value as it is hashed: 3 and 3.0 are one value, and so are all NaN."""
    if isinstance(value, float) and not isinstance(value, bool):
        if math.isnan(value):
            return "NaN"
        return int(value) if value.is_integer() else value
    if isinstance(value, list):
        return [canonical(one) for one in value]
    return value


def _plain_list(values: Iterable[Any]) -> list[Any] | str | None:
    items = [plain(value) for value in values]
    if all(isinstance(item, str) for item in items):
        return items
    if all(isinstance(item, int | float) and not isinstance(item, bool) for item in items):
        return items
    return text(items)
