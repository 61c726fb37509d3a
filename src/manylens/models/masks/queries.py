"""From queries (a class and a mask each) to regions: semantic, instance, panoptic.

The rules are those of the authors' code and of transformers' processors: the same weights give the same regions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

Upsample = Callable[[np.ndarray], np.ndarray]
"""One plane at the judged size to float32 of the picture's size."""

MASK, OVERLAP = 0.5, 0.8


@dataclass(frozen=True)
class Segment:
    """A region: its mask bool ``(H, W)``, class number and score."""

    mask: np.ndarray
    label: int
    score: float


def softmax(logits: np.ndarray) -> np.ndarray:
    """Along the last axis."""
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Element by element, without overflow."""
    return (0.5 * (1 + np.tanh(0.5 * logits))).astype(np.float32)


def class_planes(classes: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """How much each pixel belongs to each class: float32 ``(C, h, w)``.

    Args:
        classes: Logits ``(Q, C + 1)``, the last for no object.
        masks: Logits ``(Q, h, w)``.
    """
    chances = softmax(classes)[:, :-1].astype(np.float32)
    height, width = masks.shape[1:]
    return (chances.T @ sigmoid(masks).reshape(len(masks), -1)).reshape(-1, height, width)


def semantic(planes: Iterable[np.ndarray], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The best class of each pixel, int32 ``(H, W)``, and how much it belongs to it.

    Args:
        planes: One ``(H, W)`` for each class, at the picture's size; only one is held at a time.
        size: ``(width, height)``.
    """
    best = np.full((size[1], size[0]), -np.inf, np.float32)
    label = np.zeros((size[1], size[0]), np.int32)
    for number, plane in enumerate(planes):
        better = plane > best
        best[better] = plane[better]
        label[better] = number
    return label, best


def panoptic(
    classes: np.ndarray,
    masks: np.ndarray,
    upsample: Upsample,
    *,
    threshold: float,
    stuff: frozenset[int],
    sure_only: bool,
) -> list[Segment]:
    """Regions that do not overlap; those of a stuff class are one.

    Args:
        classes: Logits ``(Q, C + 1)``, the last for no object.
        masks: What ``upsample`` takes, ``(Q, h, w)``.
        upsample: A mask's probabilities at the picture's size.
        threshold: The least class probability of a query.
        stuff: Class numbers whose regions are fused.
        sure_only: Whether a region ends where its probability falls below one half, as EoMT's does; else it is all
            that it wins, and its own area is judged by its score times its probability, as in transformers'
            Mask2Former.
    """
    chances = softmax(classes)
    labels, scores = chances.argmax(-1), chances.max(-1)
    kept = np.flatnonzero((labels != classes.shape[1] - 1) & (scores > threshold))
    if not len(kept):
        return []
    winner, sure, own = _contest(kept, scores, masks, upsample, sure_only)
    segments: list[Segment] = []
    fused: dict[int, int] = {}
    for place, query in enumerate(kept):
        mask, label = winner == place, int(labels[query])
        area = int(mask.sum())
        if not area or not own[place] or area / own[place] <= OVERLAP:
            continue
        if sure_only:
            mask &= sure
            if not mask.any():
                continue
        if label in fused:
            first = segments[fused[label]]
            segments[fused[label]] = Segment(first.mask | mask, label, first.score)
            continue
        if label in stuff:
            fused[label] = len(segments)
        segments.append(Segment(mask, label, float(scores[query])))
    return segments


def _contest(
    kept: np.ndarray, scores: np.ndarray, masks: np.ndarray, upsample: Upsample, sure_only: bool
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Which query wins each pixel (its place in ``kept``), whether it is sure of it, and the area of each alone."""
    winner: np.ndarray = np.empty(0)
    best: np.ndarray = np.empty(0)
    sure: np.ndarray = np.empty(0)
    own: list[int] = []
    for place, query in enumerate(kept):
        chance = upsample(masks[query])
        weighed = chance * np.float32(scores[query])
        alone = (chance if sure_only else weighed) >= MASK
        own.append(int(alone.sum()))
        if place == 0:
            winner, best, sure = np.zeros(weighed.shape, np.int32), weighed, alone
        else:
            better = weighed > best
            winner[better] = place
            best[better] = weighed[better]
            sure[better] = alone[better]
    return winner, sure, own


def instances(
    classes: np.ndarray,
    masks: np.ndarray,
    judged: Upsample,
    full: Upsample,
    *,
    threshold: float,
    several: bool,
) -> list[Segment]:
    """Regions of things, each for itself; they may overlap.

    Args:
        classes: Logits ``(Q, C + 1)``, the last for no object.
        masks: Logits ``(Q, h, w)``.
        judged: A plane of them at the size where the mask's own score is judged.
        full: A bool plane at the picture's size, from one at the judged size.
        threshold: The least score: the class probability times the mean probability inside the mask.
        several: Whether a query may stand for several classes (Mask2Former takes the best Q pairs of query and class)
            or for its best one only (EoMT).
    """
    chances = softmax(classes)[:, :-1]
    if several:
        pairs = np.argsort(-chances, axis=None, kind="stable")[: len(classes)]
        queries, labels = np.unravel_index(pairs, chances.shape)
    else:
        queries, labels = np.arange(len(classes)), chances.argmax(-1)
    found = []
    for query, label in zip(queries, labels, strict=True):
        plane = judged(masks[query])
        inside = plane > 0
        quality = float(sigmoid(plane)[inside].sum() / (inside.sum() + 1e-6))
        score = float(chances[query, label]) * quality
        if score < threshold:
            continue
        mask = full(plane)
        if mask.any():
            found.append(Segment(mask, int(label), score))
    return found
