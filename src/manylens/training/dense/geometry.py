"""Flips, scales and crops, done alike to a square of pixels, to masks, to class maps and to boxes.

A view is a few numbers, drawn from a generator that is handed in. So pictures can be encoded once for each view and
kept, and masks made anew each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

BoolMasks = npt.NDArray[np.bool_]

FILL = (124, 116, 104)
"""What is outside the picture: the mean of ImageNet, which most encoders see as 0."""


@dataclass(frozen=True)
class View:
    """A part of a square, mirrored or not, at the size of the square again.

    Attributes:
        side: Of the square, before and after, in pixels.
        window: ``x0, y0, x1, y1`` in pixels of the square: what is seen; may reach beyond it.
        flip: Whether left and right change places.
    """

    side: int
    window: tuple[int, int, int, int]
    flip: bool = False

    @property
    def plain(self) -> bool:
        """Whether it changes nothing."""
        return not self.flip and self.window == (0, 0, self.side, self.side)

    def pixels(self, square: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """uint8 ``(side, side, 3)``; antialiased where it shrinks."""
        return np.asarray(self._seen(square, FILL, self._how()), np.uint8)

    def masks(self, masks: BoolMasks) -> BoolMasks:
        """Masks bool ``(k, side, side)``."""
        return np.stack([self.mask(one) for one in masks]) if len(masks) else masks

    def mask(self, mask: BoolMasks) -> BoolMasks:
        """A mask bool ``(side, side)``: a pixel is of the object where half of it or more is."""
        if self.plain:
            return mask
        return np.asarray(self._seen(mask.astype(np.uint8) * 255, 0, self._how())) >= 128

    def labels(self, labels: npt.NDArray[np.integer], void: int) -> npt.NDArray[np.int32]:
        """A map of numbers ``(side, side)``; ``void`` outside of it."""
        seen = self._seen(labels.astype(np.float32), void, cv2.INTER_NEAREST_EXACT)
        return np.asarray(seen).astype(np.int32)

    def boxes(self, boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Boxes ``(k, 4)`` xyxy, cut off where the view ends; of no area where they are outside of it."""
        x0, y0, x1, y1 = self.window
        scale = np.array([self.side / (x1 - x0), self.side / (y1 - y0)] * 2)
        found = ((boxes - np.array([x0, y0, x0, y0])) * scale).clip(0, self.side)
        if self.flip:
            found[:, [0, 2]] = self.side - found[:, [2, 0]]
        return found.astype(np.float32)

    def _how(self) -> int:
        shrinks = max(self.window[2] - self.window[0], self.window[3] - self.window[1]) > self.side
        return cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR

    def _seen(self, plane: npt.NDArray[Any], fill: int | Sequence[int], how: int) -> npt.NDArray[Any]:
        x0, y0, x1, y1 = self.window
        inner = plane[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
        high, wide = inner.shape[:2]
        if (wide, high) != (x1 - x0, y1 - y0):
            left, top = max(-x0, 0), max(-y0, 0)
            whole = np.empty((y1 - y0, x1 - x0, *plane.shape[2:]), plane.dtype)
            whole[:] = fill
            whole[top : top + high, left : left + wide] = inner
            inner = whole
        if inner.shape[:2] != (self.side, self.side):
            inner = cv2.resize(np.ascontiguousarray(inner), (self.side, self.side), interpolation=how)
        return np.ascontiguousarray(inner[:, ::-1]) if self.flip else inner


def whole(side: int) -> View:
    """The square as it is."""
    return View(side, (0, 0, side, side))


def drawn(
    side: int, random: np.random.Generator, *, flip: float = 0.5, scale: tuple[float, float] = (0.5, 2.0)
) -> View:
    """A random view: scale jitter and crop after Ghiasi et al. (2021), and a flip.

    Args:
        side: Of the square.
        random: Draws it.
        flip: How often it is mirrored.
        scale: Smallest and largest scale; what is enlarged is cropped anywhere, what is made smaller lies anywhere in
            an empty square. (1, 1) for none.
    """
    flipped = bool(random.random() < flip)
    seen = max(round(side / random.uniform(*scale)), 1)
    low, high = sorted((0, side - seen))
    x0, y0 = (int(random.integers(low, high + 1)) for _ in range(2))
    return View(side, (x0, y0, x0 + seen, y0 + seen), flipped)


def squared(mask: BoolMasks, side: int) -> BoolMasks:
    """A mask ``(H, W)`` at the size of the square that its picture becomes, the aspect not kept: ``(side, side)``.

    A pixel is of the object where half of it or more is; an object so thin that none is keeps all that it touches.
    """
    if mask.shape == (side, side):
        return mask
    how = cv2.INTER_AREA if min(mask.shape) >= side else cv2.INTER_LINEAR
    share = cv2.resize(mask.astype(np.uint8) * 255, (side, side), interpolation=how)
    found = share >= 128
    return np.asarray(found if found.any() else share > 0)


def around(masks: BoolMasks) -> npt.NDArray[np.float32]:
    """The smallest box around each mask bool ``(k, H, W)``: float32 ``(k, 4)``, zeros where one is empty."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
        if columns.size:
            box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes
