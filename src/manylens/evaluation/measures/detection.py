"""Average precision of detection (boxes) and instance segmentation (masks), after COCO.

Pictures are judged some hundreds at a time and then forgotten, so a million of them need no more memory than their
matches. IoU of masks is worked out on the runs of their RLE, never on pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from manylens.data.records import Record
from manylens.evaluation.measure import Measure, Regions
from manylens.evaluation.measures.detection_rows import Classes, Kind, Waiting, check, detections_of, objects_of
from manylens.evaluation.measures.detection_tally import DetectionTally
from manylens.evaluation.measures.driving import column
from manylens.evaluation.measures.matching import match
from manylens.evaluation.tally import Units

_IMAGES_AT_ONCE = 1024
_PAIRS_AT_ONCE = 1_000_000  # of detections and objects of an image
_NOTHING = Regions((), np.zeros(0))


@dataclass
class Detection(Measure):
    """Judges :class:`Regions` against the annotations of things; figures and rules are those of COCO.

    Where boxes are judged, the box around a mask stands in for one that is missing. The area of an object is the one
    that its annotation states, that of a detection the one of its box or mask. Of equal scores the picture that was
    added first comes first. Without categories, the classes are the names that are met.

    Args:
        kind: What is compared: ``box`` or ``mask``.
    """

    name: ClassVar[str] = "detection"

    kind: Kind = "box"

    def __post_init__(self) -> None:
        self._classes = Classes(self.categories)
        self._ids: dict[str, None] = {}
        self._values: dict[str, list[Any]] = {name: [] for name in self.columns}
        self._waiting: list[Waiting] = []
        self._pairs = 0
        self._found: list[dict[str, npt.NDArray[Any]]] = []
        self._truth: list[dict[str, npt.NDArray[Any]]] = []

    def add(self, record: Record, prediction: Regions | None) -> None:
        """See :meth:`Measure.add`; the picture is judged with others, at the latest by :meth:`tally`.

        Raises:
            DataError: The prediction has not as many scores, boxes or masks as names.
        """
        if record.id in self._ids:
            self.problems.add("duplicate id", record.id, f"image {record.id}: was judged before; left out")
            return
        regions = prediction if prediction is not None else _NOTHING
        check(record, regions)
        self._waiting.append((len(self._ids), record, regions))
        self._ids[record.id] = None
        for name, values in self._values.items():
            values.append(column(name, record))
        self._pairs += len(regions) * len(record.annotations)
        if len(self._waiting) >= _IMAGES_AT_ONCE or self._pairs >= _PAIRS_AT_ONCE:
            self._judge()

    def tally(self) -> DetectionTally:
        """See :meth:`Measure.tally`."""
        self._judge()
        found, truth = _joined(self._found), _joined(self._truth)
        if found:
            order = np.lexsort((-found["found_score"], found["found_class"]))
            found = {name: rows[order] for name, rows in found.items()}
            found["found_score"] = found["found_score"].astype(np.float32)
            by_class = np.argsort(truth["truth_class"], kind="stable")
            truth = {name: rows[by_class] for name, rows in truth.items()}
        ids = list(self._ids)
        units = Units("image", ids, ids, {name: list(values) for name, values in self._values.items()})
        return DetectionTally(units, kind=self.kind, names=list(self._classes.numbers), **found, **truth)

    def _judge(self) -> None:
        """Match what waits."""
        waiting, self._waiting, self._pairs = self._waiting, [], 0
        if not waiting:
            return
        objects, crowd, ignore = objects_of(waiting, self._classes, self.kind, self.problems)
        detections, scores = detections_of(waiting, self._classes, self.kind, self.problems)
        matches = match(detections, scores, objects, crowd, ignore)
        self._found.append(
            {
                "found_class": detections.category[matches.order].astype(np.int32),
                "found_image": detections.image[matches.order].astype(np.int32),
                "found_score": scores[matches.order],
                "found_rank": matches.rank,
                "matched": matches.matched,
                "ignored": matches.ignored,
            }
        )
        self._truth.append(
            {
                "truth_class": objects.category.astype(np.int32),
                "truth_image": objects.image.astype(np.int32),
                "judged": matches.judged,
            }
        )


def _joined(parts: list[dict[str, npt.NDArray[Any]]]) -> dict[str, npt.NDArray[Any]]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}
