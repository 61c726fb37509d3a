"""Panoptic segmentation: panoptic quality, by the rules of the reference implementation.

PQ of a class is the sum of the IoUs of its matched segments over TP + FP/2 + FN/2; it is the product of SQ (their mean
IoU) and RQ (an F1). Kirillov et al., Panoptic Segmentation, CVPR 2019; rules of the panopticapi evaluation script.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from manylens.data.records import Record
from manylens.evaluation.details import bars, table
from manylens.evaluation.measure import Measure, Regions
from manylens.evaluation.measures import checked
from manylens.evaluation.measures.driving import Rows
from manylens.evaluation.measures.per_class import Counts, PerClassTally, cell, mean
from manylens.evaluation.measures.spans import Spans
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
    their pixels by score, true ones by their order; a segment that keeps none is not counted.
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
        true = self._true(record, size)
        cells = true.spans.table(found.spans)
        if cells is None:
            true = self._apart(true, record, "annotations of", "the first keeps the pixels")
            found = self._apart(found, record, "prediction for", "the better score keeps the pixels")
            cells = true.spans.table(found.spans)
            assert cells is not None, "masks that are apart have a table"
        cells, rows = _folded(cells, true.classes)
        cells, columns = _folded(cells.T, found.classes)
        counts = match(
            cells.T, true.classes[rows], true.crowd[rows], found.classes[columns], classes=len(self.categories)
        )
        self._counts.add(len(self._rows.ids), counts)
        self._rows.add(record.id, record.id, record, None, {})

    def tally(self) -> PanopticTally:
        """See :meth:`Measure.tally`."""
        things = np.array([category.is_thing for category in self.categories], bool)
        return PanopticTally(self._rows.units(), **self._counts.fields(4), things=things)

    def _true(self, record: Record, size: checked.Size) -> _Segments:
        kept, spans = checked.truth(record, size, self._counts.at, self.problems, empty=False)
        classes = np.array([-1 if one.ignore else self._counts.at[one.category] for one in kept], np.int64)
        crowd = np.array([one.crowd for one in kept], bool)
        # What is ignored is void whatever else lies there.
        return _Segments(spans, classes, crowd, np.argsort(classes >= 0, kind="stable"))

    def _found(self, record: Record, prediction: Regions | PanopticMap | None, size: checked.Size) -> _Segments | None:
        """The predicted segments; None where the picture is left out."""
        if isinstance(prediction, PanopticMap):
            return self._found_in_map(record, prediction, size)
        nothing = Regions([], np.zeros(0, np.float32), masks=[])
        regions = nothing if prediction is None else prediction
        found = checked.found(regions, record, size, self._counts.at, self.problems)
        if found is None:
            return None
        at, spans = found
        classes = np.array([self._counts.at[regions.names[i]] for i in at], np.int64)
        order = np.argsort(-np.asarray(regions.scores)[at], kind="stable")
        return _Segments(spans, classes, np.zeros(len(at), bool), order)

    def _found_in_map(self, record: Record, prediction: PanopticMap, size: checked.Size) -> _Segments | None:
        if prediction.ids.shape != size:
            checked.wrong_size(record, prediction.ids.shape, size, self.problems)
            return None
        spans, ids = Spans.of_map(prediction.ids)
        names = [prediction.names.get(id) for id in ids.tolist()]
        classes = np.array([self._counts.at.get(name or "", -1) for name in names], np.int64)
        for i in np.flatnonzero(classes < 0):
            what = "has no class" if names[i] is None else f"{names[i]!r} is no category of the data"
            name = f"segment {ids[i]} of image {record.id}: {what}; left out"
            self.problems.add("unknown category", f"{record.id}/{ids[i]}", name)
        return _Segments(spans, classes, np.zeros(len(ids), bool), np.arange(len(ids)))

    def _apart(self, segments: _Segments, record: Record, whose: str, rule: str) -> _Segments:
        """The same segments, each pixel given to one of them."""
        if not segments.spans.overlap:
            return segments
        name = f"{whose} image {record.id}: masks overlap; {rule}"
        self.problems.add("overlapping masks", record.id, name, left_out=False)
        return replace(segments, spans=segments.spans.apart(segments.first))


@dataclass(frozen=True, eq=False)
class _Segments:
    """Segments of one side.

    Attributes:
        spans: Their masks.
        classes: Place of the class of each in the categories; -1 for what is not judged.
        crowd: Which are crowds.
        first: Which keep their pixels where masks overlap.
    """

    spans: Spans
    classes: npt.NDArray[np.int64]
    crowd: npt.NDArray[np.bool_]
    first: npt.NDArray[np.int64]


def _folded(
    cells: npt.NDArray[np.int64], classes: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """The table with only the rows of segments that are judged and have pixels; and which those are.

    What is not judged becomes void (row 0).
    """
    kept = (classes >= 0) & cells[1:].any(axis=1)
    if kept.all():
        return cells, kept
    void = cells[0] + cells[1:][classes < 0].sum(axis=0)
    return np.concatenate([void[None], cells[1:][kept]]), kept


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
