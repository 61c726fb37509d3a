"""Boxes of objects: a light head on an encoder that is frozen or learns too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from torch import Tensor

from manylens.evaluation.measure import Regions
from manylens.evaluation.measures.detection import Detection
from manylens.models.adapted.finders import LEAST_BOX, joined_boxes
from manylens.models.adapted.heads import readout
from manylens.training.dense.boxes import BoxWeights, box_loss
from manylens.training.dense.scene import Scene
from manylens.training.dense.targets import Classes, objects
from manylens.training.recipes.base import Given, Step
from manylens.training.recipes.on_objects import OnObjects, usual_features

_FIGURES = {"map": "AP", "map50": "AP50"}


class Detect(OnObjects):
    """Trains for ``detect``.

    Options of the config: ``scores``, ``boxes``, ``most``, ``by_score``, ``by_iou``: weights and assignment, see
    :class:`manylens.training.dense.boxes.BoxWeights`.
    """

    name: ClassVar[str] = "detect"
    idle = (*OnObjects.idle, "regularise.label_smoothing", "domain.kind")
    architecture: ClassVar[str] = "AdaptedDetector"
    heads: ClassVar[tuple[str, ...]] = ("detector",)
    options_of: ClassVar[tuple[str, ...]] = ("scores", "boxes", "most", "by_score", "by_iou")
    masks: ClassVar[bool] = False
    monitor = "map"
    judges = tuple(_FIGURES)

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        self._weights, self._class_weights = BoxWeights(**self.config.options), self.class_weights()
        self._found: list[tuple[int, Regions]] = []

    def head_options(self) -> dict[str, Any]:
        """A block in the middle sees what the last one has lost."""
        options = super().head_options()
        options.setdefault("features", usual_features(self.given.trainable, 2))
        return options

    def details(self) -> dict[str, Any]:
        """Nothing more."""
        return {}

    def targets(self) -> Callable[[Sequence[Scene]], dict[str, Any]]:
        """``objects``, a list of them."""
        return partial(_boxes, self.classes)

    def loss(self, batch: Any, step: Step) -> dict[str, Tensor]:
        """The loss of scores and boxes."""
        return box_loss(self.answer(batch), batch["objects"], self._weights, self._class_weights)

    def judge(self, batch: Any) -> None:
        """Read out a batch of the validation split, at the size of its pictures."""
        self.judge_answers(batch, [self.answer(batch)])

    def judge_answers(self, batch: Any, answers: Sequence[Mapping[str, Tensor]], shares: Sequence[float] = ()) -> None:
        """Likewise by what one model answers, or several, whose boxes are fused.

        Args:
            batch: Of the validation split.
            answers: Of each model to all of it.
            shares: Of the models, where there are several.
        """
        each = [{name: one[name].float().cpu().numpy() for name in ("scores", "boxes")} for one in answers]
        seen = (self.side, self.side)
        for place, number in enumerate(batch["numbers"].tolist()):
            assert self._val is not None
            size = self._val.size(number)
            rows = [(one["scores"][place], one["boxes"][place]) for one in each]
            read = [readout.boxes(*row, seen, size, threshold=LEAST_BOX) for row in rows]
            found, chances, labels = joined_boxes(read, shares) if shares else read[0]
            names = [self.labels[label] for label in labels]
            self._found.append((number, Regions(names, chances, boxes=found)))

    def figures(self) -> dict[str, float]:
        """AP and AP50 of boxes, after COCO."""
        return self.judged(self._found, Detection(self.own_categories()), _FIGURES)


def _boxes(classes: Classes, scenes: Sequence[Scene]) -> dict[str, Any]:
    return {"objects": [objects(one, classes) for one in scenes]}
