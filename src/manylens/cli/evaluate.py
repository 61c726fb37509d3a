"""``manylens evaluate``: a model, or saved predictions, measured on labelled data."""

from __future__ import annotations

import json as jsonlib
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from manylens.cli import output
from manylens.cli.parameters import cost_cap, measure_option, session_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    from manylens.evaluation.intervals import Estimate
    from manylens.evaluation.results import Evaluation
    from manylens.evaluation.slices import Group, Sliced

_SHOWN_IDS = 5
_MOST_CLASSES = 20


def evaluate(
    task: Annotated[str, typer.Option("--task", metavar="TASK", help="The task whose quality is asked for.")],
    data: Annotated[
        str,
        typer.Option(
            "--data", metavar="DATA", help="Labelled data: COCO JSON, class folders, mask PNGs, CSV, our own folder."
        ),
    ],
    images: Annotated[
        str | None, typer.Option("--images", metavar="DIR", help="Folder that the data's file names are relative to.")
    ] = None,
    format: Annotated[
        str | None, typer.Option("--format", metavar="NAME", help="Of the data; by default it is recognised.")
    ] = None,
    split: Annotated[str | None, typer.Option("--split", metavar="NAME", help="Only this split.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="ID", help="A catalog id, a hub id or a local folder.")
    ] = None,
    predictions: Annotated[
        str | None, typer.Option("--predictions", metavar="FILE", help="Saved predictions, instead of a run.")
    ] = None,
    measure: Annotated[
        str | None, typer.Option("--measure", metavar="NAME", help="By default what fits the task and the data.")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", metavar="click|box|none", help="How masks are asked for.")
    ] = None,
    clicks: Annotated[int | None, typer.Option("--clicks", min=1, help="Simulated clicks on an object.")] = None,
    threshold: Annotated[
        float | None, typer.Option("--threshold", min=0, max=1, help="The least score of a detection that is kept.")
    ] = None,
    closed: Annotated[
        bool, typer.Option("--closed", help="Ask for the model's own classes, not for those of the data.")
    ] = False,
    set: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="An option of the measure, such as shots=5; may be repeated."),
    ] = None,
    slice: Annotated[
        list[str] | None,
        typer.Option("--slice", metavar="FIELD", help="Figures by a column, by class or by size; may be repeated."),
    ] = None,
    resamples: Annotated[int, typer.Option("--resamples", min=0, help="Of the bootstrap.")] = 1000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of every random step.")] = 0,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only the first records.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Make every problem of the data an error.")] = False,
    max_cost: Annotated[
        float | None, typer.Option("--max-cost", min=0, help="Stop before this cost, and report on what is done.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="DIR", help="Write report, tally and predictions here.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
    memory_budget: Annotated[
        str | None, typer.Option("--memory-budget", metavar="SIZE", help="Memory to stay in, such as 2GiB.")
    ] = None,
) -> None:
    """Measure a model on labelled data: every figure with its 95 % interval, by slices if asked.

    A run that was stopped goes on where it was when the same command is given again.
    """
    from manylens.evaluation.evaluate import evaluate as measured

    options: dict[str, Any] = {"clicks": clicks, "threshold": threshold, "closed": closed or None}
    options |= dict(measure_option(word) for word in set or ())
    session = None if predictions else session_for({"memory_budget": memory_budget})
    cap = cost_cap(session, max_cost) if session is not None else None
    with output.bar("evaluate", quiet=json) as progress:
        made = measured(
            data,
            task=task,
            model=model,
            predictions=predictions,
            measure=measure,
            prompt=prompt,
            slices=tuple(dict.fromkeys(slice or ())),
            split=split,
            images=images,
            format=format,
            session=session,
            out=out,
            resamples=resamples,
            seed=seed,
            strict=strict,
            limit=limit,
            max_cost=cap,
            progress=progress,
            say=lambda line: print(line, file=sys.stderr, flush=True),
            **options,
        )
    if json:
        body = {**made.to_json(), "files": [str(file) for file in made.files]}
        print(jsonlib.dumps(body, indent=1))
    else:
        _print(made)


def _print(made: Evaluation) -> None:
    kind = made.tally.units.kind
    count = len(made.tally.units)
    plain = {name: one for name, one in made.figures.items() if "/" not in name}
    classes = {name: one for name, one in made.figures.items() if "/" in name}
    rows = [_row(name, one, count, made.tally.lower(name)) for name, one in plain.items()]
    output.table(f"{made.task}: {made.measure}", ("figure", "value", "95 % interval", _several(kind)), rows)
    _print_classes(classes)
    for one in made.slices:
        _print_slice(one)
    _print_end(made)


def _print_classes(figures: Mapping[str, Estimate]) -> None:
    """A row for each class, where they are few."""
    groups: dict[str, dict[str, Estimate]] = {}
    for name, one in figures.items():
        figure, _, group = name.partition("/")
        groups.setdefault(group, {})[figure] = one
    names = list(dict.fromkeys(name.partition("/")[0] for name in figures))
    if 0 < len(groups) <= _MOST_CLASSES:
        print()
        rows = [
            (group, *(_number(found[n].value) if n in found else "-" for n in names)) for group, found in groups.items()
        ]
        output.table("by class", ("class", *names), rows)


def _row(name: str, one: Estimate, count: int, lower: bool) -> tuple[str, str, str, str]:
    return f"{name} (less is better)" if lower else name, _number(one.value), _interval(one), str(count)


def _several(kind: str) -> str:
    return f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}" if abs(value) < 100 else f"{value:.1f}"


def _interval(one: Estimate) -> str:
    return "-" if math.isnan(one.low) else f"{_number(one.low)} to {_number(one.high)}"


def _print_slice(one: Sliced) -> None:
    print()

    def row(group: Group) -> tuple[str, ...]:
        figure = group.figures[one.main]
        small = "" if group.judged else f"too small to judge (under {one.least} pictures)"
        return group.name, _number(figure.value), _interval(figure), str(group.units), str(group.clusters), small

    if not one.groups:
        print(f"by {one.column}: no group has any {one.kind}")
        return
    output.table(
        f"{one.main} by {one.column}",
        (one.column, one.main, "95 % interval", _several(one.kind), "pictures", "note"),
        [row(group) for group in one.groups],
    )
    if one.unknown:
        print(f"{one.unknown} {_several(one.kind)} have no {one.column} and are in no group")
    gap = one.gaps.get(one.main)
    if gap is not None:
        span = f"{_number(gap.gap.value)} [{_interval(gap.gap)}]"
        print(f"gap {span}, {gap.best} to {gap.worst}: {gap.verdict} (p = {gap.chance})")


def _print_end(made: Evaluation) -> None:
    print()
    kept: dict[str, list[str]] = {}
    for problem in made.problems:
        kept.setdefault(problem.kind, []).append(problem.id)
    for kind, count in made.problems.counts.items():
        more = ", ..." if count > _SHOWN_IDS else ""
        print(f"{kind}: {count} ({', '.join(kept.get(kind, [])[:_SHOWN_IDS])}{more})")
    left_out = made.problems.left_out
    print(f"{left_out} row{'' if left_out == 1 else 's'} left out")
    for note in made.notes[1:]:
        print(f"note: {note}", file=sys.stderr)
    if made.stopped:
        print(
            f"stopped ({made.stopped}): {made.data.judged} of {made.data.records} records judged; "
            "the same command with a higher --max-cost goes on from there"
        )
    else:
        print(f"{made.data.judged} of {made.data.records} records judged in {made.seconds:.1f} s")
    engine = f", {made.model.engine} {made.model.precision}" if made.model.engine else ""
    print(f"({made.model.id}{engine})")
    for file in made.files:
        print(f"wrote {file}")
