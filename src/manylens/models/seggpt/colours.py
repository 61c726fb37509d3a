"""In-context colouring: a class is a colour in the painted mask, and what is painted is read by the nearest colour.

SegGPT was trained with colours drawn at random for each picture, so it takes any; how surely it is read depends on how
far apart they are. The sets below keep the least distance between two colours, black included, as large as the cube of
RGB allows or nearly so:

| classes | colours | least distance |
| --- | --- | --- |
| 1 | white, as in transformers' ``build_palette(1)`` | 442 |
| 2-3 | yellow, magenta, cyan: with black a tetrahedron | 361 |
| 4-7 | all corners of the cube | 255 |
| 8-13 | and the middles of its faces | 180 |

``build_palette`` of transformers puts 2 to 7 classes 128 apart and 13 classes 85. With a painting error of 60 levels
(normal, each channel, clipped) 0.4 % of the pixels of 3 classes are read as another with the colours here and 15 % with
those; 5 and 30 % of 7 classes, 24 and 54 % of 13. More classes than 13 are painted in several passes.
"""

from __future__ import annotations

import numpy as np

from manylens.errors import PromptError
from manylens.models import pixels
from manylens.models.seggpt.passes import Prompt

_WHITE = (255, 255, 255)
_MIXED = ((255, 255, 0), (255, 0, 255), (0, 255, 255))
_PURE = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
_FACES = ((128, 128, 0), (128, 0, 128), (0, 128, 128), (128, 128, 255), (128, 255, 128), (255, 128, 128))

MOST = 1 + len(_MIXED) + len(_PURE) + len(_FACES)
"""Classes that one pass paints."""

NEARER = float(np.nextafter(np.float32(0.5), np.float32(1)))
"""Likeness from which a pixel is nearer to a class's colour than to black; one half between is background."""


def palette(count: int) -> np.ndarray:
    """The colours of so many classes, 1 to :data:`MOST`: uint8 ``(count, 3)``, without the background's black."""
    if count == 1:
        return np.array([_WHITE], np.uint8)
    return np.array((*_MIXED, _WHITE, *_PURE, *_FACES)[:count], np.uint8)


def painted(prompt: Prompt, count: int, size: tuple[int, int]) -> np.ndarray:
    """The mask picture of an example: each class in its colour on black, uint8 RGB ``(h, w, 3)``.

    Where masks lie over each other the smaller is on top, so that a part is not lost in its whole.

    Args:
        prompt: The example; its masks are in the order of the pass's classes.
        count: Classes of the pass.
        size: ``(width, height)`` that the network sees; masks are resized to it without mixing colours.

    Raises:
        PromptError: Of a mask nothing is left: others hide it, or it is too small for the network's size.
    """
    plane = np.zeros(prompt.masks[0].shape, np.uint8)
    for number in sorted(range(count), key=lambda one: -int(prompt.masks[one].sum())):
        plane[prompt.masks[number]] = number + 1
    small = pixels.resized(plane, size, "nearest")
    for number in range(count):
        if (small == number + 1).any():
            continue
        name = f"example mask of {prompt.image.name}"
        if (plane == number + 1).any():
            raise PromptError(
                f"{name} is too small: nothing is left of it at the {size[0]}x{size[1]} pixels that the model sees",
                "give an example cut out closer to the thing",
            )
        raise PromptError(
            f"{name} lies wholly under the masks of other classes", "give masks that leave each other room"
        )
    return coloured(small, count)


def coloured(numbers: np.ndarray, count: int) -> np.ndarray:
    """Class numbers from 1, 0 for background, ``(h, w)``, as colours, uint8 ``(h, w, 3)``."""
    return np.concatenate([np.zeros((1, 3), np.uint8), palette(count)])[numbers]


def likeness(colours: np.ndarray, count: int) -> np.ndarray:
    """How like each class's colour rather than the background's black each pixel is: float32 ``(count, h, w)``, 0..1.

    With the distances ``d`` to the class's colour and ``b`` to black it is ``b / (b + d)``: 1 in the colour, 0 in
    black, 0.5 midway. The class of the largest likeness above 0.5 is the nearest colour, background included.

    Args:
        colours: float ``(3, h, w)`` of the painted mask, 0..255.
        count: Classes of the pass.
    """
    planes = np.moveaxis(colours.astype(np.float32), 0, -1)
    black = np.linalg.norm(planes, axis=-1)
    found = [black / (black + np.linalg.norm(planes - colour, axis=-1)) for colour in palette(count).astype(np.float32)]
    return np.stack(found)
