"""Low-resolution logits at the photo's size, as far as a full set of masks needs them.

A mask is stable when moving its threshold a little hardly changes it: the score is the IoU of the masks at the two
moved thresholds, counted at the photo's size. Most of that can be known from the low-resolution logits: each pixel of
the photo is a weighted mean of a few neighbouring logits, so it lies between the least and the greatest of them. Where
these bounds already say that a mask is not stable enough it is dropped, and its pixels are never made.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from manylens.models.promptable.masks import resize_matrices
from manylens.models.promptable.prompts import Canvas

_REACH = 3
"""Neighbouring logits along an axis that one pixel of the photo may depend on, for the bounds to hold."""
_SLACK = 1e-4
"""Share by which rounding may carry a weighted mean past its bounds, with room to spare."""


class Window(NamedTuple):
    """A mask at the photo's size.

    Attributes:
        mask: bool ``(h, w)``, stored column by column; outside it nothing is set.
        corner: ``(x, y)`` of its upper left pixel in the photo.
        box: Of the pixels that are set, ``x0, y0, x1, y1``, max *inclusive*; zeros where there are none.
        stability: float32; nan where not a pixel is above the lower threshold.
    """

    mask: np.ndarray
    corner: tuple[int, int]
    box: tuple[int, int, int, int]
    stability: np.float32


class Enlarger:
    """Logits to masks of one photo.

    Args:
        side: Of the logits.
        canvas: How the photo lies in the network's square.
        threshold: Logit above which a pixel belongs to the mask.
        offset: By how much the threshold is moved up and down for the stability.
    """

    def __init__(self, side: int, canvas: Canvas, threshold: float, offset: float) -> None:
        self._threshold, self._offset = threshold, offset
        across, down = resize_matrices(side, canvas)
        self.used = _used(across), _used(down)
        """Columns and rows of logits, from the top left, that the photo depends on."""
        self._across, self._down = _Axis(across[:, : self.used[0]]), _Axis(down[:, : self.used[1]])

    def hopeless(self, logits: np.ndarray, least: float) -> bool:
        """Whether the mask of logits float32 ``(S, S)``, or of those ``used``, is surely less stable than ``least``."""
        import cv2

        if max(self._across.reach, self._down.reach) > _REACH:
            return False
        logits = logits[: self.used[1], : self.used[0]]
        square = np.ones((_REACH, _REACH), np.uint8)
        slack = _SLACK * float(np.abs(logits).max())
        high = cv2.dilate(logits, square) > self._threshold + self._offset - slack
        low = cv2.erode(logits, square) > self._threshold - self._offset + slack
        above, below = (float(self._down.pixels @ (part @ self._across.pixels)) for part in (high, low))
        return bool(above < least * (1 - _SLACK) * below)

    def __call__(self, logits: np.ndarray) -> Window:
        """The mask of logits float32 ``(S, S)``, or of those ``used``, and its stability."""
        logits = logits[: self.used[1], : self.used[0]]
        low, high = self._threshold - self._offset, self._threshold + self._offset
        reached = logits > low
        rows, columns = (np.flatnonzero(reached.any(axis=axis)) for axis in (1, 0))
        if not len(rows):
            return Window(np.zeros((0, 0), bool), (0, 0), (0, 0, 0, 0), np.float32(np.nan))
        top, bottom = self._down.reached(int(rows[0]), int(rows[-1]))
        left, right = self._across.reached(int(columns[0]), int(columns[-1]))
        # Columns are rows here: the mask is stored as its run lengths are counted.
        full = self._across.applied(self._down.applied(logits, top, bottom).T, left, right)
        union, common = np.count_nonzero(full > low), np.count_nonzero(full > high)
        stability = np.float32(common) / np.float32(union) if union else np.float32(np.nan)
        mask = (full > self._threshold).T
        return Window(mask, (left, top), _box(mask, left, top), stability)


class _Axis:
    """One axis of the photo: which logits each of its pixels depends on, and how much."""

    def __init__(self, matrix: np.ndarray) -> None:
        from scipy.sparse import csr_array

        used = matrix != 0
        self._matrix = csr_array(matrix)
        self._first = used.argmax(axis=1)
        self._last = matrix.shape[1] - 1 - used[:, ::-1].argmax(axis=1)
        taps = self._last - self._first + 1
        self.reach = int(taps.max())
        middle = self._first + (taps - 1) // 2
        self.pixels = np.bincount(middle, minlength=matrix.shape[1]).astype(np.float64)
        """How many pixels have their middle logit here."""

    def reached(self, first: int, last: int) -> tuple[int, int]:
        """The range of pixels that depend on the logits ``first`` to ``last``, both included."""
        hit = np.flatnonzero((self._last >= first) & (self._first <= last))
        return (int(hit[0]), int(hit[-1]) + 1) if len(hit) else (0, 0)

    def applied(self, rows: np.ndarray, start: int, stop: int) -> np.ndarray:
        """Rows float32 ``(S, n)`` resized to the pixels ``start`` to ``stop``: ``(stop - start, n)``.

        Two to four of the rows have a weight in each pixel: a sparse product reads just those, on one thread. A dense
        one wakes all threads of the linear algebra for each of hundreds of masks, which costs more than the work.
        """
        found: np.ndarray = self._matrix[start:stop] @ np.ascontiguousarray(rows)
        return found


def _used(matrix: np.ndarray) -> int:
    """How many columns of a resize matrix there are up to the last with a weight."""
    return int(np.flatnonzero(matrix.any(axis=0))[-1]) + 1


def _box(mask: np.ndarray, left: int, top: int) -> tuple[int, int, int, int]:
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not len(columns):
        return (0, 0, 0, 0)
    return left + int(columns[0]), top + int(rows[0]), left + int(columns[-1]), top + int(rows[-1])
