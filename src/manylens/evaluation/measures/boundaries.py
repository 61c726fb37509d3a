"""How well two masks agree: J, their overlap, and F, their outlines, as DAVIS defines them (Perazzi et al. 2016)."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

BoolMask = npt.NDArray[np.bool_]

TOLERANCE = 0.008
"""How far an outline may be off, as a share of the picture's diagonal; rounded up to whole pixels."""


def region_overlap(found: BoolMask, truth: BoolMask) -> float:
    """J: intersection over union; 1 where both are empty."""
    union = np.count_nonzero(found | truth)
    return np.count_nonzero(found & truth) / union if union else 1.0


def outline_agreement(found: BoolMask, truth: BoolMask, tolerance: float = TOLERANCE) -> float:
    """F: harmonic mean of the shares of either outline that lie close to the other.

    Args:
        found: bool ``(H, W)``.
        truth: bool ``(H, W)``.
        tolerance: As a share of the diagonal.

    Returns:
        0..1; 1 where neither has an outline, 0 where one alone has.
    """
    reach = math.ceil(tolerance * math.hypot(*truth.shape))
    ours, theirs = outline(found), outline(truth)
    if not ours.any() or not theirs.any():
        return float(not ours.any() and not theirs.any())
    precision = np.count_nonzero(ours & _near(theirs, reach)) / np.count_nonzero(ours)
    recall = np.count_nonzero(theirs & _near(ours, reach)) / np.count_nonzero(theirs)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def outline(mask: BoolMask) -> BoolMask:
    """Pixels that differ from the one to the right, the one below or the one right below; the picture's edge is none.

    Args:
        mask: bool ``(H, W)``.
    """
    edge = np.pad(np.asarray(mask, bool), ((0, 1), (0, 1)), mode="edge")
    here = edge[:-1, :-1]
    return np.asarray((here ^ edge[:-1, 1:]) | (here ^ edge[1:, :-1]) | (here ^ edge[1:, 1:]), bool)


def _near(line: BoolMask, reach: int) -> BoolMask:
    """Pixels within a distance of a line: what a dilation with a disk gives, at a cost that does not grow with it."""
    import cv2

    away = cv2.distanceTransform((~line).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(away <= reach + 1e-3, bool)  # squares of distances are whole numbers: none lies in between
