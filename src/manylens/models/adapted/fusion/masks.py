"""Instances that several models found, made one set: matched by their masks, then voted on pixel by pixel.

As weighted box fusion does with boxes (Solovyev et al., 2021): what overlaps is one object, whose shape all of its
finders make together, and an object that few models found is less sure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from manylens.models.adapted.fusion.matching import TINY, matched, scores_of
from manylens.models.adapted.fusion.shares import shares_of, vote_masks

_Box = tuple[int, int, int, int]
"""``y0, x0, y1, x1``, ends exclusive."""


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


def fuse(
    found: Sequence[Instances],
    weights: Sequence[float] | None = None,
    *,
    iou: float = 0.5,
    least: float = 0.0,
    threshold: float = 0.5,
) -> Instances:
    """Fuse what several models found in one picture.

    Instances are matched as :func:`manylens.models.adapted.fusion.matching.matched` says. A mask is the vote of those
    who found the object, weighted by how sure each is; its score is the weighted mean over all models, those who did
    not find it counting 0.

    Args:
        found: Of each model; of equal height and width.
        weights: Of the models, at least 0; by default all count alike.
        iou: From which two masks are one object.
        least: Score below which a fused object is dropped.
        threshold: Of the vote on pixels; see :func:`manylens.models.adapted.fusion.shares.vote_masks`.

    Returns:
        The fused objects, the surest first.
    """
    shares = shares_of(weights, len(found))
    shapes = _Masks(found, shares, threshold)
    objects = matched(found, shares, shapes, iou)
    scores = scores_of(objects, found, shares)
    kept = [k for k in np.argsort(-scores, kind="stable") if scores[k] >= least and shapes.areas[k]]
    masks = [shapes.masks[k] for k in kept]
    return Instances(
        np.stack(masks) if masks else np.zeros((0, *found[0].masks.shape[1:]), bool),
        scores[kept] if kept else np.zeros(0),
        np.array([objects[k].label for k in kept], np.int64),
    )


class _Masks:
    """Masks of objects, each looked at only where it can be."""

    def __init__(self, found: Sequence[Instances], shares: npt.NDArray[np.float64], threshold: float) -> None:
        self._found, self._shares, self._threshold = found, shares, threshold
        self._within = [[_box(mask) for mask in one.masks] for one in found]
        self.masks: list[npt.NDArray[np.bool_]] = []
        self.boxes: list[_Box] = []
        self.areas: list[int] = []

    def overlaps(self, model: int, one: int, among: Sequence[int]) -> npt.NDArray[np.float64]:
        mask, box = self._found[model].masks[one], self._within[model][one]
        area = _area(mask, box)
        found = np.zeros(len(among))
        for place, number in enumerate(among):
            y0, x0, y1, x1 = _common(box, self.boxes[number])
            if y0 < y1 and x0 < x1:
                common = int(np.count_nonzero(mask[y0:y1, x0:x1] & self.masks[number][y0:y1, x0:x1]))
                found[place] = common / (area + self.areas[number] - common) if common else 0.0
        return found

    def begin(self, model: int, one: int) -> None:
        mask, box = self._found[model].masks[one], self._within[model][one]
        self.masks.append(mask)
        self.boxes.append(box)
        self.areas.append(_area(mask, box))

    def join(self, number: int, found: Mapping[int, int]) -> None:
        within = np.array([self._within[model][one] for model, one in found.items()])
        (y0, x0), (y1, x1) = within[:, :2].min(axis=0).tolist(), within[:, 2:].max(axis=0).tolist()
        sure = [self._shares[model] * max(float(self._found[model].scores[one]), TINY) for model, one in found.items()]
        each = [self._found[model].masks[one][y0:y1, x0:x1] for model, one in found.items()]
        mask = np.zeros(self.masks[number].shape, bool)
        mask[y0:y1, x0:x1] = vote_masks(each, sure, threshold=self._threshold)
        box = _box(mask)
        self.masks[number], self.boxes[number], self.areas[number] = mask, box, _area(mask, box)


def _box(mask: npt.NDArray[np.bool_]) -> _Box:
    """What is set lies within it."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return (0, 0, 0, 0)
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def _area(mask: npt.NDArray[np.bool_], box: _Box) -> int:
    y0, x0, y1, x1 = box
    return int(np.count_nonzero(mask[y0:y1, x0:x1]))


def _common(one: _Box, other: _Box) -> _Box:
    return max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3])
