"""Objects and regions with masks: queries on an encoder that is frozen or learns too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from manylens.data import Dataset
from manylens.evaluation.measure import Measure, Regions
from manylens.evaluation.measures.detection import Detection
from manylens.evaluation.measures.panoptic import Panoptic
from manylens.evaluation.measures.semantic import Semantic
from manylens.media import to_rle
from manylens.models.adapted.finders import LEAST_MASK, joined_masks
from manylens.models.adapted.heads import readout
from manylens.models.masks.queries import Segment
from manylens.training.balance.names import check_name
from manylens.training.config import Config
from manylens.training.dense.scene import Scene
from manylens.training.dense.sets import SetWeights, set_loss
from manylens.training.dense.store import ObjectStore
from manylens.training.dense.targets import Classes, Kind, objects
from manylens.training.recipes.base import Given, Step
from manylens.training.recipes.on_objects import OnObjects, usual_features

_FIGURES: dict[str, dict[str, str]] = {
    "instance": {"map": "AP", "map50": "AP50"},
    "panoptic": {"pq": "PQ", "sq": "SQ", "rq": "RQ"},
    "semantic": {"miou": "mIoU", "pixel_accuracy": "pixel accuracy"},
}
"""By what the queries are taught to find: figures of validation, and what the measure calls them; the first decides."""

_SURE = 0.5
"""The least score of a panoptic region that validation looks at."""

_ROOM = 1.5
"""Queries for each object of the fullest picture."""


class Masks(OnObjects):
    """Trains for ``segment`` in the modes ``instance``, ``panoptic`` and ``semantic``.

    Options of the config: ``kind``, one of the modes, which says what an object is (``instance``); ``points``, in how
    many a mask is looked at (2048); ``classes``, ``masks``, ``dice``, ``nothing``: weights, see
    :class:`manylens.training.dense.sets.SetWeights`.
    """

    name: ClassVar[str] = "masks"
    idle = (*OnObjects.idle, "regularise.label_smoothing", "domain.kind")
    architecture: ClassVar[str] = "AdaptedMasks"
    heads: ClassVar[tuple[str, ...]] = ("eomt",)
    options_of: ClassVar[tuple[str, ...]] = ("kind", "points", "classes", "masks", "dice", "nothing")
    usual_rates: ClassVar[tuple[float, float]] = (2e-3, 5e-4)

    def __init__(self, given: Given) -> None:
        self._kind = _kind(given.config)
        self.judges = tuple(_FIGURES[self._kind])
        super().__init__(given)
        weights = {key: value for key, value in self.config.options.items() if key != "kind"}
        self._weights, self._class_weights = SetWeights(**weights), self.class_weights()
        self._found: list[tuple[int, Regions]] = []

    @classmethod
    def watched(cls, config: Config) -> str:
        """The first figure of what the queries are taught to find."""
        return next(iter(_FIGURES[_kind(config)]))

    def found(self, given: Given, train: Dataset) -> tuple[Classes, ObjectStore]:
        """The classes that have instances; all where regions of stuff are wanted too."""
        if self._kind == "instance":
            return super().found(given, train)
        classes = Classes.of(given.data.categories)
        return classes, ObjectStore.of(train, classes.names)

    def head_options(self) -> dict[str, Any]:
        """More queries than any picture has objects; a block in the middle sees what the last one has lost."""
        options = super().head_options()
        options.setdefault("features", usual_features(self.given.trainable, 2))
        most = int(np.diff(self.store.starts).max(initial=0))
        options.setdefault("queries", max(50, round(_ROOM * most)))
        return options

    def details(self) -> dict[str, Any]:
        """What the queries were taught to find."""
        return {"kind": self._kind, "things": list(self.classes.things)}

    def targets(self) -> Callable[[Sequence[Scene]], dict[str, Any]]:
        """``objects``, a list of them."""
        return partial(_objects, self.classes, self._kind)

    def before_epoch(self, step: Step) -> None:
        """Attention is masked as far as the training has come, also where it is judged."""
        super().before_epoch(step)
        self.head.anneal(step.share)  # type: ignore[operator]

    def loss(self, batch: Any, step: Step) -> dict[str, Tensor]:
        """The loss of the set, of every stage of the decoder."""
        self.head.anneal(step.share)  # type: ignore[operator]
        return set_loss(self.answer(batch), batch["objects"], self._weights, self._class_weights)

    def judge(self, batch: Any) -> None:
        """Read out a batch of the validation split, at the size of its pictures."""
        self.judge_answers(batch, [self.answer(batch)])

    def judge_answers(self, batch: Any, answers: Sequence[Mapping[str, Tensor]], shares: Sequence[float] = ()) -> None:
        """Likewise by what one model answers, or several, whose instances are fused.

        Args:
            batch: Of the validation split.
            answers: Of each model to all of it.
            shares: Of the models, where there are several.
        """
        each = [{name: one[name].float().cpu().numpy() for name in ("classes", "masks")} for one in answers]
        for place, number in enumerate(batch["numbers"].tolist()):
            assert self._val is not None
            size = self._val.size(number)
            read = [self._read(one["classes"][place], one["masks"][place], size) for one in each]
            found = joined_masks(read, shares, size) if shares else read[0]
            scores = np.array([one.score for one in found], np.float32)
            names = [self.labels[one.label] for one in found]
            self._found.append((number, Regions(names, scores, masks=[to_rle(one.mask) for one in found])))

    def _read(self, classes: np.ndarray, masks: np.ndarray, size: tuple[int, int]) -> list[Segment]:
        least = LEAST_MASK if self._kind == "instance" else _SURE
        return readout.regions(classes, masks, size, self._kind, threshold=least, stuff=self.classes.stuff)

    def figures(self) -> dict[str, float]:
        """AP, PQ or mean IoU, as they are judged elsewhere too."""
        categories = self.own_categories()
        measure: Measure
        if self._kind == "instance":
            measure = Detection(categories, kind="mask")
        else:
            measure = Panoptic(categories) if self._kind == "panoptic" else Semantic(categories)
        return self.judged(self._found, measure, _FIGURES[self._kind])


def _kind(config: Config) -> Kind:
    kind: Kind = config.options.get("kind", "instance")
    check_name("options.kind", kind, _FIGURES)
    return kind


def _objects(classes: Classes, kind: Kind, scenes: Sequence[Scene]) -> dict[str, Any]:
    return {"objects": [objects(one, classes, kind) for one in scenes]}
