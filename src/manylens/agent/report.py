"""One page that shows a run: request, answer, plan, and each step with its picture, model and time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from manylens.agent.plan import Plan, Ref, Step, spoken
from manylens.agent.wording import answer_of, sentence
from manylens.render import draw
from manylens.render.page import Picture, cutout, jpeg
from manylens.render.page import page as html
from manylens.tasks import Answer, Classification, Evidence

if TYPE_CHECKING:
    from manylens.agent.executor import Run, StepRun

_MOST_CUTOUTS = 6
_NODE = (196, 58)
_GAP = (84, 22)


@dataclass(frozen=True)
class Node:
    """A step in the drawing of the plan; ``x`` and ``y`` are the top left of its box."""

    id: int
    task: str
    detail: str
    state: str
    x: int
    y: int


@dataclass(frozen=True)
class Arrow:
    """From one step to another, as an SVG path, with what is handed over."""

    path: str
    label: str
    x: float
    y: float


def page(run: Run) -> str:
    """The page of a run as HTML, with everything in it."""
    nodes, arrows, size = graph(run.plan, {step.step.id: step.state for step in run.steps})
    given = [step.image for step in run.steps if step.image is not None and _given(step)]
    pictures = {(image.name, image.id): image for image in given}
    clear = [step for step in run.steps if step.state == "done" and not step.unclear]
    return html(
        "manylens.agent",
        "report.html.j2",
        run=run,
        outcome=answer_of(clear, ()) if clear else "",
        undone=[sentence(step) for step in run.steps if step.state != "done"],
        inputs=[jpeg(image, image.name) for image in pictures.values()],
        steps=[_card(step) for step in run.steps],
        nodes=nodes,
        arrows=arrows,
        graph_size=size,
        node_size=_NODE,
    )


def graph(plan: Plan, states: dict[int, str] | None = None) -> tuple[list[Node], list[Arrow], tuple[int, int]]:
    """Where the steps of a plan stand when it is drawn: one column for each wave, arrows from left to right.

    Returns:
        Nodes, arrows, and the drawing's ``(width, height)`` in pixels.
    """
    waves = list(plan.waves())
    (width, height), (gap_x, gap_y) = _NODE, _GAP
    nodes: dict[int, Node] = {}
    for column, wave in enumerate(waves):
        # Beside what it waits for where there is room, so that arrows run straight.
        wanted = {step.id: min((nodes[before].y for before in step.after), default=1) for step in wave}
        y = 1
        for step in sorted(wave, key=lambda step: (wanted[step.id], step.id)):
            y = max(y, wanted[step.id])
            x = column * (width + gap_x) + 1
            nodes[step.id] = Node(step.id, step.task, _detail(step), (states or {}).get(step.id, ""), x, y)
            y += height + gap_y
    arrows = [_arrow(nodes[before], nodes[step.id], step) for step in plan.steps for before in step.after]
    bottom = max((node.y for node in nodes.values()), default=0) + height
    size = (len(waves) * (width + gap_x) - gap_x + 2, bottom + 1)
    return list(nodes.values()), arrows, size


def _arrow(start: Node, end: Node, step: Step) -> Arrow:
    width, height = _NODE
    x0, y0, x1, y1 = start.x + width, start.y + height / 2, end.x - 7, end.y + height / 2
    bend = (x1 - x0) / 2
    label = ", ".join(dict.fromkeys(ref.output for ref in step.refs if ref.step == start.id))
    return Arrow(f"M{x0},{y0} C{x0 + bend},{y0} {x1 - bend},{y1} {x1},{y1}", label, (x0 + x1) / 2, (y0 + y1) / 2 - 7)


def _detail(step: Step) -> str:
    """What of a step's arguments says most, short enough for its box."""
    value = next(
        (
            step.args[name]
            for name in ("question", "text", "names", "instruction", "mode", "kind", "objects")
            if name in step.args
        ),
        "",
    )
    text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    if (ref := Ref.parse(text)) is not None:
        text = f"{ref.output} of step {ref.step}"
    return text if len(text) <= 23 else text[:22].rstrip() + "…"


def _given(run: StepRun) -> bool:
    return Ref.parse(run.step.args.get("image")) is None


def _card(run: StepRun) -> dict[str, Any]:
    made = run.provenance
    facts = (
        []
        if made is None
        else [
            ("model", made.model),
            ("engine", " ".join(filter(None, (made.engine, made.precision)))),
            ("device", made.device),
            ("weights", made.weights),
            ("seed", str(made.seed)),
            ("from cache", made.cache),
        ]
    )
    return {
        "run": run,
        "said": sentence(run),
        "args": [(name, _shown(value)) for name, value in run.step.args.items()],
        "facts": [(name, value) for name, value in facts if value],
        "parts": made.parts if made else (),
        "notes": made.notes if made else (),
        "pictures": _pictures(run),
        "evidence": _evidence(run.result),
    }


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(_shown(part) for part in value)
    ref = Ref.parse(value)
    return f"{ref.output} of step {ref.step}" if ref else spoken(str(value))


def _evidence(result: Any) -> list[Evidence]:
    """What a step rests on, in one form for all tasks."""
    match result:
        case Answer():
            return list(result.evidence)
        case Classification():
            return [Evidence("label", label.name, label.score, None, "classify") for label in result.labels]
    if hasattr(result, "xyxy"):
        rows = zip(result.xyxy, result.data["class_name"], result.confidence, strict=True)
        kind = "region" if result.mask is not None else "box"
        return [Evidence(kind, str(name) or "object", float(score), _rounded(box)) for box, name, score in rows]  # type: ignore[arg-type]
    return [Evidence("text", line.text, line.score, line.box) for line in getattr(result, "lines", ())]


def _rounded(box: Any) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = (float(value) for value in box)
    return x0, y0, x1, y1


def _pictures(run: StepRun) -> list[Picture]:
    if run.image is None:
        return []
    drawn = draw(run.image, run.result) if run.state == "done" else None
    if drawn is None:
        return [jpeg(run.image, run.image.name)] if not _given(run) else []
    shown = [jpeg(drawn, f"{run.step.task} on {run.image.name}")]
    if getattr(run.result, "mask", None) is not None:
        pairs = zip(run.result.mask, run.result.data["class_name"], strict=True)
        shown += [
            cutout(run.image, mask, f"the {name or 'object'} cut out")
            for mask, name in list(pairs)[:_MOST_CUTOUTS]
            if mask.any()
        ]
    return shown
