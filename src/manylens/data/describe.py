"""What a data set holds, in numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from manylens.data.columns import kind_stored_as

if TYPE_CHECKING:
    import pyarrow as pa

    from manylens.data.dataset import Dataset

_SHOWN = 20


def describe(dataset: Dataset) -> dict[str, Any]:
    """Counts by split, label and category, and what each column holds; one column is in memory at a time."""
    labels = _counts(dataset.column("label"))
    labels.pop("", None)
    found = _counts(dataset.annotation_column("category"))
    known = {one.name: found.pop(one.name, 0) for one in dataset.categories}
    return {
        "name": dataset.name,
        "records": len(dataset),
        "annotations": dataset.annotations,
        "boxes": _known(dataset.annotation_column("x0")),
        "masks": _known(dataset.annotation_column("mask_height")),
        "splits": dataset.splits,
        "labels": labels,
        "categories": known | {name: count for name, count in found.items() if name},
        "columns": {name: _column(dataset.column(name)) for name in dataset.columns},
        "annotation_columns": {name: _column(dataset.annotation_column(name)) for name in dataset.annotation_columns},
        "problems": dataset.problems.to_json(),
    }


def _known(column: pa.ChunkedArray) -> int:
    return len(column) - int(column.null_count)


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    """How often each value occurs, the most frequent first."""
    pairs = [(one["values"], one["counts"]) for one in column.value_counts().to_pylist() if one["values"] is not None]
    return {str(value): count for value, count in sorted(pairs, key=lambda pair: (-pair[1], str(pair[0])))}


def _column(column: pa.ChunkedArray) -> dict[str, Any]:
    """Type, how many rows have a value, and the range of numbers or the most frequent values of the rest."""
    import pyarrow as pa
    import pyarrow.compute as pc

    body: dict[str, Any] = {"type": kind_stored_as(column.type), "known": _known(column)}
    if pa.types.is_list(column.type):
        lengths = pc.min_max(pc.list_value_length(column)).as_py()
        return body | {"shortest": lengths["min"], "longest": lengths["max"]}
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return body | pc.min_max(column).as_py() | {"mean": pc.mean(column).as_py()}
    counts = _counts(column)
    return body | {"distinct": len(counts), "values": dict(list(counts.items())[:_SHOWN])}
