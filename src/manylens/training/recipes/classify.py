"""Naming what a whole picture shows: a linear, MLP or attentive head on an encoder that is frozen or learns too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from manylens.training.augment import cutmix, mixup
from manylens.training.balance import losses, sampling, synthetic, weights
from manylens.training.errors import TrainError
from manylens.training.extras import need
from manylens.training.inputs.features import Features
from manylens.training.recipes.base import Given, Source, Step
from manylens.training.recipes.on_labelled import Kept, Labelled, OnLabelled

_COSINES = 30.0
"""What cosines are multiplied with before a softmax (Cao et al., 2019)."""


class Classify(OnLabelled):
    """Trains for ``classify``: one class a picture."""

    name: ClassVar[str] = "classify"
    idle = ("augment.copy_paste", "options")
    architecture: ClassVar[str] = "AdaptedClassifier"
    heads: ClassVar[tuple[str, ...]] = ("linear", "mlp", "attentive")
    monitor = "balanced_accuracy"
    mode = "max"
    judges = ("accuracy", "balanced_accuracy", "worst_recall", "f1", "loss")

    def __init__(self, given: Given) -> None:
        train = given.of(given.config.data.train)
        assert train is not None
        names = sorted({label for label in train.values("label") if label})
        if len(names) < 2:
            shown = f"all pictures are {names[0]!r}" if names else "no picture has a label"
            raise TrainError(f"{train.name}, split {given.config.data.train!r}: {shown}", "give two classes or more")
        val = given.of(given.config.data.val)
        super().__init__(given, names, Labelled(train, names), Labelled(val, names) if val is not None else None)
        config = self.config
        counts = weights.tally(self._train.numbers, len(self.labels))
        usual: dict[str, Any] = {"smoothing": config.regularise.label_smoothing}
        if config.imbalance.loss == "ldam":
            usual["scale"] = _COSINES
        self.criterion = losses.build(config.imbalance.loss, counts, **{**usual, **config.imbalance.loss_options})
        self.adapt()
        self._judged_classes = np.unique(self._val.numbers) if self._val is not None else np.arange(len(self.labels))
        self._metrics = _metrics(len(self.labels))

    def head_options(self) -> dict[str, Any]:
        """Margins (LDAM) are of cosines."""
        options = super().head_options()
        if self.config.imbalance.loss == "ldam":
            options.setdefault("cosine", True)
        return options

    def on_pixels(self) -> bool:
        """Cutmix is of pixels."""
        return self.config.regularise.cutmix > 0

    def details(self) -> dict[str, Any]:
        """Nothing more."""
        return {}

    def embedded(self, batch: Mapping[str, Any]) -> Tensor:
        """What the last layer sees of a batch, ``(B, D)``."""
        features = batch["features"] if self.cached else self.backbone(batch["pixels"])
        return self.head.embedded(features)  # type: ignore[operator]

    def of_embedded(self, embedded: Tensor) -> Tensor:
        """Logits ``(B, C)`` of that."""
        return self.head.of_vector(embedded)  # type: ignore[operator]

    # ------------------------------------------------------------------ what the loop asks

    def draws(self, epoch: int) -> np.ndarray:
        """As the config's sampling says."""
        section = self.config.imbalance
        source = self.train_source()
        labels = source.labels if isinstance(source, Kept) else self._train.numbers
        return sampling.draw(section.sampling, labels, seed=self.config.seed, epoch=epoch, **section.sampling_options)

    def loss(self, batch: Any, step: Step) -> dict[str, Tensor]:
        """The criterion, on mixtures where the config asks for them."""
        regularise = self.config.regularise
        shown, target = batch["features" if self.cached else "pixels"], batch["target"]
        cuts = regularise.cutmix and (not regularise.mixup or bool(torch.rand(()) < 0.5))
        if cuts:
            shown, target, *_ = cutmix(shown, target, labels=len(self.labels), alpha=regularise.cutmix)
        elif regularise.mixup:
            shown, target, *_ = mixup(shown, target, labels=len(self.labels), alpha=regularise.mixup)
        vectors = self.embedded({"features" if self.cached else "pixels": shown})
        logits = self.of_embedded(vectors)
        found = {"loss": self.criterion(logits, target, progress=step.share)}
        return self.with_target(found, vectors, step)

    def judge(self, batch: Any) -> None:
        """Count a batch of the validation split."""
        logits = self.criterion.answer(self.answer(batch)["logits"].float())
        target = batch["target"]
        self._metrics["loss"].update(functional.cross_entropy(logits, target, reduction="none"))
        for name, metric in self._metrics.items():
            if name != "loss":
                metric.update(logits.softmax(dim=1), target)

    def figures(self) -> dict[str, float]:
        """Accuracy, balanced accuracy (mean recall), the recall of the worst class, macro F1 and the loss."""
        found = {}
        for name, metric in self._metrics.items():
            value = metric.compute()
            found[name] = float(value[self._judged_classes].min() if name == "worst_recall" else value)
            metric.reset()
        return found

    def save(self, folder: Path) -> None:
        """Write the folder, with what the loss says of the answer in the head's own numbers."""
        with torch.no_grad():
            state = {name: one.clone() for name, one in self.head.state_dict().items()}
            fold(self.head, self.criterion.scale, self.criterion.offset)
            try:
                super().save(folder)
            finally:
                self.head.load_state_dict(state)

    # ------------------------------------------------------------------ parts

    def _made_source(self) -> Source:
        """As ever, with the examples that are made for rare classes."""
        synthetic_kind = self.config.imbalance.synthetic
        if synthetic_kind and not self.cached:
            raise TrainError(
                f"imbalance.synthetic {synthetic_kind!r}: works on the features of a frozen encoder",
                "set transfer.mode=frozen, or leave it away",
            )
        return super()._made_source()

    def _kept_source(self, found: Features) -> Kept:
        kept = super()._kept_source(found)
        if self.config.imbalance.synthetic:
            kept.add(self._synthetic(found))
        return kept

    def _synthetic(self, found: Features) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Features and classes that are made for rare classes."""
        names = self.head_vectors()
        if len(names) != len(self.backbone.needs):
            raise TrainError(
                f"imbalance.synthetic: the head {self.kind!r} reads maps, and new examples are made of vectors",
                "choose the head linear or mlp",
            )
        section = self.config.imbalance
        vectors = np.concatenate([found.vectors(name)[:, 0] for name in names], axis=1)
        made = synthetic.resample(
            section.synthetic,
            vectors,
            self._train.numbers,
            seed=self.config.seed,
            neighbours=section.synthetic_neighbours,
            classes=self.labels,
        )
        for note in made.notes:
            self.given.say(note)
        new = made.vectors[made.made]
        edges = np.cumsum([self.backbone.widths[name] for name in names])[:-1]
        return dict(zip(names, np.split(new, edges, axis=1), strict=True)), made.labels[made.made]


def fold(head: torch.nn.Module, scale: float, offset: Tensor | None) -> None:
    """Put ``logits * scale + offset`` into a head."""
    found: Any = head
    found.factor.mul_(scale)
    if offset is not None:
        found.classes.bias.add_(offset.to(found.classes.bias) / found.factor)


def _metrics(classes: int) -> dict[str, Any]:
    found = need("torchmetrics")
    of = {"task": "multiclass", "num_classes": classes}
    return {
        "accuracy": found.Accuracy(**of, average="micro"),
        "balanced_accuracy": found.Accuracy(**of, average="macro"),
        "worst_recall": found.Recall(**of, average=None),
        "f1": found.F1Score(**of, average="macro"),
        "loss": found.MeanMetric(),
    }
