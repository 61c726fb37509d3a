"""A line cut into windows that overlap, so that each point is kept from a window that sees enough around it."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple


class Window(NamedTuple):
    """What a tile sees of one axis, ``start`` to ``stop``, and what is kept of it, ``kept_from`` to ``kept_to``."""

    start: int
    stop: int
    kept_from: int
    kept_to: int


def windows(length: int, side: int, margin: int) -> list[Window]:
    """Windows over ``length`` pixels, all of the same side, whose kept parts join without gap or overlap.

    Each kept pixel has at least ``margin`` seen pixels on both sides, or the picture's own border. One side for all
    windows means one shape for all tiles, which an engine prepares once.

    Args:
        length: Pixels of the axis.
        side: Of a window, margins included; more than twice the margin.
        margin: Seen and not kept, in pixels.
    """
    if side <= 2 * margin:
        raise ValueError(f"a window of {side} has nothing between margins of {margin}")
    if length <= side:
        return [Window(0, length, 0, length)]
    count = -(-(length - 2 * margin) // (side - 2 * margin))
    starts = [round(i * (length - side) / (count - 1)) for i in range(count)]
    # Neighbours overlap by two margins at least: the middle of the overlap is a margin away from either end.
    cuts = [0, *((before + side + after) // 2 for before, after in pairwise(starts)), length]
    return [Window(start, start + side, cuts[i], cuts[i + 1]) for i, start in enumerate(starts)]
