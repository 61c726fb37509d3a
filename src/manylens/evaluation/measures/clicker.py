"""A simulated user who clicks where a mask is most wrong.

The protocol of interactive segmentation (Sofiiuk et al. 2021, "Reviving iterative training with mask guidance"; used
again by Kirillov et al. 2023, "Segment anything", appendix D): of what is missing and of what is too much, find the
point that lies deepest inside, and click the deeper of the two.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

BoolMask = npt.NDArray[np.bool_]


class Click(NamedTuple):
    """A click on a pixel; ``inside`` says whether it is on the object or on what is not the object."""

    x: int
    y: int
    inside: bool


class Clicker:
    """Clicks on one object; deterministic, and never twice on the same pixel.

    Args:
        truth: bool ``(H, W)``, the object.
        ignore: bool ``(H, W)``, pixels that nobody minds about; None for none.
    """

    def __init__(self, truth: BoolMask, ignore: BoolMask | None = None) -> None:
        self.clicks: list[Click] = []
        self._truth = np.asarray(truth, bool)
        self._open = np.ones_like(self._truth) if ignore is None else ~np.asarray(ignore, bool)

    def click(self, predicted: BoolMask | None = None) -> Click | None:
        """The next click.

        Args:
            predicted: bool ``(H, W)``, the mask so far; None before the first click, which is the object's deepest
                point then.

        Returns:
            The click, which joins :attr:`clicks`; None where no pixel is wrong that was not clicked already.
        """
        found = np.zeros_like(self._truth) if predicted is None else np.asarray(predicted, bool)
        missing, excess = self._deepest(self._truth & ~found), self._deepest(found & ~self._truth)
        depth, x, y = missing if missing[0] > excess[0] else excess
        if depth <= 0:
            return None
        made = Click(x, y, inside=missing[0] > excess[0])
        self._open[y, x] = False
        self.clicks.append(made)
        return made

    def _deepest(self, wrong: BoolMask) -> tuple[float, int, int]:
        """Depth, x and y of the first (topmost, then leftmost) deepest pixel that may be clicked; depth 0 for none."""
        depth = depth_inside(wrong)
        depth[~self._open] = 0
        y, x = np.unravel_index(np.argmax(depth), depth.shape)
        return float(depth[y, x]), int(x), int(y)


def depth_inside(mask: BoolMask) -> npt.NDArray[np.float32]:
    """Distance of each pixel of a mask to the nearest pixel that is not of it, what lies off the picture included.

    Args:
        mask: bool ``(H, W)``.

    Returns:
        float32 ``(H, W)``, 0 outside of the mask; Euclidean, exact.
    """
    import cv2

    padded = np.pad(mask, 1).astype(np.uint8)
    return np.asarray(cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1], np.float32).copy()
