"""Masks in COCO's run-length encoding, looked at without decoding them to pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Runs = npt.NDArray[np.int64]

_MOST = 2**32 - 1
"""Pixels; COCO's runs are numbers of 32 bits."""


def runs(rle: Mapping[str, Any]) -> Runs:
    """The lengths of the runs, column by column, background first.

    Args:
        rle: ``size`` ``[height, width]``; ``counts`` as COCO's string, its bytes, or a list of lengths.

    Raises:
        ValueError: It is no RLE, or its runs do not fill its size; the message says which.
    """
    try:
        height, width = (int(side) for side in rle["size"])
        counts = rle["counts"]
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise ValueError("has no size [height, width] or no counts") from error
    if height < 1 or width < 1 or height * width > _MOST:
        raise ValueError(f"has size {height} x {width}")
    if isinstance(counts, str):
        lengths = _unpacked(counts.encode("ascii", "replace"))
    elif isinstance(counts, bytes):
        lengths = _unpacked(counts)
    else:
        try:
            lengths = np.asarray(counts)
        except (OverflowError, ValueError) as error:
            raise ValueError("has counts that are not whole numbers") from error
        if lengths.ndim != 1 or (lengths.size and lengths.dtype.kind not in "iu"):
            raise ValueError("has counts that are not whole numbers")
        lengths = lengths.astype(np.int64)
    beyond = (lengths < 0) | (lengths > height * width)  # so that the sum cannot wrap around 64 bits
    if beyond.any() or int(lengths.sum()) != height * width:
        raise ValueError(f"has runs that do not fill {height} x {width} pixels")
    return lengths


def area(lengths: Runs) -> int:
    """Pixels on the object."""
    return int(lengths[1::2].sum())


def packed(rle: Mapping[str, Any]) -> dict[str, Any]:
    """The same mask with its counts as COCO's string, the form in which masks are kept.

    Raises:
        ValueError: It is no RLE.
    """
    counts = rle["counts"]
    size = [int(side) for side in rle["size"]]
    if isinstance(counts, bytes):
        counts = counts.decode("ascii")
    if not isinstance(counts, str):
        from pycocotools import mask as coco

        lengths = runs(rle)
        counts = coco.frPyObjects({"size": size, "counts": lengths.tolist()}, *size)["counts"].decode("ascii")
    return {"size": size, "counts": counts}


def bounds(rle: Mapping[str, Any], lengths: Runs) -> tuple[float, float, float, float]:
    """The smallest box around a mask that is not empty: ``x0, y0, x1, y1``, max exclusive."""
    height = int(rle["size"][0])
    ends = np.cumsum(lengths)
    count = len(lengths) // 2
    first, last = ends[0 : 2 * count : 2], ends[1 : 2 * count : 2] - 1  # of each run on the object, inclusive
    on = last >= first
    first, last = first[on], last[on]
    columns = first // height, last // height
    whole = columns[0] != columns[1]  # the run turns round a corner: it touches the top and the bottom
    top = 0 if whole.any() else int((first % height).min())
    bottom = height if whole.any() else int((last % height).max()) + 1
    return float(columns[0].min()), float(top), float(columns[1].max() + 1), float(bottom)


def _unpacked(counts: bytes) -> Runs:
    """COCO's string: 5 bits a character, low bits first; from the fourth run on, the difference to the run 2 before."""
    letters = np.frombuffer(counts, dtype=np.uint8).astype(np.int64) - 48
    if not letters.size:
        return np.zeros(0, dtype=np.int64)
    if letters.min() < 0 or letters.max() > 63:
        raise ValueError("has counts that are not COCO's string")
    last = letters & 32 == 0
    if not last[-1]:
        raise ValueError("has counts that are cut short")
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    place = np.arange(letters.size) - np.repeat(starts, ends - starts + 1)
    if place.max() > 11:
        raise ValueError("has counts that are not COCO's string")
    values = np.add.reduceat((letters & 31) << (5 * place), starts)
    negative = letters[ends] & 16 != 0
    values[negative] -= np.int64(1) << (5 * (place[ends][negative] + 1))
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values
