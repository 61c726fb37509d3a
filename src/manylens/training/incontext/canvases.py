"""Two pictures and their paint as the network takes them: views, colours, and what is hidden."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from manylens.models import pixels
from manylens.training.dense import geometry
from manylens.training.dense.geometry import View
from manylens.training.dense.store import ObjectStore
from manylens.training.incontext.painting import Colours, painted
from manylens.training.incontext.pairs import Kind, Partners, not_judged, paintable, shown

Squares = Callable[[int], npt.NDArray[np.uint8]]
"""A picture by its number, uint8 ``(side, side, 3)``."""

_LEAST = 16
"""Pixels of the square that must be left of what is painted."""


@dataclass(frozen=True)
class Drawing:
    """How canvases are drawn.

    Attributes:
        kind: See :data:`.pairs.Kind`.
        flip: How often a view is mirrored.
        scale: Smallest and largest scale of a view; 1 is the whole picture.
        most: Classes or things that are painted at once, at most.
    """

    kind: Kind = "semantic"
    flip: float = 0.5
    scale: tuple[float, float] = (1.0, 1.8)
    most: int = 6


@dataclass(frozen=True, eq=False)
class Half:
    """A picture with its paint.

    Attributes:
        picture: uint8 ``(side, side, 3)``.
        masks: bool ``(side, side)`` of each class or thing that is painted, in the same order in both halves.
        unknown: bool ``(side, side)``: pixels that are not judged.
    """

    picture: npt.NDArray[np.uint8]
    masks: Sequence[npt.NDArray[np.bool_]]
    unknown: npt.NDArray[np.bool_]

    def paint(self, colours: Colours, size: tuple[int, int]) -> Colours:
        """The paint at the network's size ``(width, height)``, colours not mixed."""
        plane = painted(self.masks, colours, self.unknown.shape)
        return plane if plane.shape[1::-1] == size else pixels.resized(plane, size, "nearest")

    def judged(self, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """Which pixels of the network's size are judged, bool ``(height, width)``."""
        known = (~self.unknown).astype(np.uint8)
        return np.asarray(pixels.resized(known, size, "nearest") if known.shape[1::-1] != size else known, bool)


@dataclass(frozen=True, eq=False)
class Canvas:
    """An example above, the asked picture below.

    Attributes:
        example: The example.
        asked: What is asked.
        names: Class of each mask.
    """

    example: Half
    asked: Half
    names: tuple[int, ...]


class Canvases:
    """Draws canvases of pictures.

    Args:
        store: Objects of the pictures that are asked.
        examples: Objects of those that may be examples; the same store for training.
        side: Of the squares.
        squares: Gives pictures of the two stores, the asked one's first.
        drawing: How; None: whole pictures, not changed.
    """

    def __init__(
        self,
        store: ObjectStore,
        examples: ObjectStore,
        side: int,
        squares: tuple[Squares, Squares],
        drawing: Drawing,
    ) -> None:
        self.store, self.side, self.drawing = store, side, drawing
        self._squares, self._partners = squares, Partners(examples)

    def draw(self, number: int, random: np.random.Generator, *, plain: bool = False) -> Canvas | None:
        """A canvas that asks a picture; None where nothing of it can be painted.

        Args:
            number: Of the asked picture.
            random: Draws the example, the views, and what is painted.
            plain: Whether pictures are shown as they are (but for the example of instances, which is mirrored), and
                none is its own example where another is wanted.
        """
        classes = shown(self.store, number)
        if not classes:
            return None
        same = self.store is self._partners.store
        other = None
        if self.drawing.kind == "semantic":
            other = self._partners.of(classes, random, but=number if same else None)
        mirrored = View(self.side, (0, 0, self.side, self.side), True) if self.drawing.kind == "instance" else None
        tries: list[tuple[View | None, View | None]] = [(mirrored, None)]
        if plain and other is None and mirrored is None:
            return None
        if not plain:
            tries.insert(0, (self._view(random), self._view(random)))
        for views in tries:
            found = self._canvas(number, other, views, random)
            if found is not None:
                return found
        return None

    def _canvas(
        self, number: int, other: int | None, views: tuple[View | None, View | None], random: np.random.Generator
    ) -> Canvas | None:
        """A canvas in two views, with what both of them show."""
        mine = _parts(self.store, number, self.side, views[1], self.drawing.kind)
        if other is None:  # no other picture shares a class: the picture is its own example, seen in another way
            its = _parts(self.store, number, self.side, views[0], self.drawing.kind)
        else:
            its = _parts(self._partners.store, other, self.side, views[0], self.drawing.kind)
        both = [key for key in mine if key in its]
        if not both:
            return None
        order = random.permutation(len(both))[: self.drawing.most]
        chosen = [both[place] for place in sorted(order.tolist())]
        return Canvas(
            self._half(other is None, number if other is None else other, views[0], [its[key] for key in chosen]),
            self._half(True, number, views[1], [mine[key] for key in chosen]),
            tuple(key[0] for key in chosen),
        )

    def _half(self, own: bool, number: int, view: View | None, masks: Sequence[npt.NDArray[np.bool_]]) -> Half:
        picture = self._squares[0 if own else 1](number)
        store = self.store if own else self._partners.store
        unknown = np.zeros((self.side, self.side), bool)
        for row in not_judged(store, number):
            unknown |= _seen(store, row, self.side, view)
        return Half(picture if view is None else view.pixels(picture), masks, unknown)

    def _view(self, random: np.random.Generator) -> View:
        return geometry.drawn(self.side, random, flip=self.drawing.flip, scale=self.drawing.scale)


def _parts(
    store: ObjectStore, number: int, side: int, view: View | None, kind: Kind
) -> dict[tuple[int, int], npt.NDArray[np.bool_]]:
    """What a view shows enough of, by class and, for instances, object: bool ``(side, side)``."""
    found: dict[tuple[int, int], npt.NDArray[np.bool_]] = {}
    for row in paintable(store, number):
        key = (store.class_of(row), row if kind == "instance" else 0)
        mask = _seen(store, row, side, view)
        found[key] = found[key] | mask if key in found else mask
    return {key: mask for key, mask in found.items() if mask.sum() >= _LEAST}


def _seen(store: ObjectStore, row: int, side: int, view: View | None) -> npt.NDArray[np.bool_]:
    mask = store.mask(row)
    assert mask is not None
    whole = geometry.squared(mask, side)
    return whole if view is None else view.mask(whole)
