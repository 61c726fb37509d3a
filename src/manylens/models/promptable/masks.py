"""Low-resolution logits to masks of the photo: two bilinear resizes, composed into one banded matrix an axis.

A decoder's logits are thought of at the network's resolution, without the padding, and then at the photo's; both steps
are bilinear (half-pixel centres, no antialiasing), as in ``Sam.postprocess_masks`` of segment-anything. Bilinear steps
compose: each row and column of the photo depends on two to four of the logits' own. So the large middle picture is
never made, and what lies around the mask is not computed at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from manylens.media import bounds
from manylens.models.promptable.prompts import Canvas

_PRODUCT = 1 << 18
"""Multiplications of one matrix product. What is made at a time stays in the cache until it is compared, and a product
of this size is not shared out among threads, which would wait for each other longer than they work."""


def full_size(low_res: np.ndarray, canvas: Canvas, threshold: float = 0.0) -> np.ndarray:
    """Logits as masks of the photo.

    Args:
        low_res: float32 ``(N, S, S)`` logits over the network's whole square.
        canvas: How the photo lies in that square.
        threshold: A pixel belongs to the mask where its logit is above it.

    Returns:
        bool ``(N, H, W)``.
    """
    width, height = canvas.size
    masks = np.zeros((len(low_res), height, width), bool)
    for logits, mask in zip(low_res, masks, strict=True):
        _fill(np.asarray(logits, np.float32), canvas, threshold, mask)
    return masks


def boxes(masks: np.ndarray) -> np.ndarray:
    """Boxes ``xyxy``, max exclusive, of bool ``(N, H, W)``: float32 ``(N, 4)``, zeros for an empty mask."""
    found = [bounds(mask) or (0, 0, 0, 0) for mask in masks]
    return np.array(found, np.float32).reshape(-1, 4)


def _fill(logits: np.ndarray, canvas: Canvas, threshold: float, mask: np.ndarray) -> None:
    """Set what lies in the mask, within the part of the photo that the logits above the threshold can reach."""
    inside = logits > threshold
    reached = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if not len(reached[0]):
        return
    across, down = resize_matrices(len(logits), canvas)
    top, bottom = _reach(down, reached[0])
    left, right = _reach(across, reached[1])
    if top >= bottom or left >= right:
        return
    wide = np.empty((len(logits), right - left), np.float32)
    for columns in _steps(across, left, right, len(logits)):
        used = _span(across[columns])
        np.matmul(logits[:, used], across[columns, used].T, out=wide[:, columns.start - left : columns.stop - left])
    for rows in _steps(down, top, bottom, right - left):
        used = _span(down[rows])
        np.greater(down[rows, used] @ wide[used], threshold, out=mask[rows, left:right])


def _steps(matrix: np.ndarray, start: int, end: int, others: int) -> Iterator[slice]:
    """Ranges of a resize matrix's rows whose product with ``others`` columns is small."""
    # Rows n meet n * density + 3 sources: n * (n * density + 3) * others is to be the product.
    density = matrix.shape[1] / matrix.shape[0]
    step = max(1, int(((9 + 4 * density * _PRODUCT / others) ** 0.5 - 3) / (2 * density)))
    for first in range(start, end, step):
        yield slice(first, min(first + step, end))


def _reach(matrix: np.ndarray, sources: np.ndarray) -> tuple[int, int]:
    """The range of rows of a resize matrix that some of the sources have a weight in."""
    rows = np.flatnonzero(matrix[:, sources[0] : sources[-1] + 1].any(axis=1))
    return (int(rows[0]), int(rows[-1]) + 1) if len(rows) else (0, 0)


def _span(rows: np.ndarray) -> slice:
    """The range of columns in which some rows have weights."""
    columns = np.flatnonzero(rows.any(axis=0))
    return slice(int(columns[0]), int(columns[-1]) + 1)


def resize_matrices(low: int, canvas: Canvas) -> tuple[np.ndarray, np.ndarray]:
    """The matrices ``(W, low)`` and ``(H, low)`` that take logits ``(low, low)`` to the photo."""
    side, inner = (low, (low, low)) if canvas.direct else (canvas.side, canvas.inner)
    return resize_matrix(low, side, inner[0], canvas.size[0]), resize_matrix(low, side, inner[1], canvas.size[1])


@lru_cache(maxsize=64)
def resize_matrix(low: int, side: int, inner: int, photo: int) -> np.ndarray:
    """The matrix ``(photo, low)`` that takes logits along one axis to the photo; its rows sum to 1.

    Args:
        low: Logits along the axis.
        side: Pixels of the network's square.
        inner: Pixels of it that the photo fills.
        photo: Pixels of the photo.
    """
    outer, inward = _taps(inner, photo), _taps(low, side)
    matrix, rows = np.zeros((photo, low), np.float32), np.arange(photo)
    for place, share in ((outer[0], 1 - outer[2]), (outer[1], outer[2])):
        # Of a pixel of the middle picture, its two logits; no row has one place twice in a turn.
        for source, weight in ((inward[0], 1 - inward[2]), (inward[1], inward[2])):
            matrix[rows, source[place]] += (share * weight[place])[:, 0].astype(np.float32)
    matrix.flags.writeable = False
    return matrix


def _taps(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two sources of each place, ``(new,)``, and the weight ``(new, 1)`` of the second one.

    Half-pixel centres, edges repeated, no antialiasing.
    """
    centre = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    first = np.floor(centre).astype(int)
    return first, np.minimum(first + 1, old - 1), (centre - first)[:, None]
