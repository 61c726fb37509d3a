"""SigLIP 2's NaFlex form (Tschannen et al., 2025): a picture keeps its aspect and becomes up to N patches.

Positions are resized to the picture's own grid outside of the network, so that one compiled form serves every shape.
"""

from __future__ import annotations

import math

import numpy as np

_EPSILON = 1e-5


def grid(size: tuple[int, int], patch: int, most: int) -> tuple[int, int]:
    """``(columns, rows)``: the largest grid of at most ``most`` patches that keeps the aspect of ``(width, height)``.

    The same search as the authors', with its rounding.
    """

    def sides(scale: float) -> tuple[int, int]:
        return tuple(max(1, math.ceil(side * scale / patch)) for side in size)  # type: ignore[return-value]

    low, high = _EPSILON / 10, 100.0
    while high - low >= _EPSILON:
        middle = (low + high) / 2
        columns, rows = sides(middle)
        low, high = (middle, high) if columns * rows <= most else (low, middle)
    return sides(low)


def patches(planes: np.ndarray, patch: int, most: int) -> tuple[np.ndarray, np.ndarray]:
    """float32 ``(3, h, w)`` as patches ``(most, patch * patch * 3)``, zeros behind them, and int64 mask ``(most,)``."""
    channels, height, width = planes.shape
    cut = planes.reshape(channels, height // patch, patch, width // patch, patch).transpose(1, 3, 2, 4, 0)
    rows = cut.reshape(-1, patch * patch * channels)
    found = np.zeros((most, rows.shape[1]), np.float32)
    found[: len(rows)] = rows
    return found, (np.arange(most) < len(rows)).astype(np.int64)


def positions(table: np.ndarray, columns: int, rows: int, most: int) -> np.ndarray:
    """Position embeddings ``(most, D)`` of a grid, from the table ``(side, side, D)``; the first one fills the rest."""
    down, across = _antialiased(table.shape[0], rows), _antialiased(table.shape[1], columns)
    resized = np.einsum("yr,xc,rcd->yxd", down, across, table, optimize=True).reshape(rows * columns, -1)
    return np.concatenate([resized, np.repeat(resized[:1], most - len(resized), axis=0)]).astype(np.float32)


def _antialiased(old: int, new: int) -> np.ndarray:
    """The matrix ``(new, old)`` of a bilinear resize whose triangle widens when it shrinks, as PIL's and torch's."""
    scale = max(old / new, 1.0)
    centre = (np.arange(new) + 0.5) * old / new
    weights = np.clip(1 - np.abs(np.arange(old) + 0.5 - centre[:, None]) / scale, 0, None)
    return weights / weights.sum(axis=1, keepdims=True)
