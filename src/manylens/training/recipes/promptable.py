"""Masks for clicks and boxes: SAM's decoder, new, on an encoder that is frozen or learns too."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from manylens.data import Dataset
from manylens.training.dense.scene import Scene
from manylens.training.dense.store import ObjectStore
from manylens.training.dense.targets import Classes
from manylens.training.promptable import asking
from manylens.training.promptable.passing import passing
from manylens.training.promptable.rounds import Objects
from manylens.training.recipes.base import Draw, Given, Step
from manylens.training.recipes.on_objects import OnObjects, gathered

_KNOWN = 32
"""Pictures that tell what the decoder's numbers are worth."""


class Promptable(OnObjects):
    """Trains for ``segment`` with points, boxes and masks, and so for the mode ``everything``.

    Classes are not learnt: a prompt says which object is meant. Options of the config: ``objects``, how many are asked
    about in one step at most (32); those of :class:`manylens.training.promptable.rounds.Schedule` (``clicks``,
    ``refinements``, ``boxes``, ``coarse``, ``forget``) and of :class:`manylens.training.promptable.losses.Weights`
    (``focal``, ``dice``, ``iou``, ``alpha``, ``gamma``, ``others``).
    """

    name: ClassVar[str] = "promptable"
    idle = (*OnObjects.idle, "regularise.label_smoothing", "domain.kind", "imbalance.loss")
    architecture: ClassVar[str] = "AdaptedPromptable"
    heads: ClassVar[tuple[str, ...]] = ("promptable",)
    options_of: ClassVar[tuple[str, ...]] = asking.options_of()
    usual_rates: ClassVar[tuple[float, float]] = (1e-3, 3e-4)
    monitor = "iou"
    judges = asking.FIGURES

    def __init__(self, given: Given) -> None:
        self._most, self._schedule, self._weights = asking.split_options(given.config.options)
        super().__init__(given)
        self._found: list[dict[str, float]] = []
        self._passing: dict[str, float] = {}

    def found(self, given: Given, train: Dataset) -> tuple[Classes, ObjectStore]:
        """All classes: what has no instances can be clicked on, too."""
        classes = Classes.of(given.data.categories)
        return classes, ObjectStore.of(train, classes.names)

    def details(self) -> dict[str, Any]:
        """The side of the decoder's masks, and which of them pass where all are looked for."""
        mine, its = (next(one.parameters()).device for one in (self.head, self.backbone))
        with torch.no_grad():
            maps = self.backbone(torch.zeros(1, 3, self.side, self.side, device=its))
            embedding = self._head.embed({name: one.to(mine) for name, one in maps.items()})
        return {"low_res": self._head.low_res(embedding)[0], "everything": self._passing}

    def targets(self) -> Callable[[Sequence[Scene]], dict[str, Any]]:
        """``masks`` bool ``(P, side, side)`` of all objects, and ``picture`` int64 ``(P,)``."""
        return _targets

    def loss(self, batch: Any, step: Step) -> dict[str, Tensor]:
        """The mean over rounds of asking about some objects of the batch."""
        objects = asking.shown(self._objects(batch), self._most)
        learning = self.head.parameters()
        return asking.loss(self._head, self._embedding(batch), objects, self._schedule, self._weights, learning)

    def judge(self, batch: Any) -> None:
        """Ask about all objects of a batch of the validation split, nothing left to chance."""
        self._found += asking.judged_rounds(self._head, self._embedding(batch), self._objects(batch), self._most)

    def figures(self) -> dict[str, float]:
        """See :func:`manylens.training.promptable.asking.figures`."""
        found = asking.figures(gathered(self._found))
        self._found = []
        return found

    def finish(self) -> None:
        """Find what the decoder's numbers are worth."""
        super().finish()
        self.network.eval()
        self._passing = passing(self._head, self._known())

    def _known(self) -> Iterator[tuple[Any, Objects]]:
        """Some pictures with objects, of the validation split where there is one."""
        source = self.val_source() or self.train_source()
        device = next(self.network.parameters()).device
        for start in range(0, min(len(source), _KNOWN), 4):
            draws = [Draw(number, 0, 0) for number in range(start, min(start + 4, len(source)))]
            batch = tree_map(lambda one: one.to(device), source.__getitems__(draws))
            with torch.no_grad():
                yield self._embedding(batch), self._objects(batch)

    @property
    def _head(self) -> Any:
        return self.head

    def _embedding(self, batch: Any) -> Any:
        features = batch["features"] if self.cached else self.network.backbone(batch["pixels"])
        return self._head.embed(features)

    def _objects(self, batch: Any) -> Objects:
        return Objects(batch["masks"], batch["picture"], (self.side, self.side))


def _targets(scenes: Sequence[Scene]) -> dict[str, Any]:
    """Masks of what is one object and of a class, one after the other."""
    masks, picture = [], []
    for number, scene in enumerate(scenes):
        assert scene.masks is not None
        for mask in scene.masks[(scene.classes >= 0) & ~scene.crowd]:
            if mask.any():
                masks.append(mask)
                picture.append(number)
    side = scenes[0].masks.shape[-1] if scenes[0].masks is not None else 0
    stacked = np.stack(masks) if masks else np.zeros((0, side, side), bool)
    return {"masks": torch.from_numpy(stacked), "picture": torch.tensor(picture, dtype=torch.long)}
