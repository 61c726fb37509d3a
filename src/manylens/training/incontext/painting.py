"""Random colouring: what a colour means is said by the example alone, so no colour can be learnt by heart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Colours = npt.NDArray[np.uint8]

APART = 64.0
"""The least distance between two colours, and to the background's black, of 0..255 a channel; where there is room."""

_TRIES = 64


def random_colours(count: int, random: np.random.Generator, apart: float = APART) -> Colours:
    """Colours for so many classes or instances: uint8 ``(count, 3)``.

    Each is drawn evenly from all colours, until one is apart from black and from those before; after many tries it is
    the one that was farthest.

    Args:
        count: How many.
        random: Draws them.
        apart: The distance that is enough.
    """
    found = np.zeros((count + 1, 3))
    for number in range(1, count + 1):
        drawn = random.integers(0, 256, (_TRIES, 3))
        away = np.linalg.norm(drawn[:, None] - found[None, :number], axis=2).min(axis=1)
        enough = np.flatnonzero(away >= apart)
        found[number] = drawn[enough[0] if len(enough) else int(away.argmax())]
    return found[1:].astype(np.uint8)


def painted(masks: Sequence[npt.NDArray[np.bool_]], colours: Colours, shape: tuple[int, int]) -> Colours:
    """Masks in their colours on black: uint8 ``(H, W, 3)``; of two at one place the smaller is on top.

    Args:
        masks: bool ``(H, W)`` each.
        colours: uint8 ``(len(masks), 3)``.
        shape: ``(H, W)``.
    """
    plane = np.zeros((*shape, 3), np.uint8)
    for number in sorted(range(len(masks)), key=lambda one: -int(masks[one].sum())):
        plane[masks[number]] = colours[number]
    return plane
