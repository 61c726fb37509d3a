"""Boxes as a person draws them: around an object, but not exactly."""

from __future__ import annotations

import torch
from torch import Tensor

SPREAD = 0.1
"""Deviation of each side, as a share of the box's own; SAM's."""

MOST = 20 / 1024
"""The most that a side is moved, as a share of the picture's side; 20 pixels of SAM's 1024."""


def around(masks: Tensor) -> Tensor:
    """The smallest box around each mask, float32 ``(P, 4)`` xyxy, max exclusive.

    Args:
        masks: bool ``(P, H, W)``; none of them is empty.
    """
    ends = []
    for axis in (1, 2):  # over the rows, which leaves columns; then the other way
        hit = masks.any(dim=axis).to(torch.uint8)
        ends.append((hit.argmax(dim=1), hit.shape[1] - hit.flip(1).argmax(dim=1)))
    (left, right), (top, bottom) = ends
    return torch.stack([left, top, right, bottom], dim=1).float()


def jittered(
    boxes: Tensor,
    size: tuple[int, int],
    *,
    spread: float = SPREAD,
    most: float = MOST,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Boxes whose sides are moved at random, as in appendix A of SAM.

    Args:
        boxes: float ``(P, 4)`` xyxy in pixels.
        size: ``(H, W)`` of the picture; boxes stay inside, and keep a pixel.
        spread: Deviation of the noise, as a share of the box's width or height.
        most: The most that a side is moved, as a share of the picture's longer side.
        generator: Of the noise; torch's own by default.
    """
    height, width = size
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    noise = torch.randn(boxes.shape, generator=generator, device=boxes.device) * spread * sides
    limit = most * max(size)
    moved = boxes + noise.clamp(-limit, limit)
    ends = moved.new_tensor([width, height])
    low = torch.minimum(moved[:, :2].clamp(min=0), ends - 1)
    high = torch.maximum(torch.minimum(moved[:, 2:], ends), low + 1)
    return torch.cat([low, high], dim=1)
