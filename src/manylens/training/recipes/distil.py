"""Learning from a large encoder without labels: distillation into a small one."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor
from torch.nn import functional

from manylens.training.errors import TrainError
from manylens.training.inputs.pictures import Pictures
from manylens.training.recipes.base import Draw, Given, Source, Step
from manylens.training.selfsupervised.crops import NUMBERS, MultiCrop
from manylens.training.selfsupervised.distil import Distil, DistilOptions
from manylens.training.selfsupervised.opening import tower
from manylens.training.selfsupervised.recipe import WithoutLabels, bytes_of, uniform
from manylens.training.selfsupervised.towers import Tower


class DistilRecipe(WithoutLabels):
    """Trains a small encoder for ``embed`` to see pictures as a large one does."""

    name: ClassVar[str] = "distil"
    may_collapse: ClassVar[bool] = False  # the vectors are as far apart as the teacher's, which may be near

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        rest = dict(self.rest)
        name = rest.pop("teacher", None)
        if not isinstance(name, str) or not name:
            raise TrainError(
                "options.teacher: is missing",
                "name the large encoder, as in --set options.teacher=facebook/dinov2-base",
            )
        options = DistilOptions.of(rest)
        with given.session.module(name) as opened:
            if not opened.mean:
                raise TrainError(f"options.teacher {name!r}: prepares pictures in a way of its own", "name another")
            # A copy: the lease ends here, and nothing of it is to be changed.
            teacher = copy.deepcopy(tower(opened, name))
            levels = [self.mean, self.std, opened.mean, opened.std]
            large = self._fitting(opened.side or self.side, teacher.patch)
        self.network: Distil = Distil(self.tower, teacher, levels, options)
        views = MultiCrop(self.crops.model_copy(update={"side": max(self.side, large), "locals": 0}))
        self._source = Pairs(self.kept, self.ids, views, self.side, large)

    @property
    def encoder(self) -> Tower:
        """The student."""
        return self.network.encoder

    def train_source(self) -> Source:
        """One view of each picture, at the sides of both."""
        return self._source

    def loss(self, batch: Any, step: Step) -> dict[str, Tensor]:
        """See :class:`Distil`."""
        found: dict[str, Tensor] = self.network(batch["pixels"], batch.get("large"))
        self.watch(found.pop("vectors"), found)
        return found

    def judged(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """The student's vectors."""
        mean, std = self.network.levels[:2]
        return self.tower((pixels - mean) / std).vector, None

    @staticmethod
    def _fitting(side: int, patch: int) -> int:
        return max(side // max(patch, 1), 1) * max(patch, 1)


class Pairs(Source):
    """One view of each picture as the student sees it and, where that is of another side, as the teacher does.

    Args:
        pictures: The pictures.
        ids: Their names.
        views: Makes the view at the larger of the two sides.
        side: Of the student's.
        large: Of the teacher's.
    """

    def __init__(self, pictures: Pictures, ids: Sequence[str], views: MultiCrop, side: int, large: int) -> None:
        self._pictures, self._ids, self._views, self._side, self._large = pictures, ids, views, side, large

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitems__(self, draws: Sequence[Draw]) -> dict[str, Tensor]:
        view = self._views.one(bytes_of(self._pictures, draws), uniform(draws, NUMBERS, purpose=1))
        found = {"pixels": _sized(view, self._side)}
        return found if self._side == self._large else found | {"large": _sized(view, self._large)}

    def ids(self, draws: Sequence[Draw]) -> list[str]:
        """Names of the pictures."""
        return [self._ids[draw.index] for draw in draws]


def _sized(view: Tensor, side: int) -> Tensor:
    if view.shape[-1] == side:
        return view
    return functional.interpolate(view, size=(side, side), mode="bilinear", antialias=True)
