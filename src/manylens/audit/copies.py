"""Are two pictures the same but for size, compression, brightness or a mirror? Told by pixels, not by features.

Features say that two pictures are alike, be it two photographs of one cat; pixels say that one is the other. The
distance is the L2 norm at 64 x 64 pixels of Carlini et al. (2023), of pictures brought to one mean and contrast; the
hash is the difference hash (Krawetz 2013): whether each of 8 x 8 cells is brighter than the one beside it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from manylens.media import Image

SIDE = 64
_CELLS = 8
_FLAT = 4.0  # a standard deviation of grey levels below which contrast is noise
_SAME = 0.35
_LIKELY, _HASH = 0.6, 10


@dataclass(frozen=True)
class Look:
    """What is kept of a picture to compare its pixels.

    Attributes:
        pixels: float32 ``(64, 64, 3)``, grey levels.
        bits: bool ``(8, 8)``, the difference hash.
        mirrored: The same of the picture seen in a mirror.
    """

    pixels: npt.NDArray[np.float32]
    bits: npt.NDArray[np.bool_]
    mirrored: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, image: Image) -> Look:
        """Look at a picture; its sides are squeezed to a square."""
        import PIL.Image

        small = image.pil().convert("RGB").resize((SIDE, SIDE), PIL.Image.Resampling.BOX)
        cells = np.asarray(small.convert("L").resize((_CELLS + 1, _CELLS), PIL.Image.Resampling.BOX), np.int16)
        return cls(np.asarray(small, np.float32), np.diff(cells) > 0, np.diff(cells[:, ::-1]) > 0)


@dataclass(frozen=True)
class Likeness:
    """How much two pictures are one.

    Attributes:
        distance: Root mean square difference of pixels at one mean and contrast: 0 is the same, 1.4 unrelated, 2 the
            negative.
        bits: How many of the 64 bits of the difference hashes differ; unrelated pictures: about 32.
        mirrored: Whether one is mirrored.
    """

    distance: float
    bits: int
    mirrored: bool

    @property
    def copy(self) -> bool:
        """Whether one is a copy: pixels agree, or nearly so and the hashes too."""
        return self.distance <= _SAME or (self.distance <= _LIKELY and self.bits <= _HASH)


NONE = Likeness(math.nan, -1, False)
"""Where a picture could not be read."""


def likeness(one: Look, other: Look) -> Likeness:
    """Compare two pictures as they are and with the second mirrored; the better way counts."""
    straight = Likeness(_apart(one.pixels, other.pixels), int((one.bits != other.bits).sum()), False)
    turned = Likeness(_apart(one.pixels, other.pixels[:, ::-1]), int((one.bits != other.mirrored).sum()), True)
    return turned if turned.distance < straight.distance else straight


def _apart(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    """Root mean square difference; a flat picture has no contrast to bring to one, so its grey levels count."""
    spreads = float(one.std()), float(other.std())
    if min(spreads) < _FLAT:
        scale = max(*spreads, _FLAT)
        return float(np.sqrt(np.mean(((one - other) / scale) ** 2)))
    a, b = ((pixels - pixels.mean()) / pixels.std() for pixels in (one, other))
    return float(np.sqrt(np.mean((a - b) ** 2)))
