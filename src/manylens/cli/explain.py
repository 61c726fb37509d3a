"""``manylens explain``: which pixels of a picture a model's score rests on."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from manylens.cli import output
from manylens.cli.parameters import session_for
from manylens.tasks.flags import box as read_box
from manylens.tasks.flags import point as read_point

if TYPE_CHECKING:
    from manylens.audit.explain import Explanation
    from manylens.tasks.geometry import Box, Points

# Said here a second time: to import them would load numpy before the help is shown. A test holds the two together.
Method = Literal["attention", "rollout", "heads", "grad-cam", "integrated-gradients", "occlusion", "rise"]
Baseline = Literal["mean", "black", "blur"]


def explain(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="The picture.", show_default=False)],
    task: Annotated[
        str,
        typer.Option("--task", help="A task that ends in a score: classify, embed, detect, segment, match, answer."),
    ] = "classify",
    model: Annotated[
        str | None, typer.Option("--model", metavar="ID", help="A catalog id, a hub id or a local folder.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option("--target", metavar="WORDS", help="A label, thing or text; none for the model's answer."),
    ] = None,
    method: Annotated[
        Method | None, typer.Option("--method", help="How; none for grad-cam where the model can, else rise.")
    ] = None,
    other: Annotated[
        str | None, typer.Option("--other", metavar="FILE", help="embed, match: another picture to compare with.")
    ] = None,
    box: Annotated[
        str | None,
        typer.Option("--box", metavar="x0,y0,x1,y1", help="detect: the region that counts; segment: the prompt."),
    ] = None,
    point: Annotated[
        list[str] | None, typer.Option("--point", metavar="x,y", help="segment: a click on the object.")
    ] = None,
    question: Annotated[str | None, typer.Option("--question", metavar="WORDS", help="answer: the question.")] = None,
    against: Annotated[
        list[str] | None, typer.Option("--against", metavar="WORDS", help="classify: a further name to choose from.")
    ] = None,
    masks: Annotated[int, typer.Option("--masks", help="rise: how many random masks.")] = 500,
    steps: Annotated[int, typer.Option("--steps", help="integrated-gradients: steps from the baseline.")] = 64,
    window: Annotated[
        float, typer.Option("--window", help="occlusion: the square's side, as a share of the shorter side.")
    ] = round(1 / 6, 4),
    baseline: Annotated[
        Baseline | None, typer.Option("--baseline", help="What stands for nothing; none as the method's paper has it.")
    ] = None,
    layer: Annotated[
        str | None, typer.Option("--layer", metavar="NAME", help="grad-cam: the layer; none for the last that counts.")
    ] = None,
    discard: Annotated[
        float, typer.Option("--discard", help="rollout: the share of the weakest attention that is dropped.")
    ] = 0.0,
    check: Annotated[
        bool, typer.Option("--check", help="Also measure the map by deletion and insertion, beside a random one.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="DIR", help="Write the overlay, the map and the JSON here.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
    memory_budget: Annotated[
        str | None, typer.Option("--memory-budget", metavar="SIZE", help="Memory to stay in, such as 2GiB.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of every random step.")] = 0,
) -> None:
    """Show which pixels a model's score rests on.

    Attention, rollout and heads look into transformers; grad-cam and integrated-gradients need a model that opens in
    torch; occlusion and rise work with any.
    """
    from manylens.audit import explain as room
    from manylens.media import Image

    asked = room.Target(
        name=target,
        other=None if other is None else Image.of(other),
        box=None if box is None else cast("Box", read_box(box)),
        points=cast("Points", tuple(read_point(word) for word in point or ())),
        question=question,
        against=tuple(against or ()),
    )
    options = room.Options(masks=masks, steps=steps, window=window, baseline=baseline, layer=layer, discard=discard)
    session, picture = session_for({"memory_budget": memory_budget}), Image.of(image)
    with output.bar("explain", quiet=json) as progress:
        found = room.explain(
            picture,
            task,
            target=asked,
            model=model,
            method=method,
            options=options,
            session=session,
            seed=seed,
            progress=progress,
        )
        body = found.to_json()
        if check:
            score = room.task_score(session, picture, task, asked, model=found.provenance.model, seed=seed)
            tested = room.faithfulness(picture, found.map, score, seed=seed, progress=progress)
            body["faithfulness"] = tested.to_json()
    files = found.save(out) if out is not None else []
    if json:
        print(jsonlib.dumps(body | {"files": [str(file) for file in files]}, indent=1))
    else:
        _say(found, body, files)


def _say(found: Explanation, body: dict[str, Any], files: list[Path]) -> None:
    x, y = body["map"]["strongest"]
    print(f"{found.task} {found.target!r} scores {found.score:.3f}; {found.method} is strongest at {x},{y}")
    if "faithfulness" in body:
        for name, better in (("deletion", "lower"), ("insertion", "higher")):
            area, chance = (body["faithfulness"][key]["area"] for key in (name, f"random_{name}"))
            print(f"{name} {area:.3f}, a random map {chance:.3f} ({better} is better)")
        print(f"the map is {body['faithfulness']['verdict']}")
    for note in (*found.provenance.notes, *found.details.get("notes", ())):
        print(f"note: {note}", file=sys.stderr)
    made = found.provenance
    engine = f", {made.engine} {made.precision}" if made.engine else ""
    print(f"({made.model}{engine}, {made.seconds:.2f} s)")
    for file in files:
        print(f"wrote {file}")
