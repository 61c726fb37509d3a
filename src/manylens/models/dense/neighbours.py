"""The vote of the nearest examples, as in Wu et al. 2018 and DINO (Caron et al. 2021)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from manylens.models.dense.grids import unit

IntArray = npt.NDArray[np.int64]

TEMPERATURE = 0.07
"""A cosine ``c`` weighs ``exp(c / temperature)``."""

K = 20
"""How many examples vote; all where there are fewer."""

_CELLS = 1 << 24
"""Most cosines at once: 64 MiB."""


def votes(
    learnt: np.ndarray,
    targets: IntArray,
    asked: np.ndarray,
    k: int = K,
    temperature: float = TEMPERATURE,
    classes: int | None = None,
) -> np.ndarray:
    """The share of the votes that each class gets: float64 ``(m, C)``, rows of sum 1.

    Args:
        learnt: float ``(n, D)``, the examples.
        targets: int64 ``(n,)``, class numbers from 0.
        asked: float ``(m, D)``.
        k: How many vote; all where there are fewer.
        temperature: A cosine ``c`` weighs ``exp(c / temperature)``.
        classes: How many classes there are; as many as ``targets`` names when left out.
    """
    learnt, asked = unit(learnt), unit(asked)
    k, classes = min(k, len(learnt)), classes or int(targets.max()) + 1
    found = np.zeros((len(asked), classes))
    step = max(1, _CELLS // len(learnt))
    for start in range(0, len(asked), step):
        cosines = asked[start : start + step] @ learnt.T
        nearest = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
        which = np.arange(len(cosines))[:, None]
        near = cosines[which, nearest].astype(np.float64)
        # Only ratios matter, and so none overflows.
        weights = np.exp((near - near.max(axis=1, keepdims=True)) / temperature)
        np.add.at(found[start : start + step], (which, targets[nearest]), weights / weights.sum(axis=1, keepdims=True))
    return found


def voted(
    learnt: np.ndarray, targets: IntArray, asked: np.ndarray, k: int = K, temperature: float = TEMPERATURE
) -> IntArray:
    """The class that the nearest vote for, int64 ``(m,)``; the lower number of two that are level."""
    return np.asarray(votes(learnt, targets, asked, k, temperature).argmax(axis=1), np.int64)
