"""Dense matching: where in a picture is what examples show, found by the patches that are most alike.

Each patch asks how like it is to what the examples mark and how like it is to what lies beside it in the same
pictures; the difference decides. What is beside the mask of a cup says what is no cup, nothing about plates: so a
class is held against the surroundings in its own examples only, and classes against each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from manylens.models.dense.grids import unit, upsampled

NEIGHBOURS = 3
"""Patches whose mean cosine is the likeness: one alone follows noise, many blur a thing of few patches."""

TEMPERATURE = 0.05
"""A margin ``m`` between the two likenesses gives the score ``1 / (1 + exp(-m / temperature))``."""

_LEAST_BESIDE = 0.05
"""A patch that a mask covers less than this is beside it; those between are on the edge, and speak for neither."""

_ALONE = 0.75
"""Share of a class's likeness to itself that stands for the surroundings, where a mask fills its whole picture."""

_CELLS = 1 << 24
"""Most cosines at once: 64 MiB."""


@dataclass(frozen=True, eq=False)
class Shown:
    """An example on a grid.

    Attributes:
        features: float ``(rows, columns, D)`` over the whole example picture; of any length.
        cover: float ``(rows, columns)`` in 0..1: how much of each patch the mask covers, as :func:`grids.cover` gives.
    """

    features: np.ndarray
    cover: np.ndarray

    def inside(self) -> np.ndarray:
        """Patches of the thing, unit length ``(n, D)``, at least one: those covered by half of the most or more."""
        return unit(self.features)[(self.cover >= max(self.cover.max(), 1e-6) / 2).ravel()]

    def beside(self) -> np.ndarray:
        """Patches beside the thing, unit length ``(n, D)``; none where the mask fills the picture."""
        return unit(self.features)[(self.cover < min(_LEAST_BESIDE, max(self.cover.max(), 1e-6) / 2)).ravel()]


def scores(
    features: np.ndarray,
    classes: Sequence[Sequence[Shown]],
    *,
    neighbours: int = NEIGHBOURS,
    temperature: float = TEMPERATURE,
) -> np.ndarray:
    """How surely each patch of a picture shows each class: float32 ``(C, rows, columns)`` in 0..1.

    0.5 is as like the class as its surroundings. Classes are not held against each other here: :func:`masks` does.

    Args:
        features: float ``(rows, columns, D)`` of the picture, of the examples' encoder and layer.
        classes: The examples of each class, one or more.
        neighbours: How many of the nearest patches speak; see :data:`NEIGHBOURS`.
        temperature: See :data:`TEMPERATURE`.
    """
    shape, asked = features.shape[:2], unit(features)
    planes = np.empty((len(classes), *shape), np.float32)
    for number, examples in enumerate(classes):
        inside = np.concatenate([example.inside() for example in examples])
        beside = np.concatenate([example.beside() for example in examples])
        level: np.ndarray | float
        if len(beside):
            level = likeness(asked, beside, neighbours)
        else:
            level = _ALONE * float(np.median(likeness(inside, inside, neighbours + 1)))
        margin = likeness(asked, inside, neighbours) - level
        planes[number] = (1 / (1 + np.exp(-margin / temperature))).reshape(shape)
    return planes


def likeness(asked: np.ndarray, bank: np.ndarray, neighbours: int) -> np.ndarray:
    """Mean cosine of each vector to the nearest of a bank: float32 ``(n,)``; both of unit length."""
    most = min(neighbours, len(bank))
    found = np.empty(len(asked), np.float32)
    step = max(1, _CELLS // len(bank))
    for start in range(0, len(asked), step):
        cosines = asked[start : start + step] @ bank.T
        found[start : start + step] = np.partition(cosines, len(bank) - most, axis=1)[:, -most:].mean(axis=1)
    return found


def masks(planes: np.ndarray, size: tuple[int, int], threshold: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Masks at a picture's size, each pixel of at most one class, and how sure each is.

    Args:
        planes: float ``(C, rows, columns)``, as :func:`scores` gives.
        size: ``(width, height)`` of the picture.
        threshold: A pixel below this belongs to no class.

    Returns:
        bool ``(C, H, W)`` and float32 ``(C,)``: the mean score under each mask; the largest score anywhere where it is
        empty.
    """
    if not len(planes):
        return np.zeros((0, size[1], size[0]), bool), np.zeros(0, np.float32)
    # One plane at the picture's size after the other: all would be gigabytes for many classes and a large photo.
    (top,), best = upsampled(planes[:1], size), np.zeros(size[::-1], np.int32)
    most = [top.max()]
    for number, plane in enumerate(planes[1:], start=1):
        (full,) = upsampled(plane[None], size)
        most.append(full.max())
        best[full > top] = number
        np.maximum(top, full, out=top)
    found = np.empty((len(planes), *best.shape), bool)
    for number, mask in enumerate(found):
        np.logical_and(best == number, top >= threshold, out=mask)
    sure = [top[mask].mean() if mask.any() else largest for mask, largest in zip(found, most, strict=True)]
    return found, np.array(sure, np.float32)
