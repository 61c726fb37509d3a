"""Superpixels: watershed basins of an edge map on a loose grid, and the graph of which basins touch.

The watershed follows the drainage of Cousty et al. (TPAMI 2009): every pixel flows to its lowest neighbour until it
reaches a minimum. A weak bowl in every grid cell (as in the compact watershed of Neubert & Protzel, ICPR 2014) splits
regions without edges, so that no basin is larger than about a cell.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

CELL = 16
BOWL = 0.05
BLUR = 1.0


class Adjacency(NamedTuple):
    """Which superpixels touch, and how strong the boundary between them is.

    Attributes:
        pairs: int32 (E, 2), each row a pair ``a < b`` of touching superpixels.
        length: float32 (E,), number of pixel pairs on their common boundary.
        strength: float32 (E,), mean edge probability along it, 0..1.
    """

    pairs: np.ndarray
    length: np.ndarray
    strength: np.ndarray


def watershed(edges: np.ndarray) -> np.ndarray:
    """Superpixel labels int32 (h, w), 0..N-1, of an edge map float32 (h, w) in 0..1."""
    height, width = edges.shape
    row, column = np.arange(height) % CELL - CELL // 2, np.arange(width) % CELL - CELL // 2
    bowl = (row[:, None] ** 2 + column[None] ** 2) * (BOWL / (CELL / 2) ** 2)
    elevation = cv2.GaussianBlur(edges, (0, 0), BLUR).reshape(height, width) + bowl.astype(np.float32)

    padded = np.pad(elevation, 1, constant_values=np.inf)
    index = np.arange(height * width, dtype=np.int32).reshape(height, width)
    lowest, target = elevation.copy(), index.copy()
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            neighbour = padded[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]
            lower = neighbour < lowest
            np.copyto(lowest, neighbour, where=lower)
            np.copyto(target, index + (dy * width + dx), where=lower)
    flow = target.ravel()
    while True:  # pointer jumping: the path length doubles each turn
        further = flow[flow]
        if np.array_equal(further, flow):
            break
        flow = further
    is_minimum = flow == index.ravel()
    return (np.cumsum(is_minimum, dtype=np.int32) - 1)[flow].reshape(height, width)


def adjacency(labels: np.ndarray, edges: np.ndarray) -> Adjacency:
    """The region graph of ``labels`` int32 (h, w), its boundaries weighed by ``edges`` float32 (h, w)."""
    count = int(labels.max()) + 1
    codes, values = [], []
    for here, there in (((slice(None), slice(None, -1)), (slice(None), slice(1, None))),
                        ((slice(None, -1), slice(None)), (slice(1, None), slice(None)))):  # fmt: skip
        a, b = labels[here], labels[there]
        border = a != b
        a, b = a[border].astype(np.int64), b[border].astype(np.int64)
        codes.append(np.minimum(a, b) * count + np.maximum(a, b))
        values.append(np.maximum(edges[here][border], edges[there][border]))
    unique, inverse = np.unique(np.concatenate(codes), return_inverse=True)
    length = np.bincount(inverse, minlength=len(unique))
    total = np.bincount(inverse, np.concatenate(values), minlength=len(unique))
    pairs = np.stack([unique // count, unique % count], axis=1).astype(np.int32)
    return Adjacency(pairs, length.astype(np.float32), (total / np.maximum(length, 1)).astype(np.float32))


def region_sizes(labels: np.ndarray) -> np.ndarray:
    """Pixels in each superpixel, float32 (N,)."""
    return np.bincount(labels.ravel()).astype(np.float32)


def region_means(labels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Mean of ``values`` (h, w, C) in each superpixel, float32 (N, C)."""
    flat = labels.ravel()
    sums = [np.bincount(flat, values[..., c].ravel()) for c in range(values.shape[2])]
    return (np.stack(sums, axis=1) / np.bincount(flat)[:, None]).astype(np.float32)


def region_boxes(labels: np.ndarray) -> np.ndarray:
    """Boxes (x0, y0, x1, y1), max exclusive, of all superpixels, int32 (N, 4)."""
    width = labels.shape[1]
    order = np.argsort(labels.ravel(), kind="stable")
    starts = np.searchsorted(labels.ravel()[order], np.arange(int(labels.max()) + 1))
    y, x = np.divmod(order, width)
    low, high = np.minimum.reduceat, np.maximum.reduceat
    return np.stack([low(x, starts), low(y, starts), high(x, starts) + 1, high(y, starts) + 1], axis=1).astype(np.int32)
