"""The plan: steps over the tasks as a typed graph, checked whole before anything runs.

An argument of a step is a plain value, the name of a file, or a reference to what an earlier step gives, such as
``"$1.masks"``. What each task gives and what each argument takes is derived from the tasks' own declarations.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator

from manylens.agent.kinds import accepts, gives, kind_of, media_kinds
from manylens.errors import PlanError
from manylens.tasks import TASKS

_REF = re.compile(r"\$(\d+)\.([a-z_]+)")
_LOOKS_LIKE_REF = re.compile(r"\$\d")

FIRST_IMAGE = "$image"
"""Names the picture of a request that came without files."""

_UNNAMED = re.compile(r"\$(image|audio|video)(\d*)")
_NOUNS = {"image": "picture", "audio": "sound", "video": "video"}


class Ref(NamedTuple):
    """A reference to an output of a step; ``$1.masks`` in text."""

    step: int
    output: str

    def __str__(self) -> str:
        return f"${self.step}.{self.output}"

    @classmethod
    def parse(cls, value: Any) -> Self | None:
        """The reference that a value is, or None for a plain value."""
        match = _REF.fullmatch(value) if isinstance(value, str) else None
        return cls(int(match[1]), match[2]) if match else None


class Step(BaseModel):
    """One step: a task with its arguments.

    Attributes:
        id: Its number in the plan, from 1.
        task: The task's name.
        args: Argument to value; a value may be a reference, or a list that holds references.
        after: The steps that must have run before; those that the arguments refer to are added.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: int = Field(ge=1)
    task: str
    args: dict[str, Any] = Field(default_factory=dict)
    after: tuple[int, ...] = Field((), validate_default=True)

    @field_validator("after")
    @classmethod
    def _complete(cls, after: tuple[int, ...], info: Any) -> tuple[int, ...]:
        return tuple(sorted({*after, *(ref.step for ref in refs_in(info.data.get("args", {})))}))

    @property
    def refs(self) -> tuple[Ref, ...]:
        """The references in its arguments."""
        return tuple(refs_in(self.args))


class Plan(BaseModel):
    """A request as steps; valid once it exists.

    Attributes:
        request: What was asked, in the user's words.
        steps: The steps, each after those that it needs.
        unclear: The parts of the request that were not understood, word for word.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    request: str = ""
    steps: tuple[Step, ...] = ()
    unclear: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _checked(self) -> Self:
        check(self.steps)
        return self

    @classmethod
    def of(cls, data: Mapping[str, Any] | str) -> Self:
        """Read a plan from its JSON form, as text or parsed.

        Raises:
            PlanError: It is not JSON, not a plan, or a plan that cannot run; the step at fault is named.
        """
        try:
            return cls.model_validate(json.loads(data) if isinstance(data, str) else data)
        except json.JSONDecodeError as failure:
            raise PlanError(f"plan: not JSON ({failure})", "give an object with steps and unclear") from None
        except ValidationError as failure:
            first = failure.errors(include_url=False)[0]
            raise PlanError(
                f"plan: {_place(first['loc'])}: {first['msg']}", "each step has id, task, args, after"
            ) from None

    def to_json(self) -> dict[str, Any]:
        """The public form: ``{"steps": [{"id", "task", "args", "after"}], "unclear": [...]}``."""
        return {"steps": [step.model_dump(mode="json") for step in self.steps], "unclear": list(self.unclear)}

    def step(self, number: int) -> Step:
        """The step with that id."""
        return next(step for step in self.steps if step.id == number)

    def media(self) -> tuple[str, ...]:
        """The names of the files that the plan uses, each once."""
        return tuple(dict.fromkeys(name for step in self.steps for name in _media_of(step)))

    def describe(self) -> str:
        """The plan for people, one step a line."""
        lines = []
        for step in self.steps:
            args = ", ".join(f"{name}: {_shown(value)}" for name, value in step.args.items())
            waits = f"  (after {', '.join(map(str, step.after))})" if step.after else ""
            lines.append(f"  {step.id}. {step.task}  {args}{waits}")
        return "\n".join(lines)

    def waves(self) -> Iterator[tuple[Step, ...]]:
        """The steps in an order that can run; those of one wave do not depend on each other."""
        order = TopologicalSorter({step.id: step.after for step in self.steps})
        order.prepare()
        while order.is_active():
            ready = sorted(order.get_ready())
            yield tuple(self.step(number) for number in ready)
            order.done(*ready)


def unnamed(name: str) -> tuple[str, str] | None:
    """Noun and number of a file that was spoken of without one being given: ``("picture", "")``, or None."""
    match = _UNNAMED.fullmatch(name)
    return (_NOUNS[match[1]], match[2]) if match else None


def spoken(name: str) -> str:
    """A value of the plan for people: a file without a name is "the picture" or "picture 2"."""
    match unnamed(name):
        case (noun, number):
            return f"{noun} {number}" if number else f"the {noun}"
    return name


def refs_in(value: Any) -> Iterator[Ref]:
    """Every reference in a value, also inside lists and objects."""
    if (ref := Ref.parse(value)) is not None:
        yield ref
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from refs_in(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from refs_in(part)


def check(steps: Iterable[Step]) -> None:
    """Refuse steps that could not run, before any does.

    Raises:
        PlanError: A duplicated id, an unknown task or argument, a missing argument, a value or a reference of the wrong
            type, a reference to nothing, or a circle; the step is named.
    """
    steps = tuple(steps)
    known: dict[int, Step] = {}
    for step in steps:
        if step.id in known:
            raise PlanError(f"step {step.id}: two steps have this id", "number the steps 1, 2, 3")
        known[step.id] = step
    for step in steps:
        _check_task(step)
        for number in step.after:
            if number not in known:
                raise PlanError(
                    f"step {step.id}: depends on step {number}, which is not in the plan", "name a step that is"
                )
    for step in steps:
        for name, value in step.args.items():
            _check_value(step, name, value, known)
    try:
        tuple(TopologicalSorter({step.id: step.after for step in steps}).static_order())
    except CycleError as failure:
        circle = failure.args[1]
        path = " -> ".join(str(number) for number in circle)
        raise PlanError(
            f"step {min(circle)}: it waits for itself ({path})", "let each step depend on earlier ones only"
        ) from None


def _check_task(step: Step) -> None:
    task = TASKS.get(step.task)
    if task is None or task.workflow:
        possible = ", ".join(name for name, each in TASKS.items() if not each.workflow)
        raise PlanError(f"step {step.id}: {step.task!r} is not a task that a step can do", f"the tasks are {possible}")
    fields = task.request.model_fields
    for name in step.args:
        if name not in fields:
            raise PlanError(f"step {step.id}: {step.task} has no argument {name!r}", f"it has {', '.join(fields)}")
    for name, field in fields.items():
        if field.is_required() and name not in step.args:
            raise PlanError(f"step {step.id}: {step.task} needs {name!r}", "give it, or refer to an earlier step")


def _check_value(step: Step, name: str, value: Any, known: Mapping[int, Step]) -> None:
    where = f"step {step.id}: {name!r} of {step.task}"
    if (ref := Ref.parse(value)) is not None:
        _check_ref(step, name, ref, known)
        return
    if isinstance(value, str) and _LOOKS_LIKE_REF.match(value):
        raise PlanError(f"{where}: {value!r} is not a reference", "write $1.masks: the step's number and an output")
    found = tuple(refs_in(value))
    for ref in found:
        _check_ref(step, name, ref, known)
    if found:
        return
    kind = kind_of(step.task, name)
    if kind in media_kinds:
        if not isinstance(value, (str, list, tuple)) or not value:
            raise PlanError(f"{where} is not the name of a file: {value!r}", "name a file, or refer to an earlier step")
        return
    if kind == "example":
        return  # it names files, which need not exist yet
    try:
        annotation: Any = TASKS[step.task].request.model_fields[name].annotation
        TypeAdapter(annotation).validate_python(value)
    except ValidationError as failure:
        raise PlanError(f"{where}: {failure.errors(include_url=False)[0]['msg']}", "give a value that fits") from None


def _check_ref(step: Step, name: str, ref: Ref, known: Mapping[int, Step]) -> None:
    where = f"step {step.id}: {name!r} of {step.task} refers to {ref}"
    if ref.step not in known:
        raise PlanError(f"{where}, but there is no step {ref.step}", "refer to a step of the plan")
    outputs = gives(known[ref.step].task)
    if ref.output not in outputs:
        raise PlanError(f"{where}, which {known[ref.step].task} does not give", f"it gives {', '.join(outputs)}")
    kind, taken = outputs[ref.output], accepts(step.task, name)
    if kind not in taken:
        raise PlanError(f"{where}, which is {kind}", f"{name} takes {' or '.join(sorted(taken)) or 'no reference'}")


def _media_of(step: Step) -> Iterator[str]:
    for name, value in step.args.items():
        if kind_of(step.task, name) in media_kinds:
            for each in value if isinstance(value, (list, tuple)) else (value,):
                if isinstance(each, str) and Ref.parse(each) is None:
                    yield each


def _shown(value: Any) -> str:
    return ", ".join(map(_shown, value)) if isinstance(value, (list, tuple)) else spoken(str(value))


def _place(location: tuple[int | str, ...]) -> str:
    if len(location) > 1 and location[0] == "steps" and isinstance(location[1], int):
        return f"step {location[1] + 1}: {'.'.join(map(str, location[2:])) or 'value'}"
    return ".".join(map(str, location)) or "value"
