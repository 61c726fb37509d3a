"""Which things each step shows: the same whatever the number of devices, and whenever the training was resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset

from manylens.training.recipes.base import Batch, Draw, Source


class Epoch:
    """The number of the epoch, which the loop sets and the batches read."""

    def __init__(self) -> None:
        self.number = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the loop before each epoch."""
        self.number = epoch


class Batches:
    """Lists of draws, one a step; of a step's draws this process takes its part.

    Args:
        draws: Which things an epoch shows, in order.
        batch: Things in one step, over all processes.
        seed: Of the training.
        rank: Number of this process.
        world: How many processes there are.
        drop_last: Whether an incomplete last step is left out, as is usual in training.
    """

    def __init__(
        self, draws: Callable[[int], np.ndarray], batch: int, seed: int, rank: int, world: int, drop_last: bool
    ) -> None:
        self._draws, self._seed, self._rank, self._world = draws, seed, rank, world
        self.batch_size, self.drop_last = batch, drop_last
        self.sampler = Epoch()
        self._held: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        count = len(self._of_epoch())
        if count < self.batch_size:
            return 1 if count else 0
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)

    def __iter__(self) -> Iterator[list[Draw]]:
        epoch, order = self.sampler.number, self._of_epoch()
        for number in range(len(self)):
            step = order[number * self.batch_size : (number + 1) * self.batch_size]
            if self.drop_last and len(step) % self._world:
                # Parts of one size, so that their mean is that of the step: the first ones are shown again, as torch's
                # own sampler does. A step that judges has parts as they come: nothing may count twice.
                step = np.concatenate([step, np.resize(step, -len(step) % self._world)])
            mine = np.array_split(step, self._world)[self._rank]
            if len(mine):
                yield [Draw(int(index), epoch, self._seed) for index in mine]

    def _of_epoch(self) -> np.ndarray:
        if self._held is None or self._held[0] != self.sampler.number:
            self._held = self.sampler.number, self._draws(self.sampler.number)
        return self._held[1]


class Shown:
    """The draws of a batch, in a form that the loop hands on without looking into it."""

    def __init__(self, draws: list[Draw]) -> None:
        self.draws = draws


class _Answering(Dataset[Any]):
    """A source as a data set of torch."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitems__(self, draws: list[Draw]) -> tuple[Batch, Shown]:
        return self._source.__getitems__(draws), Shown(draws)


def loader(source: Source, batches: Batches, workers: int, pinned: bool) -> DataLoader[Any]:
    """A loader of whole batches, each with the draws that it is of."""
    return DataLoader(
        _Answering(source),
        batch_sampler=batches,  # anything that gives lists and has a length will do
        collate_fn=_whole,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=pinned,
    )


def _whole(batch: Any) -> Any:
    return batch
