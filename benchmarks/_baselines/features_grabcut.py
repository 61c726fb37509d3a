"""Baseline of the promptable segmenter: patch features pick the seeds, GrabCut (Rother et al., 2004) draws the mask."""

from __future__ import annotations

import cv2
import numpy as np

SIDE = 320  # working pixels of the longer side, as GrabCut is slow
ITERATIONS = 1  # more let the colours drift away from what the features said
BELIEVED = 0.5  # overlap with the features' own mask below which the cut has lost the object


def _similarity(patches: np.ndarray, seeds: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Cosine of every patch (gh, gw, C) with the mean of those in ``seeds`` bool (gh, gw), as float32 (h, w)."""
    flat = patches - patches.reshape(-1, patches.shape[2]).mean(0)
    flat = flat / (np.linalg.norm(flat, axis=2, keepdims=True) + 1e-6)
    centre = flat[seeds].mean(0)
    cosine = flat @ (centre / (np.linalg.norm(centre) + 1e-6))
    return cv2.resize(cosine.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR).reshape(size)


def segment(
    rgb: np.ndarray,
    patches: np.ndarray,
    *,
    point: tuple[float, float] | None = None,
    box: tuple[float, float, float, float] | None = None,
) -> np.ndarray:
    """One mask bool (H, W) for a click or a box.

    Args:
        rgb: uint8 (H, W, 3).
        patches: float32 (gh, gw, C) over the whole picture.
        point: (x, y) on the object.
        box: (x0, y0, x1, y1) around the object; used instead of the point when given.
    """
    height, width = rgb.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    h, w = max(1, round(height * scale)), max(1, round(width * scale))
    small = cv2.resize(rgb, (w, h), interpolation=cv2.INTER_AREA)
    gh, gw = patches.shape[:2]
    trimap = np.full((h, w), cv2.GC_PR_BGD, np.uint8)
    seeds = np.zeros((gh, gw), bool)
    if box is not None:
        x0, y0, x1, y1 = (round(v * scale) for v in box)
        x1, y1 = max(x1, x0 + 1), max(y1, y0 + 1)
        # The middle of the box is object more often than not; the outside is background for sure.
        qx, qy = (x1 - x0) / 4, (y1 - y0) / 4
        rows = slice(int((y0 + qy) / h * gh), max(int((y1 - qy) / h * gh), int((y0 + qy) / h * gh) + 1))
        columns = slice(int((x0 + qx) / w * gw), max(int((x1 - qx) / w * gw), int((x0 + qx) / w * gw) + 1))
        seeds[rows, columns] = True
        similarity = _similarity(patches, seeds, (h, w))
        inside = np.zeros((h, w), bool)
        inside[y0:y1, x0:x1] = True
        trimap[:] = cv2.GC_BGD
        trimap[inside] = np.where(similarity[inside] > 0.3, cv2.GC_PR_FGD, cv2.GC_PR_BGD)
        if not (trimap == cv2.GC_PR_FGD).any():
            trimap[inside] = cv2.GC_PR_FGD
    else:
        assert point is not None
        x, y = min(int(point[0] * scale), w - 1), min(int(point[1] * scale), h - 1)
        seeds[min(int(y / h * gh), gh - 1), min(int(x / w * gw), gw - 1)] = True
        similarity = _similarity(patches, seeds, (h, w))
        similar = (similarity > 0.4).astype(np.uint8)
        similar[y, x] = 1
        _, parts = cv2.connectedComponents(similar)
        trimap[parts == parts[y, x]] = cv2.GC_PR_FGD
        trimap[similarity < 0.0] = cv2.GC_BGD
        cv2.circle(trimap, (x, y), 3, cv2.GC_FGD, -1)
    similar_part = np.isin(trimap, (cv2.GC_FGD, cv2.GC_PR_FGD))
    try:
        cv2.setRNGSeed(0)
        cv2.grabCut(
            small[..., ::-1].copy(),
            trimap,
            None,
            np.zeros((1, 65)),
            np.zeros((1, 65)),
            ITERATIONS,
            cv2.GC_INIT_WITH_MASK,
        )
    except cv2.error:  # all object or all background: nothing to cut
        pass
    mask = np.isin(trimap, (cv2.GC_FGD, cv2.GC_PR_FGD))
    if (mask & similar_part).sum() <= BELIEVED * (mask | similar_part).sum():
        mask = similar_part
    return cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST).astype(bool)
