"""Where patches are: tables that are resized for other grids, and rotations."""

from __future__ import annotations

import numpy as np


def bicubic(old: int, new: int) -> np.ndarray:
    """The matrix ``(new, old)`` of torch's bicubic resize (a = -0.75, half-pixel centres, edges repeated)."""
    if old == new:
        return np.eye(old)
    centre = (np.arange(new) + 0.5) * old / new - 0.5
    matrix = np.zeros((new, old))
    for step in range(-1, 3):
        source = np.floor(centre).astype(int) + step
        np.add.at(matrix, (np.arange(new), np.clip(source, 0, old - 1)), _cubic(source - centre, -0.75))
    return matrix


def antialiased(old: int, new: int) -> np.ndarray:
    """The matrix ``(new, old)`` of torch's antialiased bicubic resize (a = -0.5, what is outside left out)."""
    if old == new:
        return np.eye(old)
    stretch = max(old / new, 1.0)
    centre = (np.arange(new)[:, None] + 0.5) * old / new
    cells = np.arange(old)[None]
    first = np.maximum(np.trunc(centre - 2 * stretch + 0.5), 0)
    last = np.minimum(np.trunc(centre + 2 * stretch + 0.5), old)
    matrix = np.where((cells >= first) & (cells < last), _cubic((cells + 0.5 - centre) / stretch, -0.5), 0.0)
    return np.asarray(matrix / matrix.sum(axis=1, keepdims=True))


def rotations(rows: int, columns: int, size: int, theta: float) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines of DINOv3's rotary positions, float32 ``(rows * columns, size)`` each.

    Args:
        rows: Of the grid of patches.
        columns: Of the grid of patches.
        size: Channels of a head.
        theta: The base of the periods.
    """
    y, x = ((np.arange(count, dtype=np.float32) + 0.5) / count * 2 - 1 for count in (rows, columns))
    places = np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1).reshape(-1, 2, 1)
    periods = np.float32(theta) ** np.arange(0, 1, 4 / size, dtype=np.float32)
    angles = (2 * np.pi * places / periods).reshape(rows * columns, -1)
    angles = np.tile(angles, (1, 2)).astype(np.float32)
    return np.cos(angles), np.sin(angles)


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    x = np.abs(distance)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
