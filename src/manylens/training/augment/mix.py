"""Pairs of pictures made one, with targets between theirs: mixup and cutmix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

Values = TypeVar("Values", Tensor, Mapping[str, Tensor])


class Mixed(NamedTuple, Generic[Values]):
    """What mixing gives.

    Attributes:
        values: Of the shape that was given.
        targets: float32 ``(B, C)``; rows sum to 1.
        partner: int64 ``(B,)``: what each was mixed with.
        share: How much of each is itself.
    """

    values: Values
    targets: Tensor
    partner: Tensor
    share: float


def mixup(
    values: Values, targets: Tensor, *, labels: int, alpha: float, random: np.random.Generator | None = None
) -> Mixed[Values]:
    """Weighted means of pairs (Zhang et al., 2018), the weight drawn from Beta(alpha, alpha) once a batch.

    Args:
        values: Pixels, vectors or maps ``(B, ...)``, or several of them by name, which are mixed alike.
        targets: int64 ``(B,)``, or float ``(B, C)``.
        labels: How many classes there are.
        alpha: Above 0; the larger, the nearer to half and half.
        random: By default drawn from torch's global generator.
    """
    chance = _chance(random)
    share = float(chance.beta(alpha, alpha))
    partner = torch.from_numpy(chance.permutation(len(targets)))
    wanted = soft(targets, labels)
    moved = partner.to(wanted.device)
    return Mixed(_mix(values, partner, share), torch.lerp(wanted[moved], wanted, share), partner, share)


def cutmix(
    pixels: Tensor, targets: Tensor, *, labels: int, alpha: float, random: np.random.Generator | None = None
) -> Mixed[Tensor]:
    """A rectangle of another picture pasted in (Yun et al., 2019); targets go by the pixels that are left.

    Args:
        pixels: ``(B, 3, H, W)``.
        targets: int64 ``(B,)``, or float ``(B, C)``.
        labels: How many classes there are.
        alpha: Of Beta(alpha, alpha), from which the share that is left is drawn once a batch.
        random: By default drawn from torch's global generator.
    """
    chance = _chance(random)
    cut = np.sqrt(1 - chance.beta(alpha, alpha))
    partner = torch.from_numpy(chance.permutation(len(targets)))
    height, width = pixels.shape[-2:]
    x, y = chance.integers(width), chance.integers(height)
    x0, x1 = np.clip([x - int(width * cut) // 2, x + int(width * cut) // 2], 0, width).tolist()
    y0, y1 = np.clip([y - int(height * cut) // 2, y + int(height * cut) // 2], 0, height).tolist()
    made = pixels.clone()
    made[..., y0:y1, x0:x1] = pixels[partner.to(pixels.device)][..., y0:y1, x0:x1]
    share = 1 - (x1 - x0) * (y1 - y0) / (width * height)
    wanted = soft(targets, labels)
    moved = partner.to(wanted.device)
    return Mixed(made, torch.lerp(wanted[moved], wanted, share), partner, share)


def soft(targets: Tensor, labels: int) -> Tensor:
    """Targets as float32 ``(B, C)``: numbers of classes become 1 at their place; what is soft already stays."""
    if targets.is_floating_point():
        return targets.float()
    return functional.one_hot(targets, labels).float()


def _mix(values: Values, partner: Tensor, share: float) -> Values:
    if isinstance(values, Tensor):
        return torch.lerp(values[partner.to(values.device)], values, share)
    return {name: _mix(one, partner, share) for name, one in values.items()}


def _chance(random: np.random.Generator | None) -> np.random.Generator:
    if random is not None:
        return random
    return np.random.default_rng(int(torch.randint(2**62, ())))
