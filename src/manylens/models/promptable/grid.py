"""Where a full set of masks is looked for: a grid of points, on the photo and on crops of it.

After ``segment_anything.utils.amg`` (Kirillov et al. 2023, section "zero-shot ... everything" of the appendix).
"""

from __future__ import annotations

from itertools import product

import numpy as np

Crop = tuple[int, int, int, int]
"""``x0, y0, x1, y1`` in pixels of the photo, max exclusive."""

_NEAR = 20.0
"""Pixels within which a mask is said to end at the edge of a crop."""


def points(per_side: int) -> np.ndarray:
    """The centres of ``per_side ** 2`` equal cells, float64 ``(N, 2)`` x and y in 0..1, row by row."""
    half = 1 / (2 * per_side)
    along = np.linspace(half, 1 - half, per_side)
    return np.stack(np.meshgrid(along, along), axis=-1).reshape(-1, 2)


def crops(size: tuple[int, int], layers: int, overlap_ratio: float) -> list[tuple[Crop, int]]:
    """The photo and its crops, each with its layer; layer ``i`` has ``(2 ** i) ** 2``.

    Args:
        size: ``(width, height)`` of the photo.
        layers: Of crops; 0 for the photo alone.
        overlap_ratio: By how much the crops of the first layer overlap, of the shorter side; halved in each next one.
    """
    width, height = size
    found: list[tuple[Crop, int]] = [((0, 0, width, height), 0)]
    for layer in range(1, layers + 1):
        count = 2**layer
        overlap = int(overlap_ratio * min(size) * (2 / count))
        wide, high = (-(-(overlap * (count - 1) + side) // count) for side in size)
        lefts, tops = ([(side - overlap) * i for i in range(count)] for side in (wide, high))
        found += [((x0, y0, min(x0 + wide, width), min(y0 + high, height)), layer) for x0, y0 in product(lefts, tops)]
    return found


def cut_off(boxes: np.ndarray, crop: Crop, size: tuple[int, int]) -> np.ndarray:
    """Which boxes end at an edge of their crop that is no edge of the photo: such a mask goes on outside the crop.

    Args:
        boxes: ``(N, 4)`` xyxy in pixels of the photo, max inclusive as in segment-anything.
        crop: The crop.
        size: ``(width, height)`` of the photo.

    Returns:
        bool ``(N,)``.
    """
    near = [np.abs(boxes - np.array(edges, np.float32)) <= _NEAR for edges in (crop, (0, 0, *size))]
    return (near[0] & ~near[1]).any(axis=1)
