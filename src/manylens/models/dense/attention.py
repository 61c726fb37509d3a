"""From what a class token attends to, to the main thing in a picture, as DINO (Caron et al. 2021) shows it.

DINO keeps, of each head's attention to the patches, the largest that together hold 60 % of the mass. Heads look at
different parts of the same thing, and each leaves gaps; so here their mean, smoothed over neighbours, is what is kept,
of that the piece that holds most, without holes.
"""

from __future__ import annotations

import numpy as np

from manylens.models.dense.grids import upsampled

KEPT = 0.6
"""Share of the attention that is kept."""

_SMOOTH = 1.0
"""Standard deviation in patches, of the Gaussian that goes over the mean of the heads."""

_WITH_IT = 0.3
"""A piece apart that holds this share of the largest piece's attention belongs to the thing, too."""


def kept(attention: np.ndarray, share: float = KEPT) -> np.ndarray:
    """The patches that hold most of the attention: bool ``(..., rows, columns)``.

    Args:
        attention: float ``(..., rows, columns)``, not negative; each map on its own.
        share: Of the mass of each map, that the fewest patches hold together.
    """
    flat = attention.reshape(-1, attention.shape[-2] * attention.shape[-1]).astype(np.float64)
    order = np.argsort(flat, axis=1, kind="stable")
    mass = np.cumsum(np.take_along_axis(flat, order, axis=1), axis=1)
    found = np.zeros(flat.shape, bool)
    np.put_along_axis(found, order, mass > (1 - share) * mass[:, -1:], axis=1)
    return found.reshape(attention.shape)


def main_object(attention: np.ndarray, size: tuple[int, int], share: float = KEPT) -> tuple[np.ndarray, float]:
    """The main thing of a picture.

    Args:
        attention: float ``(heads, rows, columns)``: the class token's attention to each patch.
        size: ``(width, height)`` of the picture.
        share: As in :func:`kept`.

    Returns:
        The mask, bool ``(H, W)`` with at least one pixel, and a score in 0..1: how much denser attention is inside
        than outside, 0 where it is the same.
    """
    import cv2

    mean = (attention / np.maximum(attention.sum(axis=(1, 2), keepdims=True), 1e-12)).mean(axis=0)
    mean = cv2.GaussianBlur(mean.astype(np.float32), (0, 0), _SMOOTH, borderType=cv2.BORDER_REPLICATE)
    chosen = kept(mean, share)
    # The level between the last patch that is kept and the first that is not: the same set, with edges between cells.
    level = (mean[chosen].min() + (mean[~chosen].max() if not chosen.all() else 0.0)) / 2
    full = upsampled(mean[None], size)[0]
    mask = full >= min(level, float(full.max()))
    count, pieces = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    mass = np.bincount(pieces.ravel(), weights=full.ravel(), minlength=count)
    mass[0] = 0
    found = _filled((mass >= _WITH_IT * mass.max())[pieces] & mask)
    inside = float(full[found].mean())
    outside = float(full[~found].mean()) if not found.all() else inside
    return found, 1 - min(1.0, outside / max(inside, 1e-12))


def _filled(mask: np.ndarray) -> np.ndarray:
    """The mask with the holes in it; what reaches the picture's edge is no hole."""
    import cv2

    framed = np.pad(~mask, 1, constant_values=True).astype(np.uint8)
    _, pieces = cv2.connectedComponents(framed, connectivity=4)
    return np.asarray(pieces[1:-1, 1:-1] != pieces[0, 0])
