"""Which patches are hidden: blocks for iBOT, any for masked autoencoding. Random numbers come in from outside."""

from __future__ import annotations

import math

import torch
from torch import Tensor

RECTANGLES = 16
"""How many are tried; each takes four random numbers."""

_ASPECT = math.log(1 / 0.3)


def blocks(numbers: Tensor, shape: tuple[int, int], shares: Tensor) -> Tensor:
    """Rectangles of patches that together cover about a share of each picture (Bao et al., 2022).

    Args:
        numbers: In 0..1, ``(B, RECTANGLES, 4)``.
        shape: Rows and columns of patches.
        shares: Of each picture, at most, ``(B,)``; none is hidden where it is 0.

    Returns:
        bool ``(B, rows * columns)``. Rectangles are laid one after the other, without those that would be too much.
    """
    rows, columns = shape
    area, ratio, top, left = numbers.unbind(-1)
    wanted = (shares * rows * columns).floor()[:, None]
    # A rectangle is a part of what is wanted, as in BEiT: several of them make the shape.
    cells = (wanted * (0.2 + 0.5 * area)).clamp(min=1)
    aspect = torch.exp((2 * ratio - 1) * _ASPECT)
    high = (cells * aspect).sqrt().round().clamp(1, rows)
    wide = (cells / aspect).sqrt().round().clamp(1, columns)
    first, start = (top * (rows - high + 1)).floor(), (left * (columns - wide + 1)).floor()
    y = torch.arange(rows, device=numbers.device)
    x = torch.arange(columns, device=numbers.device)
    down = (y >= first[..., None]) & (y < (first + high)[..., None])
    across = (x >= start[..., None]) & (x < (start + wide)[..., None])
    found = torch.zeros(len(numbers), rows * columns, dtype=torch.bool, device=numbers.device)
    for one in (down[..., :, None] & across[..., None, :]).flatten(2).unbind(1):
        more = found | one
        found = torch.where(more.sum(dim=1, keepdim=True) <= wanted, more, found)
    return found


def kept(numbers: Tensor, ratio: float) -> Tensor:
    """Patches that stay when a share of them is dropped at random (He et al., 2022).

    Args:
        numbers: In 0..1, ``(B, N)``, one for each patch.
        ratio: Share that is dropped; at least one patch stays.

    Returns:
        int64 ``(B, n)``, ascending.
    """
    count = max(1, round(numbers.shape[1] * (1 - ratio)))
    return numbers.argsort(dim=1)[:, :count].sort(dim=1).values
