"""What recipes share that learn from pictures with one class each: sources of features or pixels, and their scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from manylens.data import Dataset
from manylens.models.adapted.heads.vector import Standardised
from manylens.training.balance import weights
from manylens.training.errors import TrainError
from manylens.training.inputs.features import Features
from manylens.training.inputs.pictures import Pictures
from manylens.training.inputs.views import Views
from manylens.training.recipes.base import Draw, Given, Source
from manylens.training.recipes.on_encoder import OnEncoder


class OnLabelled(OnEncoder):
    """A head on an encoder, for pictures with one class each.

    Args:
        given: As of every recipe.
        labels: Names of the classes that the head answers with.
        train: Pictures of them.
        val: Pictures to be judged by; their numbers are of classes that may be others.
    """

    def __init__(self, given: Given, labels: Sequence[str], train: Labelled, val: Labelled | None) -> None:
        super().__init__(given, labels)
        self._train, self._val = train, val
        counts = weights.tally(train.numbers, len(train.labels))
        self._views = Views.of(self.config, train.ids, train.numbers, counts)
        self._sources: dict[str, Source] = {}

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

    # ------------------------------------------------------------------ parts

    def _made_source(self) -> Source:
        pictures = Pictures(self._train.paths, self.side)
        if not self.cached:
            self._measure(self._encoded_sample(pictures))
            return Squares(pictures, self._train, self._views)
        found = self.features(pictures, self._views)
        kept = self._kept_source(found)
        self._measure({name: torch.from_numpy(found.vectors(name)[:, 0]) for name in self.head_vectors()})
        return kept

    def _kept_source(self, found: Features) -> Kept:
        """The training pictures' features, as they are learnt from."""
        return Kept(found, self._train, self._views)

    def head_vectors(self) -> tuple[str, ...]:
        """Features of the head that are vectors."""
        return tuple(name for name in self.backbone.needs if name in ("vector", "mean"))

    def _measure(self, vectors: Mapping[str, Tensor]) -> None:
        norm = getattr(self.head, "norm", None)
        if isinstance(norm, Standardised) and vectors:
            norm.measure(torch.cat([vectors[name].float() for name in self.head_vectors()], dim=-1))

    def _encoded_sample(self, pictures: Pictures, most: int = 256) -> dict[str, Tensor]:
        """Vectors of some pictures, from which the head's scale is measured where the encoder learns too; those of a
        new encoder soon have another scale.
        """
        if not self.head_vectors() or self.config.transfer.mode == "scratch":
            return {}
        random = np.random.default_rng(self.config.seed)
        numbers = random.permutation(len(pictures))[:most].tolist()
        parts = []
        self.backbone.eval()
        with torch.no_grad():
            for start in range(0, len(numbers), 16):
                parts.append(self.backbone(pictures.tensor(numbers[start : start + 16])))
        return {name: torch.cat([part[name] for part in parts]) for name in self.head_vectors()}


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
        self.labels = tuple(labels)
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
