"""How often the nearest pictures are of the same class: what frozen features are worth, without training anything."""

from __future__ import annotations

import numpy as np

from manylens.models.dense.grids import unit
from manylens.models.dense.neighbours import TEMPERATURE, IntArray, K, voted
from manylens.training.errors import TrainError

_CELLS = 1 << 24
"""Most cosines at once: 64 MiB."""


def accuracy(
    learnt: np.ndarray,
    targets: IntArray,
    asked: np.ndarray,
    truth: IntArray,
    k: int = K,
    temperature: float = TEMPERATURE,
) -> float:
    """Share of pictures whose class the k nearest known ones vote for, weighted by likeness (Wu et al., 2018).

    Args:
        learnt: Vectors of known pictures, float ``(n, D)``.
        targets: Their classes, int64 ``(n,)``.
        asked: Vectors of others, ``(m, D)``.
        truth: Their classes.
        k: How many vote.
        temperature: A cosine ``c`` weighs ``exp(c / temperature)``.
    """
    return float((voted(learnt, targets, asked, k, temperature) == truth).mean())


def own_accuracy(vectors: np.ndarray, targets: IntArray, k: int = K, temperature: float = TEMPERATURE) -> float:
    """The same within one set: each picture is asked while all the others are known.

    Args:
        vectors: float ``(n, D)``.
        targets: Their classes, int64 ``(n,)``.
        k: How many vote.
        temperature: A cosine ``c`` weighs ``exp(c / temperature)``.

    Raises:
        TrainError: There are fewer than two pictures.
    """
    if len(vectors) < 2:
        raise TrainError("k-NN accuracy: there are fewer than two pictures with a label", "label more of them")
    vectors, k = unit(vectors), min(k, len(vectors) - 1)
    right = 0
    step = max(1, _CELLS // len(vectors))
    for start in range(0, len(vectors), step):
        cosines = vectors[start : start + step] @ vectors.T
        rows = np.arange(len(cosines))
        cosines[rows, start + rows] = -np.inf
        nearest = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
        weights = np.exp((np.take_along_axis(cosines, nearest, axis=1).astype(np.float64) - 1) / temperature)
        shares = np.zeros((len(cosines), int(targets.max()) + 1))
        np.add.at(shares, (rows[:, None], targets[nearest]), weights)
        right += int((shares.argmax(axis=1) == targets[start : start + step]).sum())
    return right / len(vectors)
