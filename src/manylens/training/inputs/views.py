"""Changed views of pictures: a fixed number of them for a frozen encoder, or a new one for each time it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from manylens.training.augment import Augment, strengths, which_view

if TYPE_CHECKING:
    from torch import Tensor

    from manylens.training.config import Config


@dataclass(frozen=True, eq=False)
class Views:
    """How the pictures of a data set are changed.

    Attributes:
        augment: The policy.
        ids: Of the pictures.
        strength: Of each picture, ``(n,)``: more for rare classes where the config says so.
        count: Fixed views of each picture, the picture itself being the first.
    """

    augment: Augment
    ids: Sequence[str]
    strength: np.ndarray
    count: int

    @classmethod
    def of(cls, config: Config, ids: Sequence[str], numbers: np.ndarray, counts: np.ndarray) -> Views:
        """As a config says.

        Args:
            config: The config.
            ids: Of the pictures.
            numbers: Class of each picture.
            counts: Pictures of each class.
        """
        section = config.augment
        of_class = strengths(counts.tolist(), section.strength, section.rare)
        views = 1 if section.policy == "none" else section.views
        augment = Augment(section.policy, section.strength, config.seed, **section.options)
        return cls(augment, ids, of_class[numbers], views)

    def name(self, number: int, view: int) -> str:
        """Tells a view of a picture apart from all others; empty for the picture itself."""
        if not view:
            return ""
        return f"{self.augment.name}-{self.strength[number]:.4f}-{self.ids[number]}-{view}"

    def make(self, squares: np.ndarray, numbers: Sequence[int], view: int) -> np.ndarray:
        """A fixed view of squares uint8 ``(n, side, side, 3)``; the view 0 is the square itself."""
        ids = [self.ids[number] for number in numbers]
        return self.augment.view(squares, ids, view, self.strength[list(numbers)].tolist())

    def live(self, pixels: Tensor, numbers: Sequence[int], epoch: int) -> Tensor:
        """A new view of pixels ``(n, 3, side, side)`` in 0..1, seeded by epoch and picture."""
        ids = [self.ids[number] for number in numbers]
        return self.augment(pixels, ids, epoch, self.strength[list(numbers)].tolist())

    def shown(self, numbers: np.ndarray, epoch: int) -> np.ndarray:
        """Which fixed view each picture shows in an epoch."""
        if self.count == 1:
            return np.zeros(len(numbers), np.int64)
        found = [which_view(self.augment.seed, epoch, self.ids[number], self.count) for number in numbers]
        return np.array(found, np.int64)
