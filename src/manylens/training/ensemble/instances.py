"""Instances that several models found, made one set: matched by their masks, then voted on pixel by pixel.

As weighted box fusion does with boxes (Solovyev et al., 2021): what overlaps is one object, whose shape all of its
finders make together, and an object that few models found is less sure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from manylens.training.ensemble.vote import shares_of, vote_masks

_TINY = 1e-6


@dataclass(frozen=True, eq=False)
class Instances:
    """What one model found in a picture.

    Attributes:
        masks: bool ``(N, H, W)``.
        scores: float ``(N,)``, 0..1.
        classes: int ``(N,)``.
    """

    masks: npt.NDArray[np.bool_]
    scores: npt.NDArray[np.float64]
    classes: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(eq=False)
class _Object:
    """An object: the instance of each model that found it, and the mask that they make together."""

    label: int
    mask: npt.NDArray[np.bool_]
    found: dict[int, int]

    def __post_init__(self) -> None:
        self.take(self.mask)

    def take(self, mask: npt.NDArray[np.bool_]) -> None:
        """Have another mask."""
        self.mask, self.box, self.area = mask, _box(mask), int(np.count_nonzero(mask))

    def iou(self, other: _Object) -> float:
        """Of both masks, looked at only where both can be."""
        y0, x0 = max(self.box[0], other.box[0]), max(self.box[1], other.box[1])
        y1, x1 = min(self.box[2], other.box[2]), min(self.box[3], other.box[3])
        if y0 >= y1 or x0 >= x1:
            return 0.0
        common = int(np.count_nonzero(self.mask[y0:y1, x0:x1] & other.mask[y0:y1, x0:x1]))
        return common / (self.area + other.area - common)


def fuse(
    found: Sequence[Instances],
    weights: Sequence[float] | None = None,
    *,
    iou: float = 0.5,
    least: float = 0.0,
    threshold: float = 0.5,
) -> Instances:
    """Fuse what several models found in one picture.

    Instances are taken by falling score (times the model's weight). One joins the object of its class whose fused mask
    it overlaps most, where that is ``iou`` or more and its model has none there yet; else it is an object of its own.
    The mask is the vote of those who found the object, weighted by how sure each is; its score is the weighted mean
    over all models, those who did not find it counting 0.

    Args:
        found: Of each model; of equal height and width.
        weights: Of the models, at least 0; by default all count alike.
        iou: From which two masks are one object.
        least: Score below which a fused object is dropped.
        threshold: Of the vote on pixels; see :func:`manylens.training.ensemble.vote.vote_masks`.

    Returns:
        The fused objects, the surest first.
    """
    shares = shares_of(weights, len(found))
    order = [
        (-float(shares[model] * one.scores[i]), model, i)
        for model, one in enumerate(found)
        for i in range(len(one))
        if shares[model]
    ]
    objects: list[_Object] = []
    for _, model, i in sorted(order):
        new = _Object(int(found[model].classes[i]), found[model].masks[i], {model: i})
        own = [one for one in objects if one.label == new.label and model not in one.found]
        overlaps = [one.iou(new) for one in own]
        if overlaps and max(overlaps) >= iou:
            joined = own[int(np.argmax(overlaps))]
            joined.found[model] = i
            sure = [shares[m] * max(float(found[m].scores[k]), _TINY) for m, k in joined.found.items()]
            joined.take(vote_masks([found[m].masks[k] for m, k in joined.found.items()], sure, threshold=threshold))
        else:
            objects.append(new)
    scores = np.array([sum(shares[m] * found[m].scores[i] for m, i in one.found.items()) for one in objects], float)
    kept = [k for k in np.argsort(-scores, kind="stable") if scores[k] >= least and objects[k].area]
    masks = [objects[k].mask for k in kept]
    return Instances(
        np.stack(masks) if masks else np.zeros((0, *found[0].masks.shape[1:]), bool),
        scores[kept] if kept else np.zeros(0),
        np.array([objects[k].label for k in kept], np.int64),
    )


def _box(mask: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """``y0, x0, y1, x1`` of what is set, ends exclusive."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return (0, 0, 0, 0)
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1
