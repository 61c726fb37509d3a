"""Ensembles whose members find objects: each answers for itself, and what they found is fused.

What a member is less sure of than of nearly nothing is not looked at; a threshold that is asked for is held against the
fused scores. So a lower one only adds objects, and the others stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.errors import UnsupportedError
from manylens.models.adapted.dense import AdaptedDetector, AdaptedMasks
from manylens.models.adapted.ensemble import MEMBERS, Ensemble, side_by_side
from manylens.models.adapted.fusion import Boxes, Instances, fuse, fuse_boxes
from manylens.models.adapted.heads import readout
from manylens.models.masks.queries import Segment

if TYPE_CHECKING:
    from manylens.catalog import Row
    from manylens.runtime.engines import EngineSettings

LEAST_MASK, LEAST_BOX = 0.05, 0.01
"""The least score of an instance, or a box, of one model that is looked at."""

_LIMIT = 100
"""Most objects of a picture, as of one model."""

Found = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Boxes, scores and classes, as :func:`manylens.models.adapted.heads.readout.boxes` gives them."""


class Finders(Ensemble):
    """What such ensembles share: the members' answers side by side."""

    def __init__(self, row: Row, files: Mapping[str, Path], settings: EngineSettings) -> None:
        super().__init__(row, files, settings)
        self._of_one = type(self).outputs
        self.outputs = tuple(f"{number}.{name}" for number in range(len(self.members)) for name in self._of_one)

    @property
    def shares(self) -> list[float]:
        """Of the members."""
        return [one.share for one in self.members]

    def module(self) -> Any:
        """The network in torch, in evaluation mode: pixels ``(B, 3, side, side)`` in 0..1 to ``NUMBER.NAME``."""
        return side_by_side(self.members, self._opened, self.row.id)

    def each(self, answers: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
        """The answers of each member."""
        return [{name: answers[f"{number}.{name}"] for name in self._of_one} for number in range(len(self.members))]


class AdaptedMasksEnsemble(Finders, AdaptedMasks):
    """Serves ``segment`` in the mode instance: objects matched by their masks, which their finders vote on."""

    def found(
        self, answers: Mapping[str, np.ndarray], size: tuple[int, int], kind: readout.Kind, threshold: float
    ) -> list[Segment]:
        """See :meth:`AdaptedMasks.found`.

        Raises:
            UnsupportedError: Other regions than instances are asked for.
        """
        if kind != "instance":
            member = Path(self.row.id) / MEMBERS / self.members[0].name
            raise UnsupportedError(
                f"{self.row.id}: fuses instances, not {kind} regions", f"name a member, such as {member}"
            )
        plain = super().found
        found = [plain(one, size, kind, LEAST_MASK) for one in self.each(answers)]
        return joined_masks(found, self.shares, size, threshold)


class AdaptedDetectorEnsemble(Finders, AdaptedDetector):
    """Serves ``detect``: boxes of several members that overlap much are one, their mean."""

    def found(self, answers: Mapping[str, np.ndarray], place: int, size: tuple[int, int], threshold: float) -> Found:
        """See :meth:`AdaptedDetector.found`."""
        plain = super().found
        found = [plain(one, place, size, LEAST_BOX) for one in self.each(answers)]
        return joined_boxes(found, self.shares, threshold)


def joined_masks(
    found: Sequence[Sequence[Segment]], shares: Sequence[float], size: tuple[int, int], least: float = 0.0
) -> list[Segment]:
    """Instances that models found in a picture, fused.

    Args:
        found: By each model.
        shares: Of the models.
        size: ``(width, height)`` of the picture.
        least: Score below which a fused instance is left out.
    """
    given = [
        Instances(
            np.stack([one.mask for one in mine]) if mine else np.zeros((0, size[1], size[0]), bool),
            np.array([one.score for one in mine], np.float64),
            np.array([one.label for one in mine], np.int64),
        )
        for mine in found
    ]
    made = fuse(given, shares, least=least)
    rows = zip(made.masks[:_LIMIT], made.classes.tolist(), made.scores.tolist(), strict=False)
    return [Segment(mask, label, score) for mask, label, score in rows]


def joined_boxes(found: Sequence[Found], shares: Sequence[float], least: float = 0.0) -> Found:
    """Likewise of boxes."""
    made = fuse_boxes([Boxes(*one) for one in found], shares, least=least)
    boxes, scores = made.boxes.astype(np.float32), made.scores.astype(np.float32)
    return boxes[:_LIMIT], scores[:_LIMIT], made.classes[:_LIMIT]
