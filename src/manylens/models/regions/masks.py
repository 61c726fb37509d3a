"""Masks between working pixels and the picture's own, with smooth contours, and the law of clicks."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

SMOOTH = 1.5  # working pixels
SPECK = 0.01  # of the mask's area
CLICK_RADIUS = 0.006  # of the longer side: how far a click reaches that the superpixels could not obey


def to_full(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A working mask bool (h, w) as bool (H, W): blurred, resized and cut at one half, so the contour is smooth."""
    height, width = size
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), SMOOTH).reshape(mask.shape)
    full = cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR).reshape(height, width) > 0.5
    # A mask thinner than the blur must not vanish.
    return full if full.any() else resize_mask(mask, size) > 0.5


def tidy(mask: np.ndarray, clicks: Sequence[tuple[int, int]]) -> np.ndarray:
    """Remove specks and fill holes of bool (h, w) below ``SPECK`` of its area, unless a click (x, y) lies in them."""
    result = mask.copy()
    least = SPECK * float(mask.sum())
    for value in (True, False):
        _, parts, stats, _ = cv2.connectedComponentsWithStats((result == value).astype(np.uint8), connectivity=4)
        small = stats[:, cv2.CC_STAT_AREA] < least
        small[0] = False  # the label of all the rest
        small[[int(parts[y, x]) for x, y in clicks]] = False
        result[small[parts]] = not value
    return result


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask bool (h, w) as float32 (H, W): share of each new pixel that it covers (nearest when enlarging)."""
    height, width = size
    shrinks = height < mask.shape[0] or width < mask.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST
    return cv2.resize(mask.astype(np.float32), (width, height), interpolation=how).reshape(height, width)


def obey_pixels(mask: np.ndarray, points: Sequence[tuple[float, float]], labels: Sequence[int]) -> np.ndarray:
    """Set a small disc at every click that the mask bool (H, W) still disobeys; object clicks last, so they win."""
    height, width = mask.shape
    radius = round(CLICK_RADIUS * max(height, width))
    result = mask.astype(np.uint8)
    for wanted in (0, 1):
        for (x, y), label in zip(points, labels, strict=True):
            if bool(label) != bool(wanted):
                continue
            x, y = min(max(int(x), 0), width - 1), min(max(int(y), 0), height - 1)
            if result[y, x] != wanted:
                nearest = [
                    max(abs(int(a) - x), abs(int(b) - y))
                    for (a, b), other in zip(points, labels, strict=True)
                    if bool(other) != bool(label)
                ]
                cv2.circle(result, (x, y), min([radius, *(d // 2 for d in nearest)]), int(wanted), -1)
    return result.astype(bool)
