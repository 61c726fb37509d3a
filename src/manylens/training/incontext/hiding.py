"""Which patches of the painted canvas are hidden: blocks of both halves, or all of the asked picture's half."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from manylens.training.selfsupervised.masking import RECTANGLES, blocks

SHARE = 0.75
"""Of the canvas; Painter's."""


def hidden(
    count: int, shape: tuple[int, int], random: np.random.Generator, *, share: float = SHARE, half: float = 0.5
) -> Tensor:
    """Hidden patches of canvases: bool ``(count, 2 * rows * columns)``, the example's half first.

    Args:
        count: How many canvases.
        shape: Rows and columns of patches of a picture, which is half of a canvas.
        random: Draws them.
        share: Of a canvas that blocks hide.
        half: Of canvases whose asked half is hidden whole, as when the network is used; Painter has 0.1, and later
            training of what is used so wants more.
    """
    rows, columns = shape
    numbers = torch.from_numpy(random.random((count, RECTANGLES, 4)))
    whole = torch.from_numpy(random.random(count) < half)
    found = blocks(numbers, (2 * rows, columns), torch.full((count,), share, dtype=numbers.dtype))
    found[whole] = asked(shape)
    # Blocks may come out as nothing on a canvas of a few patches; then one patch is hidden.
    nothing = ~found.any(dim=1)
    found[nothing, -1] = True
    return found


def asked(shape: tuple[int, int]) -> Tensor:
    """All of the asked picture's half, and nothing of the example's: bool ``(2 * rows * columns,)``."""
    cells = shape[0] * shape[1]
    return torch.arange(2 * cells) >= cells


def spread(patches: Tensor, shape: tuple[int, int], patch: int) -> Tensor:
    """Patches bool ``(B, 2 * rows * columns)`` as pixels ``(B, 1, 2 * rows * patch, columns * patch)``."""
    rows, columns = shape
    planes = patches.reshape(-1, 1, 2 * rows, columns)
    return planes.repeat_interleave(patch, dim=2).repeat_interleave(patch, dim=3)
