"""A SAM or SAM 2 checkpoint's own prompts, trained on with one's own masks: what comes out is such a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from manylens.data import Dataset
from manylens.data.fingerprint import FileHashes
from manylens.media import Image
from manylens.models.adapted.heads.promptable import UPSCALED
from manylens.models.base import Trainable
from manylens.runtime.store import EmbeddingStore, Key
from manylens.training.balance.names import check_name
from manylens.training.dense.store import ObjectStore
from manylens.training.errors import TrainError
from manylens.training.inputs import features
from manylens.training.promptable import asking
from manylens.training.promptable.checkpoints import SamHead, of_checkpoint
from manylens.training.promptable.rounds import Objects
from manylens.training.recipes import hub_form
from manylens.training.recipes.base import OF_HEADS, Draw, Given, Recipe, Source, Step
from manylens.training.recipes.on_objects import gathered
from manylens.training.transfer.freezing import Places, freeze

_MODEL = "model."
_DECODER = ("prompt_encoder", "decoder")
"""Parts that always learn."""


class Whole(nn.Module):
    """The checkpoint with its promptable parts, which are its own."""

    def __init__(self, model: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.model, self.head = model, head


class Sam(Recipe):
    """Trains a promptable checkpoint for ``segment``: its decoder, and what the config says of its encoder.

    Pictures lie in the network's square as the family lays them there. Where the encoder is frozen, what it gives of
    each picture is kept. Options of the config are those of :class:`.promptable.Promptable`.
    """

    name: ClassVar[str] = "sam"
    idle = (*OF_HEADS, "augment.policy")
    usual_rates: ClassVar[tuple[float, float]] = (2e-4, 5e-5)
    """Learning rate where the encoder is frozen, and where it learns too."""
    monitor = "iou"
    mode = "max"
    judges = asking.FIGURES

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        config, trainable = given.config, given.trainable
        for name in config.options:
            check_name(f"option of the recipe {self.name!r}", name, asking.options_of())
        self._most, self._schedule, self._weights = asking.split_options(config.options)
        self.head = of_checkpoint(trainable)
        self._places = Places(trainable)
        self._waits = {f"{_MODEL}{name}": epoch for name, epoch in freeze(trainable, config.transfer).items()}
        for name in _DECODER:
            trainable.parts[name].requires_grad_(True)
        self.head.hold()
        self.cached = config.transfer.mode == "frozen"
        self.network = self.head if self.cached else Whole(trainable.module, self.head)
        train = given.of(config.data.train)
        assert train is not None
        self._stores = {config.data.train: self._store(train, config.data.train)}
        val = given.of(config.data.val)
        if val is not None:
            self._stores[config.data.val] = self._store(val, config.data.val)
        self._sources: dict[str, Shown] = {}
        self._found: list[dict[str, float]] = []

    # ------------------------------------------------------------------ what the loop asks

    @property
    def rate(self) -> float:
        """The usual learning rate."""
        return self.usual_rates[not self.cached]

    def train_source(self) -> Source:
        """Pixels or kept features, with masks."""
        return self._source(self.config.data.train)

    def val_source(self) -> Source | None:
        """Likewise."""
        return self._source(self.config.data.val) if self.config.data.val in self._stores else None

    def loss(self, batch: Any, step: Step) -> dict[str, Tensor]:
        """The mean over rounds of asking about some objects of the batch."""
        objects = asking.shown(self._objects(batch), self._most)
        learning = [one for _, one in self.parameters()]
        return asking.loss(self.head, self._embedding(batch), objects, self._schedule, self._weights, learning)

    def judge(self, batch: Any) -> None:
        """Ask about all objects of a batch of the validation split, nothing left to chance."""
        self._found += asking.judged_rounds(self.head, self._embedding(batch), self._objects(batch), self._most)

    def figures(self) -> dict[str, float]:
        """See :func:`manylens.training.promptable.asking.figures`."""
        found = asking.figures(gathered(self._found))
        self._found = []
        return found

    def depth(self, name: str) -> int | None:
        """See :meth:`Recipe.depth`; the decoder's parts, and LoRA's matrices, learn at the full rate."""
        plain = name.removeprefix(_MODEL)
        if not name.startswith(_MODEL) or ".lora_" in name or plain.startswith(("prompt_encoder.", "mask_decoder.")):
            return None
        return self._places.of(plain)

    def save(self, folder: Path) -> None:
        """Write the checkpoint in the hub's format, with the files that say how pictures are prepared."""
        hub_form.write(self.given, folder)

    # ------------------------------------------------------------------ parts

    def _store(self, data: Dataset, split: str) -> ObjectStore:
        store = ObjectStore.of(data, [one.name for one in self.given.data.categories])
        if not (store.has_mask & (store.classes >= 0)).any():
            raise TrainError(f"{data.name or 'data'}, split {split!r}: no object has a mask", "give masks")
        return store

    def _source(self, split: str) -> Shown:
        if split not in self._sources:
            kept = Kept(self.given, self.head, self._stores[split]) if self.cached else None
            self._sources[split] = Shown(self._stores[split], self.given.trainable, self.head, kept)
        return self._sources[split]

    def _embedding(self, batch: Any) -> Any:
        return self.head.embed(batch["features"] if self.cached else self.head.features(batch["pixels"]))

    def _objects(self, batch: Any) -> Objects:
        return Objects(batch["masks"], batch["picture"], (self.head.side, self.head.side))


class Kept:
    """What a frozen checkpoint gives of the pictures of a store, kept on disk; half precision.

    Args:
        given: Says where, and tells the user.
        head: Of the checkpoint.
        store: Its pictures are encoded now, but for those that are kept.
    """

    def __init__(self, given: Given, head: SamHead, store: ObjectStore) -> None:
        self._given, self._head, self._paths = given, head, store.paths
        self._kept: EmbeddingStore = features.store(given.cache)
        with FileHashes() as hashes:
            self._ids = [hashes.of(path) for path in store.paths]
        missing = [number for number in range(len(store)) if self._kept.get(self._key(number)) is None]
        for done, number in enumerate(missing):
            self.of(number)
            given.progress((done + 1) / len(missing), f"encoding, {done + 1} of {len(missing)}")
        given.say(f"features of {len(store)} pictures: {len(missing)} encoded, {len(store) - len(missing)} found")

    def of(self, number: int) -> dict[str, Tensor]:
        """Maps ``(h, w, C)`` of a picture by name."""

        def encode() -> dict[str, np.ndarray]:
            trainable = self._given.trainable
            device = next(trainable.module.parameters()).device
            trainable.parts["encoder"].eval()
            with torch.no_grad():
                pixels = trainable.preprocess([Image.of(self._paths[number])]).to(device)
                return {name: one[0].half().cpu().numpy() for name, one in self._head.features(pixels).items()}

        found, _ = self._kept.get_or_compute(self._key(number), encode)
        return {name: torch.from_numpy(np.array(found[name])) for name in self._head.needs}

    def _key(self, number: int) -> Key:
        weights = self._given.base["weights"]
        return Key(f"file {self._ids[number]}", weights, "sam-training-1", " ".join(self._head.needs), "torch", "f32")


class Shown(Source):
    """Pictures with the masks of their objects, in the network's square.

    Args:
        store: The objects.
        trainable: Prepares pictures.
        head: Says how they lie in the square.
        kept: Their features; without them pixels are shown.
    """

    def __init__(self, store: ObjectStore, trainable: Trainable, head: SamHead, kept: Kept | None) -> None:
        self._store, self._trainable, self._head, self._kept = store, trainable, head, kept
        self._low_res = UPSCALED * head.side // head.patch

    def __len__(self) -> int:
        return len(self._store)

    def __getitems__(self, draws: Sequence[Draw]) -> dict[str, Any]:
        numbers = [draw.index for draw in draws]
        masks: list[np.ndarray] = []
        picture: list[int] = []
        for place, number in enumerate(numbers):
            found = self._masks(number)
            masks += found
            picture += [place] * len(found)
        empty = np.zeros((0, self._low_res, self._low_res), bool)
        batch: dict[str, Any] = {
            "masks": torch.from_numpy(np.stack(masks) if masks else empty),
            "picture": torch.tensor(picture, dtype=torch.long),
        }
        if self._kept is None:
            return {"pixels": self._trainable.preprocess([Image.of(self._store.paths[n]) for n in numbers]), **batch}
        rows = [self._kept.of(number) for number in numbers]
        return {"features": {name: torch.stack([row[name] for row in rows]) for name in self._head.needs}, **batch}

    def ids(self, draws: Sequence[Draw]) -> list[str]:
        """Names of the pictures."""
        return [self._store.ids[draw.index] for draw in draws]

    def _masks(self, number: int) -> list[np.ndarray]:
        """Masks of what is one object and of a class, at the size of the decoder's own."""
        store, canvas = self._store, self._head.canvas(self._store.size(number))
        wanted = [row for row in store.rows(number) if store.class_of(row) >= 0 and not store.is_crowd(row)]
        found = [canvas.logits(mask, self._low_res) > 0 for mask in map(store.mask, wanted) if mask is not None]
        return [mask for mask in found if mask.any()]
