"""Non-maximum suppression: of boxes that overlap much, the best stays. Boxes are ``xyxy``."""

from __future__ import annotations

import numpy as np

_BLOCK = 128
"""Boxes that are settled among each other at a time: the tables of overlaps stay within the cache."""


def iou_matrix(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of every box of ``a`` ``(N, 4)`` with every box of ``b`` ``(M, 4)``: ``(N, M)`` in 0..1.

    An empty box meets nothing.
    """
    common = _common(a[:, None, 0], a[:, None, 2], b[:, 0], b[:, 2])
    common *= _common(a[:, None, 1], a[:, None, 3], b[:, 1], b[:, 3])
    union = areas(a)[:, None] + areas(b)[None] - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def areas(boxes: np.ndarray) -> np.ndarray:
    """Areas ``(N,)`` of boxes ``(N, 4)``; zero where a box is turned inside out."""
    return np.clip(boxes[:, 2] - boxes[:, 0], 0, None) * np.clip(boxes[:, 3] - boxes[:, 1], 0, None)


def nms(
    boxes: np.ndarray,
    scores: np.ndarray,
    classes: np.ndarray | None = None,
    *,
    iou: float = 0.6,
    limit: int | None = 100,
) -> np.ndarray:
    """Greedy suppression, each class for itself, with the results of ``torchvision.ops.batched_nms``.

    The boxes are taken in blocks by falling score. What a block keeps is found from one table of its overlaps, and then
    suppresses all later boxes at once: thousands of boxes take a few wide operations and no loop over pairs.

    Args:
        boxes: ``(N, 4)``; overlaps are computed in their type, as torchvision does.
        scores: ``(N,)``; of equal scores the earlier box stays.
        classes: ``(N,)``; only boxes of one class suppress each other. None: all are of one.
        iou: Boxes that overlap a better one by more than this go.
        limit: At most this many are kept, over all classes; None for no limit.

    Returns:
        Indices of the kept boxes, the best first.
    """
    order = np.argsort(-np.asarray(scores), kind="stable")
    boxes = np.asarray(boxes)[order]
    boxes = boxes if boxes.dtype.kind == "f" else boxes.astype(np.float64)
    classes = None if classes is None else np.asarray(classes)[order]
    limit = len(order) if limit is None else limit
    alive = np.ones(len(order), bool)
    kept: list[int] = []
    for start in range(0, len(order), _BLOCK):
        if len(kept) >= limit:
            break
        end = start + _BLOCK
        block = start + np.flatnonzero(alive[start:end])
        new = block[_settled(_suppresses(boxes, classes, block, block, iou))]
        kept += new.tolist()
        later = end + np.flatnonzero(alive[end:])
        if len(new) and len(later):
            alive[later] = ~_suppresses(boxes, classes, new, later, iou).any(axis=0)
    return order[np.array(kept[:limit], dtype=np.intp)]


def _suppresses(
    boxes: np.ndarray, classes: np.ndarray | None, better: np.ndarray, worse: np.ndarray, iou: float
) -> np.ndarray:
    """Which boxes would take which away: bool ``(len(better), len(worse))``."""
    # The threshold is a double, as in torchvision: as a float it would be another number.
    over = iou_matrix(boxes[better], boxes[worse]) > np.float64(iou)
    return over if classes is None else over & (classes[better][:, None] == classes[worse])


def _settled(over: np.ndarray) -> list[int]:
    """Which of some boxes, the best first, stay: those that no better box that stays takes away."""
    rows = np.packbits(over, axis=1, bitorder="little")
    gone, stays = 0, []
    for i, row in enumerate(rows):
        if not gone >> i & 1:
            stays.append(i)
            gone |= int.from_bytes(row.tobytes(), "little")
    return stays


def _common(low_a: np.ndarray, high_a: np.ndarray, low_b: np.ndarray, high_b: np.ndarray) -> np.ndarray:
    """How far spans ``(N, 1)`` and ``(M,)`` overlap: ``(N, M)``."""
    common = np.minimum(high_a, high_b)
    common -= np.maximum(low_a, low_b)
    return np.maximum(common, 0, out=common)
