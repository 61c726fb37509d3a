"""``manylens audit``: what to ask of a figure next. Each audit is a function and a line in ``COMMANDS``."""

from __future__ import annotations

import json as jsonlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from manylens.cli import output
from manylens.cli.memorisation import membership, memorisation
from manylens.cli.robustness import robustness

if TYPE_CHECKING:
    from manylens.audit.fairness import Fairness
    from manylens.audit.parity import Parity
    from manylens.evaluation.intervals import Estimate
    from manylens.evaluation.slices import Gap, Group

_MOST_CLASSES = 20


def fairness(
    report: Annotated[
        Path, typer.Argument(metavar="REPORT", help="The folder that manylens evaluate wrote.", show_default=False)
    ],
    columns: Annotated[
        list[str], typer.Option("--column", metavar="C", help="A sensitive column; may be given several times.")
    ],
    positive: Annotated[
        str | None, typer.Option("--positive", metavar="NAME", help="Of a classifier: the class that matters.")
    ] = None,
    least: Annotated[int, typer.Option("--least", min=2, help="Pictures that a group needs to be judged.")] = 20,
    resamples: Annotated[int, typer.Option("--resamples", min=0, help="Of the bootstrap.")] = 1000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of every random step.")] = 0,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE", help="Write the audit here as JSON.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Say how a model serves each group, how far groups lie apart, and which are too small to judge."""
    from manylens.audit import fairness as audit
    from manylens.evaluation.results import opened
    from manylens.media import atomic_write

    tally, evaluation = opened(report)
    asked: dict[str, Any] = {"resamples": resamples, "seed": seed, "least": least}
    found = [audit.fairness(evaluation or tally, column, positive=positive, **asked) for column in columns]
    inside = [column for column in columns if column in tally.units.columns]
    table = audit.sam_table(tally, inside, **asked) if inside and audit.shows_points(tally) else None
    body = {"fairness": [one.to_json() for one in found], "points": table.to_json() if table else None}
    text = jsonlib.dumps(body, indent=1, ensure_ascii=False, allow_nan=False)
    if out is not None:
        atomic_write(out, text.encode())
    if json:
        print(text)
        return
    for one in found:
        _print(one)
    if table is not None:
        print(f"mIoU by points, in per cent\n{table.text()}\n")
    for one in found:
        print(one.verdict)
    if out is not None:
        print(f"wrote {out}")


COMMANDS: dict[str, Callable[..., None]] = {
    "fairness": fairness,
    "robustness": robustness,
    "memorisation": memorisation,
    "membership": membership,
}
"""The audits by name."""


def group() -> typer.Typer:
    """``manylens audit`` with all audits."""
    made = typer.Typer(
        help="Audit a model: fairness, robustness, memorisation, membership.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    made.callback()(_root)
    for name, function in COMMANDS.items():
        made.command(name)(function)
    return made


def _root() -> None:
    """Keeps the name of an audit a word of the command while there is one only."""


def _print(one: Fairness) -> None:
    sliced = one.sliced

    def row(group: Group) -> tuple[str, ...]:
        figure = group.figures[sliced.main]
        note = "" if group.judged else f"too small to judge (under {sliced.least} pictures)"
        return group.name, _number(figure.value), _interval(figure), str(group.units), str(group.clusters), note

    heads = (sliced.column, sliced.main, "95 % interval", f"{sliced.kind}s", "pictures", "note")
    output.table(f"{sliced.main} by {sliced.column}", heads, [row(group) for group in sliced.groups])
    if sliced.unknown:
        print(f"{sliced.unknown} {sliced.kind}s have no {sliced.column} and are in no group")
    print()
    if sliced.gaps:
        _print_gaps(f"gaps by {sliced.column}", list(sliced.gaps.values()))
    if one.classes:
        _print_classes(one.classes)


def _print_gaps(title: str, gaps: list[Gap]) -> None:
    rows = [
        (
            gap.figure,
            gap.best,
            gap.worst,
            _number(gap.gap.value),
            _interval(gap.gap),
            _number(gap.ratio),
            gap.chance,
            gap.verdict,
        )
        for gap in gaps
    ]
    output.table(title, ("figure", "best", "worst", "gap", "95 % interval", "ratio", "p", "verdict"), rows)
    print()


def _print_classes(classes: Any) -> None:
    rows = [_class_row(one) for one in classes[:_MOST_CLASSES]]
    output.table(
        "parity of classes, the least equal first",
        ("class", "pictures", *(name.replace("_", " ") for name in classes[0].measures), "too few"),
        rows,
    )
    if len(classes) > _MOST_CLASSES:
        print(f"{len(classes) - _MOST_CLASSES} more classes: --json")
    print()
    for one in classes:
        if one.rates is not None:
            _print_gaps(f"rates of {one.positive}", list(one.rates.gaps.values()))


def _class_row(one: Parity) -> tuple[str, ...]:
    few = ", ".join(f"{name}: {count}" for name, count in one.few.items())
    return (one.positive, str(one.pictures), *(_number(value) for value in one.trusted.values()), few)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{round(value, 4) + 0.0:.4f}" if abs(value) < 100 else f"{value:.1f}"


def _interval(one: Estimate) -> str:
    return "-" if math.isnan(one.low) else f"{_number(one.low)} to {_number(one.high)}"
