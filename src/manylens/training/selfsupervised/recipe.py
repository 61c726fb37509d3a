"""What recipes without labels share: which encoder learns, how it is watched, and the folder that comes of it."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from manylens.data import Dataset
from manylens.data.records import Record
from manylens.errors import UnsupportedError
from manylens.models.base import Trainable
from manylens.models.pixels import IMAGENET_MEAN, IMAGENET_STD
from manylens.training.config import TransferSection
from manylens.training.errors import TrainError
from manylens.training.inputs.pictures import Pictures
from manylens.training.recipes.base import OF_HEADS, Draw, Given, Recipe, Source, Step
from manylens.training.recipes.on_objects import gathered
from manylens.training.selfsupervised import folders, neighbours
from manylens.training.selfsupervised.crops import CropOptions
from manylens.training.selfsupervised.dino import entropies
from manylens.training.selfsupervised.folders import ScratchOptions
from manylens.training.selfsupervised.health import Health, health
from manylens.training.selfsupervised.opening import vit
from manylens.training.selfsupervised.options import Options
from manylens.training.selfsupervised.towers import Tower, Vit

_RECENT = 512
"""Of how many pictures the training is judged where there is no validation split."""


class SharedOptions(Options):
    """What all recipes without labels take in ``options``, beside their own.

    Attributes:
        scratch: A new network in place of ``model``; see :class:`ScratchOptions`. Empty to go on with ``model``.
        source_side: Side of the squares that pictures are kept at before views are cut out; by default the side of the
            large views and a half.
        known: How many labelled pictures of the training split vote for those of the validation split, at most.
    """

    scratch: dict[str, Any] | None = None
    source_side: int | None = Field(default=None, ge=8)
    known: int = Field(default=2000, ge=1)


class WithoutLabels(Recipe):
    """A recipe that learns from pictures alone. Labels, where there are some, only tell how good the features are.

    Attributes:
        tower: The encoder that learns.
        side: Of the views that it is shown.
        crops: How views are made.
        mean: What is taken from each channel of pixels in 0..1.
        std: What the rest is then divided by.
    """

    usual_rate: ClassVar[float] = 1e-3
    """Learning rate for 1,024 pictures a step from scratch; it goes with the root of their number."""

    may_collapse: ClassVar[bool] = True
    """Whether nothing from outside keeps the vectors of different pictures apart."""

    tower: Vit
    mean: tuple[float, ...]
    std: tuple[float, ...]
    idle = (*OF_HEADS, "augment.policy")
    monitor = "knn"
    mode = "max"

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        config, trainable = given.config, given.trainable
        own = {name: value for name, value in config.options.items() if name in SharedOptions.model_fields}
        self.shared = SharedOptions.of(own)
        self.rest = {name: value for name, value in config.options.items() if name not in own}
        if self.shared.scratch is not None:
            options = ScratchOptions.of({**self.shared.scratch}, "options.scratch")
            self.tower = Vit(folders.fresh(options, config.seed))
            self.mean, self.std = tuple(IMAGENET_MEAN), tuple(IMAGENET_STD)
            side = config.side or options.side
        else:
            self.tower = _tower(trainable, config.model)
            self.mean, self.std = trainable.mean, trainable.std
            side = config.side or trainable.side or 224
        self._from_epoch = freeze(self.tower, config.transfer)
        torch.manual_seed(config.seed)  # heads and decoders
        self.tower.train()
        self.crops = CropOptions.of(config.augment.options, "augment.options").fitted(side, self.tower.patch)
        self.side = self.crops.side
        train = given.of(config.data.train)
        assert train is not None
        self.kept = Pictures([record.path for record in train.records()], self.shared.source_side or self.side * 3 // 2)
        self.ids = [record.id for record in train.records()]
        self._judges = Judges.of(train, given.of(config.data.val), self.side, self.shared.known, config.seed)
        self._recent: list[tuple[Tensor, Mapping[str, Tensor]]] = []
        self._met: dict[int, np.ndarray] = {}
        self._answers: list[Tensor] = []
        self._health: Health | None = None
        self._said: set[str] = set()

    # ------------------------------------------------------------------ what recipes say

    @abstractmethod
    def judged(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Vectors ``(B, D)`` of pixels in 0..1, and answers ``(B, K)`` where there are prototypes."""

    @property
    @abstractmethod
    def encoder(self) -> Tower:
        """The encoder to keep."""

    # ------------------------------------------------------------------ what the loop asks

    @property
    def waits(self) -> dict[str, int]:
        """See :class:`manylens.training.loop.callbacks.GradualUnfreezing`."""
        epochs = self._from_epoch
        return {name: epochs[id(one)] for name, one in self.network.named_parameters() if id(one) in epochs}

    @property
    def rate(self) -> float:
        """The usual learning rate; a tenth of it where the encoder knows something already."""
        full = self.usual_rate * (self.config.loop.batch_size * self.config.optimiser.accumulate / 1024) ** 0.5
        return full if self.shared.scratch is not None else full / 10

    def val_source(self) -> Source | None:
        """Labelled pictures as they are; None where there are none."""
        return self._judges

    @torch.no_grad()
    def before_epoch(self, step: Step) -> None:
        """Tell what the features are worth before anything is learnt: later figures are held to that."""
        if step.number or self._judges is None:
            return
        self.network.eval()
        device = next(self.network.parameters()).device
        for start in range(0, len(self._judges), 32):
            draws = [Draw(place, 0, 0) for place in range(start, min(start + 32, len(self._judges)))]
            self.judge({name: one.to(device) for name, one in self._judges.__getitems__(draws).items()})
        self.given.say(f"before training: k-NN accuracy {self.figures()['knn']:.3f}")
        self._health = None
        self.network.train()

    def judge(self, batch: Any) -> None:
        """Keep the vectors of a batch."""
        vectors, answers = self.judged(batch["pixels"])
        if answers is not None:
            self._answers.append(answers)
        self._met |= zip(batch["number"].tolist(), vectors.float().cpu().numpy(), strict=True)

    def figures(self) -> dict[str, float]:
        """k-NN accuracy, and what tells a collapse."""
        assert self._judges is not None
        met = dict(gathered(list(self._met.items())))  # processes have not as many each: the last step may be odd
        numbers = np.array(sorted(met), np.int64)
        vectors = np.stack([met[number] for number in numbers])
        told = entropies(torch.cat(self._answers)) if self._answers else {}
        self._health = health(torch.from_numpy(vectors), **{name: float(one) for name, one in told.items()})
        self._met, self._answers = {}, []
        figures = {name: one for name, one in self._health.figures().items() if told or "entropy" not in name}
        return {"knn": self._judges.accuracy(numbers, vectors), **figures}

    def watch(self, vectors: Tensor, told: Mapping[str, Tensor]) -> None:
        """Remember vectors of training pictures, where no other pictures tell how it goes."""
        if self._judges is None:
            entropy = {name: one for name, one in told.items() if name in ("mean_entropy", "entropy")}
            self._recent = [*self._recent, (vectors, entropy)][-max(1, _RECENT // max(len(vectors), 1)) :]

    def warnings(self) -> list[str]:
        """A collapse, said once."""
        if not self.may_collapse:
            return []
        if self._judges is None and self._recent:
            told = {name: float(one) for name, one in self._recent[-1][1].items()}
            self._health = health(torch.cat([vectors for vectors, _ in self._recent]), **told)
        sentence = self._health.sentence() if self._health is not None else ""
        kind = sentence.partition(" (")[0]
        if not sentence or kind in self._said:
            return []
        self._said.add(kind)
        return [sentence]

    def depth(self, name: str) -> int | None:
        """See :meth:`Recipe.depth`; without layer-wise rates all of it learns at the full rate."""
        prefix = next((f"{one}." for one, module in self.network.named_modules() if module is self.tower), None)
        if prefix is None or not name.startswith(prefix) or self.config.transfer.layer_decay == 1:
            return None
        return self.tower.block_of(name.removeprefix(prefix))

    def save(self, folder: Path) -> None:
        """Write the encoder as a folder in the hub's format."""
        folders.save(self.encoder, folder, self.side, self.mean, self.std)


def freeze(tower: Tower, section: TransferSection) -> dict[int, int]:
    """Set which weights of an encoder learn. All of them do where the config says ``frozen``, as nothing else could.

    Returns:
        In mode ``gradual``: the epoch from which each parameter learns, by its id.

    Raises:
        TrainError: The mode does not fit, or there are not that many blocks.
    """
    if section.mode == "lora":
        raise TrainError(
            "transfer.mode 'lora': without labels the weights themselves learn", "choose full, partial or gradual"
        )
    if section.mode == "scratch":
        raise TrainError(
            "transfer.mode 'scratch': without labels the shape of a new network is free", "give options.scratch"
        )
    if section.mode == "partial":
        if section.train_blocks > tower.depth:
            raise TrainError(
                f"transfer.train_blocks: {section.train_blocks} of {tower.depth} blocks", "give fewer, or mode full"
            )
        for name, parameter in tower.named_parameters():
            parameter.requires_grad_(tower.block_of(name) >= tower.depth - section.train_blocks)
    if section.mode != "gradual":
        return {}
    return {
        id(parameter): section.unfreeze_from + (tower.depth - 1 - tower.block_of(name)) * section.unfreeze_every
        for name, parameter in tower.named_parameters()
    }


class Judges(Source):
    """Labelled pictures of both splits as they are: those of the training split vote for those of the other.

    Args:
        pictures: Of both, those that vote first.
        labels: Numbers of their classes.
        known: How many vote; 0 where one split has all the labels and its pictures vote for each other.
    """

    def __init__(self, pictures: Pictures, labels: np.ndarray, known: int) -> None:
        self._pictures, self._labels, self._known = pictures, labels, known

    @classmethod
    def of(cls, train: Dataset, val: Dataset | None, side: int, most: int, seed: int) -> Judges | None:
        """Those of two splits, or None where fewer than two pictures are to be judged."""
        known = [record for record in train.records() if record.label]
        known = _alike([record.label for record in known], known, most, seed)
        asked = [record for record in val.records() if record.label] if val is not None else []
        if not asked or not known:
            known, asked = [], asked or known
        names = sorted({record.label for record in (*known, *asked)})
        if len(asked) < 2 or len(names) < 2:
            return None
        place = {name: number for number, name in enumerate(names)}
        labels = np.array([place[record.label] for record in (*known, *asked)], np.int64)
        return cls(Pictures([record.path for record in (*known, *asked)], side), labels, len(known))

    def __len__(self) -> int:
        return len(self._labels)

    def __getitems__(self, draws: Sequence[Draw]) -> dict[str, Tensor]:
        numbers = [draw.index for draw in draws]
        return {"pixels": self._pictures.tensor(numbers), "number": torch.tensor(numbers)}

    def accuracy(self, numbers: np.ndarray, vectors: np.ndarray) -> float:
        """The k-NN accuracy, of vectors ``(n, D)`` of the pictures of these numbers."""
        labels, votes = self._labels[numbers], numbers < self._known
        if not votes.any():
            return neighbours.own_accuracy(vectors, labels)
        return neighbours.accuracy(vectors[votes], labels[votes], vectors[~votes], labels[~votes])


def _alike(labels: Sequence[str], records: Sequence[Record], most: int, seed: int) -> list[Record]:
    """Up to so many records, of each class as many as of the others as far as it has them, at random."""
    met: Counter[str] = Counter()
    turns = []
    for place in np.random.default_rng((seed, 0x7E11)).permutation(len(records)):
        turns.append((met[labels[place]], int(place)))
        met[labels[place]] += 1
    return [records[place] for place in sorted(place for _, place in sorted(turns)[:most])]


def seeds(draw: Draw, purpose: int = 0) -> tuple[int, int, int, int]:
    """What the random numbers of a draw are seeded by."""
    return draw.seed, draw.epoch, draw.index, purpose


def uniform(draws: Sequence[Draw], *shape: int, purpose: int) -> Tensor:
    """Random numbers in 0..1 for each draw, float32 ``(n, *shape)``."""
    rows = [np.random.default_rng(seeds(draw, purpose)).random(shape, np.float32) for draw in draws]
    return torch.from_numpy(np.stack(rows))


def bytes_of(pictures: Pictures, draws: Sequence[Draw]) -> Tensor:
    """The squares of draws, uint8 ``(n, 3, side, side)``."""
    return torch.from_numpy(pictures.of([draw.index for draw in draws])).permute(0, 3, 1, 2)


def _tower(trainable: Trainable, name: str) -> Vit:
    if not trainable.mean:
        raise UnsupportedError(
            f"{name}: prepares pictures in a way of its own", "name a vision transformer, such as manylens/vit-s"
        )
    return vit(trainable, name)


def steps_of(step: Step) -> tuple[int, int]:
    """Steps of the whole training and of an epoch."""
    return step.total, max(1, round(step.total / max(step.epochs, 1)))
