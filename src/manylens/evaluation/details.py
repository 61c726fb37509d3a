"""Tables and curves that a report draws, JSON-ready: what :meth:`Tally.details` returns by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def curve(
    title: str,
    x_label: str,
    y_label: str,
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    bands: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None,
    diagonal: bool = False,
    shares: bool = False,
) -> dict[str, Any]:
    """A plot of lines.

    Args:
        title: Its heading.
        x_label: What goes right.
        y_label: What goes up.
        lines: x and y values by name of the line.
        bands: Low and high values (95 %) at the same x, by name of the line.
        diagonal: Whether to draw y = x beside (calibration).
        shares: Whether both axes go from 0 to 1.
    """
    return {
        "kind": "curve",
        "title": title,
        "x_label": x_label,
        "y_label": y_label,
        "lines": {name: {"x": _floats(x), "y": _floats(y)} for name, (x, y) in lines.items()},
        "bands": {name: {"low": _floats(low), "high": _floats(high)} for name, (low, high) in (bands or {}).items()},
        "diagonal": diagonal,
        "shares": shares,
    }


def matrix(title: str, names: Sequence[str], values: Sequence[Sequence[float]]) -> dict[str, Any]:
    """A confusion matrix: rows are the truth, columns the prediction."""
    return {"kind": "matrix", "title": title, "names": list(names), "values": [_floats(row) for row in values]}


def bars(title: str, y_label: str, values: Mapping[str, float]) -> dict[str, Any]:
    """A bar for each name."""
    return {"kind": "bars", "title": title, "y_label": y_label, "values": {k: float(v) for k, v in values.items()}}


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """A table of texts and numbers."""
    return {"kind": "table", "title": title, "header": list(header), "rows": [list(row) for row in rows]}


def _floats(values: Sequence[float]) -> list[float]:
    return [round(float(value), 6) for value in values]
