"""Boxes around examples, as the geometry encoder of SAM 3 reads them: RoI align as two small matrices a box.

RoI align (He et al., "Mask R-CNN", 2017) averages bilinear samples on a regular grid. Both the samples and the grid are
a product of rows and columns, so a box is pooled by one matrix over rows and one over columns: no operator that an
engine would lack.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from manylens.tasks.geometry import Box


def shares(boxes: Sequence[Box], size: tuple[int, int]) -> np.ndarray:
    """Boxes ``xyxy`` in pixels of a picture as float32 ``(N, 4)``: centre, width, height, as shares of the picture.

    Args:
        boxes: At least one.
        size: ``(width, height)`` of the picture.
    """
    xyxy = np.asarray(boxes, np.float32).reshape(-1, 4) / np.array([*size, *size], np.float32)
    return np.concatenate([(xyxy[:, :2] + xyxy[:, 2:]) / 2, xyxy[:, 2:] - xyxy[:, :2]], axis=1).astype(np.float32)


def pooling(boxes: np.ndarray, cells: tuple[int, int], bins: int) -> tuple[np.ndarray, np.ndarray]:
    """The matrices that pool a map at boxes: ``rows @ map @ columns.T``.

    As ``torchvision.ops.roi_align`` without its ``aligned`` correction: a box is at least one cell, and as many samples
    are taken in a bin as it has cells, rounded up.

    Args:
        boxes: float32 ``(N, 4)`` of :func:`shares`.
        cells: Rows and columns of the map.
        bins: Rows and columns that a box is pooled to.

    Returns:
        float32 ``(N, bins, rows)`` and ``(N, bins, columns)``.
    """
    pooled = []
    for axis, count in ((1, cells[0]), (0, cells[1])):
        low = (boxes[:, axis] - boxes[:, axis + 2] / 2) * np.float32(count)
        high = (boxes[:, axis] + boxes[:, axis + 2] / 2) * np.float32(count)
        pooled.append(np.stack([_bins(a, b, count, bins) for a, b in zip(low, high, strict=True)]))
    return pooled[0], pooled[1]


def _bins(low: float, high: float, cells: int, bins: int) -> np.ndarray:
    """The matrix ``(bins, cells)`` of one axis of one box."""
    extent = max(float(high) - float(low), 1.0)
    samples = int(np.ceil(extent / bins))
    step = extent / bins
    places = float(low) + step * (np.arange(bins)[:, None] + (np.arange(samples) + 0.5) / samples)
    inside = (places >= -1) & (places <= cells)
    places = np.clip(places, 0, cells - 1)
    first = np.floor(places).astype(int)
    second = np.minimum(first + 1, cells - 1)
    weight = places - first
    matrix = np.zeros((bins, cells))
    for sample in range(samples):
        rows, share = np.arange(bins), inside[:, sample] / samples
        np.add.at(matrix, (rows, first[:, sample]), (1 - weight[:, sample]) * share)
        np.add.at(matrix, (rows, second[:, sample]), weight[:, sample] * share)
    return matrix.astype(np.float32)
