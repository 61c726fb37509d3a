"""How well vectors find pictures of the same class, each picture left out of its own search."""

from __future__ import annotations

import numpy as np

from manylens.models.dense.grids import unit
from manylens.models.dense.neighbours import IntArray
from manylens.training.selfsupervised.neighbours import own_accuracy

NAMES = ("map_at_r", "recall_at_1", "knn_accuracy")

_CELLS = 1 << 24
"""Most cosines at once: 64 MiB."""

_TIE = 1e-6
"""Cosines that are nearer than this are equal, and a tie counts against the vectors: equal ones find nothing."""


def retrieval(vectors: np.ndarray, targets: IntArray) -> dict[str, float]:
    """Figures of a search within one set.

    - ``map_at_r``: MAP@R (Musgrave et al., 2020): of the R nearest, R being how many others of its class there are, the
      mean of the precision at each that is right, those that are wrong counting 0.
    - ``recall_at_1``: how often the nearest is of the same class.
    - ``knn_accuracy``: how often the vote of the 20 nearest, weighted by likeness, is right.

    A picture that is alone of its class is searched in but does not ask; for the vote it does.

    Args:
        vectors: float ``(n, D)``, of any length.
        targets: int64 ``(n,)``, classes; at least one of them has two pictures.
    """
    vectors = unit(vectors)
    others = np.bincount(targets)[targets] - 1
    asks = np.flatnonzero(others > 0)
    deepest = int(others.max())
    precisions, firsts = np.zeros(len(asks)), np.zeros(len(asks))
    step = max(1, _CELLS // len(vectors))
    for start in range(0, len(asks), step):
        rows = asks[start : start + step]
        same = targets[rows][:, None] == targets
        cosines = vectors[rows] @ vectors.T - _TIE * same
        cosines[np.arange(len(rows)), rows] = -np.inf
        nearest = np.argpartition(-cosines, deepest - 1, axis=1)[:, :deepest]
        order = np.argsort(-np.take_along_axis(cosines, nearest, axis=1), axis=1, kind="stable")
        right = np.take_along_axis(same, np.take_along_axis(nearest, order, axis=1), axis=1)
        places = np.arange(1, deepest + 1)
        counted = right & (places <= others[rows][:, None])
        found = (right.cumsum(axis=1) / places * counted).sum(axis=1) / others[rows]
        precisions[start : start + step], firsts[start : start + step] = found, right[:, 0]
    values = (precisions.mean(), firsts.mean(), own_accuracy(vectors, targets))
    return dict(zip(NAMES, map(float, values), strict=True))
