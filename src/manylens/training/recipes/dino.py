"""Learning from pictures without labels: DINO, and with iBOT, KoLeo and Sinkhorn-Knopp what DINOv2 adds to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from manylens.training.inputs.pictures import Pictures
from manylens.training.recipes.base import Draw, Given, Source, Step
from manylens.training.selfsupervised import masking
from manylens.training.selfsupervised.crops import NUMBERS, Crops, MultiCrop
from manylens.training.selfsupervised.dino import Dino, DinoOptions
from manylens.training.selfsupervised.recipe import WithoutLabels, bytes_of, steps_of, uniform
from manylens.training.selfsupervised.schedules import Schedule
from manylens.training.selfsupervised.towers import Tower


class DinoRecipe(WithoutLabels):
    """Trains an encoder for ``embed`` on pictures without labels (Caron et al., 2021; Oquab et al., 2023)."""

    name: ClassVar[str] = "dino"

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        self.options = DinoOptions.of(self.rest)
        self.network: Dino = Dino(self.tower, self.mean, self.std, self.options, given.config.model)
        grid = self.side // self.tower.patch
        multi = MultiCrop(self.crops)
        self._source = Views(self.kept, self.ids, multi, self.options if self.options.ibot else None, (grid, grid))
        self._temperature = self.options.temperature

    @property
    def encoder(self) -> Tower:
        """The teacher's."""
        return self.network.encoder

    def train_source(self) -> Source:
        """Views of pictures."""
        return self._source

    def loss(self, batch: Any, step: Step) -> dict[str, Tensor]:
        """See :class:`Dino`."""
        self._temperature = self._schedule(step).temperature_at(step.number)
        found = self.network(Crops(batch["large"], batch["small"]), self._temperature, batch.get("masks"))
        self.watch(found.pop("vectors"), found)
        return found

    def judged(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """The teacher's."""
        return self.network.judged(pixels, self._temperature)

    def before_step(self, step: Step) -> None:
        """The prototypes stay as they are at first."""
        if self._schedule(step).freezes_last_at(step.number):
            self.network.freeze_last()

    def after_step(self, step: Step) -> None:
        """The teacher follows."""
        self.network.follow(self._schedule(step).momentum_at(step.number))

    def weight_decay(self, step: Step) -> float:
        """What decays at a step, of all that decays."""
        return self._schedule(step).weight_decay_at(step.number)

    def frozen(self) -> set[str]:
        """What no checkpoint needs: weights of the student that do not learn. The teacher's move."""
        return {
            name
            for name, one in self.network.named_parameters()
            if not one.requires_grad and not name.startswith("teacher.")
        }

    def _schedule(self, step: Step) -> Schedule:
        return self.options.schedule(*steps_of(step))


class Views(Source):
    """Views of pictures and, for iBOT, which patches of the large ones are hidden.

    Args:
        pictures: The pictures.
        ids: Their names.
        multi: Makes the views.
        masks: Says what is hidden; None for nothing.
        grid: Rows and columns of patches of a large view.
    """

    def __init__(
        self,
        pictures: Pictures,
        ids: Sequence[str],
        multi: MultiCrop,
        masks: DinoOptions | None,
        grid: tuple[int, int],
    ) -> None:
        self._pictures, self._ids, self._multi, self._masks, self._grid = pictures, ids, multi, masks, grid

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitems__(self, draws: Sequence[Draw]) -> dict[str, Tensor]:
        numbers = uniform(draws, self._multi.views, NUMBERS, purpose=1)
        crops = self._multi(bytes_of(self._pictures, draws), numbers)
        found = {"large": crops.large, "small": crops.small}
        if self._masks is not None:
            where = uniform(draws, 2, masking.RECTANGLES + 1, 4, purpose=2)
            found["masks"] = self._masks.masks(torch.cat([where[:, 0], where[:, 1]]), self._grid)
        return found

    def ids(self, draws: Sequence[Draw]) -> list[str]:
        """Names of the pictures."""
        return [self._ids[draw.index] for draw in draws]
