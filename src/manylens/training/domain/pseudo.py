"""Self-training (class-balanced, Zou et al., 2018): what the model is surest of in each class becomes a label.

A threshold for all classes would take the easy classes only. So each class gets its own: what the surest share of the
pictures that are told as it reach. A picture is labelled where its probability by the threshold is the largest, and
passes it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.nn import functional

IGNORED = -100
"""The label of what is not sure enough; torch's cross entropy passes over it."""

Floats = npt.NDArray[np.floating]


class Pseudo(NamedTuple):
    """Pseudo-labels.

    Attributes:
        labels: int64 ``(N, ...)``; :data:`IGNORED` where the model is not sure.
        thresholds: ``(C,)``.
        taken: ``(C,)``: how many of each class.
    """

    labels: npt.NDArray[np.int64]
    thresholds: npt.NDArray[np.float64]
    taken: npt.NDArray[np.int64]


def share_at(round: int, start: float = 0.2, step: float = 0.05, most: float = 0.5) -> float:
    """Which share of each class is taken in a round, from 0: more and more, as in the paper."""
    return min(start + step * round, most)


def thresholds(probabilities: Floats, share: float, *, least: float = 0.0) -> npt.NDArray[np.float64]:
    """The threshold of each class.

    Args:
        probabilities: ``(N, C, ...)``.
        share: Of what is told as a class, how much passes, 0..1.
        least: What no threshold is below, whatever the share.

    Returns:
        ``(C,)``; 1 for a class that nothing is told as.
    """
    rows = _rows(probabilities)
    told, sure = rows.argmax(axis=1), rows.max(axis=1)
    found = np.ones(rows.shape[1])
    for label in range(rows.shape[1]):
        own = np.sort(sure[told == label])[::-1]
        count = int(np.floor(share * len(own)))
        if len(own):
            found[label] = own[max(count, 1) - 1]
    return np.clip(found, max(least, 1e-6), 1.0)


def pseudo_labels(
    probabilities: Floats, share: float = 1.0, *, confidence: float = 0.0, limits: Floats | None = None
) -> Pseudo:
    """Labels for what the model is sure of.

    Args:
        probabilities: ``(N, C)`` of pictures, ``(N, C, H, W)`` of pixels; they sum to 1 over C.
        share: Of what is told as a class, the surest part that is taken; 1 for all above ``confidence``.
        confidence: From which a label counts, in any class.
        limits: ``(C,)``, thresholds that were found before, instead of both.
    """
    rows = _rows(probabilities)
    found = thresholds(probabilities, share, least=confidence) if limits is None else np.asarray(limits, np.float64)
    ratio = rows / found
    best = ratio.argmax(axis=1)
    passed = np.take_along_axis(ratio, best[:, None], axis=1)[:, 0] >= 1 - 1e-9
    labels = np.where(passed, best, IGNORED).astype(np.int64)
    taken = np.bincount(best[passed], minlength=rows.shape[1])
    return Pseudo(labels.reshape(probabilities.shape[0], *probabilities.shape[2:]), found, taken)


def self_training_loss(logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Cross entropy of what has a pseudo-label, its mean; 0 (with a gradient of 0) where nothing has.

    Args:
        logits: ``(B, C)``, or ``(B, C, H, W)``.
        labels: int64 ``(B,)``, or ``(B, H, W)``; :data:`IGNORED` is passed over.
        label_smoothing: As of torch's cross entropy: pseudo-labels may be wrong.
    """
    if not bool((labels != IGNORED).any()):
        return logits.sum() * 0.0
    return functional.cross_entropy(logits, labels, ignore_index=IGNORED, label_smoothing=label_smoothing)


def _rows(probabilities: Floats) -> npt.NDArray[np.float64]:
    """``(N, C, ...)`` as ``(N * ..., C)``."""
    found = np.asarray(probabilities, np.float64)
    return np.moveaxis(found, 1, -1).reshape(-1, found.shape[1])
