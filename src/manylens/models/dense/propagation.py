"""Labels carried through frames by patch features.

As Jabri et al. 2020 and DINO (Caron et al. 2021) do: every patch of a frame takes the labels of the few patches most
like it, near its place in the first frame and in the last ones. Memory holds the first frame and the last few,
however long the video is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from manylens.models.dense.grids import cover, unit, upsampled

_CELLS = 1 << 25
"""Most cosines at once: 128 MiB."""

FloatMap = np.ndarray
"""float32 ``(rows, columns, channels)`` over a whole picture."""


@dataclass(frozen=True)
class Propagation:
    """How labels are carried on; the defaults are DINO's.

    Attributes:
        neighbours: How many patches each patch takes its labels from.
        temperature: A cosine ``c`` weighs ``exp(c / temperature)``.
        radius: How many patches a neighbour may be away, along either axis; None for any.
        context: How many frames before are looked at, beside the first.
        sharpen: Whether to stretch each label over a frame to 0..1 before the largest is taken.
    """

    neighbours: int = 5
    temperature: float = 0.1
    radius: int | None = 12
    context: int = 7
    sharpen: bool = True

    def through(self, features: Iterable[FloatMap], labels: FloatMap) -> Iterator[FloatMap]:
        """Carry labels through frames.

        Args:
            features: float ``(rows, columns, D)`` of each frame, the first that of the labels.
            labels: float ``(rows, columns, C)`` of the first frame: shares of each label, which sum to 1.

        Yields:
            The labels of each frame after the first, float64 of the same shape.
        """
        frames = iter(features)
        first = (unit(next(frames)), labels.reshape(-1, labels.shape[-1]).astype(np.float64))
        before: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=self.context)
        reach = _reach(labels.shape[:2], self.radius)
        for dense in frames:
            here = unit(dense)
            carried = self._carried(here, [first, *before], reach)
            before.append((here, carried))
            yield carried.reshape(labels.shape)

    def _carried(
        self, here: np.ndarray, context: Sequence[tuple[np.ndarray, np.ndarray]], reach: np.ndarray | None
    ) -> np.ndarray:
        there, known = (np.concatenate(parts) for parts in zip(*context, strict=True))
        most, step = min(self.neighbours, len(there)), max(1, _CELLS // len(there))
        carried = np.empty((len(here), known.shape[1]))
        for start in range(0, len(here), step):
            at = slice(start, start + step)
            cosines = here[at] @ there.T
            if reach is not None:
                cosines[~np.tile(reach[at], (1, len(context)))] = -np.inf
            nearest = np.argpartition(-cosines, most - 1, axis=1)[:, :most]
            near = np.take_along_axis(cosines, nearest, axis=1)
            # Only ratios matter, and so none overflows; those out of reach weigh 0.
            weights = np.exp((near - near.max(axis=1, keepdims=True)) / self.temperature)
            carried[at] = np.einsum("nk,nkc->nc", weights / weights.sum(axis=1, keepdims=True), known[nearest])
        return carried

    def masks(self, labels: FloatMap, size: tuple[int, int]) -> np.ndarray:
        """Which label each pixel of a picture of ``size`` ``(width, height)`` has, int64 ``(H, W)``."""
        planes = upsampled(np.moveaxis(labels, 2, 0), size)
        return np.argmax([_stretched(plane) for plane in planes] if self.sharpen else planes, axis=0)


def shares(masks: Sequence[np.ndarray], shape: tuple[int, ...]) -> FloatMap:
    """How much of each patch is background, and each object: float32 ``(rows, columns, 1 + objects)``, sums 1.

    Args:
        masks: bool ``(H, W)`` of each object.
        shape: ``(rows, columns)`` of the grid of patches.
    """
    objects = [cover(mask, (shape[0], shape[1])) for mask in masks]
    planes = np.stack([np.maximum(1 - np.sum(objects, axis=0), 0), *objects], axis=2)
    return planes / planes.sum(axis=2, keepdims=True)  # where masks overlap, they share


def _reach(shape: tuple[int, ...], radius: int | None) -> np.ndarray | None:
    """Which patches may take labels from which, bool ``(N, N)``."""
    if radius is None:
        return None
    rows, columns = (axis.ravel() for axis in np.indices(shape))
    apart = np.maximum(abs(rows[:, None] - rows), abs(columns[:, None] - columns))
    return np.asarray(apart <= radius, bool)


def _stretched(plane: np.ndarray) -> np.ndarray:
    """From 0 to 1 over the frame; a plane without anything stays as it is."""
    if plane.max() <= 0:
        return plane
    moved = plane - plane.min()
    return moved / moved.max() if moved.max() > 0 else moved
