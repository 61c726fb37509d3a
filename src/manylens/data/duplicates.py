"""The same picture twice: pixel for pixel, or but for size, compression, brightness, contrast or a mirror.

Two pictures are held together by the distance of their small copies at one mean and contrast (the distance of Carlini
et al., 2023, at 16 x 16 cells): 0 is the same, 1.4 unrelated. What counts as near depends on the pictures: photographs
are far from each other, drawings of one digit are not. So the limit is a share of how far a picture is from its
nearest other here (Lowe's ratio, 2004, over the whole set instead of by picture).

The search is exact: a projection onto 8 x 8 cells never overestimates a distance, and what it cannot rule out is
measured in full. All pairs of 10,000 pictures, mirrored ones too, take about a second on two cores; of ten times as
many, a hundred times as long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from manylens.data.looks import CELLS

NEAR_EXACT = 0.1
"""Distance up to which two pictures are one for certain, whatever their kind."""
MOST = 0.35
"""Distance beyond which none are."""
_SHARE = 0.3  # of the usual distance to the nearest other; 0.3 keeps twins of photographs and parts digits
_SAMPLE = 256
_BLOCK = 2048
_MANY = 0.02  # share of a block's pairs above which all are measured by one product of matrices
_FLAT = 1.5  # standard deviation in grey levels below which the small copy is rounding, not a picture

Cells = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Some pairs of pictures that are one.

    Attributes:
        one: int64 ``(P,)``, rows; the lower of each pair.
        other: Likewise, the higher.
        distance: float32 ``(P,)``.
        mirrored: bool ``(P,)``.
    """

    one: Rows
    other: Rows
    distance: Floats
    mirrored: npt.NDArray[np.bool_]


def first_of(digests: Sequence[bytes]) -> Rows:
    """Which row has the same pixels first: int64 ``(N,)``, its own number where it is the first itself."""
    firsts: dict[bytes, int] = {}
    return np.fromiter((firsts.setdefault(one, i) for i, one in enumerate(digests)), np.int64, len(digests))


def flat(cells: Cells) -> npt.NDArray[np.bool_]:
    """Which of ``(N, 16, 16, 3)`` are of one colour as far as the small copy tells; these are never called near."""
    found = [part.reshape(len(part), -1).std(axis=1, dtype=np.float32) < _FLAT for part in _parts(cells)]
    return np.concatenate([*found, np.zeros(0, bool)])


def limit_of(cells: Cells) -> float:
    """The distance up to which two of these pictures count as one.

    Args:
        cells: ``(N, 16, 16, 3)``, no two of equal pixels, none :func:`flat`.

    Returns:
        0.3 of the median distance of a picture to its nearest other, those that are near exact left aside, within
        0.1..0.35.
    """
    if len(cells) < 2:
        return NEAR_EXACT
    sample = np.unique(np.linspace(0, len(cells) - 1, _SAMPLE).astype(np.int64))
    asked = _standard(cells[sample])
    nearest = np.full(len(sample), np.inf, np.float32)
    start = 0
    for part in _parts(cells):
        found = _distance(asked @ _standard(part).T)
        own = (sample >= start) & (sample < start + len(part))
        found[np.flatnonzero(own), sample[own] - start] = np.inf
        nearest = np.minimum(nearest, found.min(axis=1))
        start += len(part)
    usual = nearest[nearest > NEAR_EXACT]
    return min(max(_SHARE * float(np.median(usual)), NEAR_EXACT), MOST) if len(usual) else NEAR_EXACT


def near(cells: Cells, limit: float, progress: Callable[[float], None] | None = None) -> Iterator[Pairs]:
    """All pairs whose distance is at most ``limit``, as they are or with one mirrored, a block of pictures at a time.

    Args:
        cells: ``(N, 16, 16, 3)``.
        limit: From :func:`limit_of`.
        progress: Called with the share done.
    """
    rows = np.flatnonzero(~flat(cells))
    starts = range(0, len(rows), _BLOCK)
    total, done = len(starts) * (len(starts) + 1) / 2, 0
    for i in starts:
        ours = _Block.of(cells, rows[i : i + _BLOCK])
        turned = _Block.of(cells, rows[i : i + _BLOCK], mirrored=True)
        for j in range(i, len(rows), _BLOCK):
            others = ours if i == j else _Block.of(cells, rows[j : j + _BLOCK])
            yield from _found(ours, turned, others, limit)
            done += 1
            if progress is not None:
                progress(done / total)


@dataclass(frozen=True, eq=False)
class _Block:
    """Some pictures made ready: whole vectors of length 1, and what a lower bound of distances needs."""

    rows: Rows
    whole: Floats
    left: Floats
    right: Floats

    @classmethod
    def of(cls, cells: Cells, rows: Rows, *, mirrored: bool = False) -> _Block:
        chosen = cells[rows]
        whole = _standard(chosen[:, :, ::-1] if mirrored else chosen)
        grid = whole.reshape(len(rows), CELLS // 2, 2, CELLS // 2, 2, 3)
        # Sums of four cells by 2: an orthogonal projection, under which no distance grows.
        coarse = grid.sum(axis=(2, 4)).reshape(len(rows), -1) / 2
        half = (coarse**2).sum(axis=1, keepdims=True) / 2
        ones = np.ones_like(half)
        return cls(rows, whole, np.hstack([coarse, -half, ones]), np.hstack([coarse, ones, -half]))


def _found(ours: _Block, turned: _Block, others: _Block, limit: float) -> Iterator[Pairs]:
    """Pairs of two blocks; a pair that is near both ways is given once, by the nearer one."""
    parts = []
    for block, mirrored in ((ours, False), (turned, True)):
        # The product is minus half of the squared distance at 8 x 8 cells.
        bound = block.left @ others.right.T
        maybe = np.flatnonzero(bound >= -(limit**2) / 2 - 1e-5)
        one, other = maybe // len(others.rows), maybe % len(others.rows)
        keep = others.rows[other] > block.rows[one]
        parts.append(_measured(block, others, one[keep], other[keep], limit, mirrored))
    straight, mirror = parts
    if len(straight.one) and len(mirror.one):
        straight = _nearer(straight, mirror)
        mirror = _none()
    for pairs in (straight, mirror):
        if len(pairs.one):
            yield pairs


def _measured(block: _Block, others: _Block, one: Rows, other: Rows, limit: float, mirrored: bool) -> Pairs:
    """Those of the pairs that are near, measured in full."""
    if len(one) > _MANY * len(block.rows) * len(others.rows):
        cosine = (block.whole @ others.whole.T)[one, other]
    else:
        chunks = [slice(start, start + _BLOCK) for start in range(0, len(one), _BLOCK)]
        cosines = [np.einsum("pd,pd->p", block.whole[one[part]], others.whole[other[part]]) for part in chunks]
        cosine = np.concatenate([*cosines, np.zeros(0, np.float32)])
    distance = _distance(cosine)
    near = distance <= limit
    return Pairs(block.rows[one[near]], others.rows[other[near]], distance[near], np.full(int(near.sum()), mirrored))


def _nearer(straight: Pairs, mirror: Pairs) -> Pairs:
    both = _joined([straight, mirror])
    order = np.lexsort((both.mirrored, both.distance, both.other, both.one))
    one, other = both.one[order], both.other[order]
    first = np.ones(len(order), bool)
    first[1:] = (one[1:] != one[:-1]) | (other[1:] != other[:-1])
    kept = order[first]
    return Pairs(both.one[kept], both.other[kept], both.distance[kept], both.mirrored[kept])


def _none() -> Pairs:
    return Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, bool))


def _joined(parts: Sequence[Pairs]) -> Pairs:
    return Pairs(
        np.concatenate([part.one for part in parts]),
        np.concatenate([part.other for part in parts]),
        np.concatenate([part.distance for part in parts]),
        np.concatenate([part.mirrored for part in parts]),
    )


def _standard(cells: Cells) -> Floats:
    """``(n, 768)``: mean 0, length 1; a flat one becomes no direction at all."""
    values = cells.reshape(len(cells), -1).astype(np.float32)
    values -= values.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    values /= np.maximum(lengths, 1e-3)
    return values


def _distance(cosine: Floats) -> Floats:
    return np.sqrt(np.maximum(2 - 2 * cosine, 0))


def _parts(cells: Cells) -> Iterator[Cells]:
    for start in range(0, len(cells), _BLOCK):
        yield cells[start : start + _BLOCK]
