"""The part of a frame that a tracker looks at: a box around where the object is expected."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from manylens.media import bounds

LEAST = 48.0
"""Pixels of the smallest side: below, a patch of the encoder would be less than two pixels wide."""

_SLIMMEST = 0.4
"""The shorter side of a view is at least this share of the longer one, for a thin thing that turns."""


@dataclass(frozen=True)
class View:
    """A box in pixels of the frame, which may leave it.

    Attributes:
        x: Of its middle.
        y: Of its middle.
        width: In pixels.
        height: In pixels.
    """

    x: float
    y: float
    width: float
    height: float

    @classmethod
    def around(cls, mask: np.ndarray, room: float) -> View:
        """The box around a mask bool ``(H, W)``, ``room`` times as wide and high as it."""
        x0, y0, x1, y1 = bounds(mask) or (0, 0, mask.shape[1], mask.shape[0])
        least = max(LEAST, room * _SLIMMEST * max(x1 - x0, y1 - y0))
        return cls((x0 + x1) / 2, (y0 + y1) / 2, max(least, room * (x1 - x0)), max(least, room * (y1 - y0)))

    @property
    def side(self) -> float:
        """The longer side."""
        return max(self.width, self.height)

    def at(self, x: float, y: float) -> View:
        """The same box around another middle."""
        return View(x, y, self.width, self.height)

    def inside(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """What of it lies in a frame of ``(width, height)``: ``x0, y0, x1, y1``, moved inwards where it leaves it."""
        spans = []
        for middle, wanted, length in ((self.x, self.width, size[0]), (self.y, self.height, size[1])):
            side = min(length, max(1, round(wanted)))
            start = min(max(0, round(middle - side / 2)), length - side)
            spans.append((start, start + side))
        (x0, x1), (y0, y1) = spans
        return x0, y0, x1, y1

    def places(self, box: tuple[int, int, int, int], grid: tuple[int, int]) -> np.ndarray:
        """Where the patches of a grid over a box lie in the view: float32 ``(rows * columns, 2)``.

        0 is its middle and 1 its longer side, so that places of one object compare between frames, wherever it went.
        """
        x0, y0, x1, y1 = box
        rows, columns = grid
        xs = (x0 + (np.arange(columns) + 0.5) * (x1 - x0) / columns - self.x) / self.side
        ys = (y0 + (np.arange(rows) + 0.5) * (y1 - y0) / rows - self.y) / self.side
        return np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2).astype(np.float32)
