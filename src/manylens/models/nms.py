"""Non-maximum suppression: of boxes that overlap much, the best stays. Boxes are ``xyxy``."""

from __future__ import annotations

import numpy as np


def iou_matrix(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of every box of ``a`` ``(N, 4)`` with every box of ``b`` ``(M, 4)``: ``(N, M)`` in 0..1.

    An empty box meets nothing.
    """
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.prod(np.clip(high - low, 0, None), axis=2)
    areas = [np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None), axis=1) for boxes in (a, b)]
    union = areas[0][:, None] + areas[1][None] - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def nms(
    boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, *, iou: float = 0.6, limit: int = 100
) -> np.ndarray:
    """Greedy suppression, each class for itself.

    Args:
        boxes: ``(N, 4)``.
        scores: ``(N,)``; of equal scores the earlier box stays.
        classes: ``(N,)``; only boxes of one class suppress each other.
        iou: Boxes that overlap a better one by more than this go.
        limit: At most this many are kept, over all classes.

    Returns:
        Indices of the kept boxes, the best first.
    """
    left = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(left) and len(kept) < limit:
        best, left = left[0], left[1:]
        kept.append(int(best))
        overlap = iou_matrix(boxes[best][None], boxes[left])[0]
        left = left[(overlap <= iou) | (classes[left] != classes[best])]
    return np.array(kept, dtype=np.intp)
