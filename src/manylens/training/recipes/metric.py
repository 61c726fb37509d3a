"""An embedding from pictures with labels: near for one class, far for others, also for classes that it never saw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from manylens.data import Dataset
from manylens.training.balance import sampling
from manylens.training.errors import TrainError
from manylens.training.metric import batches, figures, losses
from manylens.training.metric.sharing import whole
from manylens.training.recipes.base import Draw, Given, Step, refuse
from manylens.training.recipes.on_labelled import Labelled, OnLabelled
from manylens.training.recipes.on_objects import gathered
from manylens.training.selfsupervised.objectives import exact
from manylens.training.selfsupervised.options import Options

_PER_CLASS = 4
"""Pictures of a class in a step, where the loss compares pictures with each other."""

_BATCH = 32


class MetricOptions(Options):
    """What the recipe takes in ``options``.

    Attributes:
        loss: ``supcon`` (Khosla et al., 2020), ``proxy_anchor`` (Kim et al., 2020) or ``arcface`` (Deng et al., 2019).
        loss_options: Of it; see :func:`manylens.training.metric.losses.build`.
        per_class: How many pictures of a class come together in a step; by default four for ``supcon``, as far as a
            step has room for two classes, and as it comes for the others, which compare pictures with proxies.
    """

    loss: str = "supcon"
    loss_options: dict[str, Any] = Field(default_factory=dict)
    per_class: int | None = Field(default=None, ge=1)


class Metric(OnLabelled):
    """Trains for ``embed`` on pictures with one class each."""

    name: ClassVar[str] = "metric"
    idle = (
        "imbalance.loss",
        "imbalance.synthetic",
        "regularise.mixup",
        "regularise.cutmix",
        "regularise.label_smoothing",
        "augment.copy_paste",
        "domain.kind",
    )
    architecture: ClassVar[str] = "AdaptedEmbedder"
    heads: ClassVar[tuple[str, ...]] = ("projection", "mlp-projection")
    monitor = "map_at_r"
    mode = "max"
    judges = figures.NAMES

    def __init__(self, given: Given) -> None:
        config = given.config
        self.own = MetricOptions.of(config.options)
        refuse(config, self)  # before anything is read
        self.per_class = _per_class(self.own, config.loop.batch_size)
        train = given.of(config.data.train)
        assert train is not None
        learnt = Labelled(train, _learnable(train, config.data.train))
        super().__init__(given, (), learnt, _judged(given))
        if not any(one.requires_grad for one in self.network.parameters()):
            raise TrainError(
                "head.options.width 0: without a projection nothing learns on a frozen encoder",
                "give a width, or another transfer.mode",
            )
        self.criterion = losses.build(self.own.loss, len(learnt.labels), self._head.width, self.own.loss_options)
        self.network.helper = self.criterion  # proxies learn too, and are not saved with the model
        self._found: list[tuple[np.ndarray, np.ndarray]] = []
        self._untrained: float | None = None
        self._best = 0.0

    def details(self) -> dict[str, Any]:
        """By which loss, and of how many classes it was learnt."""
        return {"loss": self.own.loss, "classes": len(self._train.labels)}

    # ------------------------------------------------------------------ what the loop asks

    def draws(self, epoch: int) -> np.ndarray:
        """As the config's sampling says, those of a class together."""
        section, labels, seed = self.config.imbalance, self._train.numbers, self.config.seed
        order = sampling.draw(section.sampling, labels, seed=seed, epoch=epoch, **section.sampling_options)
        return batches.grouped(order, labels[order], self.per_class, seed=seed, epoch=epoch)

    def loss(self, batch: Any, step: Step) -> dict[str, Tensor]:
        """The criterion, on the pictures of all processes."""
        vectors = self.answer(batch)["vector"].float()
        with exact(vectors):
            return {"loss": self.criterion(whole(vectors), whole(batch["target"]))}

    @torch.no_grad()
    def before_epoch(self, step: Step) -> None:
        """Tell first what the encoder's own vectors are worth: later figures are held to that."""
        if step.number == 0 and self.val_source() is not None:
            found = self._of_encoder()
            self._untrained = found[self.monitor]
            told = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
            self.given.say(f"before training: {told}")
        super().before_epoch(step)

    def judge(self, batch: Any) -> None:
        """Keep the vectors of a batch."""
        self._keep(self.answer(batch)["vector"], batch["target"])

    def figures(self) -> dict[str, float]:
        """Of a search within the validation split."""
        rows, self._found = gathered(self._found), []
        found = figures.retrieval(*(np.concatenate(part) for part in zip(*rows, strict=True)))
        self._best = max(self._best, found[self.monitor])
        return found

    def finish(self) -> None:
        """Say where nothing was won."""
        if self._untrained is not None and self._best <= self._untrained:
            self.given.say(
                f"the trained vectors find no better than the encoder's own: {self.monitor} {self._best:.3f}, "
                f"before {self._untrained:.3f}"
            )

    # ------------------------------------------------------------------ parts

    @property
    def _head(self) -> Any:
        return self.head

    def _keep(self, vectors: Tensor, targets: Tensor) -> None:
        self._found.append((vectors.float().cpu().numpy(), targets.cpu().numpy()))

    def _of_encoder(self) -> dict[str, float]:
        """The figures of what the head is given; each process sees all of it."""
        source = self.val_source()
        assert source is not None
        device = next(self.network.parameters()).device
        self.network.eval()
        rows = []
        for start in range(0, len(source), _BATCH):
            batch = source.__getitems__([Draw(place, 0, 0) for place in range(start, min(start + _BATCH, len(source)))])
            shown = batch["features"] if self.cached else self.backbone(batch["pixels"].to(device))
            rows.append((self._head.given(shown).float().cpu().numpy(), batch["target"].numpy()))
        self.network.train()
        return figures.retrieval(*(np.concatenate(part) for part in zip(*rows, strict=True)))


def _per_class(options: MetricOptions, batch: int) -> int:
    """How many of a class come together in a step of so many."""
    most = max(batch // 2, 1)
    if options.per_class is None:
        return min(_PER_CLASS, most) if options.loss == "supcon" else 1
    if options.per_class > most:
        raise TrainError(
            f"options.per_class {options.per_class}: a step of {batch} pictures has no room for two classes",
            f"give {most} or fewer, or a larger loop.batch_size",
        )
    return options.per_class


def _learnable(train: Dataset, split: str) -> Sequence[str]:
    """The classes of the training split, where one can learn from them."""
    labels = [label for label in train.values("label") if label]
    names = sorted({*labels})
    where, other = f"{train.name}, split {split!r}", "learn without labels: --recipe dino"
    if not names:
        raise TrainError(f"{where}: no picture has a label", f"label them, or {other}")
    if len(names) < 2:
        raise TrainError(f"{where}: all pictures are {names[0]!r}", f"give two classes or more, or {other}")
    if len(labels) == len(names):
        raise TrainError(f"{where}: every class has one picture", f"give two of a class or more, or {other}")
    return names


def _judged(given: Given) -> Labelled | None:
    """The labelled pictures of validation, of any classes; None where no class has two of them."""
    val = given.of(given.config.data.val)
    if val is None:
        return None
    labels = [label for label in val.values("label") if label]
    if len(labels) == len({*labels}):
        given.say(f"split {given.config.data.val!r}: no class has two pictures: nothing tells how good the vectors are")
        return None
    return Labelled(val, sorted({*labels}))
