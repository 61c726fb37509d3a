"""From shares of patches to a mask of pixels: the colours inside and outside find the outline.

GrabCut (Rother et al., SIGGRAPH 2004) starts from what the patches say: those that are surely the object or surely not
stay so, the colours of both decide between.
"""

from __future__ import annotations

import cv2
import numpy as np

WORKING_SIDE = 336
"""Pixels of the longer side in which colours decide; larger views are reduced to it, smaller ones enlarged."""

SURE, SURELY_NOT = 0.9, 0.08
SPECK = 0.02
_ROUNDS = 2
_FEWEST = 20  # pixels of a side without which it has no colours to speak of


def refined(rgb: np.ndarray, shares: np.ndarray, *, thin: bool = False, seed: int = 0) -> np.ndarray:
    """How surely each pixel of a view is the object.

    Args:
        rgb: uint8 ``(H, W, 3)``.
        shares: float32 ``(rows, columns)`` of patches over it, 0..1.
        thin: Whether the object is thinner than a patch, so that no pixel is sure to be of it.
        seed: Of the clusters of colours that GrabCut begins with.

    Returns:
        float32 ``(H, W)`` in 0..1; above one half is the object.
    """
    height, width = rgb.shape[:2]
    scale = WORKING_SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    soft = cv2.resize(shares, size, interpolation=cv2.INTER_CUBIC).reshape(size[1], size[0])
    marks = np.where(soft > 0.5, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    marks[soft < SURELY_NOT] = cv2.GC_BGD
    if not thin:
        marks[soft > SURE] = cv2.GC_FGD
    inside = int(np.count_nonzero(marks & 1))  # both kinds of object are odd
    if min(inside, marks.size - inside) >= _FEWEST:
        behind, before = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.setRNGSeed(seed)
        picture = np.ascontiguousarray(small)
        cv2.grabCut(picture, marks, (0, 0, 1, 1), behind, before, _ROUNDS, cv2.GC_INIT_WITH_MASK)
        soft = cv2.GaussianBlur(_without_specks(marks & 1).astype(np.float32), (0, 0), 1.0)
    full = cv2.resize(np.clip(soft, 0, 1), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(full, np.float32).reshape(height, width)


def _without_specks(mask: np.ndarray) -> np.ndarray:
    """uint8 ``(H, W)`` without the parts that are less than :data:`SPECK` of the whole."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask)
    areas = stats[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0
    return np.asarray((areas >= max(1.0, SPECK * areas.sum()))[parts], np.uint8)
