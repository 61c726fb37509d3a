"""Which finds of several models are one object: the matching of weighted box fusion, whatever shape objects have."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
TINY = 1e-6
"""The least that a find counts for a shape: one of score 0 has a shape, too."""


class Found(Protocol):
    """What one model found in a picture."""

    @property
    def scores(self) -> Floats:
        """Of each, ``(N,)``."""

    @property
    def classes(self) -> npt.NDArray[np.int64]:
        """Of each, ``(N,)``."""


class Shapes(Protocol):
    """Shapes of the objects that there are so far, by their numbers from 0."""

    def overlaps(self, model: int, one: int, among: Sequence[int]) -> Floats:
        """IoU of what a model found with some objects."""

    def begin(self, model: int, one: int) -> None:
        """Take what a model found as the next object."""

    def join(self, number: int, found: Mapping[int, int]) -> None:
        """Make the shape of an object anew, of what each model found of it."""


@dataclass(frozen=True, eq=False)
class Object:
    """An object that one model or several found.

    Attributes:
        label: Number of its class.
        found: Which of a model's finds it is, by the number of the model.
    """

    label: int
    found: dict[int, int]


def matched(found: Sequence[Found], shares: Floats, shapes: Shapes, iou: float) -> list[Object]:
    """The objects that models found.

    Finds are taken by falling score (times the model's share). One joins the object of its class whose fused shape it
    overlaps most, where that is ``iou`` or more and its model has none there yet; else it is an object of its own.

    Args:
        found: By each model.
        shares: Of the models; one without a share is left out.
        shapes: Empty; it holds those of the objects afterwards, in their order.
        iou: From which two finds are one object.
    """
    order = [
        (-float(shares[model] * score), model, one)
        for model, mine in enumerate(found)
        for one, score in enumerate(mine.scores.tolist())
        if shares[model]
    ]
    objects: list[Object] = []
    of_class: dict[int, list[int]] = defaultdict(list)
    for _, model, one in sorted(order):
        label = int(found[model].classes[one])
        free = [number for number in of_class[label] if model not in objects[number].found]
        overlaps = shapes.overlaps(model, one, free) if free else np.zeros(0)
        if free and overlaps.max() >= iou:
            number = free[int(overlaps.argmax())]
            objects[number].found[model] = one
            shapes.join(number, objects[number].found)
        else:
            of_class[label].append(len(objects))
            objects.append(Object(label, {model: one}))
            shapes.begin(model, one)
    return objects


def scores_of(objects: Sequence[Object], found: Sequence[Found], shares: Floats) -> Floats:
    """How sure all models together are of each object: those that did not find it say 0."""
    return np.array([sum(shares[m] * found[m].scores[one] for m, one in each.found.items()) for each in objects], float)
