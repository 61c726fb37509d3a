"""Pictures with their objects as a training is shown them: of kept features, or of pixels changed anew each time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from manylens.training.augment import which_view
from manylens.training.dense.scene import Scene
from manylens.training.dense.scenes import Scenes
from manylens.training.inputs.features import Features
from manylens.training.inputs.pictures import Pictures
from manylens.training.recipes.base import Draw, Source


@dataclass(frozen=True, eq=False)
class SceneViews:
    """Views as :class:`Features` asks for them, whose targets are made of the same scenes.

    Attributes:
        scenes: Makes them.
        count: Fixed views of each picture, the picture itself being the first.
    """

    scenes: Scenes
    count: int

    def name(self, number: int, view: int) -> str:
        """Tells a view of a picture apart from all others."""
        return self.scenes.name(number, view)

    def make(self, squares: np.ndarray, numbers: Sequence[int], view: int) -> np.ndarray:
        """A view of squares uint8 ``(n, side, side, 3)``."""
        return self.scenes.views(squares, numbers, view)

    def shown(self, number: int, epoch: int) -> int:
        """Which of the fixed views a picture shows in an epoch."""
        return which_view(self.scenes.seed, epoch, self.scenes.store.ids[number], self.count)


class ObjectSource(Source):
    """Pictures with what they hold; nothing is decoded before it is asked for, and nothing decoded is kept.

    Args:
        views: Of the pictures.
        kept: Their features; without them pixels are shown, changed anew in each epoch.
        pictures: The pictures.
        targets: Of scenes.
    """

    def __init__(
        self,
        views: SceneViews,
        kept: Features | None,
        pictures: Pictures,
        targets: Callable[[Sequence[Scene]], dict[str, Any]],
    ) -> None:
        self._views, self._kept, self._pictures, self._targets = views, kept, pictures, targets

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitems__(self, draws: Sequence[Draw]) -> dict[str, Any]:
        numbers = [draw.index for draw in draws]
        scenes = self._views.scenes
        held = {"numbers": torch.tensor(numbers)}
        if self._kept is not None:
            views = [self._views.shown(draw.index, draw.epoch) for draw in draws]
            shown = [scenes.scene(number, view) for number, view in zip(numbers, views, strict=True)]
            features = self._kept.get(np.array(numbers), np.array(views))
            return {"features": features, **held, **self._targets(shown)}
        squares = self._pictures.of(numbers)
        shown = [
            scenes.scene(draw.index, draw.epoch + 1, pixels=True, square=square)
            for draw, square in zip(draws, squares, strict=True)
        ]
        pixels = np.stack([one.pixels for one in shown if one.pixels is not None])
        return {
            "pixels": torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(255),
            **held,
            **self._targets(shown),
        }

    def ids(self, draws: Sequence[Draw]) -> list[str]:
        """Names of the pictures."""
        return [self._views.scenes.store.ids[draw.index] for draw in draws]
