"""Two classifiers on fixed vectors: a vote of the nearest, and a linear one.

The nearest vote is that of :mod:`manylens.models.dense.neighbours`. The linear one is a multinomial logistic regression
with an L2 penalty, fitted by L-BFGS to its optimum, as CLIP (Radford et al. 2021) is probed; the penalty is chosen on a
part of the training vectors.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from manylens.evaluation.tally import FloatArray
from manylens.models.dense.neighbours import IntArray, voted

__all__ = ["PENALTIES", "IntArray", "Probe", "voted"]

PENALTIES = tuple(float(value) for value in np.logspace(2, -6, 17))
"""What is tried, strong to weak: each start is the weights of the one before, so that all cost little more than one."""

_HELD_OUT = 0.2
_PATIENCE = 3
"""So many penalties in a row that are no better end the search."""

_CELLS = 1 << 24
"""Most numbers of a table at once: 128 MiB."""


@dataclass(frozen=True, eq=False)
class Probe:
    """A multinomial logistic regression on standardised vectors.

    Attributes:
        weights: float64 ``(D, C)``.
        bias: float64 ``(C,)``.
        mean: float64 ``(D,)``, of the vectors that it was fitted on.
        scale: float64 ``(D,)``, their standard deviation.
        penalty: l, where the mean cross entropy plus ``l / 2`` times the sum of squared weights is least.
    """

    weights: FloatArray
    bias: FloatArray
    mean: FloatArray
    scale: FloatArray
    penalty: float

    @classmethod
    def chosen(
        cls,
        vectors: np.ndarray,
        targets: IntArray,
        ids: Sequence[str],
        *,
        seed: int = 0,
        penalties: Sequence[float] = PENALTIES,
    ) -> Probe:
        """Fit with the penalty that is best on a fifth of each class, then on all.

        Args:
            vectors: float ``(n, D)``.
            targets: int64 ``(n,)``, class numbers from 0.
            ids: Of the pictures: with the seed they decide which are held out, whatever the order.
            seed: Any number.
            penalties: What is tried, strong to weak, until three in a row are no better; of level ones the stronger is
                taken.
        """
        held = _held_out(targets, ids, seed)
        if len(penalties) == 1 or not held.any():
            return cls.fitted(vectors, targets, penalties[len(penalties) // 2])
        best, least, worse, probe = penalties[0], math.inf, 0, None
        for penalty in penalties:
            probe = cls.fitted(vectors[~held], targets[~held], penalty, start=probe)
            chances = probe.probabilities(vectors[held])
            loss = -float(np.log(np.maximum(chances[np.arange(len(chances)), targets[held]], 1e-300)).mean())
            if loss < least:
                best, least, worse = penalty, loss, 0
            elif (worse := worse + 1) == _PATIENCE:  # the loss has one valley, and weak penalties take longest
                break
        return cls.fitted(vectors, targets, best)

    @classmethod
    def fitted(cls, vectors: np.ndarray, targets: IntArray, penalty: float, *, start: Probe | None = None) -> Probe:
        """The optimum under a penalty."""
        from scipy.optimize import minimize

        mean, scale = vectors.mean(axis=0, dtype=np.float64), vectors.std(axis=0, dtype=np.float64)
        scale[scale < 1e-12] = 1.0  # a feature that never changes says nothing
        width, classes = vectors.shape[1], int(targets.max()) + 1
        if start is not None and start.bias.shape == (classes,):
            first = np.concatenate([start.weights, start.bias[None]]).ravel()
        else:
            first = np.zeros((width + 1) * classes)

        kept = list(_blocks(vectors, mean, scale, classes)) if vectors.size <= _CELLS else None

        def loss(flat: FloatArray) -> tuple[float, FloatArray]:
            parameters = flat.reshape(width + 1, classes)
            gradient, total = np.zeros_like(parameters), 0.0
            for at, block in kept or _blocks(vectors, mean, scale, classes):
                logits = block @ parameters[:-1] + parameters[-1]
                logits -= logits.max(axis=1, keepdims=True)
                error = np.exp(logits)
                sums = error.sum(axis=1, keepdims=True)
                which = (np.arange(len(block)), targets[at])
                total += float((np.log(sums[:, 0]) - logits[which]).sum())
                error /= sums
                error[which] -= 1
                gradient[:-1] += block.T @ error
                gradient[-1] += error.sum(axis=0)
            gradient /= len(vectors)
            gradient[:-1] += penalty * parameters[:-1]
            return total / len(vectors) + penalty / 2 * float((parameters[:-1] ** 2).sum()), gradient.ravel()

        limits = {"maxiter": 1000, "maxcor": 20, "ftol": 1e-12, "gtol": 1e-6}
        flat = minimize(loss, first, jac=True, method="L-BFGS-B", options=limits).x
        parameters = flat.reshape(width + 1, classes)
        return cls(parameters[:-1], parameters[-1], mean, scale, penalty)

    def probabilities(self, vectors: np.ndarray) -> FloatArray:
        """Of each class for each vector, float64 ``(m, C)``."""
        logits = [
            block @ self.weights + self.bias for _, block in _blocks(vectors, self.mean, self.scale, len(self.bias))
        ]
        scores = np.concatenate(logits)
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        return scores / scores.sum(axis=1, keepdims=True)


def _blocks(
    vectors: np.ndarray, mean: FloatArray, scale: FloatArray, classes: int
) -> Iterator[tuple[slice, FloatArray]]:
    """Standardised vectors, as many at once as memory should hold."""
    step = max(1, _CELLS // max(classes, vectors.shape[1]))
    for start in range(0, len(vectors), step):
        at = slice(start, start + step)
        yield at, (vectors[at] - mean) / scale


def _held_out(targets: IntArray, ids: Sequence[str], seed: int) -> npt.NDArray[np.bool_]:
    """A fifth of the pictures of each class, none of a class with one picture only."""
    held = np.zeros(len(targets), bool)
    order = np.argsort([hashlib.sha256(f"{seed} {id}".encode()).hexdigest() for id in ids], kind="stable")
    for number in np.unique(targets):
        mine = order[targets[order] == number]
        held[mine[: min(math.ceil(len(mine) * _HELD_OUT), len(mine) - 1)]] = True
    return held
