"""Pixels to the names that people give colours."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from manylens.models.composed.words import data

_SAMPLE = 20_000
_LIGHTNESS = 0.5
"""How much lightness counts against hue and chroma: a shaded apple is still red."""
_MIX = 0.25
"""The least share of pixels for which a further colour is worth naming."""

_RGB_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_D65 = np.array([0.95047, 1.0, 1.08883])


@dataclass(frozen=True)
class Colour:
    """The colour of a set of pixels.

    Attributes:
        name: The basic colour name of the median.
        also: The second name, where at least a quarter of the pixels have it; else empty.
        share: Share of the pixels, 0..1, that have the name of the median.
        rgb: The median as sRGB, ``#rrggbb``.
    """

    name: str
    also: str
    share: float
    rgb: str

    @property
    def names(self) -> set[str]:
        """The name, and the second one where there is one."""
        return {self.name, self.also} - {""}


def to_lab(rgb: np.ndarray) -> np.ndarray:
    """Convert sRGB uint8 ``(N, 3)`` to CIE Lab (D65) float64 ``(N, 3)``."""
    value = np.asarray(rgb, dtype=np.float64) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    ratio = linear @ _RGB_TO_XYZ.T / _D65
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


def names_of(lab: np.ndarray) -> list[str]:
    """The basic colour name of each Lab colour ``(N, 3)``."""
    names, shades = _shades()
    weight = np.array([_LIGHTNESS, 1.0, 1.0])
    # |a - b|² by its parts: a whole difference array of 20,000 x 70 x 3 would cost 30 MB.
    a, b = lab * weight, shades * weight
    distance = (a**2).sum(1)[:, None] - 2 * a @ b.T + (b**2).sum(1)[None]
    return [names[i] for i in distance.argmin(1)]


def split_colour(name: str) -> tuple[str, str]:
    """A colour word in front of a name, and the name without it: ``black cat`` gives ``("black", "cat")``.

    The colour is empty where there is none; ``orange`` alone is the fruit.
    """
    first, _, rest = name.partition(" ")
    colour = {"gray": "grey"}.get(first.lower(), first.lower())
    return (colour, rest) if rest and colour in data("colours.toml") else ("", name)


def name_colour(rgb: np.ndarray, mask: np.ndarray | None = None) -> Colour:
    """Name the colour of a picture, or of the part of it under a mask.

    The mask's rim is left out where enough remains, for it mixes with what lies behind.

    Args:
        rgb: uint8 ``(H, W, 3)``.
        mask: bool ``(H, W)`` with at least one pixel, or None for all.
    """
    pixels = rgb.reshape(-1, 3) if mask is None else rgb[inner(mask)]
    pixels = pixels[:: max(1, len(pixels) // _SAMPLE)]
    lab = to_lab(pixels)
    median = np.median(lab, axis=0)
    main = names_of(median[None])[0]
    names, counts = np.unique(names_of(lab), return_counts=True)
    shares = dict(zip(names.tolist(), (counts / counts.sum()).tolist(), strict=True))
    share = shares.pop(main, 0.0)
    also = max(shares, key=lambda name: shares[name], default="")
    nearest = pixels[np.abs(lab - median).sum(1).argmin()]
    return Colour(main, also if shares.get(also, 0.0) >= _MIX else "", share, "#" + bytes(nearest.tolist()).hex())


def inner(mask: np.ndarray) -> np.ndarray:
    """The mask without its rim (about a fiftieth of its width), or the mask itself where it is thin."""
    steps = max(1, round(np.sqrt(mask.sum()) / 50))
    core = mask.copy()
    for _ in range(steps):
        shrunk = core.copy()
        shrunk[1:] &= core[:-1]
        shrunk[:-1] &= core[1:]
        shrunk[:, 1:] &= core[:, :-1]
        shrunk[:, :-1] &= core[:, 1:]
        core = shrunk
    return core if core.sum() >= 0.25 * mask.sum() else mask


@cache
def _shades() -> tuple[list[str], np.ndarray]:
    table = data("colours.toml")
    names = [name for name, shades in table.items() for _ in shades]
    rgb = np.array([list(bytes.fromhex(shade[1:])) for shades in table.values() for shade in shades])
    return names, to_lab(rgb)
