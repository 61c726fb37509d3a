"""Between the pixels of a picture and the cells of a grid of patches over the whole of it."""

from __future__ import annotations

import numpy as np


def cover(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """How much of each cell a mask covers: float32 ``(rows, columns)`` in 0..1.

    Args:
        mask: bool ``(H, W)``, or shares in 0..1.
        shape: ``(rows, columns)`` of the grid.
    """
    import cv2

    plane = np.ascontiguousarray(mask, np.float32)
    rows, columns = shape
    # The mean over an area is exact where the grid is the coarser one, so a thin object still weighs something.
    how = cv2.INTER_AREA if plane.shape[0] >= rows and plane.shape[1] >= columns else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(plane, (columns, rows), interpolation=how), np.float32)


def upsampled(planes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Planes of a grid at a picture's size, bilinear between the middles of cells: float32 ``(C, H, W)``.

    Args:
        planes: float ``(C, rows, columns)``.
        size: ``(width, height)`` in pixels.
    """
    import cv2

    planes = np.ascontiguousarray(planes, np.float32)
    if not len(planes):
        return np.zeros((0, size[1], size[0]), np.float32)
    return np.stack([cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR) for plane in planes])


def unit(features: np.ndarray) -> np.ndarray:
    """Features ``(..., D)`` as rows of length 1: float32 ``(N, D)``."""
    flat = np.asarray(features, np.float32).reshape(-1, features.shape[-1])
    return np.asarray(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12), np.float32)
