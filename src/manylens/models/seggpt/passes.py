"""Which examples are shown to the network together.

One pass paints several classes at once, each in its own colour, from one or more example pictures. For that, every
picture of the pass must show all its classes: a class that a picture has no mask for would be painted as background
there, and the ensemble of pictures would fade it. So classes whose examples lie in the same pictures share a pass, and
others have a pass of their own; the passes are joined by likeness, pixel by pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from manylens.media import Image

Shown = tuple[Image, np.ndarray]
"""A picture and a mask of something in it, bool ``(H, W)``."""


@dataclass(frozen=True)
class Prompt:
    """An example picture of a pass with a mask, bool ``(H, W)``, for each class of the pass, in their order."""

    image: Image
    masks: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Pass:
    """What one run of the network paints.

    Attributes:
        classes: Numbers of the classes, in the order of their colours.
        prompts: The example pictures; two or more are a feature ensemble.
    """

    classes: tuple[int, ...]
    prompts: tuple[Prompt, ...]


def passes(shown: Sequence[Sequence[Shown]], most: int) -> tuple[Pass, ...]:
    """The passes for some classes, in the order of the classes' first mention.

    Args:
        shown: What shows each class, at least one picture with a mask; several masks of a class in one picture are one.
        most: Classes that one pass can paint; more are spread evenly over several.
    """
    pictures: dict[str, Image] = {}
    masks: list[dict[str, np.ndarray]] = []
    for examples in shown:
        own: dict[str, np.ndarray] = {}
        for image, mask in examples:
            pictures.setdefault(image.id, image)
            own[image.id] = own[image.id] | mask if image.id in own else mask
        masks.append(own)
    groups: dict[frozenset[str], list[int]] = {}
    for number, own in enumerate(masks):
        groups.setdefault(frozenset(own), []).append(number)
    found = []
    for group in groups.values():
        parts = -(-len(group) // most)
        for numbers in (group[len(group) * i // parts : len(group) * (i + 1) // parts] for i in range(parts)):
            prompts = [Prompt(pictures[key], tuple(masks[one][key] for one in numbers)) for key in masks[numbers[0]]]
            found.append(Pass(tuple(numbers), tuple(prompts)))
    return tuple(found)
