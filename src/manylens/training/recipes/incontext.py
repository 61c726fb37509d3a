"""Segmenting by example: a SegGPT checkpoint trained on with one's own masks; what comes out is such a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from manylens.data import Dataset
from manylens.models.seggpt import colours
from manylens.training.balance.names import check_name
from manylens.training.dense.store import ObjectStore
from manylens.training.errors import TrainError
from manylens.training.incontext.canvases import Canvas, Canvases, Drawing
from manylens.training.incontext.hiding import SHARE, asked, hidden
from manylens.training.incontext.network import InContext
from manylens.training.incontext.painting import random_colours
from manylens.training.incontext.pairs import Kind
from manylens.training.inputs.pictures import Pictures
from manylens.training.recipes import hub_form
from manylens.training.recipes.base import OF_HEADS, Draw, Given, Recipe, Source, Step
from manylens.training.recipes.on_objects import gathered
from manylens.training.transfer.freezing import Places, freeze

_OPTIONS = ("kind", "share", "half", "most", "scale")


class InContextPainting(Recipe):
    """Trains for ``segment`` with examples.

    Options of the config: ``kind``: ``semantic``, where pictures that share a class explain each other, or
    ``instance``, where two views of one picture do; ``share`` of a canvas that is hidden; ``half``: of canvases whose
    asked half is hidden whole; ``most`` classes or things that are painted at once; ``scale``, smallest and largest of
    a view.
    """

    name: ClassVar[str] = "incontext"
    idle = OF_HEADS
    usual_rates: ClassVar[tuple[float, float]] = (1e-4, 1e-5)
    """Learning rate where the encoder is frozen, and where it learns too."""
    monitor = "iou"
    mode = "max"
    judges = ("iou", "loss")

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        config, trainable = given.config, given.trainable
        for name in config.options:
            check_name(f"option of the recipe {self.name!r}", name, _OPTIONS)
        options = config.options
        kind: Kind = options.get("kind", "semantic")
        check_name("options.kind", kind, get_args(Kind))
        self._share = _number(options, "share", SHARE)
        self._half = _number(options, "half", 0.5)
        self.drawing = Drawing(
            kind=kind,
            flip=0.0 if config.augment.policy == "none" else 0.5,
            scale=_scale(options, config.augment.policy),
            most=int(_number(options, "most", 6, 1, colours.MOST)),
        )
        self.network: InContext = InContext(trainable)
        self._waits = {f"model.{name}": epoch for name, epoch in freeze(trainable, config.transfer).items()}
        trainable.parts["decoder"].requires_grad_(True)
        self._places = Places(trainable)
        train = given.of(config.data.train)
        assert train is not None
        self._names = [one.name for one in given.data.categories]
        self.store = self._store(train, config.data.train)
        val = given.of(config.data.val)
        self._val = None if val is None else self._store(val, config.data.val)
        self._sources: dict[str, Source] = {}
        self._found: list[tuple[float, float]] = []

    # ------------------------------------------------------------------ what the loop asks

    @property
    def rate(self) -> float:
        """The usual learning rate."""
        return self.usual_rates[self.config.transfer.mode != "frozen"]

    def train_source(self) -> Source:
        """Canvases that ask each picture, with examples, views and colours drawn anew in each epoch."""
        if "train" not in self._sources:
            self._sources["train"] = Painted(
                self._canvases(self.store), self.network, share=self._share, half=self._half, least=False
            )
        return self._sources["train"]

    def val_source(self) -> Source | None:
        """Canvases that ask each picture of the validation split, by an example of the training split."""
        if self._val is None:
            return None
        if "val" not in self._sources:
            self._sources["val"] = Painted(self._canvases(self._val), self.network, share=0, half=1, least=True)
        return self._sources["val"]

    def loss(self, batch: Any, step: Step) -> dict[str, Tensor]:
        """What is wrong with the hidden paint."""
        # All is touched in each step, and a batch without a canvas is no reason to stop.
        nothing = torch.stack([one.sum() for _, one in self.parameters()]).sum() * 0.0
        if not len(batch["asked"]):
            return {"loss": nothing}
        return {"loss": self.network.loss(batch, self.network(batch)) + nothing}

    def judge(self, batch: Any) -> None:
        """Read what is painted as masks again."""
        if not len(batch["asked"]):
            return
        painted = self.network(batch)
        for place, count in enumerate(batch["counts"].tolist()):
            one = {name: value[place : place + 1] for name, value in batch.items()}
            loss = float(self.network.loss(one, painted[place : place + 1]))
            found = self.network.read(painted[place], count)
            wanted = self.network.read(torch.cat([one["example_paint"], one["asked_paint"]], dim=2)[0], count)
            known = batch["judged"][place, 0, self.network.shape.height :].cpu().numpy()
            self._found += [(_iou(a & known, b & known), loss) for a, b in zip(found, wanted, strict=True)]

    def figures(self) -> dict[str, float]:
        """The mean IoU over pictures and their classes, at the network's size, and the loss."""
        rows = gathered(self._found)
        self._found = []
        means = np.mean(rows, axis=0) if rows else np.zeros(2)
        return {"iou": float(means[0]), "loss": float(means[1])}

    def depth(self, name: str) -> int | None:
        """See :meth:`Recipe.depth`; the decoder and LoRA's matrices learn at the full rate."""
        if ".lora_" in name or name.startswith("model.decoder."):
            return None
        return self._places.of(name.removeprefix("model."))

    def save(self, folder: Path) -> None:
        """Write the checkpoint in the hub's format."""
        hub_form.write(self.given, folder)

    # ------------------------------------------------------------------ parts

    def _store(self, data: Dataset, split: str) -> ObjectStore:
        store = ObjectStore.of(data, self._names)
        if not (store.has_mask & (store.classes >= 0) & ~store.crowd).any():
            raise TrainError(f"{data.name or 'data'}, split {split!r}: no object has a mask", "give masks")
        return store

    def _canvases(self, store: ObjectStore) -> Canvases:
        side = max(self.network.cells)
        mine, its = (Pictures(one.paths, side) for one in (store, self.store))
        squares = tuple(_square(one) for one in (mine, mine if store is self.store else its))
        return Canvases(store, self.store, side, (squares[0], squares[1]), self.drawing)


class Painted(Source):
    """Canvases as tensors.

    Args:
        canvases: Draws them.
        network: Says how they are taken.
        share: See :func:`manylens.training.incontext.hiding.hidden`.
        half: The same.
        least: Whether nothing is left to chance: whole pictures, the same examples each time, the palette of use.
    """

    def __init__(self, canvases: Canvases, network: InContext, *, share: float, half: float, least: bool) -> None:
        self._canvases, self._network = canvases, network
        self._share, self._half, self._plain = share, half, least

    def __len__(self) -> int:
        return len(self._canvases.store)

    def __getitems__(self, draws: Sequence[Draw]) -> dict[str, Any]:
        network, (height, width) = self._network, self._network.cells
        rows: list[tuple[Canvas, npt.NDArray[np.uint8], Tensor]] = []
        for draw in draws:
            seeds = (draw.index, 0xE) if self._plain else (draw.seed, draw.epoch, draw.index, 0xE)
            random = np.random.default_rng(seeds)
            canvas = self._canvases.draw(draw.index, random, plain=self._plain)
            if canvas is None:
                continue
            count = len(canvas.names)
            paint = colours.palette(count) if self._plain else random_colours(count, random)
            if self._plain:
                patches = asked(network.patches)
            else:
                patches = hidden(1, network.patches, random, share=self._share, half=self._half)[0]
            rows.append((canvas, paint, patches))
        if not rows:
            empty = torch.zeros(0, 3, height, width)
            return {"asked": empty, "example": empty}
        size = (width, height)
        halves = {"example": [row[0].example for row in rows], "asked": [row[0].asked for row in rows]}
        batch: dict[str, Any] = {}
        for name, some in halves.items():
            paints = [half.paint(row[1], size) for half, row in zip(some, rows, strict=True)]
            batch[name] = network.normalised([half.picture for half in some])
            batch[f"{name}_paint"] = network.normalised(paints)
        judged = [np.concatenate([row[0].example.judged(size), row[0].asked.judged(size)]) for row in rows]
        batch["judged"] = torch.from_numpy(np.stack(judged)[:, None])
        batch["hidden"] = torch.stack([row[2] for row in rows])
        batch["counts"] = torch.tensor([len(row[0].names) for row in rows])
        return batch

    def ids(self, draws: Sequence[Draw]) -> list[str]:
        """Names of the pictures."""
        return [self._canvases.store.ids[draw.index] for draw in draws]


def _square(pictures: Pictures) -> Callable[[int], npt.NDArray[np.uint8]]:
    return lambda number: pictures.of([number])[0]


def _iou(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    union = int((one | other).sum())
    return float((one & other).sum() / union) if union else 1.0


def _number(options: Any, name: str, usual: float, least: float = 0.0, most: float = 1.0) -> float:
    value = options.get(name, usual)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise TrainError(f"options.{name}: {value!r} does not fit", f"give a number of {least:g} to {most:g}")
    return float(value)


def _scale(options: Any, policy: str) -> tuple[float, float]:
    """Of views: the option, else the whole picture where nothing is changed, else half of it and more."""
    value = options.get("scale", (1.0, 1.0) if policy in ("none", "flip") else (1.0, 1.8))
    try:
        low, high = (float(one) for one in value)
    except (TypeError, ValueError):
        low = high = 0.0
    if not 0 < low <= high:
        raise TrainError(f"options.scale: {value!r} does not fit", "give the smallest and the largest, as [1, 1.8]")
    return low, high
