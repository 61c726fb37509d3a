"""Average precision as COCO defines it, for all classes at once and under any weighting of the images.

A weight of an image counts its detections and objects that often, so a bootstrap resample costs sums over matches that
are kept. At weights of one the figures are those of ``pycocotools``: the mean, over 101 points of recall, of the best
precision at that recall or a higher one. Precision is asked only where an object is found, for only there recall rises.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

RECALL_POINTS = np.linspace(0.0, 1.0, 101)

_TINY = np.spacing(1)  # pycocotools adds it to the divisor


@dataclass(frozen=True, eq=False)
class Hits:
    """Which detections find an object at one threshold and in one range of areas; E hits in S classes that have one.

    Attributes:
        image: ``(J,)``, number of the image of each detection that counts, right or not; by class, the best score
            first, up to the last hit of the class.
        hits: ``(E,)``, which of these are hits.
        classes: ``(S,)``, number of each class.
        first: ``(S,)``, the first hit of each class.
        before: ``(S,)``, how many counting detections stand before the first one of the class.
        at: ``(E,)``, the place of the class of each hit in ``classes``.
    """

    image: IntArray
    hits: IntArray
    classes: IntArray
    first: IntArray
    before: IntArray
    at: IntArray

    @classmethod
    def of(
        cls,
        category: npt.NDArray[np.integer],
        image: npt.NDArray[np.integer],
        hit: npt.NDArray[np.bool_],
        judged: npt.NDArray[np.bool_],
    ) -> Hits:
        """Take them from all d detections, which stand by class, the best score first.

        Args:
            category: ``(d,)``, number of the class.
            image: ``(d,)``, number of the image.
            hit: bool ``(d,)``.
            judged: bool ``(d,)``: whether it counts; so does every hit.
        """
        found = np.flatnonzero(hit)
        first = np.flatnonzero(np.diff(category[found], prepend=-1))
        classes = category[found[first]].astype(np.int64)
        at = np.repeat(np.arange(len(first)), np.diff(first, append=len(found)))
        last = np.full(category.max(initial=0) + 1, -1)
        last[category[found]] = found  # of equal places the last value stays
        counted = np.flatnonzero(judged & (np.arange(len(hit)) <= last[category]))
        before = np.searchsorted(category[counted], classes)
        return cls(image[counted].astype(np.int64), np.searchsorted(counted, found), classes, first, before, at)

    def precision(self, weights: FloatArray, objects: FloatArray) -> tuple[FloatArray, IntArray]:
        """The best precision from each hit on.

        Args:
            weights: ``(R, n)`` of the images.
            objects: ``(R, K)``, weighted number of objects by class.

        Returns:
            Precision ``(R, E)``, and how many points of recall are reached first at that hit ``(R, E)``.
        """
        drawn = weights.take(self.image, axis=1)
        counted = np.cumsum(drawn, axis=1)
        total = counted.take(self.hits, axis=1)
        total -= _before(counted, self.before).take(self.at, axis=1)
        found = np.cumsum(drawn.take(self.hits, axis=1), axis=1)
        found -= _before(found, self.first).take(self.at, axis=1)
        total += _TINY
        precision = found / total
        # The running maximum goes from the last hit to the first; each class is lifted above those behind it.
        lift = (len(self.first) - 1 - self.at).astype(float)
        precision += lift
        precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        precision -= lift
        number = objects.take(self.classes, axis=1)
        number[number == 0] = np.inf
        found /= number.take(self.at, axis=1)
        reached = np.searchsorted(RECALL_POINTS, found, side="right")
        points = np.diff(reached, axis=1, prepend=0)
        points[:, self.first] = reached[:, self.first]
        return precision, points

    def average(self, weights: FloatArray, objects: FloatArray) -> FloatArray:
        """Average precision by class, ``(R, K)``; 0 where there is no hit. Arguments as :meth:`precision`."""
        average = np.zeros(objects.shape)
        if len(self.hits):
            precision, points = self.precision(weights, objects)
            precision *= points
            average[:, self.classes] = np.add.reduceat(precision, self.first, axis=1) / len(RECALL_POINTS)
        return average

    def curves(self, weights: FloatArray, objects: FloatArray) -> dict[int, FloatArray]:
        """Precision at :data:`RECALL_POINTS` by number of a class that has a hit, each ``(101,)``.

        Args:
            weights: ``(1, n)``.
            objects: ``(1, K)``.
        """
        curves: dict[int, FloatArray] = {}
        if not len(self.hits):
            return curves
        precision, points = self.precision(weights, objects)
        ends = np.append(self.first[1:], len(self.hits))
        for number, start, end in zip(self.classes, self.first, ends, strict=True):
            reached = np.repeat(precision[0, start:end], points[0, start:end])
            curves[int(number)] = np.pad(reached, (0, len(RECALL_POINTS) - len(reached)))
        return curves


def _before(sums: FloatArray, places: IntArray) -> FloatArray:
    """Running sums ``(R, n)`` just before each place, 0 before the first."""
    return np.where(places > 0, sums.take(places - 1, axis=1), 0.0)
