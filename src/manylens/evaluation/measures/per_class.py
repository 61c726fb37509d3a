"""Tallies of counts by picture and class, of which only the classes that a picture has are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from manylens.data.problems import DataError
from manylens.data.records import Category
from manylens.evaluation.tally import FloatArray, Tally


@dataclass(frozen=True, eq=False)
class PerClassTally(Tally):
    """Base of tallies whose figures come from sums of counts over pictures, class by class.

    Attributes:
        names: Of the C classes.
        images: int32 ``(m,)``: which unit each of the m rows of counts belongs to.
        classes: int32 ``(m,)``: which class.
        counts: float64 ``(m, K)``: K counts each, as the subclass says.
    """

    names: Sequence[str] = ()
    images: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    classes: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    counts: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))

    def sums(self, weights: FloatArray) -> list[FloatArray]:
        """Each of the K counts, summed over the weighted units: ``(R, C)``."""
        import scipy.sparse as sp

        shape = (len(self.names), len(self.units))
        across = np.ascontiguousarray(np.asarray(weights, np.float64).T)
        return [
            (sp.csr_array((self.counts[:, k], (self.classes, self.images)), shape=shape) @ across).T
            for k in range(self.counts.shape[1])
        ]

    def mean_of_units(self, values: FloatArray) -> FloatArray:
        """``(n,)``: for each unit the mean of the values ``(m,)`` of its rows that are not NaN; NaN where none is."""
        known = ~np.isnan(values)
        rows, n = self.images[known], len(self.units)
        total, number = np.bincount(rows, values[known], n), np.bincount(rows, minlength=n)
        return np.divide(total, number, out=np.full(n, np.nan), where=number > 0)


class Counts:
    """Rows of counts as they are met.

    Args:
        categories: Of the data set; counts are kept under the position in it.

    Raises:
        DataError: There is none, or two of one name or id.
    """

    def __init__(self, categories: Sequence[Category]) -> None:
        if not categories:
            raise DataError("categories: there are none", "give the categories of the data set")
        self.at = {category.name: i for i, category in enumerate(categories)}
        if len(self.at) != len(categories) or len({category.id for category in categories}) != len(categories):
            raise DataError("categories: two have one name or one id", "give each its own")
        self._images: list[npt.NDArray[np.int32]] = []
        self._classes: list[npt.NDArray[np.int32]] = []
        self._counts: list[FloatArray] = []

    def add(self, image: int, counts: FloatArray) -> None:
        """Take the counts of a picture, ``(C, K)``; classes that have none are not kept."""
        present = np.flatnonzero(counts.any(axis=1))
        self._images.append(np.full(len(present), image, np.int32))
        self._classes.append(present.astype(np.int32))
        self._counts.append(counts[present])

    def fields(self, width: int) -> dict[str, Any]:
        """The fields of a :class:`PerClassTally`; ``width`` is K."""
        return {
            "names": list(self.at),
            "images": np.concatenate([np.zeros(0, np.int32), *self._images]),
            "classes": np.concatenate([np.zeros(0, np.int32), *self._classes]),
            "counts": np.concatenate([np.zeros((0, width)), *self._counts]),
        }


def mean(values: FloatArray, where: npt.NDArray[np.bool_]) -> FloatArray:
    """Mean of ``(R, C)`` over the classes where it holds; NaN where it holds for none, ``(R,)``."""
    number = where.sum(axis=1)
    total = np.where(where, values, 0.0).sum(axis=1)
    return np.divide(total, number, out=np.full(len(values), np.nan), where=number > 0)


def cell(value: float) -> float | None:
    """A number as a table shows it; None for NaN."""
    return None if np.isnan(value) else round(float(value), 4)
