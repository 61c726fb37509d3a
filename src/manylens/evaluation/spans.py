"""Many masks of one picture as spans of pixels, so that overlaps are counted without painting a mask.

A picture of 640 x 480 pixels with twenty masks has 300,000 pixels but a few thousand spans; sorting those is all that a
table of intersections takes. Pixels are numbered down the columns, as in COCO's run-length encoding.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from manylens.errors import MediaError

IntArray = npt.NDArray[np.int64]

_LONGEST = 12  # characters of one number in COCO's string; more would not fit 64 bits


@dataclass(frozen=True, eq=False)
class Spans:
    """Masks of one picture.

    Attributes:
        size: ``(height, width)`` of the picture in pixels.
        count: Number of masks.
        starts: First pixel of each of the s spans.
        ends: The pixel after the last of each.
        owners: ``0 .. count - 1``: which mask each span belongs to; ascending where masks overlap.
    """

    size: tuple[int, int]
    count: int
    starts: IntArray
    ends: IntArray
    owners: IntArray

    @classmethod
    def of(cls, masks: Sequence[Mapping[str, Any]], size: tuple[int, int]) -> Spans:
        """Read COCO RLEs.

        Args:
            masks: COCO RLE, compressed or with a list of counts.
            size: ``(height, width)`` that each must have.

        Raises:
            MediaError: One is broken, or of another size.
        """
        pixels = size[0] * size[1]
        runs, bounds = _runs([_text(mask, size) for mask in masks])
        each = np.diff(bounds)
        ends = np.cumsum(runs)
        totals = np.arange(1, len(masks) + 1) * pixels
        if not each.all() or (len(runs) and runs.min() < 0) or (ends[bounds[1:] - 1] != totals).any():
            raise _broken(size)
        # Every second run is on the mask; the first is not.
        number = each // 2
        owners = np.repeat(np.arange(len(masks)), number)
        skipped = bounds[:-1] + 1 - 2 * (np.cumsum(number) - number)
        at = 2 * np.arange(len(owners)) + skipped[owners]
        stops, lengths = ends[at] - owners * pixels, runs[at]
        if not lengths.all():
            owners, stops, lengths = (one[lengths > 0] for one in (owners, stops, lengths))
        return cls(size, len(masks), stops - lengths, stops, owners)

    @classmethod
    def of_map(cls, ids: npt.NDArray[np.integer], empty: int = 0) -> tuple[Spans, IntArray]:
        """Read a map of ids.

        Args:
            ids: int ``(H, W)``: which mask each pixel belongs to; below 2^31.
            empty: The id of pixels that belong to none.

        Returns:
            The masks, and the id of each, ascending.
        """
        import cv2

        # Blockwise, so much faster than NumPy
        flat = cv2.transpose(np.ascontiguousarray(ids, np.int32)).ravel()
        edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        starts = np.concatenate([[0], edges]).astype(np.int64)
        ends = np.concatenate([edges, [flat.size]]).astype(np.int64)
        named = flat[starts]
        on = named != empty
        known, owners = np.unique(named[on], return_inverse=True)
        size = (int(ids.shape[0]), int(ids.shape[1]))
        return cls(size, len(known), starts[on], ends[on], owners.astype(np.int64)), known.astype(np.int64)

    def areas(self) -> IntArray:
        """Pixels of each mask, ``(count,)``."""
        return _sums(self.owners, self.ends - self.starts, self.count)

    @property
    def overlap(self) -> bool:
        """Whether a pixel belongs to two masks."""
        return bool((np.sort(self.starts)[1:] < np.sort(self.ends)[:-1]).any())

    def table(self, other: Spans) -> IntArray | None:
        """Pixels that are in mask i of these and in mask j of others.

        Returns:
            ``(count + 1, other.count + 1)``; row 0 and column 0 stand for the pixels that are in no mask. None where
            a pixel is in two masks of one side: take them apart first.
        """
        # Walk along the pixels: each span adds its number where it starts and takes it back where it ends. Scattering
        # the steps and looking for what is not 0 is several times faster than sorting them.
        pixels = self.size[0] * self.size[1]
        mine, others = self._steps(), other._steps()
        if mine is None or others is None:
            return None
        points = np.flatnonzero((mine | others)[:-1] != 0)
        lengths = np.diff(points, append=pixels)
        before = int(points[0]) if points.size else pixels
        rows, columns = np.cumsum(mine[points], dtype=np.int64), np.cumsum(others[points], dtype=np.int64)
        for spans, at in ((self, rows), (other, columns)):
            if lengths[at != 0].sum() != (spans.ends - spans.starts).sum():
                return None
        wide = other.count + 1
        cells = _sums(rows * wide + columns, lengths, (self.count + 1) * wide)
        cells[0] += before
        return cells.reshape(-1, wide)

    def _steps(self) -> npt.NDArray[np.int32] | None:
        """``(H * W + 1,)``: 1 + its number where a mask starts, less the same where it ends; None for two at a place.

        Where no two start or end at a place, masks are apart exactly where as many pixels are covered as they have.
        """
        steps = np.zeros(self.size[0] * self.size[1] + 1, np.int32)
        numbers = (self.owners + 1).astype(np.int32)
        steps[self.starts] = numbers
        sums = steps[self.ends] - numbers
        alone = (steps[self.starts] == numbers).all()
        steps[self.ends] = sums
        return steps if alone and (steps[self.ends] == sums).all() else None

    def paint(
        self, values: npt.ArrayLike, *, order: Sequence[int] | IntArray | None = None, empty: int = -1
    ) -> npt.NDArray[np.int32]:
        """A map of values.

        Args:
            values: Of each mask.
            order: In which the masks are painted; the last is on top. Default: as they are.
            empty: Of the pixels that are in no mask.

        Returns:
            int32 ``(H, W)``.
        """
        values = np.asarray(values, np.int32)
        if not self.overlap:
            along = np.argsort(self.starts)
            edges = np.stack([self.starts[along], self.ends[along]], axis=1).ravel()
            shown = np.full(len(edges) + 1, empty, np.int32)
            shown[1::2] = values[self.owners[along]]
            flat = np.repeat(shown, np.diff(edges, prepend=0, append=self.size[0] * self.size[1]))
        else:
            flat = np.full(self.size[0] * self.size[1], empty, np.int32)
            bounds = np.searchsorted(self.owners, np.arange(self.count + 1))
            for owner in range(self.count) if order is None else order:
                for i in range(bounds[owner], bounds[owner + 1]):
                    flat[self.starts[i] : self.ends[i]] = values[owner]
        return np.ascontiguousarray(flat.reshape(self.size[1], self.size[0]).T)

    def apart(self, first: Sequence[int] | IntArray) -> Spans:
        """The same masks, each pixel given to one of them.

        Args:
            first: The masks by rank; those in front keep their pixels.
        """
        if not self.overlap:
            return self
        shown = self.paint(np.arange(self.count), order=np.asarray(first, np.int64)[::-1])
        left, owners = Spans.of_map(shown, empty=-1)
        return Spans(self.size, self.count, left.starts, left.ends, owners[left.owners])


def _text(mask: Mapping[str, Any], size: tuple[int, int]) -> bytes:
    """The compressed counts of an RLE that has the size."""
    try:
        height, width = mask["size"]
        counts = mask["counts"]
    except (KeyError, TypeError, ValueError) as error:
        raise _broken(size) from error
    if (height, width) != size:
        raise MediaError(f"RLE: its size is {height} x {width}, not {size[0]} x {size[1]}", "give the picture's")
    if isinstance(counts, str | bytes):
        return counts.encode("ascii", "replace") if isinstance(counts, str) else counts
    from manylens.media import from_rle, to_rle

    return to_rle(from_rle(mask))["counts"].encode("ascii")


def _runs(texts: Sequence[bytes]) -> tuple[IntArray, IntArray]:
    """Runs of many RLEs, one after the other, and where each begins, ``(len(texts) + 1,)``.

    COCO's string: 5 bits a character, low bits first; from the fourth run on, the difference to the run 2 before.
    """
    characters = np.frombuffer(b"".join(texts), np.uint8) - np.uint8(48)
    stops = np.cumsum([len(text) for text in texts])
    if not characters.size:
        return np.zeros(0, np.int64), np.zeros(len(texts) + 1, np.int64)
    final = characters < 32
    if characters.max() > 63 or not final[stops - 1].all():  # an empty text looks at its neighbour
        raise MediaError("RLE: its counts are not COCO's string", "give COCO run-length encoding")
    last = np.flatnonzero(final)
    lengths = np.diff(last, prepend=-1)
    if lengths.max() > _LONGEST:
        raise MediaError("RLE: its counts are not COCO's string", "give COCO run-length encoding")
    # From the last character to the first; its fifth bit is the sign.
    bits = (characters & 31).astype(np.int64)
    runs = bits[last] - ((bits[last] & 16) << 1)
    for back in range(1, lengths.max()):
        longer = np.flatnonzero(lengths > back)
        runs[longer] = (runs[longer] << 5) + bits[last[longer] - back]
    bounds = np.concatenate([[0], np.searchsorted(last, stops)])
    for start, stop in itertools.pairwise(bounds.tolist()):
        for first in (start + 1, start + 2):
            part = runs[first:stop:2]
            np.add.accumulate(part, out=part)
    return runs, bounds


def _sums(where: IntArray, values: IntArray, length: int) -> IntArray:
    """Sums of values by place; exact, since pixels are far fewer than float64 counts."""
    return np.bincount(where, values, minlength=length).astype(np.int64)


def _broken(size: tuple[int, int]) -> MediaError:
    return MediaError(
        f"RLE: its runs do not fill {size[0]} x {size[1]} pixels", "give COCO run-length encoding, size [height, width]"
    )
