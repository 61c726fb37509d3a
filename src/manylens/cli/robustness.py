"""``manylens audit robustness``: a model on pictures that go bad step by step."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from manylens.cli import output
from manylens.cli.parameters import cost_cap, measure_option, session_for

if TYPE_CHECKING:
    from manylens.audit.robustness import Robustness


def robustness(
    data: Annotated[str, typer.Option("--data", help="Labelled data, as for manylens evaluate.")],
    task: Annotated[str, typer.Option("--task", help="The task, such as segment.")],
    model: Annotated[str | None, typer.Option("--model", metavar="ID", help="The model; default the task's.")] = None,
    images: Annotated[Path | None, typer.Option("--images", metavar="DIR", help="Where its pictures are.")] = None,
    corruption: Annotated[
        list[str] | None,
        typer.Option(
            "--corruption",
            metavar="NAME",
            help="A corruption, or a group: noise, blur, weather, digital, extra, standard (the fifteen), all.",
        ),
    ] = None,
    severity: Annotated[list[int] | None, typer.Option("--severity", help="1 to 5; all where none is given.")] = None,
    measure: Annotated[str | None, typer.Option("--measure", help="As for manylens evaluate.")] = None,
    prompt: Annotated[str | None, typer.Option("--prompt", help="click, box or none.")] = None,
    clicks: Annotated[int | None, typer.Option("--clicks", help="Simulated clicks an object.")] = None,
    threshold: Annotated[
        float | None, typer.Option("--threshold", min=0, max=1, help="The least score of a detection.")
    ] = None,
    closed: Annotated[bool, typer.Option("--closed", help="Ask for the model's own classes.")] = False,
    set: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="An option of the measure.")
    ] = None,
    split: Annotated[str | None, typer.Option("--split", help="Only this split.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Only so many pictures.")] = None,
    resamples: Annotated[int, typer.Option("--resamples", min=0, help="Of the bootstrap.")] = 500,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of every random step.")] = 0,
    max_cost: Annotated[
        float | None, typer.Option("--max-cost", metavar="MONEY", help="Stop before it costs more.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="DIR", help="Write the report here; a second run goes on.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Measure a model on pictures that go bad: fifteen corruptions in five severities, and three sweeps."""
    from manylens.audit import robustness as audit
    from manylens.audit.corruptions import SEVERITIES
    from manylens.audit.robustness_page import samples
    from manylens.data import Dataset

    session = session_for({})
    cap = cost_cap(session, max_cost)
    dataset = Dataset.read(data, images=images)
    options: dict[str, Any] = {"clicks": clicks, "threshold": threshold, "closed": closed or None}
    options |= dict(measure_option(word) for word in set or ())
    chosen, severities = corruption or ["standard"], severity or list(SEVERITIES)
    with output.bar("robustness", quiet=json) as progress:
        found = audit.robustness(
            dataset,
            task=task,
            model=model,
            corruptions=chosen,
            severities=severities,
            measure=measure,
            prompt=prompt,
            split=split,
            limit=limit,
            session=session,
            out=out,
            resamples=resamples,
            seed=seed,
            max_cost=cap,
            progress=progress,
            **options,
        )
    if json:
        print(jsonlib.dumps(found.to_json(), indent=1, allow_nan=False))
    else:
        _print(found)
    if out is not None:
        first = next(dataset.records(batch=1))
        for path in found.save(out, samples(first.image(), chosen, severities, seed)):
            if not json:
                print(f"wrote {path}")


def _print(found: Robustness) -> None:
    heads = ("corruption", "clean", *(str(at) for at in found.severities), "area", "95 % interval", "kept")
    rows = []
    for line in found.lines:
        area = line.area
        span = "-" if area.low != area.low else f"{area.low:.3f} to {area.high:.3f}"
        kept = "-" if line.kept != line.kept else f"{100 * line.kept:.0f} %"
        rows.append((line.name, *(f"{one.value:.3f}" for one in line.figures), f"{area.value:.3f}", span, kept))
    output.table(f"{found.figure} of {found.model} by severity", heads, rows)
    print(f"\n{found.figure}: clean {found.clean}, mean over corruptions and severities {found.area}")
    if found.kept == found.kept:
        print(f"{100 * found.kept:.0f} % is kept")
    if found.stopped:
        print(f"{found.stopped}; corruptions that were not finished are left out, run it again to go on")
