"""Checks of prompts against the picture that they speak of. Pixels, x right, y down, boxes ``xyxy``, max exclusive."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BeforeValidator

from manylens.errors import PromptError

Box = tuple[float, float, float, float]


def _as_points(value: Any) -> Any:
    """A single ``(x, y)`` is taken for one click; arrays ``(N, 2)`` and lists of pairs are read alike."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (tuple, list)) and len(value) == 2 and all(isinstance(v, (int, float)) for v in value):
        return (tuple(value),)
    pairs = isinstance(value, (tuple, list)) and all(hasattr(v, "__len__") and len(v) == 2 for v in value)
    if not pairs or isinstance(value, str):
        raise PromptError(
            f"points {value!r}: not clicks", "write them as [(x, y), ...] in pixels, such as [(230, 150)]"
        )
    return value


Point = tuple[float, float]
Points = Annotated[tuple[Point, ...], BeforeValidator(_as_points)]


def _text(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{v:g}" for v in values) + ")"


def check_point(point: Point, size: tuple[int, int], where: str) -> None:
    """Refuse a click that is not on the picture.

    Args:
        point: ``(x, y)`` in pixels.
        size: ``(width, height)`` of the picture.
        where: The picture's name, for the message.

    Raises:
        PromptError: If a coordinate is not finite or lies outside.
    """
    width, height = size
    x, y = point
    if not (math.isfinite(x) and math.isfinite(y)) or not (0 <= x < width and 0 <= y < height):
        raise PromptError(
            f"point {_text(point)} lies outside {where}, which is {width}x{height} pixels",
            f"give x from 0 to {width - 1} and y from 0 to {height - 1}",
        )


def check_box(box: Box, size: tuple[int, int], where: str) -> None:
    """Refuse a box that is inverted, empty, or off the picture; one that only hangs over the edge is let through.

    Raises:
        PromptError: Naming the box and the remedy.
    """
    width, height = size
    x0, y0, x1, y1 = box
    if not all(math.isfinite(v) for v in box):
        raise PromptError(f"box {_text(box)} is not finite", "give four numbers x0,y0,x1,y1 in pixels")
    if x1 <= x0 or y1 <= y0:
        raise PromptError(
            f"box {_text(box)} is inverted or empty",
            "give x0,y0,x1,y1 with x0 < x1 and y0 < y1 (corners, not width and height)",
        )
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        raise PromptError(
            f"box {_text(box)} lies outside {where}, which is {width}x{height} pixels",
            "give a box that meets the picture",
        )


def clip_box(box: Box, size: tuple[int, int]) -> Box:
    """The part of a box that lies on a picture of ``size`` ``(width, height)``."""
    width, height = size
    x0, y0, x1, y1 = box
    return (max(0.0, x0), max(0.0, y0), min(float(width), x1), min(float(height), y1))
