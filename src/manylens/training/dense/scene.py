"""A picture as a square with its objects, and one such picture pasted onto another (Ghiasi et al., 2021)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from manylens.training.dense import geometry
from manylens.training.dense.geometry import BoolMasks

Pixels = npt.NDArray[np.uint8]

LEAST, PIXELS = 0.05, 4
"""An object of which less than this share is left to be seen, or fewer pixels, is not asked for."""


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture as a square, and its objects.

    Attributes:
        classes: int64 ``(k,)``, :data:`store.NO_CLASS` where not judged.
        boxes: float32 ``(k, 4)`` xyxy in pixels of the square.
        crowd: bool ``(k,)``.
        masks: bool ``(k, side, side)``; None where they are not asked for.
        pixels: uint8 ``(side, side, 3)``; None where they are not asked for.
    """

    classes: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float32]
    crowd: npt.NDArray[np.bool_]
    masks: BoolMasks | None
    pixels: Pixels | None = None

    def __len__(self) -> int:
        return len(self.classes)

    def only(self, keep: npt.NDArray[np.generic]) -> Scene:
        """The same with some of the objects."""
        masks = None if self.masks is None else self.masks[keep]
        return replace(self, classes=self.classes[keep], boxes=self.boxes[keep], crowd=self.crowd[keep], masks=masks)


def pasted(scene: Scene, other: Scene, *, soft: float = 0.0) -> Scene:
    """A scene with the objects of another on top; what they hide is no longer asked for, and boxes fit what is left.

    Args:
        scene: With masks; where it has pixels, the other has too.
        other: Likewise, of the same side.
        soft: Deviation in pixels by which the edges are blurred; 0 for none.
    """
    assert scene.masks is not None
    assert other.masks is not None
    if not len(other):
        return scene
    on = other.masks.any(axis=0)
    left = scene.masks & ~on
    before, after = scene.masks.sum(axis=(1, 2)), left.sum(axis=(1, 2))
    boxes = np.where((after < before)[:, None], geometry.around(left), scene.boxes)
    stays = (after >= PIXELS) & (after >= LEAST * before)
    pixels = scene.pixels
    if pixels is not None:
        assert other.pixels is not None
        share = np.asarray(on, np.float32)
        if soft:
            share = np.asarray(cv2.GaussianBlur(share, (0, 0), soft), np.float32)
        pixels = (pixels + share[..., None] * (other.pixels.astype(np.float32) - pixels)).round().astype(np.uint8)
    kept = replace(scene, masks=left, boxes=boxes.astype(np.float32)).only(stays)
    assert kept.masks is not None
    return Scene(
        np.concatenate([kept.classes, other.classes]),
        np.concatenate([kept.boxes, other.boxes]),
        np.concatenate([kept.crowd, other.crowd]),
        np.concatenate([kept.masks, other.masks]),
        pixels,
    )
