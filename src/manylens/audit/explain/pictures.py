"""Pictures with parts taken away, and maps brought to another size."""

from __future__ import annotations

import numpy as np

from manylens.audit.explain.options import Baseline
from manylens.media import Image

_BLUR = 0.06  # standard deviation of the heavy blur, as a share of the longer side


def emptied(image: Image, baseline: Baseline) -> np.ndarray:
    """What stands where nothing shall be seen: uint8 ``(H, W, 3)``."""
    rgb = image.array
    if baseline == "black":
        return np.zeros_like(rgb)
    if baseline == "mean":
        return np.broadcast_to(rgb.mean(axis=(0, 1)).round().astype(np.uint8), rgb.shape).copy()
    import cv2

    sigma = max(1.0, _BLUR * max(rgb.shape[:2]))
    # A wide blur of a large picture takes minutes; of its small copy it looks the same.
    factor = max(1.0, sigma / 8)
    small = cv2.resize(rgb, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA) if factor > 1 else rgb
    small = cv2.GaussianBlur(small, (0, 0), sigma / factor, borderType=cv2.BORDER_REFLECT)
    return cv2.resize(small, rgb.shape[1::-1], interpolation=cv2.INTER_CUBIC) if factor > 1 else small


def blended(image: Image, empty: np.ndarray, mask: np.ndarray) -> Image:
    """The picture where the mask is 1, emptied where it is 0.

    Args:
        image: The picture.
        empty: uint8 ``(H, W, 3)``, see :func:`emptied`.
        mask: float32 ``(h, w)`` in 0..1, of any size; it is resized (bilinear). A bool ``(H, W)`` is taken as it is.
    """
    import cv2

    rgb = image.array
    if mask.dtype == bool:
        return Image.of(np.where(mask[..., None], rgb, empty))
    if mask.shape != rgb.shape[:2]:
        mask = cv2.resize(mask, rgb.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    mixed = cv2.blendLinear(rgb, empty, np.ascontiguousarray(mask), np.ascontiguousarray(1 - mask))
    return Image.of(mixed)


def resized(values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A map at another size: float32 ``shape``; smooth where it grows, averaged where it shrinks."""
    import cv2

    how = cv2.INTER_LINEAR if values.shape[0] < shape[0] else cv2.INTER_AREA  # bicubic would ring around peaks
    return cv2.resize(np.asarray(values, np.float32), shape[::-1], interpolation=how)
