"""Scores to explain: one number a picture, read off the result of any task that ends in one.

The model is a black box here, asked through the session as everybody asks it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from manylens.errors import PromptError, UnsupportedError
from manylens.media import Image
from manylens.models.names import everyday
from manylens.tasks import Provenance, Request, get, provenance_of, request

if TYPE_CHECKING:
    from manylens.session import Session

_ALL = 100_000  # more labels than any closed set has
_WEAK = 0.02  # detections are kept down to here, so that the score sinks by and by and does not break off


class Score(Protocol):
    """Any score of pictures; higher is more of what is asked for."""

    def __call__(self, images: Sequence[Image], /) -> np.ndarray:
        """The scores, float ``(k,)``."""


@dataclass(frozen=True)
class Target:
    """What the score is of; what is not given is taken from the model's own answer for the picture.

    Attributes:
        name: ``classify``: a label, or an everyday name of several; ``detect``: the thing; ``segment``: the thing in
            words; ``embed`` and ``match``: a text; ``answer``: the answer.
        other: ``embed`` and ``match``: another picture.
        box: ``detect``: the region whose detection counts; ``segment``: the prompt; xyxy in pixels.
        points: ``segment``: clicks on the object, (x, y) in pixels.
        question: ``answer``: the question.
        against: ``classify``: further names to choose from, for a model that has no closed set.
    """

    name: str | None = None
    other: Image | None = None
    box: tuple[float, float, float, float] | None = None
    points: tuple[tuple[float, float], ...] = ()
    question: str | None = None
    against: tuple[str, ...] = ()


@dataclass(frozen=True)
class TaskScore:
    """The score of one task and target; made by :func:`task_score`.

    Attributes:
        task: The task.
        target: What it is of, in words.
        ask: The request for a picture.
        read: The score in a result.
        original: The result for the picture itself.
        labels: ``classify``: the labels whose scores are added up.
        reference: ``embed``: the unit vector compared with, ``(D,)``; None for the picture's own.
    """

    task: str
    target: str
    ask: Callable[[Image], Request]
    read: Callable[[Any], float]
    original: Any
    session: Session = field(repr=False)
    seed: int = 0
    labels: tuple[str, ...] = ()
    reference: np.ndarray | None = None

    @property
    def provenance(self) -> Provenance:
        """Of the answer for the picture itself."""
        found = provenance_of(self.original)
        assert found is not None
        return found

    @property
    def value(self) -> float:
        """The score of the picture itself."""
        return self.read(self.original)

    def __call__(self, images: Sequence[Image], /) -> np.ndarray:
        """See :class:`Score`."""
        asked = [self.ask(image) for image in images]
        results = self.session.map(self.task, asked, model=self.provenance.model, seed=self.seed)
        return np.array([self.read(result) for result in results], dtype=np.float64)


def task_score(
    session: Session, image: Image, task: str, target: Target, *, model: str | None = None, seed: int = 0
) -> TaskScore:
    """The score that a task ends in.

    ``classify``: probability of the label (the best one where none is named). ``embed``: cosine to a text, another
    picture, or the picture's own vector. ``detect`` and ``segment``: overlap (IoU) with the region times the score of
    the best answer, as in D-RISE (Petsiuk et al., 2021); the region is the given box, or the model's answer for the
    picture itself. ``match``: its score. ``answer``: the score of the same answer, 0 for another.

    Args:
        session: Runs the model.
        image: The picture itself.
        task: A task that ends in a score.
        target: What the score is of.
        model: As in :meth:`manylens.session.Session.run`.
        seed: Likewise.

    Raises:
        UnsupportedError: The task ends in no score, or the model cannot do it.
        PromptError: The target is unknown to the model, or the picture does not show it.
    """
    name = get(task).name
    if name not in _MAKERS:
        raise UnsupportedError(f"{task}: does not end in a score", f"name one of {', '.join(SCORED_TASKS)}")
    return _MAKERS[name](_Asker(session, name, image, target, model, seed))


def members(name: str, labels: Sequence[str]) -> list[int]:
    """Numbers of the labels that a name stands for: the label of that name, else all that people call so.

    Raises:
        PromptError: There is none; lists near names.
    """
    asked = name.casefold().strip()
    exact = [i for i, label in enumerate(labels) if label.casefold() == asked]
    if exact:
        return exact
    called = [everyday(label).casefold() for label in labels]
    found = [i for i, word in enumerate(called) if word == asked]
    if not found:
        known = sorted({*(label.casefold() for label in labels), *called})
        near = difflib.get_close_matches(asked, known, n=4, cutoff=0.5)
        near += [word for word in known if asked in word.split() and word not in near][:4]
        remedy = f"did you mean {', '.join(near[:4])}" if near else "leave it out for the model's best label"
        raise PromptError(f"target {name!r}: the model has no such label", remedy)
    return found


@dataclass(frozen=True)
class _Asker:
    """What the makers of scores share: one session, picture and target."""

    session: Session
    task: str
    image: Image
    target: Target
    model: str | None
    seed: int

    def run(self, task: str = "", model: str | None = None, **fields: Any) -> Any:
        asked = request(task or self.task, **fields)
        return self.session.run(asked, model=model or self.model, seed=self.seed)

    def score(
        self, target: str, original: Any, fields: dict[str, Any], read: Callable[[Any], float], **more: Any
    ) -> TaskScore:
        def ask(image: Image) -> Request:
            return request(self.task, image=image, **fields)

        return TaskScore(self.task, target, ask, read, original, self.session, self.seed, **more)


def _classify(asker: _Asker) -> TaskScore:
    target = asker.target
    fields: dict[str, Any] = {"top": _ALL}
    if target.against:
        if target.name is None:
            raise PromptError("target: names to choose from are given, but not the one meant", "give a target")
        fields["names"] = tuple(dict.fromkeys((target.name, *target.against)))
    original = asker.run(image=asker.image, **fields)
    known = [label.name for label in original.labels]
    chosen = [known[i] for i in members(target.name, known)] if target.name is not None else [known[0]]
    kept = frozenset(chosen)

    def read(result: Any) -> float:
        return float(sum(label.score for label in result.labels if label.name in kept))

    return asker.score(target.name or chosen[0], original, fields, read, labels=tuple(chosen))


def _embed(asker: _Asker) -> TaskScore:
    target = asker.target
    original = asker.run(image=asker.image)
    reference, said = original, "itself"
    if target.other is not None:
        reference, said = asker.run(image=target.other, model=_model(original)), target.other.name
    elif target.name is not None:
        reference, said = asker.run(text=target.name, model=_model(original)), target.name
    if reference.space != original.space:
        raise PromptError(
            f"target {said!r}: its vector is not in the space of the picture's", "name a model that takes both"
        )
    vector = reference.vector
    return asker.score(
        said,
        original,
        {},
        lambda result: float(result.vector @ vector),
        reference=None if reference is original else vector,
    )


def _detect(asker: _Asker) -> TaskScore:
    target = asker.target
    fields: dict[str, Any] = {"threshold": _WEAK}
    if target.name is not None:
        fields["names"] = (target.name,)
    original = asker.run(image=asker.image, **fields)
    found = original if target.name is not None or not len(original) else original[_named(original, 0)]
    said = target.name or (str(found.data["class_name"][0]) if len(found) else "anything")
    if target.box is None and not len(found):
        raise PromptError(f"target {said!r}: not found in {asker.image.name}", "name a thing that is there, or a box")
    region = np.asarray(target.box if target.box is not None else found.xyxy[0], dtype=float)
    wanted = {str(name) for name in found.data["class_name"]} if len(found) else None

    def read(result: Any) -> float:
        named = [wanted is None or str(name) in wanted for name in result.data.get("class_name", ())]
        scores = [
            _box_iou(box, region) * float(score)
            for box, score, fits in zip(result.xyxy, result.confidence, named, strict=True)
            if fits
        ]
        return max(scores, default=0.0)

    return asker.score(said, original, fields, read)


def _segment(asker: _Asker) -> TaskScore:
    target = asker.target
    given = {"text": target.name, "box": target.box, "points": target.points}
    fields: dict[str, Any] = {key: value for key, value in given.items() if value}
    original = asker.run(image=asker.image, **fields)
    if not len(original):
        raise PromptError(f"target {target.name!r}: not found in {asker.image.name}", "name a thing that is there")
    mask = original.mask[0]

    def read(result: Any) -> float:
        scores = [
            float((other & mask).sum() / max((other | mask).sum(), 1) * score)
            for other, score in zip(result.mask if len(result) else (), result.confidence, strict=True)
        ]
        return max(scores, default=0.0)

    return asker.score(target.name or "the object", original, fields, read)


def _match(asker: _Asker) -> TaskScore:
    target = asker.target
    fields = {"other": target.other} if target.other is not None else {"text": target.name}
    original = asker.run(image=asker.image, **fields)
    said = target.other.name if target.other is not None else str(target.name)
    return asker.score(said, original, fields, lambda result: float(result.score))


def _answer(asker: _Asker) -> TaskScore:
    target = asker.target
    if target.question is None:
        raise PromptError("question: an answer is explained, but no question is given", "give --question")
    fields = {"question": target.question}
    original = asker.run(image=asker.image, **fields)
    wanted = (target.name or original.text).casefold().strip()

    def read(result: Any) -> float:
        same = result.known and result.text.casefold().strip() == wanted
        return (1.0 if result.score is None else float(result.score)) if same else 0.0

    return asker.score(target.name or original.text, original, fields, read)


def _model(result: Any) -> str:
    found = provenance_of(result)
    assert found is not None
    return found.model


def _named(found: Any, number: int) -> np.ndarray:
    """Which detections have the class of one of them, bool ``(N,)``."""
    names = np.asarray(found.data["class_name"])
    return names == names[number]


def _box_iou(one: np.ndarray, other: np.ndarray) -> float:
    corner, opposite = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    both = np.prod(np.clip(opposite - corner, 0, None))
    either = np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - both
    return float(both / either) if either > 0 else 0.0


_MAKERS: dict[str, Callable[[_Asker], TaskScore]] = {
    "classify": _classify,
    "embed": _embed,
    "detect": _detect,
    "segment": _segment,
    "match": _match,
    "answer": _answer,
}
SCORED_TASKS = tuple(_MAKERS)
