"""What the number of examples of each class gives: weights, priors, margins.

One rule for a class that has no example at all: it is taken to be as rare as the rarest class that has some. So nothing
is infinite, and such a class weighs no more than one that was seen.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from manylens.training.errors import TrainError

FloatArray = npt.NDArray[np.float64]

Over = Literal["data", "classes"]
"""Over what the mean of the weights is 1: over the examples, or over the classes that have any."""


def tally(labels: Any, classes: int) -> npt.NDArray[np.int64]:
    """How many examples each class has.

    Args:
        labels: Integers of any shape; or a list with a set, list or tuple of classes for each picture, where a class
            counts once a picture. A number that is no class, such as an index to ignore, is not counted.
        classes: How many there are.

    Returns:
        int64 ``(classes,)``.
    """
    if isinstance(labels, list | tuple) and any(isinstance(one, set | frozenset | list | tuple) for one in labels):
        labels = [label for one in labels for label in set(one)]
    found = np.asarray(labels, dtype=np.int64).ravel()
    held: npt.NDArray[np.int64] = np.bincount(found[(found >= 0) & (found < classes)], minlength=classes)
    return held


def checked(counts: Any) -> FloatArray:
    """Counts of the classes as float64 ``(C,)``.

    Raises:
        TrainError: There are none, one is negative or no number, or all are 0.
    """
    held = np.asarray(counts, dtype=np.float64)
    if held.ndim != 1 or not held.size:
        raise TrainError(f"counts: have the shape {held.shape}", "give one count a class")
    wrong = np.flatnonzero(~(np.isfinite(held) & (held >= 0)))
    if wrong.size:
        raise TrainError(f"counts: class {wrong[0]} has {held[wrong[0]]:g} examples", "give 0 or more")
    if not held.any():
        raise TrainError("counts: no class has an example", "give labels of at least one class")
    return held


def filled(counts: Any) -> FloatArray:
    """The counts, with that of the rarest class that has examples where a class has none: float64 ``(C,)``."""
    held = checked(counts)
    return np.where(held > 0, held, held[held > 0].min())


def inverse(counts: Any, *, power: float = 1.0, over: Over = "data") -> FloatArray:
    """Weights that fall with the frequency of a class.

    With the default values, ``N / (K n)`` for N examples of K classes that have any, n of this class.

    Args:
        counts: Examples of each class.
        power: Of the frequency; 0.5 is the inverse square root.
        over: What their mean is taken over.

    Returns:
        float64 ``(C,)``.
    """
    return _normalised(filled(counts) ** -power, checked(counts), over)


def effective(counts: Any, *, beta: float = 0.999, over: Over = "classes") -> FloatArray:
    """Weights by the effective number of examples, ``(1 - beta) / (1 - beta ** n)`` (Cui et al., 2019).

    Args:
        counts: Examples of each class.
        beta: 0 weighs all alike; towards 1 it becomes the inverse frequency.
        over: What their mean is taken over; the paper's weights sum to the number of classes.

    Returns:
        float64 ``(C,)``.

    Raises:
        TrainError: ``beta`` is not in [0, 1).
    """
    if not 0 <= beta < 1:
        raise TrainError(f"beta: {beta:g} is out of range", "give 0 or more and less than 1, such as 0.999")
    held = filled(counts)
    return _normalised(1 / (1 - beta**held), checked(counts), over)


def log_prior(counts: Any) -> FloatArray:
    """Logarithm of the share of each class: float64 ``(C,)``, finite."""
    return np.log(filled(counts) / checked(counts).sum())


def margins(counts: Any, *, largest: float = 0.5) -> FloatArray:
    """Margins ``largest * (rarest / n) ** (1 / 4)`` (Cao et al., 2019): float64 ``(C,)``."""
    held = filled(counts)
    return largest * (held.min() / held) ** 0.25


def _normalised(weights: FloatArray, counts: FloatArray, over: Over) -> FloatArray:
    share = counts if over == "data" else counts > 0
    return weights * (share.sum() / (weights * share).sum())
