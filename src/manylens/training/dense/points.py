"""Masks looked at in a few points, not in all pixels (Kirillov et al., PointRend, 2020; as Mask2Former trains)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_OVERSAMPLED, _IMPORTANT = 3.0, 0.75


def at_points(planes: Tensor, points: Tensor) -> Tensor:
    """Values of planes at points, bilinear between the middles of cells.

    Args:
        planes: ``(n, h, w)``.
        points: x and y in 0..1 of the whole plane, ``(n, P, 2)`` or ``(1, P, 2)`` for the same of all.

    Returns:
        float32 ``(n, P)``.
    """
    if not len(planes):
        return planes.new_zeros((0, points.shape[1]), dtype=torch.float32)
    places = (2 * points - 1).expand(len(planes), -1, -1).unsqueeze(2)
    found = F.grid_sample(planes.float().unsqueeze(1), places, mode="bilinear", align_corners=False)
    return found[:, 0, :, 0]


@torch.no_grad()
def unsure_points(logits: Tensor, count: int) -> Tensor:
    """Points where masks are unsure, and some anywhere: ``(n, count, 2)`` in 0..1.

    Three times as many are drawn from torch's generator, and three quarters are those with logits nearest to 0.

    Args:
        logits: Of masks, ``(n, h, w)``.
        count: How many of each.
    """
    drawn = torch.rand(len(logits), int(count * _OVERSAMPLED), 2, device=logits.device)
    important = int(count * _IMPORTANT)
    nearest = at_points(logits, drawn).abs().topk(important, dim=1, largest=False).indices
    kept = drawn.gather(1, nearest.unsqueeze(-1).expand(-1, -1, 2))
    return torch.cat([kept, torch.rand(len(logits), count - important, 2, device=logits.device)], dim=1)
