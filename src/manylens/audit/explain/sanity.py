"""Does the map depend on what the model has learnt? Model-parameter randomisation (Adebayo et al., 2018)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.audit.explain.options import Method, Options
from manylens.audit.explain.pictures import resized
from manylens.audit.explain.run import MODULE_METHODS, methods_of, opened
from manylens.audit.explain.saliency import ModuleMethod, Opened
from manylens.audit.explain.score import Target, task_score
from manylens.errors import UnsupportedError
from manylens.media import Image

if TYPE_CHECKING:
    import torch

    from manylens.session import Session

LIMIT = 0.5
"""Rank correlation with the original map below which a method counts as having changed."""

_SIDE = 64  # maps are compared by SSIM at this size, whatever the method's own resolution


@dataclass(frozen=True)
class Stage:
    """The map after one more part was randomised.

    Attributes:
        part: The part that was randomised last; those before it stay random.
        spearman: Rank correlation with the original map, -1..1; 0 where the map became flat.
        ssim: Structural similarity with the original map, -1..1.
    """

    part: str
    spearman: float
    ssim: float


@dataclass(frozen=True)
class Randomisation:
    """The outcome of the test: a map that stays as it is does not show what the model has learnt.

    Attributes:
        stages: From the head, or the last block, down to the first; at the end the whole model is random.
    """

    stages: tuple[Stage, ...]

    @property
    def passed(self) -> bool:
        """Whether the map of the wholly random model no longer resembles the original: its correlation's size."""
        return abs(self.stages[-1].spearman) < LIMIT

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"passed": self.passed, "limit": LIMIT, "stages": [vars(stage) for stage in self.stages]}


def randomisation(
    session: Session,
    image: Image,
    task: str,
    method: Method | ModuleMethod,
    *,
    target: Target | None = None,
    model: str | None = None,
    options: Options | None = None,
    seed: int = 0,
) -> Randomisation:
    """Randomise a model part by part, from its head down, and see whether its maps change.

    The model is a copy that is leased for the test; the session's own is not touched.

    Args:
        session: Leases the model.
        image: A picture.
        task: The task whose score is explained.
        method: A method that looks inside the model, or a function of the same kind.
        target: What the score is of.
        model: The model; None as the session chooses for the task.
        options: Of the method.
        seed: Of the random weights.

    Raises:
        UnsupportedError: The model has no torch form, or cannot do the method.
    """
    score = task_score(session, image, task, target or Target(), model=model, seed=seed)
    if isinstance(method, str):
        able = methods_of(session, score.provenance.model, score.task)
        if method not in able or method not in MODULE_METHODS:
            raise UnsupportedError(
                f"{method}: the parameters of {score.provenance.model} cannot be randomised for it",
                f"name one of {', '.join(name for name in able if name in MODULE_METHODS)}",
            )
        method = MODULE_METHODS[method]
    with opened(session, image, score) as inside:
        return cascade(inside, method, options or Options(), seed=seed)


def cascade(inside: Opened, method: ModuleMethod, options: Options, *, seed: int = 0) -> Randomisation:
    """The test on a model that is already open; its weights are lost.

    Args:
        inside: The picture and the model.
        method: Makes the maps.
        options: Of the method.
        seed: Of the random weights.
    """
    import torch

    original = method(inside, options).map
    stages = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, part in _parts(inside):
            reset(part)
            found = method(inside, options).map
            stages.append(Stage(name, spearman(original, found), similarity(original, found)))
    return Randomisation(tuple(stages))


def reset(part: torch.nn.Module) -> None:
    """Initialise every layer anew that knows how to, as before training; the random state is torch's own.

    Batch norms then take the statistics of what passes: the learnt ones belong to the learnt weights, and the initial
    ones would let the signal die, which makes every map flat and the test too easy.
    """
    from torch.nn.modules.batchnorm import _BatchNorm

    for layer in part.modules():
        initialise = getattr(layer, "reset_parameters", None)
        if callable(initialise):
            initialise()
        if isinstance(layer, _BatchNorm):
            layer.train()


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Rank correlation of two maps, ties sharing their mean rank; 0 where one of them is flat."""
    from scipy.stats import rankdata

    first, second = rankdata(one, axis=None), rankdata(other, axis=None)
    first, second = first - first.mean(), second - second.mean()
    length = float(np.sqrt((first @ first) * (second @ second)))
    return float(first @ second) / length if length > 0 else 0.0


def similarity(one: np.ndarray, other: np.ndarray) -> float:
    """Structural similarity of two maps, each brought to 0..1 and to the same small size."""
    return ssim(*(_unit(resized(values, (_SIDE, _SIDE))) for values in (one, other)))


def ssim(one: np.ndarray, other: np.ndarray) -> float:
    """Structural similarity (Wang et al., 2004) of two maps ``(H, W)`` in 0..1; Gaussian windows of 11, sigma 1.5."""
    import cv2

    def mean(values: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(values, (11, 11), 1.5, borderType=cv2.BORDER_REFLECT_101)

    x, y = one.astype(np.float64), other.astype(np.float64)
    mx, my = mean(x), mean(y)
    vx, vy, both = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    values = ((2 * mx * my + c1) * (2 * both + c2)) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return float(values[5:-5, 5:-5].mean())


def _unit(values: np.ndarray) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def _parts(inside: Opened) -> Iterator[tuple[str, torch.nn.Module]]:
    """The head where there is one, then the blocks that run, the last one first, then all that is left."""
    trainable = inside.trainable
    if "head" in trainable.parts:
        yield "head", trainable.parts["head"]
    ran: set[int] = set()
    hooks = [
        block.register_forward_hook(lambda *_, number=number: ran.add(number))
        for number, block in enumerate(trainable.blocks)
    ]
    inside.score(inside.pixels)
    for hook in hooks:
        hook.remove()
    for number in sorted(ran, reverse=True):
        yield f"block.{number}", trainable.blocks[number]
    yield "the rest", trainable.module
