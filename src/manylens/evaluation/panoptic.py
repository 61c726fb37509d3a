"""Panoptic segmentation: panoptic quality, by the rules of the reference implementation.

PQ of a class is the sum of the IoUs of its matched segments over TP + FP/2 + FN/2; it is the product of SQ (their mean
IoU) and RQ (an F1). Kirillov et al., Panoptic Segmentation, CVPR 2019; rules of the panopticapi evaluation script.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from manylens.data.records import Record
from manylens.evaluation import checked
from manylens.evaluation.details import bars, table
from manylens.evaluation.driving import Rows
from manylens.evaluation.measure import Measure, Regions
from manylens.evaluation.per_class import Counts, PerClassTally, cell, mean
from manylens.evaluation.spans import Spans
from manylens.evaluation.tally import FloatArray, ratio

_HALF = 0.5
IOU, TP, FP, FN = range(4)

Map = npt.NDArray[np.integer]


@dataclass(frozen=True, eq=False)
class PanopticMap:
    """A predicted map of segments.

    Attributes:
        ids: int ``(H, W)``: id of the segment that each pixel belongs to, 0 for none.
        names: Class name by id.
    """

    ids: Map
    names: Mapping[int, str]


@dataclass(frozen=True, eq=False)
class PanopticTally(PerClassTally):
    """Sum of IoUs, true positives, false positives and false negatives of each class in each picture.

    Attributes:
        things: bool ``(C,)``: classes of countable things; the others are stuff.
    """

    measure: ClassVar[str] = "panoptic"
    main: ClassVar[str] = "PQ"

    things: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))

    def figures(self, weights: FloatArray) -> dict[str, FloatArray]:
        """PQ, SQ and RQ of all classes, of things and of stuff, and ``PQ/NAME``.

        A class that no weighted picture has, in truth or prediction, is NaN and in no mean.
        """
        pq, sq, rq = _qualities(*self.sums(weights))
        defined = ~np.isnan(pq)
        result: dict[str, FloatArray] = {}
        groups = {"": np.ones(len(self.names), bool), " things": self.things, " stuff": ~self.things}
        for group, members in groups.items():
            for name, values in (("PQ", pq), ("SQ", sq), ("RQ", rq)):
                result[name + group] = mean(values, defined & members)
        return result | {f"PQ/{name}": pq[:, i] for i, name in enumerate(self.names)}

    def details(self) -> dict[str, Any]:
        """See :meth:`Tally.details`."""
        sums = self.sums(np.ones((1, len(self.units))))
        pq, sq, rq = _qualities(*sums)
        rows = [
            [
                name,
                "thing" if thing else "stuff",
                *(cell(one[0, i]) for one in (pq, sq, rq)),
                *(int(one[0, i]) for one in sums[TP:]),
            ]
            for i, (name, thing) in enumerate(zip(self.names, self.things, strict=True))
            if not np.isnan(pq[0, i])
        ]
        return {
            "PQ by class": bars(
                "Panoptic quality by class",
                "PQ",
                {name: x for name, x in zip(self.names, pq[0], strict=True) if x == x},
            ),
            "classes": table("Classes", ["class", "kind", "PQ", "SQ", "RQ", "matched", "false alarms", "missed"], rows),
        }

    def scores(self) -> FloatArray:
        """Mean PQ of the classes of each picture."""
        return self.mean_of_units(_qualities(*self.counts.reshape(-1, 4).T)[0])


@dataclass
class Panoptic(Measure):
    """Judges :class:`Regions` with masks, or a :class:`PanopticMap`, against the masks of the annotations.

    Pixels without annotation, or whose annotation is to be ignored, are void. A predicted and a true segment of one
    class match where their IoU is above 0.5; what the prediction covers of void counts for no union. A predicted
    segment without a match is no false alarm where more than half of it lies in void and in the crowd segment of its
    class (the last one where a picture has several, as in the reference). Where masks overlap, predicted ones keep
    their pixels by score, true ones by their order.
    """

    name: ClassVar[str] = "panoptic"

    def __post_init__(self) -> None:
        self._counts = Counts(self.categories)
        self._rows = Rows("image", self.columns)

    def add(self, record: Record, prediction: Regions | PanopticMap | None) -> None:
        """See :meth:`Measure.add`; None counts as a prediction without segments."""
        size = checked.size_of(record, prediction.ids if isinstance(prediction, PanopticMap) else prediction)
        found = self._found(record, prediction, size)
        if found is None:
            return
        predicted, found_spans = found
        true, true_spans = self._truth(record, size)
        crowd = np.array([one.crowd for one in true], bool)
        classes = np.array([self._counts.at[one.category] for one in true], np.int64)
        cells = true_spans.table(found_spans)
        self._counts.add(len(self._rows.ids), match(cells, classes, crowd, predicted, len(self.categories)))
        self._rows.add(record.id, record.id, record)

    def tally(self) -> PanopticTally:
        """See :meth:`Measure.tally`."""
        things = np.array([category.is_thing for category in self.categories], bool)
        return PanopticTally(self._rows.units(), **self._counts.fields(4), things=things)

    def _truth(self, record: Record, size: checked.Size) -> tuple[list[Any], Spans]:
        """Annotations that are judged, and their masks, apart."""
        true, spans = checked.truth(record, size, self._counts.at, self.problems, empty=False)
        if spans.overlap:
            name = f"image {record.id}: its annotations overlap; the first keeps the pixels"
            self.problems.add("overlapping masks", record.id, name, left_out=False)
            # What is ignored is void whatever else lies there.
            spans = spans.apart(sorted(range(len(true)), key=lambda i: not true[i].ignore))
        judged = (spans.areas() > 0) & ~np.array([one.ignore for one in true], bool)
        return [true[i] for i in np.flatnonzero(judged)], _only(spans, judged)

    def _found(
        self, record: Record, prediction: Regions | PanopticMap | None, size: checked.Size
    ) -> tuple[npt.NDArray[np.int64], Spans] | None:
        """Classes of the predicted segments, and their masks, apart; None where the picture is left out."""
        if prediction is None:
            return np.zeros(0, np.int64), Spans.of([], size)
        if isinstance(prediction, PanopticMap):
            return self._found_in_map(record, prediction, size)
        found = checked.found(prediction, record, size, self._counts.at, self.problems)
        if found is None:
            return None
        at, spans = found
        if spans.overlap:
            name = f"prediction for image {record.id}: its masks overlap; the better score keeps the pixels"
            self.problems.add("overlapping masks", record.id, name, left_out=False)
            spans = spans.apart(np.argsort(-np.asarray(prediction.scores)[at], kind="stable"))
        seen = spans.areas() > 0
        classes = np.array([self._counts.at[prediction.names[i]] for i in at], np.int64)
        return classes[seen], _only(spans, seen)

    def _found_in_map(
        self, record: Record, prediction: PanopticMap, size: checked.Size
    ) -> tuple[npt.NDArray[np.int64], Spans] | None:
        if prediction.ids.shape != size:
            checked.wrong_size(record, prediction.ids.shape, size, self.problems)
            return None
        spans, ids = Spans.of_map(prediction.ids)
        names = [prediction.names.get(int(id)) for id in ids]
        known = np.array([name in self._counts.at for name in names], bool)
        for i in np.flatnonzero(~known):
            what = "has no class" if names[i] is None else f"{names[i]!r} is no category of the data"
            name = f"segment {ids[i]} of image {record.id}: {what}; left out"
            self.problems.add("unknown category", f"{record.id}/{ids[i]}", name)
        classes = np.array([self._counts.at[name] for name in names if name in self._counts.at], np.int64)
        return classes, _only(spans, known)


def match(
    cells: npt.NDArray[np.int64],
    true: npt.NDArray[np.int64],
    crowd: npt.NDArray[np.bool_],
    predicted: npt.NDArray[np.int64],
    classes: int,
) -> FloatArray:
    """Match the segments of one picture.

    Args:
        cells: ``(T + 1, P + 1)`` pixels in true segment i and predicted segment j; row and column 0 are void.
        true: ``(T,)`` class of each true segment, ``0 .. classes - 1``.
        crowd: ``(T,)`` which of them are crowds.
        predicted: ``(P,)`` class of each predicted segment.
        classes: Number of classes C.

    Returns:
        float64 ``(C, 4)``: sum of IoUs, TP, FP, FN of each class.
    """
    common, void = cells[1:, 1:], cells[0, 1:]
    true_area, predicted_area = cells[1:].sum(axis=1), cells[:, 1:].sum(axis=0)
    i, j = np.nonzero(common)
    same = (true[i] == predicted[j]) & ~crowd[i]
    i, j = i[same], j[same]
    iou = common[i, j] / (true_area[i] + predicted_area[j] - common[i, j] - void[j])
    hit = iou > _HALF  # at most one for each segment, for neither side overlaps itself
    i, j, iou = i[hit], j[hit], iou[hit]

    missed = ~crowd
    missed[i] = False
    excused = void.copy()
    of_class = np.full(classes, -1)
    of_class[true[crowd]] = np.flatnonzero(crowd)  # the last one stays
    at = of_class[predicted]
    excused[at >= 0] += common[at[at >= 0], np.flatnonzero(at >= 0)]
    false = excused <= _HALF * predicted_area
    false[j] = False

    counts = np.empty((classes, 4))
    counts[:, IOU] = np.bincount(true[i], iou, classes)
    for column, of in ((TP, true[i]), (FP, predicted[false]), (FN, true[missed])):
        counts[:, column] = np.bincount(of, minlength=classes)
    return counts


def _qualities(iou: FloatArray, tp: FloatArray, fp: FloatArray, fn: FloatArray) -> tuple[FloatArray, ...]:
    """PQ, SQ, RQ; NaN where there is no segment, SQ 0 where none is matched."""
    both = tp + fp / 2 + fn / 2
    sq = np.where((tp == 0) & (both > 0), 0.0, ratio(iou, tp))
    return ratio(iou, both), sq, ratio(tp, both)


def _only(spans: Spans, which: npt.NDArray[np.bool_]) -> Spans:
    """Some of the masks, numbered anew."""
    if which.all():
        return spans
    on = which[spans.owners]
    owners = (np.cumsum(which) - 1)[spans.owners[on]]
    return Spans(spans.size, int(which.sum()), spans.starts[on], spans.ends[on], owners)
