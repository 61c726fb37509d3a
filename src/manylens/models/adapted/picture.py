"""How an adapted model sees a picture: as a square of its side, in training as later."""

from __future__ import annotations

import numpy as np

PREPROCESSING = "square-1"
"""Raise it when :func:`square` gives other pixels."""


def square(rgb: np.ndarray, side: int) -> np.ndarray:
    """uint8 ``(H, W, 3)`` as ``(side, side, 3)``, its aspect not kept: nothing is cut off."""
    import cv2

    if rgb.shape[:2] == (side, side):
        return rgb
    shrinks = max(rgb.shape[:2]) > side
    return np.asarray(cv2.resize(rgb, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC))
