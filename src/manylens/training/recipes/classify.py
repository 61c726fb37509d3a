"""Naming what a whole picture shows: a linear, MLP or attentive head on an encoder that is frozen or learns too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from manylens.data import Dataset
from manylens.models.adapted.heads.vector import Standardised
from manylens.training.augment import cutmix, mixup
from manylens.training.balance import losses, sampling, synthetic, weights
from manylens.training.domain.norms import needed
from manylens.training.errors import TrainError
from manylens.training.extras import need
from manylens.training.inputs.features import Features
from manylens.training.inputs.pictures import Pictures
from manylens.training.inputs.views import Views
from manylens.training.recipes.adapting import Adapting
from manylens.training.recipes.base import Draw, Given, Source, Step
from manylens.training.recipes.on_encoder import OnEncoder

_COSINES = 30.0
"""What cosines are multiplied with before a softmax (Cao et al., 2019)."""


class Classify(OnEncoder):
    """Trains for ``classify``: one class a picture."""

    name: ClassVar[str] = "classify"
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
        super().__init__(given, names)
        config = self.config
        self._train = Labelled(train, self.labels)
        val = given.of(config.data.val)
        self._val = Labelled(val, self.labels) if val is not None else None
        counts = weights.tally(self._train.numbers, len(self.labels))
        usual: dict[str, Any] = {"smoothing": config.regularise.label_smoothing}
        if config.imbalance.loss == "ldam":
            usual["scale"] = _COSINES
        self.criterion = losses.build(config.imbalance.loss, counts, **{**usual, **config.imbalance.loss_options})
        self._views = Views.of(config, self._train.ids, self._train.numbers, counts)
        self._sources: dict[str, Source] = {}
        self._adapting = self._target()
        if self._adapting is not None and self._adapting.helper is not None:
            self.network.helper = self._adapting.helper  # learns too, and is not saved with the model
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

    # ------------------------------------------------------------------ what the loop asks

    def train_source(self) -> Source:
        """Features or pixels, with numbers of classes."""
        if "train" not in self._sources:
            self._sources["train"] = self._made_source()
        return self._sources["train"]

    def val_source(self) -> Source | None:
        """Likewise, as they are."""
        if self._val is None:
            return None
        if "val" not in self._sources:
            pictures = Pictures(self._val.paths, self.side)
            if self.cached:
                self._sources["val"] = Kept(self.features(pictures), self._val, None)
            else:
                self._sources["val"] = Squares(pictures, self._val, None)
        return self._sources["val"]

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
        vectors = self._embedded({"features" if self.cached else "pixels": shown})
        logits = self._of_embedded(vectors)
        found = {"loss": self.criterion(logits, target, progress=step.share)}
        if self._adapting is not None:
            more = self._adapting.loss(vectors, len(target), step, self._embedded, self._logits)
            if more:
                found |= {"task": found["loss"].detach(), **more}
                found["loss"] = found["loss"] + self.config.domain.weight * more["domain"]
        return found

    def before_epoch(self, step: Step) -> None:
        """Also draws pseudo-labels."""
        super().before_epoch(step)
        if self._adapting is not None:
            self.network.eval()
            self._adapting.before_epoch(step, self._logits)
            self.network.train()
            super().before_epoch(step)  # holds what is frozen once more

    def finish(self) -> None:
        """Adapt to the target what is adapted once the training is over."""
        if self._adapting is not None:
            said = self._adapting.finish(self.network, self._logits)
            if said:
                self.given.say(said)

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

    def _embedded(self, batch: Mapping[str, Any]) -> Tensor:
        """What the last layer sees of a batch."""
        features = batch["features"] if self.cached else self.backbone(batch["pixels"])
        return self.head.embedded(features)  # type: ignore[operator]

    def _of_embedded(self, vectors: Tensor) -> Tensor:
        return self.head.of_vector(vectors)  # type: ignore[operator]

    def _logits(self, batch: Mapping[str, Any]) -> Tensor:
        return self._of_embedded(self._embedded(batch))

    def _target(self) -> Adapting | None:
        """The pictures of the target, where the config names some."""
        config = self.config
        if not config.domain.kind:
            return None
        if config.data.target is None:
            raise TrainError(f"domain.kind {config.domain.kind!r}: there is no target", "name it with data.target")
        if config.domain.kind in ("coral", "dann") and self.cached and self.kind == "linear":
            raise TrainError(
                f"domain {config.domain.kind!r}: a linear head on a frozen encoder has no features that could adapt",
                "choose head.kind mlp, or another transfer.mode",
            )
        if config.domain.kind in ("adabn", "tent") and self.cached:
            raise TrainError(
                f"domain {config.domain.kind!r}: changes the norms of the encoder, whose features are kept",
                "choose another transfer.mode than frozen",
            )
        if config.domain.kind == "adabn":
            needed(self.backbone)
        records = list(Dataset.read(config.data.target, format=config.data.target_format).records())
        pictures = Pictures([record.path for record in records], self.side)
        numbers = np.zeros(len(records), np.int64)
        found = self.features(pictures) if self.cached else None

        def batch_of(asked: np.ndarray) -> Mapping[str, Any]:
            if found is not None:
                return {"features": found.get(asked, numbers[: len(asked)])}
            return {"pixels": pictures.tensor(asked.tolist())}

        width = self.head.classes.in_features  # type: ignore[union-attr]
        return Adapting(config.domain, batch_of, len(records), int(width))  # type: ignore[arg-type]

    def _made_source(self) -> Source:
        config = self.config
        pictures = Pictures(self._train.paths, self.side)
        if not self.cached:
            if config.imbalance.synthetic:
                raise TrainError(
                    f"imbalance.synthetic {config.imbalance.synthetic!r}: works on the features of a frozen encoder",
                    "set transfer.mode=frozen, or leave it away",
                )
            source: Source = Squares(pictures, self._train, self._views)
            self._measure(self._encoded_sample(pictures))
            return source
        found = self.features(pictures, self._views)
        kept = Kept(found, self._train, self._views)
        if config.imbalance.synthetic:
            kept.add(self._synthetic(found))
        self._measure({name: torch.from_numpy(found.vectors(name)[:, 0]) for name in self.head_vectors()})
        return kept

    def head_vectors(self) -> tuple[str, ...]:
        """Features of the head that are vectors."""
        return tuple(name for name in self.backbone.needs if name in ("vector", "mean"))

    def _measure(self, vectors: Mapping[str, Tensor]) -> None:
        norm = getattr(self.head, "norm", None)
        if isinstance(norm, Standardised) and vectors:
            norm.measure(torch.cat([vectors[name].float() for name in self.head_vectors()], dim=-1))

    def _encoded_sample(self, pictures: Pictures, most: int = 256) -> dict[str, Tensor]:
        """Vectors of some pictures, from which the head's scale is measured where the encoder learns too."""
        if not self.head_vectors():
            return {}
        random = np.random.default_rng(self.config.seed)
        numbers = random.permutation(len(pictures))[:most].tolist()
        parts = []
        self.backbone.eval()
        with torch.no_grad():
            for start in range(0, len(numbers), 16):
                parts.append(self.backbone(pictures.tensor(numbers[start : start + 16])))
        return {name: torch.cat([part[name] for part in parts]) for name in self.head_vectors()}

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


class Labelled:
    """Pictures with one class each; those without a class are left out.

    Args:
        data: The records.
        labels: All classes.
    """

    def __init__(self, data: Dataset, labels: Sequence[str]) -> None:
        place = {label: number for number, label in enumerate(labels)}
        records = [(one.id, one.path, place[one.label]) for one in data.records() if one.label in place]
        if not records:
            raise TrainError(f"{data.name}: no picture has a class that is trained for", "look at the labels")
        self.ids = [id for id, _, _ in records]
        self.paths = [path for _, path, _ in records]
        self.numbers = np.array([number for _, _, number in records], np.int64)


class Kept(Source):
    """Kept features with classes; each draw takes one of the views."""

    def __init__(self, found: Features, labelled: Labelled, views: Views | None) -> None:
        self._found, self._ids, self._views = found, labelled.ids, views
        self.labels = labelled.numbers
        self._added: dict[str, Tensor] = {}

    def add(self, made: tuple[dict[str, np.ndarray], np.ndarray]) -> None:
        """Take in features that belong to no picture."""
        self._added = {name: torch.from_numpy(one.astype(np.float32)) for name, one in made[0].items()}
        self.labels = np.concatenate([self.labels, made[1]])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, draws: Sequence[Draw]) -> dict[str, Any]:
        numbers = np.fromiter((draw.index for draw in draws), np.int64, len(draws))
        real = numbers < len(self._found)
        mine = numbers[real]
        shown = np.zeros(len(mine), np.int64) if self._views is None else self._views.shown(mine, draws[0].epoch)
        found = self._found.get(mine, shown)
        if not real.all():
            places = torch.from_numpy(np.argsort(np.concatenate([np.flatnonzero(real), np.flatnonzero(~real)])))
            rest = torch.from_numpy(numbers[~real] - len(self._found))
            found = {name: torch.cat([one, self._added[name][rest]])[places] for name, one in found.items()}
        return {"features": found, "target": torch.from_numpy(self.labels[numbers])}

    def ids(self, draws: Sequence[Draw]) -> list[str]:
        """Names of the pictures."""
        return [self._ids[one.index] if one.index < len(self._ids) else "a made example" for one in draws]


class Squares(Source):
    """Pixels with classes, changed anew in each epoch."""

    def __init__(self, pictures: Pictures, labelled: Labelled, views: Views | None) -> None:
        self._pictures, self._labelled, self._views = pictures, labelled, views

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitems__(self, draws: Sequence[Draw]) -> dict[str, Any]:
        numbers = [draw.index for draw in draws]
        pixels = self._pictures.tensor(numbers)
        if self._views is not None:
            pixels = self._views.live(pixels, numbers, draws[0].epoch)
        return {"pixels": pixels, "target": torch.from_numpy(self._labelled.numbers[numbers])}

    def ids(self, draws: Sequence[Draw]) -> list[str]:
        """Names of the pictures."""
        return [self._labelled.ids[one.index] for one in draws]


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
