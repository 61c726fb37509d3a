"""Which rows a user asks for: by split, by id, by the value of a column."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from manylens.data.columns import kind_stored_as
from manylens.data.problems import DataError

if TYPE_CHECKING:
    import pyarrow as pa

Flags = npt.NDArray[np.bool_]

_NAMED = 8


@dataclass(frozen=True, eq=False)
class Splits:
    """The split of each record of a view.

    Attributes:
        names: Of the splits.
        codes: int32 ``(records,)``, numbers in ``names``.
    """

    names: tuple[str, ...]
    codes: npt.NDArray[np.int32]

    @classmethod
    def of(cls, column: pa.ChunkedArray) -> Splits:
        """From a column of names."""
        held = column.combine_chunks().dictionary_encode()
        codes = held.indices.to_numpy(zero_copy_only=False).astype(np.int32)
        return cls(tuple(held.dictionary.to_pylist()), codes)

    def counts(self) -> dict[str, int]:
        """Records of each split that has any, in the order of their names' first use."""
        counts = np.bincount(self.codes, minlength=len(self.names))
        return {name: int(count) for name, count in zip(self.names, counts, strict=True) if count}


def in_split(splits: Splits, wanted: str) -> Flags:
    """Which records are of a split.

    Raises:
        DataError: There is no such split.
    """
    counts = splits.counts()
    if wanted not in counts:
        named = [name or "''" for name in counts] if any(counts) else []
        remedy = _there("the splits are", named) if named else "the data has no splits; see manylens dataset split"
        raise DataError(f"split {wanted!r}: there is none", remedy)
    return splits.codes == splits.names.index(wanted)


def with_ids(column: pa.ChunkedArray, wanted: Iterable[str]) -> Flags:
    """Which records have one of the ids.

    Raises:
        DataError: No record has one of them.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    asked = list(dict.fromkeys([wanted] if isinstance(wanted, str) else [str(one) for one in wanted]))
    found = pc.is_in(column, value_set=pa.array(asked, pa.string())).to_numpy().astype(bool)
    if int(found.sum()) < len(asked):
        unknown = sorted(set(asked) - set(column.filter(pa.array(found)).to_pylist()))
        some = column.slice(0, _NAMED).to_pylist()
        raise DataError(f"id {unknown[0]!r}: no image has it", _there("there are", some, more=len(column) > len(some)))
    return np.asarray(found, dtype=bool)


def where_equal(name: str, column: pa.ChunkedArray, wanted: Any) -> Flags:
    """Which records have a value, or one of several (a list, tuple or set), in a column.

    A column of lists matches where one of its items does; None matches what is not known.

    Raises:
        DataError: The values are not of the column's type, or no record has one.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    values = list(wanted) if isinstance(wanted, list | tuple | set | frozenset) else [wanted]
    lists_of = pa.types.is_list(column.type)
    inner = column.type.value_type if lists_of else column.type
    if pa.types.is_string(inner):
        values = [value if value is None else str(value) for value in values]
    try:
        asked = pa.array(values, inner)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(
            f"column {name!r}: holds {kind_stored_as(inner)}, not {values[0]!r}", "give a value of its type"
        ) from error
    if not lists_of:
        found = np.asarray(pc.is_in(column, value_set=asked).to_numpy(), dtype=bool)
    else:
        lists = column.combine_chunks()
        rows = pc.list_parent_indices(lists).filter(pc.is_in(pc.list_flatten(lists), value_set=asked))
        found = np.zeros(len(lists), dtype=bool)
        found[rows.to_numpy()] = True
        if None in values:
            found |= lists.is_null().to_numpy(zero_copy_only=False)
    if not found.any():
        there = [] if lists_of else [str(value) for value in column.unique().slice(0, _NAMED + 1).to_pylist()]
        raise DataError(
            f"column {name!r}: no image has {', '.join(map(repr, values[:_NAMED]))} there",
            _there("there are", there[:_NAMED], more=len(there) > _NAMED),
        )
    return found


def known(name: str, columns: Collection[str]) -> None:
    """Raise where there is no such column.

    Raises:
        DataError: Names what there is.
    """
    if name not in columns:
        raise DataError(f"column {name!r}: there is none", _there("the columns are", list(columns)))


def check_where(where: Mapping[str, Any], columns: Collection[str]) -> None:
    """Raise where a condition names no column."""
    for name in where:
        known(name, columns)


def _there(begin: str, names: list[str], *, more: bool = False) -> str:
    return f"{begin} {', '.join(names)}{', ...' if more else ''}" if names else ""
