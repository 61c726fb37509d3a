"""RandAugment (Cubuk et al., 2020): a few operations drawn evenly from fourteen, all at one magnitude."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from manylens.training.augment import changes
from manylens.training.extras import need

Operation = Callable[[Tensor, float, float], Tensor]
"""Takes a picture, a magnitude of 0..1, and a sign of -1 or 1."""


def rand(picture: Tensor, random: np.random.Generator, strength: float, operations: int = 2) -> Tensor:
    """Change a picture.

    Args:
        picture: float32 ``(3, H, W)`` in 0..1.
        random: All that is left to chance.
        strength: The magnitude, 0..1: 1 is the end of the ranges of the paper.
        operations: How many, one after another.
    """
    names = list(OPERATIONS)
    for _ in range(operations):
        name = names[int(random.integers(len(names)))]
        sign = 1.0 if random.random() < 0.5 else -1.0
        picture = OPERATIONS[name](picture, strength, sign)
    return picture


def _equalize(picture: Tensor, strength: float, sign: float) -> Tensor:
    made: Tensor = need("kornia.enhance").equalize(picture[None])[0]
    return made


# Ranges: the paper's code, as its authors and torchvision have them at the largest magnitude.
OPERATIONS: dict[str, Operation] = {
    "identity": lambda picture, strength, sign: picture,
    "autocontrast": lambda picture, strength, sign: changes.autocontrast(picture),
    "equalize": _equalize,
    "rotate": lambda picture, strength, sign: changes.rotate(picture, sign * 30 * strength),
    "solarize": lambda picture, strength, sign: changes.solarize(picture, 1 - strength),
    "saturation": lambda picture, strength, sign: changes.saturation(picture, 1 + sign * 0.9 * strength),
    "posterize": lambda picture, strength, sign: changes.posterize(picture, 8 - round(4 * strength)),
    "contrast": lambda picture, strength, sign: changes.contrast(picture, 1 + sign * 0.9 * strength),
    "brightness": lambda picture, strength, sign: changes.brightness(picture, 1 + sign * 0.9 * strength),
    "sharpness": lambda picture, strength, sign: changes.sharpness(picture, 1 + sign * 0.9 * strength),
    "shear-x": lambda picture, strength, sign: changes.shear(picture, x=sign * 0.3 * strength),
    "shear-y": lambda picture, strength, sign: changes.shear(picture, y=sign * 0.3 * strength),
    "translate-x": lambda picture, strength, sign: changes.translate(picture, x=sign * 0.45 * strength),
    "translate-y": lambda picture, strength, sign: changes.translate(picture, y=sign * 0.45 * strength),
}
"""The fourteen, by name."""
