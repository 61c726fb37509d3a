"""What is shown of pictures in each of their views: a function of the seed, the picture and the view alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from manylens.training.augment import changes, generator
from manylens.training.dense import geometry
from manylens.training.dense.geometry import View
from manylens.training.dense.paste import Pool
from manylens.training.dense.scene import LEAST, PIXELS, Pixels, Scene, pasted
from manylens.training.dense.store import ObjectStore

_VERSION = 1
"""Raise it when the same draws give another picture: it is a part of the name of kept views."""


@dataclass(frozen=True)
class Augmentation:
    """How views are drawn.

    Attributes:
        flip: How often a view is mirrored.
        scale: Smallest and largest scale.
        paste: How often something is pasted into a view.
        most: Objects that are pasted at once, at most.
        rates: How often what is pasted is of each class, ``(C,)``, by each other; see :func:`paste_rates`. By default
            every object is pasted as often.
        soft: Deviation in pixels by which the edges of what is pasted are blurred; 0 for none.
        colour: How far brightness, contrast and saturation go, 0..1.
    """

    flip: float = 0.5
    scale: tuple[float, float] = (0.5, 2.0)
    paste: float = 0.0
    most: int = 5
    rates: tuple[float, ...] = ()
    soft: float = 1.0
    colour: float = 0.0


class Scenes:
    """Makes scenes of the pictures of a store.

    Args:
        store: The objects.
        side: Of the squares.
        masks: Whether masks are wanted.
        augmentation: How views of a picture are drawn, by its number; None: every view is the picture as it is.
        seed: Of all views.
        squares: Gives squares of pictures by number, uint8 ``(n, side, side, 3)``; needed where pixels are asked for.
    """

    def __init__(
        self,
        store: ObjectStore,
        side: int,
        *,
        masks: bool = True,
        augmentation: Augmentation | Sequence[Augmentation] | None = None,
        seed: int = 0,
        squares: Callable[[Sequence[int]], Pixels] | None = None,
    ) -> None:
        self.store, self.side, self.seed, self._squares = store, side, seed, squares
        if augmentation is None or isinstance(augmentation, Augmentation):
            self._augmentations: list[Augmentation | None] = [augmentation] * len(store)
        else:
            self._augmentations = list(augmentation)
        pasting = next((one for one in self._augmentations if one is not None and one.paste > 0), None)
        self.masks = masks or pasting is not None
        self._pool = None if pasting is None else Pool.of(store, pasting.rates)

    def scene(self, picture: int, view: int, *, pixels: bool = False, square: Pixels | None = None) -> Scene:
        """One view of a picture; view 0 is the picture as it is.

        Args:
            picture: Its number in the store.
            view: Number of the view.
            pixels: Whether pixels are wanted.
            square: The picture as a square, where it is at hand.
        """
        how = self._augmentations[picture]
        if pixels and square is None:
            assert self._squares is not None
            square = self._squares([picture])[0]
        if how is None or view == 0:
            return self._seen(picture, geometry.whole(self.side), square if pixels else None)
        random = generator(self.seed, view, self.store.ids[picture], "scene")
        seen = geometry.drawn(self.side, random, flip=how.flip, scale=how.scale)
        scene = self._seen(picture, seen, square if pixels else None)
        if self._pool is not None and random.random() < how.paste:
            scene = self._pasted(scene, picture, how, self._pool, random)
        if scene.pixels is not None and how.colour:
            scene = replace(scene, pixels=_coloured(scene.pixels, how.colour, random))
        return scene

    def views(self, squares: Pixels, pictures: Sequence[int], view: int) -> Pixels:
        """Squares of pictures as they are to squares of one of their views, uint8 ``(n, side, side, 3)``."""
        found = [
            self.scene(picture, view, pixels=True, square=square).pixels
            for picture, square in zip(pictures, squares, strict=True)
        ]
        return np.stack([one for one in found if one is not None])

    def name(self, picture: int, view: int) -> str:
        """Tells a view of a picture apart from all others; empty for the picture itself."""
        how = self._augmentations[picture]
        if how is None or view == 0:
            return ""
        pool = self._pool_digest if self._pool is not None else ""
        words = (_VERSION, self.seed, self.store.ids[picture], view, pool, repr(how))
        return "scene-" + hashlib.blake2b("|".join(map(str, words)).encode(), digest_size=16).hexdigest()

    @cached_property
    def _pool_digest(self) -> str:
        """What may be pasted: with other objects, or another picture behind a path, it is another view."""
        digest = hashlib.blake2b(digest_size=16)
        for path in self.store.paths:
            stat = path.stat()
            digest.update(f"{path}|{stat.st_size}|{stat.st_mtime_ns}\n".encode("utf-8", "surrogatepass"))
        digest.update(self.store.digest().encode())
        return digest.hexdigest()

    def _seen(self, picture: int, view: View, square: Pixels | None, rows: Sequence[int] | None = None) -> Scene:
        """Objects of a picture (all of them by default) in a view."""
        store, side = self.store, self.side
        rows = store.rows(picture) if rows is None else rows
        kept, masks, boxes = [], [], []
        width, height = store.size(picture)
        scale = np.array([side / width, side / height] * 2, np.float32)
        for row in rows:
            box = view.boxes(store.box(row)[None] * scale)[0]
            if self.masks:
                mask = store.mask(row)
                if mask is None:
                    continue
                whole = geometry.squared(mask, side)
                seen = view.mask(whole)
                if not _enough(int(seen.sum()), int(whole.sum()), view):
                    continue
                masks.append(seen)
                box = geometry.around(seen[None])[0] if not view.plain else box
            elif not _enough(_area(box), _area(store.box(row) * scale), view):
                continue
            kept.append(row)
            boxes.append(box)
        return Scene(
            np.array([store.class_of(row) for row in kept], np.int64),
            np.array(boxes, np.float32).reshape(-1, 4),
            np.array([store.is_crowd(row) for row in kept], bool),
            (np.stack(masks) if masks else np.zeros((0, side, side), bool)) if self.masks else None,
            None if square is None else view.pixels(square),
        )

    def _pasted(self, scene: Scene, picture: int, how: Augmentation, pool: Pool, random: np.random.Generator) -> Scene:
        """Paste objects one after the other, each as a view of its own picture shows it."""
        for row in pool.drawn(random, int(random.integers(1, how.most + 1))):
            other = self.store.picture(row)
            view = geometry.drawn(self.side, random, flip=how.flip, scale=how.scale)
            if other == picture:
                continue  # it would be there twice, which no picture shows
            square = None
            if scene.pixels is not None:
                assert self._squares is not None
                square = self._squares([other])[0]
            scene = pasted(scene, self._seen(other, view, square, [row]), soft=how.soft)
        return scene


def _coloured(pixels: Pixels, strength: float, random: np.random.Generator) -> Pixels:
    """With brightness, contrast and saturation changed, as the policy ``light`` of whole pictures does."""
    import torch

    bright, contrast, colour = (1 + 0.4 * strength * random.uniform(-1, 1, 3)).tolist()
    picture = torch.from_numpy(pixels).permute(2, 0, 1).float().div_(255)
    picture = changes.saturation(changes.contrast(changes.brightness(picture, bright), contrast), colour)
    return picture.mul_(255).round_().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def _area(box: npt.NDArray[np.float32]) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))


def _enough(seen: float, whole: float, view: View) -> bool:
    """Whether enough of an object is left in a view; areas in pixels of the square, after and before."""
    x0, y0, x1, y1 = view.window
    grown = view.side**2 / ((x1 - x0) * (y1 - y0))
    return view.plain or (seen >= PIXELS and seen >= LEAST * whole * grown)
