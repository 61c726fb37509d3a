"""What a run came to, in plain words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from manylens.models.composed.words import bare, counted, listed, plural, singular
from manylens.render import say
from manylens.tasks import Answer, Classification, Embedding, Reading, provenance_of
from manylens.tasks.results import Caption, Transcript

if TYPE_CHECKING:
    from manylens.agent.executor import StepRun
    from manylens.agent.plan import Step

_FOUND = {"segment": "I cut out", "detect": "I found", "track": "I followed", "recognize": "I recognised"}


def answer_of(steps: Sequence[StepRun], unclear: Sequence[str], *, reasons: bool = True) -> str:
    """The answer to a request: what each step came to, what failed and what was not understood.

    Args:
        steps: The steps as they went.
        unclear: The parts of the request that were not understood.
        reasons: Whether to say why a step failed.
    """
    several = len({run.step.args.get("image") for run in steps if "$" not in str(run.step.args.get("image", "$"))}) > 1
    parts = []
    for run in steps:
        name = run.image.name if several and run.image is not None else ""
        said = sentence(run, reasons=reasons)
        parts.append(f"{name}: {said}" if name else said)
    parts += [_unclear(part) for part in unclear]
    return ("\n" if several else " ").join(parts) or "I did not find a request in that."


def sentence(run: StepRun, *, reasons: bool = True) -> str:
    """What one step came to; why it failed only where reasons are wanted."""
    if run.state == "failed":
        return f"I could not {doing(run.step)}: {run.error}." if reasons else f"I could not {doing(run.step)}."
    if run.state == "skipped":
        return f"I did not {doing(run.step)}: {run.error}."
    return _unclear(run.unclear) if run.unclear else _outcome(run.step, run.result)


def _unclear(part: str) -> str:
    return f'I did not understand "{part}".'


def doing(step: Step) -> str:
    """What a step does, as the rest of "I could not ...": ``cut out the cat``."""
    args = step.args
    match step.task:
        case "segment" | "track" if "text" in args:
            return f"{'cut out' if step.task == 'segment' else 'follow'} the {_things(args['text'])}"
        case "segment" if args.get("mode", "prompt") != "prompt":
            return {"everything": "segment everything", "main": "find the main object"}.get(args["mode"], "segment it")
        case "segment":
            return "cut it out"
        case "detect" if isinstance(args.get("names"), (list, tuple)):
            return f"find the {listed([str(name) for name in args['names']])}"
        case "detect":
            return "find what is there"
        case "answer":
            return f'answer "{args["question"]}"'
        case "read":
            return "read the text"
        case "generate":
            return f'make a picture of "{args["text"]}"'
        case "edit":
            return f'change the picture ("{args.get("instruction") or args.get("text", "")}")'
        case "structure":
            return f"make the {args.get('kind', 'edges')} map"
        case "transcribe":
            return "write down what is said"
        case "speak":
            return "say it aloud"
        case "match":
            return "compare them"
    return {
        "classify": "say what kind of picture it is",
        "embed": "embed the picture",
        "caption": "describe the picture",
        "depth": "estimate the depth",
        "upscale": "enlarge the picture",
    }.get(step.task, f"{step.task} the picture")


def _things(text: str) -> str:
    return listed([part for part in str(text).split(", ") if part])


def _outcome(step: Step, result: Any) -> str:
    if hasattr(result, "xyxy"):
        return _detections(step, result)
    match result:
        case Answer() | Caption() | Transcript():
            return result.text
        case Reading():
            lines = " / ".join(line.text for line in result.lines)
            return f'It reads "{lines}".' if lines else "I can read no text."
        case Classification():
            best = result.best
            return f"I would label it {best.name.split(',')[0]} ({best.score:.2f})."
        case Embedding():
            return f"I made its vector of {result.vector.size} numbers."
    text = say(result)
    return f"{text[:1].upper()}{text[1:]}."


def _detections(step: Step, found: Any) -> str:
    lead = _FOUND.get(step.task, "I found")
    names = Counter(str(name) or "object" for name in found.data["class_name"])
    wanted = step.args.get("names") or str(step.args.get("text", "")).split(", ")
    wanted = [] if isinstance(wanted, str) else [singular(bare(str(name)).lower()) for name in wanted if name]
    seen = [counted(count, singular(name)) for name, count in names.items()]
    absent = [name for name in wanted if name not in {singular(name) for name in names}]
    made = provenance_of(found)
    notes = "".join(f" Note: {note}." for note in (made.notes if made else ()) if not note.startswith("no '"))
    if not seen:
        return f"I found no {listed([plural(name) for name in absent], 'and no')}." if absent else "I found nothing."
    missing = f", but found no {listed([plural(name) for name in absent], 'and no')}" if absent else ""
    return f"{lead} {listed(seen)}{missing}.{notes}"
