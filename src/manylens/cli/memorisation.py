"""``manylens audit memorisation`` and ``manylens audit membership``: what a model gives away of its training data."""

from __future__ import annotations

import json as jsonlib
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from manylens.cli import output
from manylens.cli.parameters import cost_cap, session_for
from manylens.errors import PromptError

if TYPE_CHECKING:
    from manylens.audit.membership import Membership
    from manylens.audit.memorisation import Memorisation
    from manylens.evaluation.intervals import Estimate

_SHOWN = 12

_Resamples = Annotated[int, typer.Option("--resamples", min=0, help="Of the bootstrap.")]
_Seed = Annotated[int, typer.Option("--seed", min=0, help="Of every random step.")]
_Strict = Annotated[bool, typer.Option("--strict", help="Make every problem an error.")]
_MaxCost = Annotated[float | None, typer.Option("--max-cost", metavar="MONEY", help="Stop before it costs more.")]
_Out = Annotated[Path | None, typer.Option("-o", "--out", metavar="DIR", help="Write page, JSON and tally here.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
_Model = Annotated[str | None, typer.Option("--model", metavar="ID", help="The model; default the task's.")]


def memorisation(
    made: Annotated[str, typer.Argument(metavar="MADE", help="Folder of made pictures, or a data set.")],
    train: Annotated[str, typer.Option("--train", metavar="DATA", help="What the model was trained on.")],
    held_out: Annotated[
        str | None, typer.Option("--held-out", metavar="DATA", help="Real pictures that it never saw, as a control.")
    ] = None,
    train_split: Annotated[str | None, typer.Option("--train-split", help="Only this split of --train.")] = None,
    held_out_split: Annotated[
        str | None, typer.Option("--held-out-split", help="Only this split of --held-out, else of --train.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="ID", help="Makes the features; default that of embed.")
    ] = None,
    neighbours: Annotated[
        int, typer.Option("--neighbours", min=1, help="Training pictures that the nearest is held against.")
    ] = 50,
    percentile: Annotated[
        float, typer.Option("--percentile", min=0, max=100, help="Of held-out distances: below it is too close.")
    ] = 5.0,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only the first made pictures.")] = None,
    resamples: _Resamples = 1000,
    seed: _Seed = 0,
    strict: _Strict = False,
    max_cost: _MaxCost = None,
    out: _Out = None,
    json: _Json = False,
) -> None:
    """Find made pictures that are copies of training pictures, and say whether all are closer to them than chance."""
    from manylens.audit.memorising import memorisation as audit

    session = session_for({})
    with output.bar("memorisation", quiet=json) as progress:
        found = audit(
            made,
            train,
            held_out,
            train_split=train_split,
            held_out_split=held_out_split,
            model=model,
            neighbours=neighbours,
            percentile=percentile,
            session=session,
            resamples=resamples,
            seed=seed,
            strict=strict,
            limit=limit,
            max_cost=cost_cap(session, max_cost),
            progress=progress,
        )
    files = found.save(out) if out is not None else []
    if json:
        print(jsonlib.dumps(found.to_json(), indent=1, ensure_ascii=False, allow_nan=False))
        return
    _figures(f"{found.made} against {found.train}", found.figures)
    heads = ("made picture", "training picture", "distance", "ratio", "pixels", "what")
    rows = [
        (
            one.made,
            one.train,
            _number(one.distance),
            _number(one.ratio),
            _number(one.pixels),
            f"{one.kind}{', mirrored' if one.mirrored and one.kind == 'copy' else ''}",
        )
        for one in found.pairs[:_SHOWN]
    ]
    output.table("the closest pairs", heads, rows)
    _end(found, files)


def membership(
    members: Annotated[
        str | None,
        typer.Argument(
            metavar="[TRAIN_REPORT]",
            help="An evaluation on the training data (the folder that manylens evaluate wrote), or a CSV of losses.",
            show_default=False,
        ),
    ] = None,
    others: Annotated[
        str | None,
        typer.Argument(metavar="[HELDOUT_REPORT]", help="The same on held-out data.", show_default=False),
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="Instead of reports: labelled data, as for manylens evaluate.")
    ] = None,
    task: Annotated[str | None, typer.Option("--task", help="With --data: the task, such as classify.")] = None,
    member_split: Annotated[str, typer.Option("--member-split", help="With --data: trained on.")] = "train",
    other_split: Annotated[str, typer.Option("--other-split", help="With --data: not trained on.")] = "val",
    model: _Model = None,
    images: Annotated[str | None, typer.Option("--images", metavar="DIR", help="As for manylens evaluate.")] = None,
    measure: Annotated[str | None, typer.Option("--measure", help="As for manylens evaluate.")] = None,
    prompt: Annotated[str | None, typer.Option("--prompt", help="click, box or none.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only the first records of each split.")] = None,
    resamples: _Resamples = 1000,
    seed: _Seed = 0,
    strict: _Strict = False,
    max_cost: _MaxCost = None,
    out: _Out = None,
    json: _Json = False,
) -> None:
    """Say whether a model's scores tell what it was trained on from what it was not.

    Give two reports, or --data and --task to measure two splits now.
    """
    from manylens.audit import members as audit

    if data is not None and task is not None and members is None:
        session = session_for({})
        with output.bar("membership", quiet=json) as progress:
            found = audit.membership_of_splits(
                data,
                task=task,
                member_split=member_split,
                other_split=other_split,
                model=model,
                limit=limit,
                session=session,
                resamples=resamples,
                seed=seed,
                strict=strict,
                max_cost=cost_cap(session, max_cost),
                progress=progress,
                images=images,
                measure=measure,
                prompt=prompt,
            )
    elif data is None and members is not None and others is not None:
        found = audit.membership(members, others, resamples=resamples, seed=seed, strict=strict)
    else:
        raise PromptError(
            "membership: needs two groups", "give TRAIN_REPORT and HELDOUT_REPORT, or --data and --task, not both"
        )
    files = found.save(out) if out is not None else []
    if json:
        print(jsonlib.dumps(found.to_json(), indent=1, ensure_ascii=False, allow_nan=False))
        return
    _figures(f"members ({found.members}) against others ({found.others})", found.figures)
    heads = ("member", found.tally.figure, "others that look as much like one")
    rows = [(one.id, _number(one.value), f"{100 * one.alarms:.1f} %") for one in found.tally.exposed(_SHOWN)]
    output.table("members told most surely", heads, rows)
    _end(found, files)


def _figures(title: str, figures: Mapping[str, Estimate]) -> None:
    rows = [(name, _number(one.value), _interval(one)) for name, one in figures.items()]
    output.table(title, ("figure", "value", "95 % interval"), rows)
    print()


def _end(found: Memorisation | Membership, files: Sequence[Path]) -> None:
    report: dict[str, Any] = found.to_json()
    print()
    for note in report["notes"]:
        print(f"note: {note}", file=sys.stderr)
    for kind, count in found.problems.counts.items():
        print(f"{kind}: {count}")
    print(found.verdict)
    for file in files:
        print(f"wrote {file}")


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def _interval(one: Estimate) -> str:
    return "-" if math.isnan(one.low) else f"{_number(one.low)} to {_number(one.high)}"
