"""What is done to the pixels of whole batches: cutting out and resizing, colours, blur. All of it is linear."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

GREY = (0.299, 0.587, 0.114)
"""What red, green and blue weigh in a level of grey."""

_YIQ = (GREY, (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135))


def resized(pictures: Tensor | Sequence[Tensor], boxes: Tensor, flips: Tensor, side: int) -> Tensor:
    """The boxes as squares, antialiased bilinear, float32 in 0..1 ``(n, 3, side, side)``; the pictures take turns."""
    on_cpu = boxes.device.type == "cpu"
    if not on_cpu and isinstance(pictures, Tensor):
        return resized_at_once(pictures, boxes, flips, side)
    found = torch.empty(len(boxes), 3, side, side, device=boxes.device)
    for number, (left, top, right, bottom) in enumerate(boxes.tolist()):
        picture = pictures[number % len(pictures)][None, :, top:bottom, left:right]
        # Resizing bytes is twice as fast as floats, on the CPU alone.
        picture = picture if on_cpu or picture.is_floating_point() else picture.float()
        found[number] = functional.interpolate(picture, size=(side, side), mode="bilinear", antialias=True)[0]
    if pictures[0].dtype == torch.uint8:
        found /= 255
    mirrored = flips.nonzero()[:, 0]
    found[mirrored] = found[mirrored].flip(3)
    return found


def resized_at_once(pictures: Tensor, boxes: Tensor, flips: Tensor, side: int) -> Tensor:
    """As :func:`resized` in two matrix products, for devices where many small steps are slow."""
    left, top, right, bottom = boxes.float().unbind(1)
    down = _weights(top, bottom, pictures.shape[2], side)
    across = _weights(left, right, pictures.shape[3], side)
    across = torch.where(flips[:, None, None], across.flip(1), across)
    planes = pictures.float() / 255 if pictures.dtype == torch.uint8 else pictures.float()
    planes = planes.repeat(len(boxes) // len(pictures), 1, 1, 1)
    return down[:, None] @ (planes @ across[:, None].transpose(2, 3))


def _weights(start: Tensor, stop: Tensor, cells: int, side: int) -> Tensor:
    """What each of ``side`` places takes of each of ``cells``, ``(n, side, cells)``: antialiased, bilinear."""
    step = ((stop - start) / side)[:, None]
    middles = (torch.arange(side, device=start.device) + 0.5) * step + start[:, None]
    places = torch.arange(cells, device=start.device) + 0.5
    found = (1 - (places - middles[:, :, None]).abs() / step.clamp(min=1)[:, :, None]).clamp(min=0)
    found = found * ((places > start[:, None]) & (places < stop[:, None]))[:, None]
    return found / found.sum(dim=2, keepdim=True)


def recoloured(pictures: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    """Colours by matrices ``(n, 3, 3)``, something added to all channels ``(n,)``, then clipped to 0..1."""
    found = torch.baddbmm(offset[:, None, None], matrix, pictures.flatten(2))
    return found.clamp_(0, 1).view_as(pictures)


def hue(turns: Tensor) -> Tensor:
    """Matrices ``(n, 3, 3)`` that turn the hue, by turns ``(n,)``."""
    angle = turns * (2 * math.pi)
    cos, sin = angle.cos(), angle.sin()
    zero, one = torch.zeros_like(cos), torch.ones_like(cos)
    turned = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], dim=1).view(-1, 3, 3)
    yiq = turns.new_tensor(_YIQ)
    return torch.linalg.inv(yiq) @ turned @ yiq


def gaussian_blur(pictures: Tensor, sigmas: Tensor, most: float) -> Tensor:
    """Each picture blurred with its own Gaussian, mirrored at the borders.

    Args:
        pictures: float ``(n, C, h, w)``.
        sigmas: ``(n,)``, standard deviations in pixels.
        most: The largest of them that can come: the kernel goes to twice that, as far as the pictures are large.
    """
    n, channels, height, width = pictures.shape
    radius = min(math.ceil(2 * most), height - 1, width - 1)
    if radius == 0:
        return pictures
    places = torch.arange(-radius, radius + 1, device=pictures.device)
    kernels = torch.exp(-0.5 * (places / sigmas[:, None]) ** 2)
    kernels = (kernels / kernels.sum(dim=1, keepdim=True)).repeat_interleave(channels, dim=0)[:, None, None]
    padded = functional.pad(pictures, (radius,) * 4, mode="reflect").flatten(0, 1)[None]
    across = functional.conv2d(padded, kernels, groups=n * channels)
    return functional.conv2d(across, kernels.transpose(2, 3), groups=n * channels)[0].unflatten(0, (n, channels))
