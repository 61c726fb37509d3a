"""The way in: a picture, a task and a method, and the explanation that comes of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from manylens.audit.explain import attention, blackbox, gradients
from manylens.audit.explain.explanation import Explanation
from manylens.audit.explain.options import ATTENTION, BLACK_BOX, GRADIENT, METHODS, Method, Options
from manylens.audit.explain.saliency import ModuleMethod, Opened, Saliency, pixel_score
from manylens.audit.explain.score import Target, TaskScore, task_score
from manylens.errors import PromptError, UnsupportedError
from manylens.media import Image

if TYPE_CHECKING:
    from manylens.catalog import Row
    from manylens.models.base import Trainable
    from manylens.session import Session

MODULE_METHODS: dict[Method, ModuleMethod] = {
    "attention": attention.attention,
    "rollout": attention.rollout,
    "heads": attention.heads,
    "grad-cam": gradients.grad_cam,
    "integrated-gradients": gradients.integrated_gradients,
    "occlusion": gradients.occlusion,
}
"""The methods that look inside a model; occlusion also works from outside."""


def explain(
    image: Any,
    task: str = "classify",
    *,
    target: str | Target | None = None,
    model: str | None = None,
    method: Method | None = None,
    options: Options | None = None,
    session: Session | None = None,
    seed: int = 0,
    progress: Callable[[float, str], None] | None = None,
) -> Explanation:
    """Which pixels a model's score rests on.

    Args:
        image: The picture, whatever :meth:`manylens.media.Image.of` takes.
        task: A task that ends in a score: classify, embed, detect, segment, match, answer.
        target: What the score is of: a label, thing or text, or a :class:`Target`; None takes the model's own answer.
        model: A catalog id, a hub id or a folder; None as the session chooses.
        method: ``attention``, ``rollout``, ``heads`` (transformers); ``grad-cam``, ``integrated-gradients`` (what has
            a differentiable score); ``occlusion``, ``rise`` (any). None takes Grad-CAM where it can, else RISE.
        options: What the method can be told.
        session: Runs the model; default the one behind the package's verbs.
        seed: Of RISE's masks and of the model's own random steps.
        progress: Told the fraction done by the methods that take long.

    Raises:
        UnsupportedError: The model cannot do the method; says which ones it can.
        PromptError: The target is unknown to the model, or not in the picture.
    """
    from manylens.session import default_session

    session, options = session or default_session(), options or Options()
    if method is not None and method not in METHODS:
        raise PromptError(f"method {method!r}: is none", f"name one of {', '.join(METHODS)}")
    picture, began = Image.of(image), time.perf_counter()
    asked = target if isinstance(target, Target) else Target(name=target)
    score = task_score(session, picture, task, asked, model=model, seed=seed)
    chosen, raw, inside = _saliency(session, picture, score, method, options, seed, progress)
    ran: dict[str, Any] = {"engine": "torch", "precision": "f32", "device": "cpu"} if inside else {}
    provenance = replace(
        score.provenance, seconds=round(time.perf_counter() - began, 6), seed=seed, inputs=(picture.id[:16],), **ran
    )
    return Explanation.of(
        picture,
        raw,
        method=chosen,
        task=score.task,
        target=score.target,
        score=score.value,
        provenance=provenance,
    )


def methods_of(session: Session, model: str, task: str) -> tuple[Method, ...]:
    """The methods that a model can do for a task's score.

    Args:
        session: Whose catalog knows the model.
        model: A catalog id, a hub id or a folder.
        task: The task.
    """
    with _module(session, model) as trainable:
        return _able(trainable, task)


def _able(trainable: Trainable | None, task: str) -> tuple[Method, ...]:
    if trainable is None:
        return BLACK_BOX
    attends = ATTENTION if trainable.attention is not None else ()
    scored = (task == "classify" and bool(trainable.labels)) or task == "embed"
    return (*attends, *(GRADIENT if scored else ()), *BLACK_BOX)


@contextmanager
def _module(session: Session, model: str) -> Iterator[Trainable | None]:
    """The model in its torch form, leased, or None where it has none."""
    row = session.catalog.resolve(model)
    row = row if row.family else session.weights.identify(row)
    if not has_module(row):
        yield None
        return
    with session.module(row.id) as trainable:
        yield trainable


def has_module(row: Row) -> bool:
    """Whether a model's family opens it as a torch module; asked without loading it."""
    from manylens.models import family
    from manylens.models.base import Model

    return family(row.family, row.id).trainable is not Model.trainable


@contextmanager
def opened(session: Session, image: Image, score: TaskScore) -> Iterator[Opened]:
    """The model of a score, leased with its insides open.

    Raises:
        UnsupportedError: It has no differentiable form for this score.
    """
    with session.module(score.provenance.model) as trainable:
        yield Opened(image, trainable, pixel_score(trainable, image, score))


def _saliency(
    session: Session,
    image: Image,
    score: TaskScore,
    method: Method | None,
    options: Options,
    seed: int,
    progress: Callable[[float, str], None] | None,
) -> tuple[Method, Saliency, bool]:
    """The method that was taken, its map, and whether it looked inside the model."""
    if method == "rise":  # never looks inside: nothing is loaded a second time
        return method, blackbox.rise(image, score, options, seed=seed, progress=progress), False
    model = score.provenance.model
    with _module(session, model) as trainable:
        able = _able(trainable, score.task)
        method = method or ("grad-cam" if "grad-cam" in able else "rise")
        if method not in able:
            raise UnsupportedError(
                f"{model}: cannot do {method} for {score.task}",
                f"its methods are {', '.join(able)}; or name another model",
            )
        if trainable is not None and method != "rise" and (method != "occlusion" or "grad-cam" in able):
            inside = Opened(image, trainable, pixel_score(trainable, image, score))
            return method, MODULE_METHODS[method](inside, options), True
    # No score on tensors: the picture itself is covered.
    if method == "rise":
        return method, blackbox.rise(image, score, options, seed=seed, progress=progress), False
    return method, blackbox.occlusion(image, score, options, progress=progress), False
