"""Votes of several models on classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from manylens.models.adapted.fusion.shares import shares_of
from manylens.training.errors import TrainError

Floats = npt.NDArray[np.floating]
_TINY = 1e-12


def vote(
    probabilities: Floats | Sequence[Floats],
    weights: Sequence[float] | None = None,
    *,
    how: Literal["mean", "geometric", "majority"] = "mean",
) -> npt.NDArray[np.float64]:
    """Class probabilities of the models together.

    Args:
        probabilities: ``(M, ..., C)``: of each model; they sum to 1 over C.
        weights: Of the models, at least 0; by default all count alike.
        how: ``mean`` of the probabilities; ``geometric``, the mean of their logarithms, where one model's veto counts;
            ``majority``, the share of votes, each model having one for its best class.

    Returns:
        ``(..., C)``, summing to 1.

    Raises:
        UserError: The weights do not fit.
    """
    given = np.asarray(probabilities, np.float64)
    shares = shares_of(weights, len(given))
    if how == "majority":
        given = np.eye(given.shape[-1])[given.argmax(axis=-1)]
    if how == "geometric":
        logs = np.tensordot(shares, np.log(np.maximum(given, _TINY)), axes=1)
        made = np.exp(logs - logs.max(axis=-1, keepdims=True))
    else:
        made = np.tensordot(shares, given, axes=1)
    return np.asarray(made / made.sum(axis=-1, keepdims=True))


def majority(labels: npt.NDArray[np.integer], weights: Sequence[float] | None = None) -> npt.NDArray[np.int64]:
    """The class with the most votes, ``(M, ...)`` to ``(...)``; of equal ones that of the lower number.

    Args:
        labels: Number of the class by each model; a negative one is no vote.
        weights: Of the models.

    Returns:
        int64; -1 where no model voted.
    """
    given = np.asarray(labels)
    shares = shares_of(weights, len(given))
    classes = max(int(given.max(initial=-1)) + 1, 1)
    counts = np.zeros((classes, *given.shape[1:]))
    for share, one in zip(shares, given, strict=True):
        for label in np.unique(one[one >= 0]):
            counts[label] += share * (one == label)
    return np.where(counts.max(axis=0) > 0, counts.argmax(axis=0), -1).astype(np.int64)


def fitted_weights(
    probabilities: Floats | Sequence[Floats], labels: npt.NDArray[np.integer], *, rounds: int = 200
) -> npt.NDArray[np.float64]:
    """The weights of a mean vote under which held-out labels are the most likely.

    They are found by expectation maximisation of the mixture, which never makes the labels less likely and has one best
    value to come to. What they were fitted on tells no more how good the vote is.

    Args:
        probabilities: ``(M, N, C)`` on held-out pictures.
        labels: int ``(N,)``.
        rounds: Of the search.

    Returns:
        ``(M,)``, summing to 1.

    Raises:
        TrainError: There is no picture.
    """
    given = np.asarray(probabilities, np.float64)
    if given.ndim != 3 or not given.shape[1]:
        raise TrainError("ensemble: there are no held-out pictures to fit weights on", "give a validation split")
    right = np.maximum(np.take_along_axis(given, np.asarray(labels)[None, :, None], axis=2)[:, :, 0], _TINY)
    weights = np.full(len(given), 1 / len(given))
    for _ in range(rounds):
        owed = weights[:, None] * right
        owed /= owed.sum(axis=0)
        weights = owed.mean(axis=1)
    return weights
