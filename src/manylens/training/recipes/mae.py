"""Learning from pictures without labels: masked autoencoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from manylens.training.inputs.pictures import Pictures
from manylens.training.recipes.base import Draw, Given, Source, Step
from manylens.training.selfsupervised.crops import NUMBERS, CropOptions, MultiCrop
from manylens.training.selfsupervised.mae import Mae, MaeOptions
from manylens.training.selfsupervised.recipe import WithoutLabels, bytes_of, uniform
from manylens.training.selfsupervised.towers import Tower

_VIEW: dict[str, Any] = {"jitter": 0.0, "grey": 0.0, "blur": (0.0, 0.0, 0.0), "solarise": 0.0, "scale": (0.2, 1.0)}
"""A part of the picture, mirrored or not: masking is change enough (He et al., 2022)."""


class MaeRecipe(WithoutLabels):
    """Trains an encoder for ``embed`` by drawing what is hidden (He et al., 2022)."""

    name: ClassVar[str] = "mae"

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        self.network: Mae = Mae(self.tower, self.mean, self.std, MaeOptions.of(self.rest))
        asked = {name: getattr(self.crops, name) for name in self.crops.model_fields_set}
        views = MultiCrop(CropOptions(**{**_VIEW, **asked, "side": self.side}))
        self._source = Whole(self.kept, self.ids, views, (self.side // self.tower.patch) ** 2)

    @property
    def encoder(self) -> Tower:
        """The one that learns."""
        return self.network.encoder

    def train_source(self) -> Source:
        """One view of each picture."""
        return self._source

    def loss(self, batch: Any, step: Step) -> dict[str, Tensor]:
        """See :class:`Mae`."""
        found: dict[str, Tensor] = self.network(batch["pixels"], batch["hidden"])
        self.watch(found.pop("vectors"), found)
        return found

    def judged(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Vectors of whole pictures."""
        return self.tower(self.network.normalised(pixels)).vector, None


class Whole(Source):
    """One view of each picture, and numbers that say which patches are hidden.

    Args:
        pictures: The pictures.
        ids: Their names.
        views: Makes the view.
        patches: How many patches it has.
    """

    def __init__(self, pictures: Pictures, ids: Sequence[str], views: MultiCrop, patches: int) -> None:
        self._pictures, self._ids, self._views, self._patches = pictures, ids, views, patches

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitems__(self, draws: Sequence[Draw]) -> dict[str, Tensor]:
        pixels = self._views.one(bytes_of(self._pictures, draws), uniform(draws, NUMBERS, purpose=1))
        return {"pixels": pixels, "hidden": uniform(draws, self._patches, purpose=2)}

    def ids(self, draws: Sequence[Draw]) -> list[str]:
        """Names of the pictures."""
        return [self._ids[draw.index] for draw in draws]
