"""Boxes, polygons and run lengths as COCO's JSON has them.

Only what cannot be turned into our form is refused here; whether a box or a mask makes sense is checked with the rows
of all formats, in :mod:`manylens.data.check`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from manylens.data import rle
from manylens.data.records import Box
from manylens.errors import MediaError

_FARTHEST = 1e6  # of a polygon's corner; pycocotools walks along each edge pixel by pixel


class BrokenError(ValueError):
    """A row that is left out: its kind of problem, and what is wrong with it."""

    def __init__(self, kind: str, reason: str) -> None:
        self.kind = kind
        super().__init__(reason)


class Size:
    """The size of a picture, from the labels, else from the file when a polygon needs it."""

    stated: tuple[int, int] | tuple[None, None]
    fault: str

    def __init__(self, path: Path, picture: Mapping[str, Any]) -> None:
        self.path = path
        given = picture.get("width"), picture.get("height")
        width, height = map(_side, given)
        wrong = any(side is not None for side in given) and None in (width, height)
        self.fault = f"its size is {given[0]} x {given[1]}; taken as not known" if wrong else ""
        self.stated = (None, None) if width is None or height is None else (width, height)

    def need(self) -> tuple[int, int]:
        """Width and height; a `BrokenError` where neither says."""
        if None in self.stated:
            from manylens.media import formats
            from manylens.media.sources import find

            try:
                self.stated = formats.decode_raw(find(self.path))[0].size
            except MediaError as error:
                raise BrokenError("unreadable mask", f"its image says no size, and {error.what}") from error
        return cast(tuple[int, int], self.stated)


def _side(value: Any) -> int | None:
    whole = isinstance(value, int | float) and 1 <= value < 2**31  # NaN is not
    return int(value) if whole else None


def read_area(value: Any) -> float | None:
    """An area; NaN where it is no number, which the check of all rows takes down."""
    if value is None:
        return None
    try:
        return math.nan if isinstance(value, bool | str) else float(value)
    except (OverflowError, TypeError):
        return math.nan


def read_flag(value: Any) -> bool:
    """What is 1 or true, as a number or in words."""
    return value.strip().lower() in ("1", "true", "yes") if isinstance(value, str) else bool(value)


def read_box(value: Any) -> Box | None:
    """COCO's ``x, y, width, height`` as corners."""
    if value is None or value == []:
        return None
    try:
        if not isinstance(value, list | tuple):
            raise TypeError
        x, y, width, height = (float(number) for number in value)
    except (OverflowError, TypeError, ValueError) as error:
        raise BrokenError("bad box", f"its bbox is not four numbers: {str(value)[:60]}") from error
    return x, y, x + width, y + height


def read_mask(value: Any, size: Size) -> Mapping[str, Any] | None:
    """A segmentation (polygons, RLE with a list of counts or a string) as compressed RLE; None where it is empty."""
    from pycocotools import mask as coco

    if value is None or value == [] or value == {}:
        return None
    if isinstance(value, dict):
        return _run_lengths(value)
    if not isinstance(value, list):
        raise BrokenError("unreadable mask", f"its segmentation is a {type(value).__name__}")
    polygons = [value] if not isinstance(value[0], list) else value
    kept = [polygon for polygon in polygons if polygon]
    for polygon in kept:
        _check_polygon(polygon)
    if not kept:
        return None
    width, height = size.need()
    union = coco.merge(coco.frPyObjects(kept, height, width))
    return {"size": [height, width], "counts": union["counts"].decode("ascii")}


def _check_polygon(polygon: Any) -> None:
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        raise BrokenError("unreadable mask", "a polygon of it has not three corners or more")
    try:
        far = not all(map(math.isfinite, polygon)) or max(polygon) > _FARTHEST or min(polygon) < -_FARTHEST
    except OverflowError:
        far = True
    except TypeError as error:
        raise BrokenError("unreadable mask", "a polygon of it holds what is no number") from error
    if far:
        raise BrokenError("unreadable mask", "a polygon of it lies out of this world")


def _run_lengths(value: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        return rle.packed(value)
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise BrokenError("unreadable mask", f"its RLE cannot be read ({error})") from error
