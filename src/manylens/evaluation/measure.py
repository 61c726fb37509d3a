"""What every measure is: records and predictions in, one at a time, a tally out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from manylens.data.problems import Problems
from manylens.data.records import Category, Record

if TYPE_CHECKING:
    from manylens.evaluation.tally import Tally


@dataclass(frozen=True, eq=False)
class Regions:
    """Predicted boxes or masks of one picture; light enough to keep a hundred thousand of.

    Attributes:
        names: Class name of each of the k regions; empty text where there is none.
        scores: float32 ``(k,)``; any order.
        boxes: float32 ``(k, 4)`` xyxy in pixels, max exclusive; None where there are masks only.
        masks: COCO RLE of each, or None where there are boxes only.
        ids: Of each prediction, as a file has it, for problems; empty where there is none.
    """

    names: Sequence[str]
    scores: np.ndarray
    boxes: np.ndarray | None = None
    masks: Sequence[Mapping[str, Any]] | None = None
    ids: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.names)


@dataclass
class Measure(ABC):
    """Base of measures that judge one finished prediction for each record.

    Args:
        categories: Of the data set.
        problems: Takes what is wrong with predictions (NaN scores, unknown categories); such a row is left out.
        columns: Columns of records (and of annotations, where a unit is an annotation) to keep for slices.
    """

    name: ClassVar[str] = ""

    categories: Sequence[Category] = ()
    problems: Problems = field(default_factory=Problems)
    columns: Sequence[str] = ()

    @abstractmethod
    def add(self, record: Record, prediction: Any) -> None:
        """Judge a prediction; the measure keeps numbers, never pictures.

        Args:
            record: The truth.
            prediction: Of the type that the measure states; None where the model gave nothing.
        """

    @abstractmethod
    def tally(self) -> Tally:
        """What was counted so far."""
