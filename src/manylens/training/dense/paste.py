"""Which objects are pasted into other pictures, and how often: those of rare classes more.

Ghiasi et al., Simple Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation, 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from manylens.training.dense.store import ObjectStore


@dataclass(frozen=True)
class Pool:
    """Objects that may be pasted, and the running sums of their chances."""

    rows: npt.NDArray[np.int64]
    sums: npt.NDArray[np.float64]

    @classmethod
    def of(cls, store: ObjectStore, rates: Sequence[float]) -> Pool | None:
        """Objects with a mask that are one thing of a class whose rate is above 0; None where there are none."""
        classes = store.classes
        counts = np.bincount(classes[classes >= 0], minlength=len(store.names))
        of_class = np.asarray(rates, np.float64) if len(rates) else counts.astype(np.float64)
        each = np.where(counts > 0, of_class / np.maximum(counts, 1), 0.0)
        chances = np.where((classes >= 0) & ~store.crowd & store.has_mask, each[classes], 0.0)
        rows = np.flatnonzero(chances)
        return cls(rows, np.cumsum(chances[rows])) if len(rows) else None

    def drawn(self, random: np.random.Generator, count: int) -> list[int]:
        """Numbers of some of them, each drawn by its chance."""
        places = np.searchsorted(self.sums, random.random(count) * self.sums[-1], side="right")
        found: list[int] = self.rows[places.clip(max=len(self.rows) - 1)].tolist()
        return found


def paste_rates(counts: Sequence[int], power: float = 0.5, things: Sequence[bool] = ()) -> tuple[float, ...]:
    """How often objects of each class are pasted, by each other: the rarer, the more.

    Args:
        counts: Objects of each class.
        power: 0: all classes alike; 1: one of half as many objects is pasted twice as often.
        things: Whether a class has instances; others are not pasted. By default all have.
    """
    may = np.asarray(counts) > 0
    if len(things):
        may &= np.asarray(things)
    rates = np.where(may, np.maximum(counts, 1) ** -float(power), 0.0)
    return tuple((rates / max(rates.sum(), 1e-12)).tolist())
