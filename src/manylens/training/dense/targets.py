"""What heads shall answer: class maps and sets of objects, made of scenes; and which classes there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from manylens.data.records import BACKGROUND, Category
from manylens.training.dense.geometry import around
from manylens.training.dense.losses import VOID
from manylens.training.dense.scene import Scene
from manylens.training.dense.sets import Objects
from manylens.training.dense.store import NO_CLASS
from manylens.training.errors import TrainError

Kind = Literal["semantic", "instance", "panoptic"]


@dataclass(frozen=True)
class Classes:
    """The classes of a dense head.

    Attributes:
        names: Of the classes, in the order of the head's answers.
        things: Whether each has instances.
        ground: The class of pixels of which nothing is said; :data:`VOID` where they are not judged.
    """

    names: tuple[str, ...]
    things: tuple[bool, ...]
    ground: int = VOID

    @classmethod
    def of(cls, categories: Sequence[Category], *, unlabelled: Literal["void", "background"] = "void") -> Classes:
        """The classes of a data set.

        Args:
            categories: Of the data set, in its order.
            unlabelled: What pixels without annotation are: ``void``, not judged, as in label pictures that say of every
                pixel what it is; ``background``, where only objects are drawn. A class of that name is added where the
                data have none.

        Raises:
            TrainError: There is no category, or one twice.
        """
        names = [one.name for one in categories]
        things = [one.is_thing and one.name != BACKGROUND for one in categories]
        if not names:
            raise TrainError("data: has no categories", "give data with masks or boxes of classes")
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise TrainError(f"category {twice!r}: is there twice", "give each category a name of its own")
        if unlabelled == "background" and BACKGROUND not in names:
            names, things = [BACKGROUND, *names], [False, *things]
        ground = names.index(BACKGROUND) if unlabelled == "background" else VOID
        return cls(tuple(names), tuple(things), ground)

    @property
    def stuff(self) -> frozenset[int]:
        """Numbers of the classes that have no instances."""
        return frozenset(number for number, thing in enumerate(self.things) if not thing)


def class_map(scene: Scene, classes: Classes) -> npt.NDArray[np.int64]:
    """The class of each pixel ``(side, side)``, :data:`VOID` where it is not judged.

    Objects are painted in their order; what is not judged lies on top, as in evaluation.

    Args:
        scene: With masks.
        classes: Which there are.
    """
    assert scene.masks is not None
    painted = np.full(scene.masks.shape[1:], classes.ground, np.int64)
    for judged in (True, False):
        for mask, number in zip(scene.masks, scene.classes, strict=True):
            if bool(number != NO_CLASS) == judged:
                painted[mask] = number if judged else VOID
    return painted


def objects(scene: Scene, classes: Classes, kind: Kind = "instance", *, side: int | None = None) -> Objects:
    """The objects of a scene, as a set loss takes them.

    Args:
        scene: With masks, unless only boxes are wanted.
        classes: Which there are.
        kind: ``instance``: things, each for itself; ``panoptic``: also each class of stuff as one object; ``semantic``:
            each class as one. Crowds are no objects of their own, and what is void nowhere counts as wrong.
        side: Of the masks, where they shall be smaller than the scene's; a pixel holds the share that is covered.
    """
    if kind == "instance":
        things = np.array([number != NO_CLASS and classes.things[number] for number in scene.classes], bool)
        kept = scene.only(things & ~scene.crowd)
        numbers, boxes = kept.classes, kept.boxes
        masks: npt.NDArray[Any] | None = kept.masks
    else:
        numbers, boxes, masks = _segments(scene, classes, kind)
    void = scene.boxes[(scene.classes == NO_CLASS) | scene.crowd]
    if masks is not None and side is not None and side != masks.shape[1]:
        masks = _shrunk(masks, side)
    return Objects(
        torch.from_numpy(numbers.astype(np.int64)),
        None if masks is None else torch.from_numpy(np.ascontiguousarray(masks)),
        torch.from_numpy(boxes.astype(np.float32)),
        torch.from_numpy(void.astype(np.float32)),
    )


def _segments(
    scene: Scene, classes: Classes, kind: Kind
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Classes, boxes and masks of segments; the masks do not overlap."""
    assert scene.masks is not None
    painted = class_map(scene, classes)
    owner = np.full(painted.shape, -1, np.int64)
    for number, mask in enumerate(scene.masks):
        owner[mask] = number
    numbers, masks = [], []
    for label in np.unique(painted[painted != VOID]).tolist():
        of_class = painted == label
        if kind == "semantic" or not classes.things[label]:
            numbers.append(label)
            masks.append(of_class)
            continue
        for one in np.flatnonzero((scene.classes == label) & ~scene.crowd):
            mask = of_class & (owner == one)
            if mask.any():
                numbers.append(label)
                masks.append(mask)
    stacked = np.stack(masks) if masks else np.zeros((0, *painted.shape), bool)
    return np.array(numbers, np.int64), around(stacked), stacked


def _shrunk(masks: npt.NDArray[np.bool_], side: int) -> npt.NDArray[np.float32]:
    import cv2

    found = [cv2.resize(one.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA) for one in masks]
    return np.stack(found) if found else np.zeros((0, side, side), np.float32)
