"""Coarse masks, as a person paints them or another model gives them: about there, about as large."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SURE = 10.0
"""Logits of a coarse mask: this inside, minus this outside; as prompts of a photo are given to a decoder."""

_MOVED = 0.1
"""How far edges are blurred, and the deviation of the shift, as a share of the object's size."""


def coarse(masks: Tensor, shape: tuple[int, int], generator: torch.Generator | None = None) -> Tensor:
    """Logits ``(P, 1, h, w)`` of masks that were shifted, blurred, and grown or shrunk at random.

    Args:
        masks: bool ``(P, H, W)``; none of them is empty.
        shape: ``(h, w)`` of the logits, no larger than the masks.
        generator: Of the random choices; torch's own by default.
    """
    shares = F.interpolate(masks[:, None].float(), size=shape, mode="area")
    size = shares.sum(dim=(1, 2, 3)).clamp(min=1).sqrt()  # of each object, in cells
    random = torch.randn(len(masks), 2, generator=generator, device=masks.device).clamp(-1.5, 1.5)
    level = 0.5 + 0.7 * (torch.rand(len(masks), generator=generator, device=masks.device) - 0.5)
    moved = []
    for one, reach, shift, least in zip(shares, size.tolist(), random.tolist(), level.tolist(), strict=True):
        down, across = (round(_MOVED * reach * step) for step in shift)
        blur = 2 * max(0, round(_MOVED * reach)) + 1
        # What is blurred and cut at another level than the middle has grown or shrunk, and lost its corners.
        smooth = F.avg_pool2d(_shifted(one, down, across), blur, stride=1, padding=blur // 2, count_include_pad=False)
        moved.append((smooth > min(least, 0.9 * float(smooth.max()))).float() if blur > 1 else smooth)
    return torch.stack(moved) * (2 * SURE) - SURE


def _shifted(plane: Tensor, down: int, across: int) -> Tensor:
    """A plane ``(1, h, w)`` moved by whole cells, nothing coming in from the edges."""
    height, width = plane.shape[-2:]
    down, across = max(-height, min(down, height)), max(-width, min(across, width))
    padded = F.pad(plane, (max(across, 0), max(-across, 0), max(down, 0), max(-down, 0)))
    top, left = max(-down, 0), max(-across, 0)
    return padded[..., top : top + height, left : left + width]
