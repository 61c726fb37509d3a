"""Semantic segmentation: a class for each pixel. Mean IoU, accuracies, and boundary IoU.

Boundary IoU compares only pixels near the outline: Cheng et al., Boundary IoU: Improving Object-Centric Image
Segmentation Evaluation, CVPR 2021.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from manylens.data.records import BACKGROUND, Record
from manylens.evaluation.details import bars, matrix, table
from manylens.evaluation.measure import Measure, Regions
from manylens.evaluation.measures import checked
from manylens.evaluation.measures.driving import Rows
from manylens.evaluation.measures.per_class import Counts, PerClassTally, cell, mean
from manylens.evaluation.tally import FloatArray, ratio

BOUNDARY = 0.02
"""How far from the outline a pixel may be, as a share of the picture's diagonal (Cheng et al.)."""

_SHOWN = 60  # classes up to which the confusion matrix is shown

COMMON, TRUE, PREDICTED, COMMON_EDGE, TRUE_EDGE, PREDICTED_EDGE = range(6)

ClassMap = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class SemanticTally(PerClassTally):
    """Pixels of each class in each picture: common, true, predicted; and the same near the outlines.

    Attributes:
        confusion: int64 ``(C, C + 1)`` pixels by true and predicted class over all pictures; the last column is none.
    """

    measure: ClassVar[str] = "semantic"
    main: ClassVar[str] = "mIoU"

    confusion: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 0), np.int64))

    def figures(self, weights: FloatArray) -> dict[str, FloatArray]:
        """mIoU, accuracies, boundary IoU, and both IoUs by class.

        A class that no weighted picture has, in truth or prediction, is NaN and in no mean; mean accuracy is over the
        classes of the truth.
        """
        sums = self.sums(weights)
        common, true, _ = sums[:3]
        iou, edge = _iou(*sums[:3]), _iou(*sums[3:])
        known = ~np.isnan(iou)
        total = true.sum(axis=1)
        result = {
            "mIoU": mean(iou, known),
            "pixel accuracy": ratio(common.sum(axis=1), total),
            "mean accuracy": mean(ratio(common, true), true > 0),
            "frequency-weighted IoU": ratio(np.where(true > 0, true * iou, 0.0).sum(axis=1), total),
            "boundary IoU": mean(edge, ~np.isnan(edge)),
        }
        for figure, values in (("IoU", iou), ("boundary IoU", edge)):
            result |= {f"{figure}/{name}": values[:, i] for i, name in enumerate(self.names)}
        return result

    def details(self) -> dict[str, Any]:
        """See :meth:`Tally.details`."""
        sums = self.sums(np.ones((1, len(self.units))))
        common, true, predicted = (one[0] for one in sums[:3])
        iou, edge = _iou(*sums[:3])[0], _iou(*sums[3:])[0]
        recall, precision = ratio(common, true), ratio(common, predicted)
        share = ratio(true, np.full(len(true), true.sum()))
        rows = [
            [name, *(cell(one[i]) for one in (iou, edge, recall, precision, share))]
            for i, name in enumerate(self.names)
            if not np.isnan(iou[i])
        ]
        header = ["class", "IoU", "boundary IoU", "recall", "precision", "share of pixels"]
        result = {
            "IoU by class": bars(
                "IoU by class", "IoU", {name: x for name, x in zip(self.names, iou, strict=True) if x == x}
            ),
            "classes": table("Classes", header, rows),
        }
        if len(self.names) <= _SHOWN:
            shares = np.nan_to_num(
                ratio(self.confusion.astype(float), np.repeat(true[:, None], len(self.names) + 1, axis=1))
            )
            result["confusion"] = matrix(
                "Share of the pixels of each class (row) that were given to each class (column)",
                self.names,
                shares[:, : len(self.names)].tolist(),
            )
        return result

    def scores(self) -> FloatArray:
        """Mean IoU of the classes of each picture."""
        return self.mean_of_units(_iou(*self.counts.T[:3]))


@dataclass
class Semantic(Measure):
    """Judges a class map, or :class:`Regions` with masks, against the masks of the annotations.

    A class map is int32 ``(H, W)`` of category ids, -1 where nothing is said. Regions are painted by their class, the
    best score on top, and where none is, there is background, if that is a class of the data. True masks are painted in
    their order, those to be ignored on top. A pixel without annotation is void and counts nowhere, whatever is
    predicted there. Label pictures say of every pixel what it is, background too, which is a class like any other, as
    in PASCAL VOC. A data set whose annotations cover everything has no void.

    Near the outline means: at most 2 % of the diagonal (by rows and columns, at least one pixel) from a pixel of
    another class, of void, or outside the picture. The prediction is cut off at the void first, so that nobody is
    judged by an outline that lies there.
    """

    name: ClassVar[str] = "semantic"

    def __post_init__(self) -> None:
        self._counts = Counts(self.categories)
        self._rows = Rows("image", self.columns)
        self._confusion = np.zeros((len(self.categories), len(self.categories) + 1), np.int64)
        order = np.argsort([category.id for category in self.categories])
        self._ids = np.array([category.id for category in self.categories], np.int64)[order]
        self._places = order.astype(np.int32)

    def add(self, record: Record, prediction: ClassMap | Regions | None) -> None:
        """See :meth:`Measure.add`; None counts as a prediction that says nothing."""
        size = checked.size_of(record, prediction)
        predicted = self._predicted(record, prediction, size)
        if predicted is None:
            return
        true = self._true(record, size)
        counts, confusion = count(true, predicted, len(self.categories))
        self._counts.add(len(self._rows.ids), counts)
        self._rows.add(record.id, record.id, record, None, {})
        self._confusion += confusion

    def tally(self) -> SemanticTally:
        """See :meth:`Measure.tally`."""
        return SemanticTally(self._rows.units(), **self._counts.fields(6), confusion=self._confusion.copy())

    def _true(self, record: Record, size: checked.Size) -> ClassMap:
        """int32 ``(H, W)``: place of the class of each pixel in the categories, -1 for void."""
        kept, spans = checked.truth(record, size, self._counts.at, self.problems)
        classes = np.array([-1 if one.ignore else self._counts.at[one.category] for one in kept], np.int32)
        return spans.paint(classes, order=np.argsort(classes < 0, kind="stable"))

    def _predicted(self, record: Record, prediction: ClassMap | Regions | None, size: checked.Size) -> ClassMap | None:
        if prediction is None:
            return np.full(size, -1, np.int32)
        if isinstance(prediction, Regions):
            found = checked.found(prediction, record, size, self._counts.at, self.problems)
            if found is None:
                return None
            at, spans = found
            classes = np.array([self._counts.at[prediction.names[i]] for i in at], np.int32)
            painted = spans.paint(classes, order=np.argsort(np.asarray(prediction.scores)[at], kind="stable"))
            return np.where(painted < 0, np.int32(self._counts.at.get(BACKGROUND, -1)), painted)
        if prediction.shape != size:
            checked.wrong_size(record, prediction.shape, size, self.problems)
            return None
        return self._places_of(prediction, record)

    def _places_of(self, ids: ClassMap, record: Record) -> ClassMap:
        """Places in the categories of a map of category ids; an id of none is nothing."""
        at = np.searchsorted(self._ids, ids).clip(max=len(self._ids) - 1)
        known = self._ids[at] == ids
        for id in np.unique(ids[~known & (ids != -1)]):
            name = f"prediction for image {record.id}: {id} is the id of no category; its pixels count as nothing"
            self.problems.add("unknown category", f"{record.id}/{id}", name, left_out=False)
        return np.where(known, self._places[at], -1).astype(np.int32)


def count(true: ClassMap, predicted: ClassMap, classes: int) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """Count the pixels of one picture.

    Args:
        true: int32 ``(H, W)``: class of each pixel, ``0 .. classes - 1``, -1 for void.
        predicted: Likewise; -1 for nothing.
        classes: Number of classes C.

    Returns:
        float64 ``(C, 6)``, the counts of :class:`SemanticTally`; and its confusion, int64 ``(C, C + 1)``.
    """
    predicted = np.where(true < 0, -1, predicted)
    wide = classes + 1
    cells = np.bincount(((true + 1) * wide + predicted + 1).ravel(), minlength=wide * wide).reshape(wide, wide)[1:]
    counts = np.empty((classes, 6))
    counts[:, COMMON] = np.diagonal(cells[:, 1:])
    counts[:, TRUE] = cells.sum(axis=1)
    counts[:, PREDICTED] = cells[:, 1:].sum(axis=0)
    near, found_near = near_outline(true, classes), near_outline(predicted, classes)
    for column, values in (
        (COMMON_EDGE, true[near & found_near & (true == predicted)]),
        (TRUE_EDGE, true[near]),
        (PREDICTED_EDGE, predicted[found_near]),
    ):
        counts[:, column] = np.bincount(values + 1, minlength=wide)[1:]
    return counts, np.roll(cells, -1, axis=1)


def near_outline(labels: ClassMap, classes: int) -> npt.NDArray[np.bool_]:
    """Pixels within 2 % of the diagonal of one of another label, or of the picture's end.

    For all labels at once: near a pixel there is another label exactly where the least and the largest differ.

    Args:
        labels: int32 ``(H, W)``, -1 and up.
        classes: Labels are below it.

    Returns:
        Bool ``(H, W)``.
    """
    import cv2

    height, width = labels.shape
    reach = max(1, round(BOUNDARY * math.hypot(height, width)))
    # Unsigned and as small as can be, for speed; the largest value is left for what is outside.
    small, outside = ((labels + 1).astype(np.uint8), 255) if classes < 255 else ((labels + 1).astype(np.uint16), 65535)
    framed = cv2.copyMakeBorder(small, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=outside)
    square = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    near = cv2.erode(framed, square) != cv2.dilate(framed, square)
    return np.asarray(near[1:-1, 1:-1])


def _iou(common: FloatArray, one: FloatArray, other: FloatArray) -> FloatArray:
    return ratio(common, one + other - common)
