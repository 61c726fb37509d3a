"""A class for each pixel: a linear head, or one like UPerNet, on an encoder that is frozen or learns too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from manylens.data import Dataset
from manylens.data.records import BACKGROUND
from manylens.training.balance import losses
from manylens.training.balance.names import check_name
from manylens.training.dense.losses import VOID, class_dice, enlarged
from manylens.training.dense.scene import Scene
from manylens.training.dense.store import ObjectStore
from manylens.training.dense.targets import Classes, class_map
from manylens.training.errors import TrainError
from manylens.training.extras import need
from manylens.training.recipes.base import Given, Step
from manylens.training.recipes.on_objects import OnObjects, usual_features

_COVERED = 0.98
"""Share of a picture that annotations cover where they are meant to cover all of it."""


class Semantic(OnObjects):
    """Trains for ``segment`` in the mode ``semantic``.

    Options of the config: ``unlabelled``, what pixels without annotation are: ``void`` (not judged) or ``background``
    (a class of its own); by default what the data look like. ``dice``: weight of dice beside the loss of pixels (0).
    """

    name: ClassVar[str] = "semantic"
    architecture: ClassVar[str] = "AdaptedSegmenter"
    heads: ClassVar[tuple[str, ...]] = ("linear-mask", "upernet")
    options_of: ClassVar[tuple[str, ...]] = ("unlabelled", "dice")
    monitor = "miou"
    judges = ("miou", "pixel_accuracy", "loss")

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        section = self.config.imbalance
        if section.loss == "ldam":
            raise TrainError("imbalance.loss 'ldam': is for whole pictures", "choose weighted or logit_adjusted")
        usual = {"smoothing": self.config.regularise.label_smoothing, "ignore_index": VOID}
        self.criterion = losses.build(section.loss, self._pixels(), **{**usual, **section.loss_options})
        self._dice = float(self.config.options.get("dice", 0.0))
        self.adapt()
        metrics = need("torchmetrics")
        classes = len(self.labels)
        self._confusion = metrics.ConfusionMatrix(task="multiclass", num_classes=classes, ignore_index=VOID)
        self._loss = metrics.MeanMetric()

    def found(self, given: Given, train: Dataset) -> tuple[Classes, ObjectStore]:
        """All classes, and what pixels without annotation are."""
        said = given.config.options.get("unlabelled")
        if said is not None:
            check_name("options.unlabelled", said, ("void", "background"))
        categories = given.data.categories
        first = Classes.of(categories)
        store = ObjectStore.of(train, first.names)
        usual = "void" if BACKGROUND in first.names or _covered(store) >= _COVERED else "background"
        unlabelled: Any = said or usual
        if said is None and unlabelled == "background":
            given.say("pixels without annotation are taken for background; options.unlabelled=void leaves them out")
        classes = Classes.of(categories, unlabelled=unlabelled)
        return classes, store if classes.names == first.names else ObjectStore.of(train, classes.names)

    def head_options(self) -> dict[str, Any]:
        """Four blocks for the four levels of a pyramid."""
        options = super().head_options()
        if self.kind == "upernet":
            options.setdefault("features", usual_features(self.given.trainable, 4))
        return options

    def embedded(self, batch: Mapping[str, Any]) -> Tensor:
        """What the last layer sees of a batch, ``(B, D, h, w)``."""
        features = batch["features"] if self.cached else self.backbone(batch["pixels"])
        return self.head.embedded(features)  # type: ignore[operator]

    def of_embedded(self, embedded: Tensor) -> Tensor:
        """Logits ``(B, C, h, w)`` of that."""
        return self.head.of_embedded(embedded)  # type: ignore[operator]

    def details(self) -> dict[str, Any]:
        """Which class is none, and which have instances."""
        return {"ground": self.classes.ground, "things": list(self.classes.things)}

    def targets(self) -> Callable[[Sequence[Scene]], dict[str, Any]]:
        """``labels`` int64 ``(B, side, side)``."""
        return partial(_labels, self.classes)

    def loss(self, batch: Any, step: Step) -> dict[str, Tensor]:
        """The criterion over pixels, and dice where it is asked for."""
        labels = batch["labels"]
        seen = self.embedded(batch)
        logits = enlarged(self.of_embedded(seen), labels)
        found = {"loss": self.criterion(logits, labels, progress=step.share)}
        if self._dice:
            found["dice"] = class_dice(logits, labels)
            found["loss"] = found["loss"] + self._dice * found["dice"]
        return self.with_target(found, seen, step)

    def judge(self, batch: Any) -> None:
        """Count a batch of the validation split."""
        labels = batch["labels"]
        logits = self.criterion.answer(enlarged(self.answer(batch)["logits"], labels))
        for metric in (self._confusion, self._loss):
            metric.to(logits.device)
        self._confusion.update(logits.argmax(dim=1), labels)
        each = torch.nn.functional.cross_entropy(logits, labels, ignore_index=VOID, reduction="none")
        self._loss.update(each[labels != VOID])

    def figures(self) -> dict[str, float]:
        """Mean IoU over the classes that occur, and the share of pixels that are right, at the size of the squares."""
        table = self._confusion.compute().double().cpu().numpy()
        found = {"miou": mean_iou(table), "loss": float(self._loss.compute()) if table.any() else 0.0}
        found["pixel_accuracy"] = float(np.trace(table) / max(table.sum(), 1))
        self._confusion.reset()
        self._loss.reset()
        return found

    def save(self, folder: Path) -> None:
        """Write the folder, with what the loss adds to the answer in the head's own numbers."""
        offset = self.criterion.offset
        if offset is None:
            super().save(folder)
            return
        bias: Any = self.head.classes.bias  # type: ignore[union-attr]
        with torch.no_grad():
            before = bias.clone()
            bias.add_(offset.to(bias))
            try:
                super().save(folder)
            finally:
                bias.copy_(before)

    def _pixels(self) -> np.ndarray:
        """About how many pixels each class has."""
        store, ground = self.store, self.classes.ground
        named = store.classes >= 0
        counts = np.bincount(store.classes[named], store.areas[named], len(self.labels))
        if ground != VOID:
            total = sum(float(np.prod(store.size(picture))) for picture in range(len(store)))
            counts[ground] += max(total - store.areas.sum(), 0.0)
        return counts


def mean_iou(table: np.ndarray) -> float:
    """Mean IoU of a table of pixels by true and predicted class ``(C, C)``, over the classes that occur in either."""
    common = np.diagonal(table)
    union = table.sum(axis=0) + table.sum(axis=1) - common
    return float((common[union > 0] / union[union > 0]).mean()) if (union > 0).any() else 0.0


def _labels(classes: Classes, scenes: Sequence[Scene]) -> dict[str, Any]:
    return {"labels": torch.from_numpy(np.stack([class_map(one, classes) for one in scenes]))}


def _covered(store: ObjectStore) -> float:
    """The mean share of a picture that annotations cover, overlaps counted twice, at most 1."""
    areas, starts = store.areas, store.starts
    shares = [
        min(areas[a:b].sum() / np.prod(store.size(number)), 1.0)
        for number, (a, b) in enumerate(pairwise(starts.tolist()))
    ]
    return float(np.mean(shares)) if shares else 0.0
