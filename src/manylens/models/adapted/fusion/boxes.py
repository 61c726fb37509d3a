"""Boxes that several models found, made one set: weighted box fusion (Solovyev et al., 2021).

It differs from the paper in one point: two boxes of one model are two objects, however much they overlap, as the model
itself has told them apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from manylens.models.adapted.fusion.matching import TINY, matched, scores_of
from manylens.models.adapted.fusion.shares import shares_of
from manylens.models.nms import iou_matrix


@dataclass(frozen=True, eq=False)
class Boxes:
    """What one model found in a picture.

    Attributes:
        boxes: float ``(N, 4)``, xyxy.
        scores: float ``(N,)``, 0..1.
        classes: int ``(N,)``.
    """

    boxes: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float64]
    classes: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.scores)


def fuse_boxes(
    found: Sequence[Boxes], weights: Sequence[float] | None = None, *, iou: float = 0.55, least: float = 0.0
) -> Boxes:
    """Fuse what several models found in one picture.

    Boxes are matched as :func:`manylens.models.adapted.fusion.matching.matched` says. A fused box is the mean of those
    who found the object, weighted by how sure each is; its score is the weighted mean over all models, those who did
    not find it counting 0.

    Args:
        found: Of each model.
        weights: Of the models, at least 0; by default all count alike.
        iou: From which two boxes are one object; the paper's.
        least: Score below which a fused object is dropped.

    Returns:
        The fused objects, the surest first.
    """
    shares = shares_of(weights, len(found))
    shapes = _Boxes(found, shares)
    objects = matched(found, shares, shapes, iou)
    scores = scores_of(objects, found, shares)
    order = np.argsort(-scores, kind="stable")
    kept = order[scores[order] >= least]
    labels = np.array([one.label for one in objects], np.int64)
    return Boxes(shapes.boxes[kept], scores[kept], labels[kept])


class _Boxes:
    """Boxes of objects."""

    def __init__(self, found: Sequence[Boxes], shares: npt.NDArray[np.float64]) -> None:
        self._given = [np.asarray(one.boxes, np.float64).reshape(-1, 4) for one in found]
        self._sure = [
            share * np.maximum(np.asarray(one.scores, np.float64), TINY)
            for one, share in zip(found, shares, strict=True)
        ]
        self._room = np.zeros((sum(map(len, found)), 4))
        self._count = 0

    @property
    def boxes(self) -> npt.NDArray[np.float64]:
        """Of all objects, ``(N, 4)``."""
        return self._room[: self._count]

    def overlaps(self, model: int, one: int, among: Sequence[int]) -> npt.NDArray[np.float64]:
        return np.asarray(iou_matrix(self._given[model][one : one + 1], self._room[list(among)])[0])

    def begin(self, model: int, one: int) -> None:
        self._room[self._count] = self._given[model][one]
        self._count += 1

    def join(self, number: int, found: Mapping[int, int]) -> None:
        sure = [self._sure[model][one] for model, one in found.items()]
        self._room[number] = np.average([self._given[model][one] for model, one in found.items()], axis=0, weights=sure)
