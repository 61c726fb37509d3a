"""Masks as runs: COCO's run lengths, column by column, beginning with the pixels outside; as in segment-anything.

A full set of masks of a large photo is kept so: hundreds of masks as pixels would take gigabytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def encode(window: np.ndarray, corner: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """The run lengths of a mask.

    Args:
        window: bool ``(h, w)``, the part of the mask outside of which nothing is set; stored column by column
            (Fortran order) it is not copied.
        corner: ``(x, y)`` of its upper left pixel in the picture.
        size: ``(width, height)`` of the picture.

    Returns:
        int64 ``(R,)``, outside and inside by turns, of all pixels; the first is 0 where the mask begins at once.
    """
    (left, top), (width, height) = corner, size
    rows, columns = window.shape
    ends = width * height
    if not window.size:
        return np.array([ends])
    if rows == height:
        flat = window.T.reshape(-1)
    else:
        padded = np.zeros((columns, height), bool)
        padded[:, top : top + rows] = window.T
        flat = padded.reshape(-1)
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + (left * height + 1)
    edges = [np.zeros(1, np.int64), changes, np.array([ends])]
    if flat[0]:  # the mask is set from the window's first pixel on
        edges.insert(1, np.array([left * height]))
    if flat[-1] and left + columns < width:
        edges.insert(-1, np.array([(left + columns) * height]))
    return np.diff(np.concatenate(edges))


def decode(counts: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The mask, bool ``(H, W)``, of run lengths and ``(width, height)``; stored column by column."""
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape(size).T


def area(counts: np.ndarray) -> int:
    """Pixels that are set."""
    return int(counts[1::2].sum())


def to_coco(counts: np.ndarray, size: tuple[int, int]) -> dict[str, Any]:
    """The compressed form that pycocotools and JSON take: ``size`` ``[height, width]`` and ``counts`` as text."""
    from pycocotools import mask as coco

    width, height = size
    body = coco.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)
    return {"size": [height, width], "counts": body["counts"].decode("ascii")}
