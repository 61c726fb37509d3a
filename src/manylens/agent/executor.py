"""Runs a plan: each step when what it needs is there; a step that fails holds up only those that need it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Literal, Protocol

from manylens.agent.handover import NothingError, filled, named_as, output
from manylens.agent.mentions import kind_of_file, media_names, name_of, renamed
from manylens.agent.plan import Plan, Ref, Step, unnamed
from manylens.errors import EngineError, ManylensError, MediaError
from manylens.media import Image
from manylens.tasks import Answer, Provenance, Request, provenance_of, request, to_json

if TYPE_CHECKING:
    from manylens.agent.outputs import Made

_log = logging.getLogger("manylens")

State = Literal["done", "failed", "skipped"]


class Runner(Protocol):
    """The part of a session that a plan needs."""

    def run(self, request: Request, *, model: str | None = None, seed: int = 0) -> Any:
        """Serve one request."""


@dataclass(frozen=True)
class StepRun:
    """A step as it went.

    Attributes:
        step: The step.
        state: ``done``; ``failed``; or ``skipped``, where an earlier step failed or found nothing to go on with.
        result: The task's result, where it is done.
        error: What went wrong, or why it was skipped.
        seconds: Time of the step.
        image: The picture that it worked on, if any.
    """

    step: Step
    state: State = "done"
    result: Any = None
    error: ManylensError | None = None
    seconds: float = 0.0
    image: Image | None = None

    @property
    def provenance(self) -> Provenance | None:
        """Which model made the result, and how."""
        return provenance_of(self.result) if self.state == "done" else None

    @property
    def model(self) -> str:
        """Id of the model; empty where none ran."""
        return self.provenance.model if self.provenance else ""

    @property
    def exit_code(self) -> int:
        """What the command line leaves with for this step alone."""
        return self.error.exit_code if self.error is not None and self.state == "failed" else 0

    @property
    def unclear(self) -> str:
        """The question of the step where the model that answers did not understand it; else empty."""
        result = self.result
        lost = isinstance(result, Answer) and not (result.known or result.kind or result.evidence)
        return str(self.step.args["question"]) if lost else ""

    def to_json(self) -> dict[str, Any]:
        """The step with its result, JSON-ready."""
        return {
            "step": self.step.model_dump(mode="json"),
            "state": self.state,
            "result": to_json(self.result) if self.state == "done" else None,
            "error": str(self.error) if self.error else None,
            "seconds": round(self.seconds, 3),
            "model": self.model,
        }


@dataclass(frozen=True)
class Run:
    """A plan that was run.

    Attributes:
        plan: The plan.
        steps: Each step as it went, in the plan's order.
        answer: What came out, in plain words.
        made: The files made.
        seconds: Time of the whole.
    """

    plan: Plan
    steps: tuple[StepRun, ...]
    answer: str
    made: tuple[Made, ...] = field(default=())
    seconds: float = 0.0

    @property
    def files(self) -> tuple[Path, ...]:
        """Paths of the files made."""
        return tuple(file.path for file in self.made)

    @property
    def failed(self) -> tuple[StepRun, ...]:
        """The steps that failed; those that were only held up by them are not among them."""
        return tuple(step for step in self.steps if step.state == "failed")

    @property
    def unclear(self) -> tuple[str, ...]:
        """What was not understood: parts of the request, and questions that the model could not make out."""
        asked = (step.unclear for step in self.steps)
        return tuple(dict.fromkeys((*self.plan.unclear, *filter(None, asked))))

    @property
    def brief(self) -> str:
        """The answer without the reasons of the steps that failed, for where these are shown beside it."""
        from manylens.agent.wording import answer_of

        return answer_of(self.steps, self.plan.unclear, reasons=False)

    def to_json(self) -> dict[str, Any]:
        """The run, JSON-ready; masks as COCO RLE."""
        return {
            "request": self.plan.request,
            "answer": self.answer,
            "unclear": list(self.unclear),
            "plan": self.plan.to_json(),
            "steps": [step.to_json() for step in self.steps],
            "files": [str(path) for path in self.files],
            "seconds": round(self.seconds, 3),
        }


Wave = Callable[[Callable[[Step], StepRun], Iterable[Step]], Iterable[StepRun]]
"""Runs steps that do not depend on each other: ``map``, or the ``map`` of a thread pool."""


def execute(
    plan: Plan,
    files: Sequence[Any],
    session: Runner,
    *,
    models: Mapping[str, str] | None = None,
    seed: int = 0,
    wave: Wave = map,
    progress: Callable[[StepRun], None] | None = None,
) -> tuple[StepRun, ...]:
    """Run the steps of a plan.

    Args:
        plan: A valid plan.
        files: The pictures and other media in the order in which they were given: paths, arrays or ``Image``.
        session: What serves the requests.
        models: Model by task; others are chosen by the session.
        seed: Of every random step.
        wave: How independent steps are run.
        progress: Called with each step as it ends.

    Returns:
        The steps as they went, in the plan's order; errors are in them and not raised.
    """
    desk = _Desk(plan, files, session, dict(models or {}), seed)
    for steps in plan.waves():
        for done in wave(desk.run, steps):
            desk.done[done.step.id] = done
            if progress is not None:
                progress(done)
    return tuple(desk.done[step.id] for step in plan.steps)


class _Desk:
    """What is at hand while a plan runs: its files, and the steps done so far."""

    def __init__(self, plan: Plan, files: Sequence[Any], session: Runner, models: Mapping[str, str], seed: int) -> None:
        self.done: dict[int, StepRun] = {}
        self._plan, self._session, self._models, self._seed = plan, session, models, seed
        names = media_names([name_of(file) for file in files])
        self._files: dict[str, Any] = dict(zip(names, files, strict=True))
        # Files of the same name keep in their results and files the names that tell them apart.
        self._apart = {name for name, file in self._files.items() if name != PurePath(name_of(file)).name}
        for number, file in enumerate(files, 1):
            self._files.setdefault("$image" if number == 1 else f"$image{number}", file)

    def run(self, step: Step) -> StepRun:
        """Run one step whose needs have run."""
        began = time.perf_counter()
        spent = lambda: time.perf_counter() - began  # noqa: E731
        for number in step.after:
            if (earlier := self.done[number]).state != "done":
                return StepRun(step, "skipped", error=_held_up(earlier), seconds=spent())
        image = None
        try:
            fields = filled(step.args, step.task, self._output, self._media)
            asked = request(step.task, **fields)
            image = next(iter(asked.pictures()), None)
            result = self._session.run(asked, model=self._models.get(step.task), seed=self._seed)
            result = self._named(step, result)
        except NothingError as nothing:
            return StepRun(step, "skipped", error=nothing, seconds=spent(), image=image)
        except ManylensError as error:
            return StepRun(step, "failed", error=error, seconds=spent(), image=image)
        except Exception as error:  # a fault of one step must not lose the work of the others
            _log.exception("step %d (%s) failed", step.id, step.task)
            wrapped = EngineError(f"step {step.id} ({step.task}): {error}", "report it")
            return StepRun(step, "failed", error=wrapped, seconds=spent(), image=image)
        return StepRun(step, "done", result, seconds=spent(), image=image)

    def _named(self, step: Step, result: Any) -> Any:
        """What is cut out of boxes keeps the names of the boxes."""
        ref = Ref.parse(step.args.get("objects"))
        source: Any = self.done[ref.step].result if ref is not None else None
        if not hasattr(result, "xyxy") or not hasattr(source, "xyxy") or not len(result):
            return result
        return named_as(result, [str(name) for name in source.data["class_name"]])

    def _output(self, ref: Ref) -> Any:
        earlier = self.done[ref.step]
        try:
            return output(earlier.result, ref.output, earlier.image)
        except NothingError:
            raise NothingError(f"step {ref.step} ({earlier.step.task}) found nothing to go on with") from None

    def _media(self, name: str) -> Any:
        if name not in self._files:
            if spoken_of := unnamed(name):
                noun, number = spoken_of
                what = f"{noun} {number} was not given" if number else f"no {noun} was given"
                raise MediaError(what, f"name the {noun} after the request")
            if not self._files:
                raise MediaError(f"{name}: no file was given", "name the picture after the request")
            raise MediaError(f"{name}: is not among the files given", "name it after the request")
        file = self._files[name]
        if not isinstance(file, Image) and _is_picture(file):
            file = self._files[name] = Image.of(file)  # decoded once for all steps
        if isinstance(file, Image) and name in self._apart:
            file = self._files[name] = renamed(file, name)
        return file


def _held_up(earlier: StepRun) -> NothingError:
    verb = "failed" if earlier.state == "failed" else "was skipped"
    return NothingError(f"step {earlier.step.id} ({earlier.step.task}), which it needs, {verb}")


def _is_picture(file: Any) -> bool:
    return kind_of_file(name_of(file)) == "image"
