"""DANN (Ganin et al., 2016): features shall not tell source from target to a head that tries to."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def dann_strength(done: float, steepness: float = 10.0) -> float:
    """How strongly the features are pushed: from 0 at the start towards 1, as in the paper.

    Args:
        done: Share of the training that is done, 0..1.
        steepness: Of the rise.
    """
    return 2 / (1 + math.exp(-steepness * done)) - 1


def reverse(values: Tensor, strength: float = 1.0) -> Tensor:
    """The values as they are; going back, their gradient is multiplied with ``-strength``."""
    made: Tensor = _Reverse.apply(values, strength)
    return made


class Dann(nn.Module):
    """The head that tells domains apart, and the loss; a part of the network, so that it learns with it.

    Args:
        width: Of the features.
        hidden: Width of its two hidden layers.
        dropout: Between them.
        steepness: Of :func:`dann_strength`.
    """

    def __init__(self, width: int, hidden: int = 256, dropout: float = 0.0, steepness: float = 10.0) -> None:
        super().__init__()
        self.steepness = steepness
        self.head = nn.Sequential(
            nn.Linear(width, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, 1),
        )

    def forward(self, source: Tensor, target: Tensor, done: float = 1.0) -> Tensor:
        """Cross entropy of telling the two apart, each counting half; log 2 is where they cannot be told.

        Stepping it down makes the head better and the features worse for it.

        Args:
            source: Features ``(n, D)``.
            target: Features ``(m, D)``.
            done: Share of the training that is done, 0..1.
        """
        strength = dann_strength(done, self.steepness)
        ours, theirs = self.tell(reverse(source, strength)), self.tell(reverse(target, strength))
        losses = functional.softplus(ours).mean(), functional.softplus(-theirs).mean()
        return (losses[0] + losses[1]) / 2

    def tell(self, features: Tensor) -> Tensor:
        """Logits ``(n,)`` that features are of the target."""
        found: Tensor = self.head(features)
        return found[:, 0]


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradient, None
