"""Pairs of pictures for training in context: which two are shown together, and what of them is painted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from manylens.training.dense.store import ObjectStore

Kind = Literal["semantic", "instance"]
"""Whether a class has one colour in two pictures that share it, or each thing its own in two views of one picture."""


class Partners:
    """Which pictures share a class.

    Args:
        store: The objects of the pictures that may be examples.

    Attributes:
        pictures: Of each class, the numbers of those that show it, ascending.
    """

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self.pictures: list[np.ndarray] = [np.zeros(0, np.int64)] * len(store.names)
        held: list[list[int]] = [[] for _ in store.names]
        for number in range(len(store)):
            for one in shown(store, number):
                held[one].append(number)
        self.pictures = [np.array(one, np.int64) for one in held]

    def of(self, classes: Sequence[int], random: np.random.Generator, *, but: int | None = None) -> int | None:
        """A picture that shares one of some classes, each class as likely; None where there is none.

        Args:
            classes: Of the asked picture.
            random: Draws it.
            but: A picture that is not wanted, the asked one itself.
        """
        choices = [mine[mine != but] for mine in (self.pictures[one] for one in classes)]
        choices = [mine for mine in choices if len(mine)]
        if not choices:
            return None
        mine = choices[int(random.integers(len(choices)))]
        return int(mine[random.integers(len(mine))])


def shown(store: ObjectStore, number: int) -> list[int]:
    """The classes of the objects of a picture that can be painted, ascending."""
    return sorted({store.class_of(row) for row in paintable(store, number)})


def paintable(store: ObjectStore, number: int) -> list[int]:
    """The objects of a picture that are of a class, told apart, and have a mask."""
    has_mask = store.rle
    return [
        row
        for row in store.rows(number)
        if store.class_of(row) >= 0 and not store.is_crowd(row) and has_mask(row) is not None
    ]


def not_judged(store: ObjectStore, number: int) -> list[int]:
    """The objects of a picture with a mask of which it is not known what they are, or that are not told apart."""
    known = set(paintable(store, number))
    return [row for row in store.rows(number) if row not in known and store.rle(row) is not None]
