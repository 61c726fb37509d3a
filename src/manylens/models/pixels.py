"""Pictures to what a network takes. All arrays are RGB.

Resizing is PIL's, as in the families' own processors; :func:`squeezed` is for networks that have none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5)

How = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]


def resized(rgb: np.ndarray, size: tuple[int, int], how: How = "bilinear") -> np.ndarray:
    """uint8 ``(H, W, 3)`` or ``(H, W)`` as uint8 of ``size`` ``(width, height)``, antialiased as PIL does."""
    from PIL import Image

    if rgb.shape[1::-1] == tuple(size):
        return rgb
    return np.asarray(Image.fromarray(rgb).resize(size, getattr(Image.Resampling, how.upper())))


def squeezed(rgb: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 ``(H, W, 3)`` as ``size`` ``(width, height)``, its aspect not kept: nothing is cut off.

    OpenCV's, which is faster than PIL's: means of areas where the longer side shrinks, else bicubic. Features that are
    kept depend on each byte of it.
    """
    import cv2

    if rgb.shape[1::-1] == tuple(size):
        return rgb
    shrinks = max(rgb.shape[:2]) > max(size)
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC))


def resized_middle(rgb: np.ndarray, size: tuple[int, int], crop: tuple[int, int], how: How) -> np.ndarray:
    """The middle ``crop`` of ``(H, W, 3)`` resized to ``size``, both ``(width, height)``, without making the rest.

    For a picture of one row, whose rest would fill the memory.
    """
    from PIL import Image

    (width, height), (wide, high) = size, crop
    left, top = (width - wide) // 2, (height - high) // 2
    across, down = rgb.shape[1] / width, rgb.shape[0] / height
    box = (left * across, top * down, (left + wide) * across, (top + high) * down)
    return np.asarray(Image.fromarray(rgb).resize(crop, getattr(Image.Resampling, how.upper()), box=box))


def longest_side(size: tuple[int, int], side: int) -> tuple[int, int]:
    """``(width, height)`` scaled so that the longer side is ``side``; halves round up, as in segment-anything."""
    scale = side / max(size)
    return int(size[0] * scale + 0.5), int(size[1] * scale + 0.5)


def shortest_edge(size: tuple[int, int], edge: int) -> tuple[int, int]:
    """``(width, height)`` scaled so that the shorter side is ``edge``, the longer one cut to a whole number."""
    width, height = size
    short, long = min(size), max(size)
    other = int(edge * long / short)
    return (edge, other) if width <= height else (other, edge)


def centre_cropped(rgb: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The middle ``(width, height)`` of ``(H, W, 3)``; zeros around a picture that is smaller."""
    width, height = size
    high, wide = rgb.shape[:2]
    if high < height or wide < width:
        top, left = max(0, (height - high + 1) // 2), max(0, (width - wide + 1) // 2)
        padded = np.zeros((max(high, height), max(wide, width), *rgb.shape[2:]), rgb.dtype)
        padded[top : top + high, left : left + wide] = rgb
        rgb, (high, wide) = padded, padded.shape[:2]
    top, left = (high - height) // 2, (wide - width) // 2
    return rgb[top : top + height, left : left + width]


def normalised(
    rgb: np.ndarray, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> np.ndarray:
    """uint8 ``(..., H, W, 3)`` to float32 ``(..., 3, H, W)``: over 255, less the mean, over the deviation."""
    scaled = (rgb.astype(np.float32) / 255 - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
    return np.ascontiguousarray(np.moveaxis(scaled, -1, -3))


def padded(planes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """``(..., H, W)`` with zeros to the right and below up to ``size`` ``(width, height)``."""
    width, height = size
    margins = [(0, 0)] * (planes.ndim - 2) + [(0, height - planes.shape[-2]), (0, width - planes.shape[-1])]
    return np.pad(planes, margins)
