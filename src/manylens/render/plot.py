"""Plots as SVG that goes into a page: its lines and letters take the page's colours, light or dark, screen or print."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from manylens.render.draw import PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours that nothing else has, put in place of the page's variables while matplotlib draws.
_INK, _SOFT, _LINE, _ACCENT = "#010203", "#040506", "#070809", "#0a0b0c"
_VARIABLES = {_INK: "var(--ink)", _SOFT: "var(--soft)", _LINE: "var(--line)", _ACCENT: "var(--accent)"}
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "manylens",
    "font.size": 9,
    "text.color": _INK,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _SOFT,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "legend.frameon": False,
    "legend.labelcolor": _INK,
    "lines.linewidth": 1.8,
}
_MOST_NAMES = 40


def draw_detail(detail: Mapping[str, Any]) -> str:
    """The SVG of a curve, matrix or bars as ``manylens.evaluation.details`` describes them; empty text for a table."""
    match detail.get("kind"):
        case "curve":
            return curve(detail)
        case "matrix":
            return matrix(detail["names"], detail["values"])
        case "bars":
            return bars(detail["values"], detail["y_label"])
    return ""


def curve(detail: Mapping[str, Any]) -> str:
    """Lines over a number, with their bands."""
    from matplotlib.ticker import MaxNLocator

    with _axes(5.6, 3.3) as (figure, axes):
        lines = detail["lines"]
        if detail.get("diagonal"):
            axes.plot([0, 1], [0, 1], color=_LINE, linestyle="--", linewidth=1.2)
        for place, (name, line) in enumerate(lines.items()):
            colour = PALETTE[place % len(PALETTE)]
            y = [float("nan") if value is None else value for value in line["y"]]
            axes.plot(line["x"], y, color=colour, label=name, marker="o" if len(y) <= 25 else "", markersize=3)
            band = detail.get("bands", {}).get(name)
            if band:
                low, high = ([float("nan") if v is None else v for v in band[side]] for side in ("low", "high"))
                axes.fill_between(line["x"], low, high, color=colour, alpha=0.16, linewidth=0)
        if all(float(x).is_integer() for line in lines.values() for x in line["x"]):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if detail.get("shares"):
            axes.set_xlim(0, 1.01)
            axes.set_ylim(0, 1.02)  # room for a line along the top
        axes.set_xlabel(detail["x_label"])
        axes.set_ylabel(detail["y_label"])
        if len(lines) > 1:
            axes.legend(loc="best", fontsize=8)
        return _svg(figure, detail["title"])


def matrix(names: Sequence[str], values: Sequence[Sequence[float]]) -> str:
    """A confusion matrix: rows the truth, columns what was said; a row's colours are its shares."""
    import numpy as np

    table = np.asarray(values, dtype=float)
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    side = min(8.0, max(2.6, 0.42 * len(names) + 1.6))
    with _axes(side, side) as (figure, axes):
        axes.grid(visible=False)
        for row, column in np.argwhere(table > 0) if len(names) <= _MOST_NAMES else np.argwhere(share > 0.01):
            alpha = 0.08 + 0.82 * share[row, column]
            axes.add_patch(_square(column - 0.5, row - 0.5, alpha))
            if len(names) <= 15:
                ink = "#ffffff" if alpha > 0.5 else _INK
                axes.text(column, row, f"{table[row, column]:g}", ha="center", va="center", fontsize=8, color=ink)
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.set_ylim(len(names) - 0.5, -0.5)
        ticks = range(len(names)) if len(names) <= _MOST_NAMES else []
        axes.set_xticks(
            ticks, [names[i] for i in ticks], rotation=90 if len(names) > 4 or max(map(len, names)) > 6 else 0
        )
        axes.set_yticks(ticks, [names[i] for i in ticks])
        axes.set_xlabel("said")
        axes.set_ylabel("true")
        axes.set_aspect("equal")
        return _svg(figure, "confusion matrix")


def bars(values: Mapping[str, float], label: str) -> str:
    """A bar for each name, lying, in the order given."""
    with _axes(5.6, 0.6 + 0.27 * len(values)) as (figure, axes):
        names = list(values)
        axes.barh(range(len(names)), [values[name] for name in names], color=_ACCENT, height=0.62)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        if values and max(values.values()) <= 1 and min(values.values()) >= 0:
            axes.set_xlim(0, 1)
        axes.set_xlabel(label)
        return _svg(figure, label)


def intervals(rows: Mapping[str, tuple[float, float, float]], label: str, faint: Sequence[str] = ()) -> str:
    """A dot with its interval for each name (a forest plot).

    Args:
        rows: Value, low, high by name; NaN where unknown.
        label: What is shown.
        faint: Names drawn pale, such as groups too small to judge.
    """
    with _axes(5.6, 0.75 + 0.3 * len(rows)) as (figure, axes):
        for place, (name, (value, low, high)) in enumerate(rows.items()):
            look: dict[str, Any] = {"color": _SOFT, "alpha": 0.4} if name in faint else {"color": _ACCENT}
            axes.plot([low, high], [place, place], linewidth=2.2, solid_capstyle="round", **look)
            axes.plot([value], [place], "o", markersize=6, **look)
        axes.set_yticks(range(len(rows)), list(rows))
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(label)
        return _svg(figure, label)


def _square(x: float, y: float, alpha: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), 1, 1, facecolor=PALETTE[0], alpha=alpha, linewidth=0)


@contextmanager
def _axes(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """A figure of so many inches in the house's style; no window, no state left behind."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.subplots()
        axes.patch.set_alpha(0)
        axes.tick_params(length=0)
        yield figure, axes


def _svg(figure: Figure, title: str) -> str:
    from html import escape

    file = io.StringIO()
    with warnings.catch_warnings():  # its own font may lack a letter; the page's font draws it
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px var(--sans)", text)
    text = re.sub(r"font-family: [^;\"]*", "font-family: var(--sans)", text)  # as newer versions write it
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    width = re.search(r'width="([\d.]+)pt"', text)
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)
    # Twice the points in pixels would be too large, the points themselves too small to read.
    style = f'style="width: {1.25 * float(width.group(1)):.0f}px; max-width: 100%; height: auto"' if width else ""
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(title)}" {style}', 1)
