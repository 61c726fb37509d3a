"""The report of an evaluation: one self-contained page with figures, plots, slices and the worst examples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from manylens.evaluation.results import SAVED
from manylens.evaluation.slices import not_judged
from manylens.render import plot
from manylens.render.page import Picture
from manylens.render.page import page as html

if TYPE_CHECKING:
    from manylens.evaluation.results import Evaluation

_MOST_SLICED_FIGURES = 3


@dataclass(frozen=True)
class Shown:
    """A badly served unit as the page shows it.

    Attributes:
        unit: Its id.
        score: Of the unit; NaN where unknown.
        figure: What the score is.
        pictures: The truth and what was said, or one picture.
        lines: What there is to say in words.
        captions: What each picture shows: ``truth``, ``found`` or nothing.
    """

    unit: str
    score: float
    figure: str
    pictures: Sequence[Picture]
    lines: Sequence[str] = ()
    captions: Sequence[str] = ()


def page(evaluation: Evaluation, worst: Sequence[Shown] = ()) -> str:
    """The page as HTML, with everything in it.

    Args:
        evaluation: What was measured.
        worst: The examples to show, the worst first.
    """
    report = evaluation.to_json()
    main = report["figures"].get(report["main"], {"value": None, "low": None, "high": None})
    return html(
        "manylens.evaluation",
        "report.html.j2",
        {"digits": digits, "cell": _cell},
        report=report,
        title=f"{report['measure']} of {report['model']['id']}",
        asked=_asked(report),
        headline=f"{report['main']} {digits(main['value'])}" if main["value"] is not None else "Not defined",
        lead=_lead(report, main),
        plain=[_row(name, one) for name, one in report["figures"].items() if "/" not in name],
        classes=_classes(report["figures"]),
        plots=[_plot(name, detail) for name, detail in report["details"].items() if isinstance(detail, Mapping)],
        slices=[_slice(one, report) for one in report["slices"]],
        worst=[_example(one) for one in worst],
        facts=_facts(report),
    )


def digits(value: float | None) -> str:
    """A number for people: three digits after the point, fewer for large ones."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if 1e-9 < abs(value) < 0.001:  # less is what is left of rounding
        return f"{value:.1e}"
    value = value if abs(value) > 1e-9 else 0.0
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 1000 else f"{value:.0f}"


def _asked(report: Mapping[str, Any]) -> str:
    prompt = report["options"].get("prompt")
    how = f" by {prompt}" if prompt and prompt != "none" else ""
    if report["model"]["source"] or report["model"]["id"] == SAVED:
        return f"How good are the saved predictions at {report['task']}{how} on {report['data']['name']}?"
    return f"How well does {report['model']['id']} {report['task']}{how} on {report['data']['name']}?"


def _lead(report: Mapping[str, Any], main: Mapping[str, Any]) -> str:
    kind, count = report["units"]["kind"], report["units"]["count"]
    among = f"over {count} {kind}{'' if count == 1 else 's'}"
    if main["value"] is None:
        return f"{report['main']} is not defined {among}: see what was left out below."
    if main["low"] is None:
        return f"{report['main']} {among}. Too few pictures for an interval."
    return f"{report['main']} {among}; 95 % interval {digits(main['low'])} to {digits(main['high'])}."


def _row(name: str, one: Mapping[str, Any]) -> dict[str, Any]:
    """A figure with the places of its dot and interval, in percent of the drawing, where it lies between 0 and 1."""
    parts = [one[key] for key in ("value", "low", "high") if one[key] is not None]
    inside = one["value"] is not None and all(0 <= part <= 1 for part in parts)
    low, high = one["low"], one["high"]
    drawn = inside and low is not None
    return {
        **one,
        "name": name,
        "at": round(100 * one["value"], 1) if inside else None,
        "from": round(100 * low, 1) if drawn else 0,
        "wide": round(100 * (high - low), 1) if drawn else 0,
    }


def _classes(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Per-class figures as a table: one row a class, one column a figure."""
    split = [(*name.split("/", 1), one) for name, one in figures.items() if "/" in name]
    heads = list(dict.fromkeys(figure for figure, _, _ in split))
    rows: dict[str, dict[str, Any]] = {}
    for figure, name, one in split:
        rows.setdefault(name, {})[figure] = one
    return {"figures": heads, "rows": [(name, [cells.get(head) for head in heads]) for name, cells in rows.items()]}


def _plot(name: str, detail: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "title": detail.get("title", name),
        "svg": plot.draw_detail(detail),
        "header": detail.get("header", ()),
        "rows": detail.get("rows", ()),
    }


def _slice(one: Mapping[str, Any], report: Mapping[str, Any]) -> dict[str, Any]:
    main = one["main"]
    others = [name for name in report["figures"] if "/" not in name and name != main]
    heads = [main, *others][:_MOST_SLICED_FIGURES]
    none = {"value": None, "low": None, "high": None}
    groups = [{**group, "cells": [group["figures"].get(head, none) for head in heads]} for group in one["groups"]]
    rows = {group["name"]: _floats(group["figures"].get(main, none)) for group in one["groups"]}
    small = [group["name"] for group in one["groups"] if not group["judged"]]
    return {
        **one,
        "figures": heads,
        "groups": groups,
        "svg": plot.intervals(rows, main, faint=small),
        "verdict": " ".join(filter(None, (_verdict(one, small), _left_out(one)))),
        "small": small,
    }


def _verdict(one: Mapping[str, Any], small: Sequence[str]) -> str:
    gap = one["gaps"].get(one["main"])
    if gap is None:
        return "No two groups are large enough to be compared." if small else ""
    size = f"{digits(gap['gap']['value'])} (95 % interval {digits(gap['gap']['low'])} to {digits(gap['gap']['high'])})"
    if gap["p"] is None:
        return f"{gap['best']} and {gap['worst']} lie {size} apart; whether by chance was not told."
    chance = f"p = {gap['p']:.3g}"
    if not gap["real"]:
        return f"{gap['best']} and {gap['worst']} lie {size} apart; a gap as large may be chance ({chance})."
    return f"{gap['worst']} is served worst, {size} behind {gap['best']}; chance is an unlikely cause ({chance})."


def _left_out(one: Mapping[str, Any]) -> str:
    small = [group for group in one["groups"] if not group["judged"]]
    value = {group["name"]: group["figures"].get(one["main"], {}).get("value") for group in small}
    said = not_judged([(group["name"], group["clusters"], value[group["name"]]) for group in small])
    return said and f"{said[0].upper()}{said[1:]}."


def _floats(one: Mapping[str, Any]) -> tuple[float, float, float]:
    value, low, high = (math.nan if one[key] is None else float(one[key]) for key in ("value", "low", "high"))
    return value, low, high


def _example(one: Shown) -> dict[str, Any]:
    score = None if math.isnan(one.score) else one.score
    captions = [*one.captions, *[""] * (len(one.pictures) - len(one.captions))]
    pictures = list(zip(one.pictures, captions, strict=True))
    return {"unit": one.unit, "score": score, "figure": one.figure, "pictures": pictures, "lines": one.lines}


def _facts(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    model, data, machine = report["model"], report["data"], report["machine"]
    options = {name: value for name, value in report["options"].items() if value not in (None, "", [], ())}
    facts = {
        "task": report["task"],
        "measure": report["measure"],
        "model": model["id"],
        "weights": model["weights"],
        "ran on": " ".join(filter(None, (model["engine"], model["precision"], model["device"]))),
        "predictions": model["source"],
        "data": data["name"],
        "split": data["split"],
        "content hash": data["fingerprint"],
        "annotations": str(data["annotations"]),
        "options": ", ".join(f"{name} {_said(value)}" for name, value in options.items()),
        "machine": ", ".join(str(machine[name]) for name in ("cpu", "system", "python") if machine.get(name)),
        "version": report["version"],
    }
    return [(name, str(value)) for name, value in facts.items() if value]


def _cell(value: Any) -> str:
    return digits(value) if isinstance(value, float) else "" if value is None else str(value)


def _said(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
