"""Many masks of one picture as spans of pixels, so that overlaps are counted without painting a mask.

A picture of 640 x 480 pixels with twenty masks has 300,000 pixels but a few thousand spans; sorting those is all that a
table of intersections takes. Pixels are numbered down the columns, as in COCO's run-length encoding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from manylens.errors import MediaError

IntArray = npt.NDArray[np.int64]

_LONGEST = 12  # characters of one number in COCO's string; more would not fit 64 bits
_STEP_BITS = 32  # of a place on the walk along the pixels, the bits that hold the step there


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
        numbers, bounds = _numbers([_text(mask, size) for mask in masks])
        each = np.diff(bounds)
        if not each.all():
            raise _broken(size)
        # Runs come in pairs, off the mask and on it. From the fourth on, each is the difference to the run 2 before.
        pairs = each // 2
        owners = np.repeat(np.arange(len(masks)), pairs)
        stops = np.cumsum(pairs)
        at = 2 * np.arange(len(owners)) + np.repeat(bounds[:-1] - 2 * (stops - pairs), pairs)
        off, on = numbers[at], numbers[at + 1]
        some = pairs > 0
        first, last = (stops - pairs)[some], stops[some] - 1
        lead, off[first] = off[first], 0
        off, on = _restarted(off, first), _restarted(on, first)
        # What is left over is off the mask too.
        left = np.where(each % 2, numbers[bounds[1:] - 1], 0)
        left[some] += np.where(each[some] % 2, off[last], 0)
        off[first] = lead
        # Seen as unsigned, what is below 0 is far too large.
        if any(runs.view(np.uint64).max(initial=0) > pixels for runs in (off, on, left)):
            raise _broken(size)
        ends = _restarted(off + on, first)
        left[some] += ends[last]
        if (left != pixels).any():
            raise _broken(size)
        if not on.all():
            owners, ends, on = (one[on > 0] for one in (owners, ends, on))
        return cls(size, len(masks), ends - on, ends, owners)

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

    @property
    def pixels(self) -> int:
        """Pixels of all masks together; one that belongs to two is counted twice."""
        return int(self.ends.sum() - self.starts.sum())

    def empty(self) -> IntArray:
        """Which masks have no pixel, ascending."""
        return np.flatnonzero(np.bincount(self.owners, minlength=self.count) == 0)

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
        pixels, wide = self.size[0] * self.size[1], other.count + 1
        size = (self.count + 1) * wide
        # Walk along the pixels: each span adds its number where it starts and takes it back where it ends. Place and
        # step are one number to sort; a stable sort, since that is quick where most is in order already.
        steps = np.concatenate([self._steps(wide), other._steps(1)])
        steps.sort(kind="stable")
        points = (steps + (1 << (_STEP_BITS - 1))) >> _STEP_BITS
        at = np.cumsum(steps - (points << _STEP_BITS))
        if at.max(initial=0) >= size:
            return None
        cells = _sums(at, np.diff(points, append=pixels), size).reshape(-1, wide)
        cells[0, 0] += points[0] if points.size else pixels
        # Masks overlap exactly where they cover fewer pixels than they have.
        if cells[1:].sum() < self.pixels or cells[:, 1:].sum() < other.pixels:
            return None
        return cells

    def _steps(self, unit: int) -> IntArray:
        """``(2 s,)``: place of each start and end in the high bits; below, 1 + its number in units, plus or minus."""
        numbers = (self.owners + 1) * unit
        steps = np.empty((len(numbers), 2), np.int64)
        steps[:, 0] = (self.starts << _STEP_BITS) + numbers
        steps[:, 1] = (self.ends << _STEP_BITS) - numbers
        return steps.ravel()

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


def _numbers(texts: Sequence[bytes]) -> tuple[IntArray, IntArray]:
    """Numbers of many strings of COCO, one after the other, and where each begins, ``(len(texts) + 1,)``.

    A character holds 5 bits, low bits first, and a sixth that says whether another follows.
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
    # From the last character, whose fifth bit is the sign, to the first; most numbers have but one.
    numbers = (characters[last] ^ 16).astype(np.int64) - 16
    longer, back = np.flatnonzero(lengths > 1), 1
    while longer.size:
        numbers[longer] = (numbers[longer] << 5) + (characters[last[longer] - back] & 31)
        back += 1
        longer = longer[lengths[longer] > back]
    return numbers, np.concatenate([[0], np.searchsorted(last, stops)])


def _restarted(values: IntArray, first: IntArray) -> IntArray:
    """Running sums that begin anew at each of some places, ascending from 0; overwrites the values."""
    if first.size:
        values[first[1:]] -= np.add.reduceat(values, first)[:-1]
    return np.cumsum(values)


def _sums(where: IntArray, values: IntArray, length: int) -> IntArray:
    """Sums of values by place; exact, since pixels are far fewer than float64 counts."""
    return np.bincount(where, values.astype(np.float64), length).astype(np.int64)


def _broken(size: tuple[int, int]) -> MediaError:
    return MediaError(
        f"RLE: its runs do not fill {size[0]} x {size[1]} pixels", "give COCO run-length encoding, size [height, width]"
    )
