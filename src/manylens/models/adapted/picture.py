"""How an adapted model sees a picture: as a square of its side, in training as later."""

from __future__ import annotations

import numpy as np

from manylens.models import pixels

PREPROCESSING = "square-1"
"""Raise it when :func:`square` gives other pixels."""


def square(rgb: np.ndarray, side: int) -> np.ndarray:
    """uint8 ``(H, W, 3)`` as ``(side, side, 3)``, its aspect not kept: nothing is cut off."""
    return pixels.squeezed(rgb, (side, side))
