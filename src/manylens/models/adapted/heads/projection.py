"""Heads that make a vector of a picture, of length 1, by which pictures are compared."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

from manylens.errors import UnsupportedError
from manylens.models.adapted.heads.vector import VECTOR, Standardised


class Projection(nn.Module):
    """A linear projection of the picture's vector, standardised.

    Args:
        widths: Width of each feature that the backbone gives.
        labels: Not used: a vector is of no class.
        width: Of the vector; 0 for that of the encoder itself, of which then nothing but the scale is changed.
        features: Which vectors are laid side by side: ``vector``, ``mean`` or both.
        dropout: Share of what is projected that is dropped while it trains.

    Raises:
        UnsupportedError: The width is below 0.
    """

    norm: nn.Module

    def __init__(
        self,
        widths: Mapping[str, int],
        labels: int = 0,
        *,
        width: int = 128,
        features: tuple[str, ...] = (VECTOR,),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if width < 0:
            raise UnsupportedError(f"head.options.width: {width}", "give the width of the vectors, or 0 for none")
        self.needs = tuple(features)
        inside = sum(widths[name] for name in self.needs)
        self.width = width or inside
        self.norm = Standardised(inside)
        self.dropout = nn.Dropout(dropout)
        self.project: nn.Module = nn.Identity()
        if width:
            self.project = projected(inside, width)

    def given(self, features: Mapping[str, Tensor]) -> Tensor:
        """What the head is given, ``(B, D)``: the encoder's own vector."""
        return torch.cat([features[name].float() for name in self.needs], dim=-1)

    def forward(self, features: Mapping[str, Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
        """``vector`` ``(B, width)`` of length 1."""
        found = self.project(self.dropout(self.norm(self.given(features))))
        return {"vector": nn.functional.normalize(found, dim=-1)}


class MlpProjection(Projection):
    """As :class:`Projection`, with hidden layers between.

    Args:
        widths: As of :class:`Projection`, like the rest.
        labels: As there.
        width: As there, but not 0.
        hidden: Width of the hidden layers.
        layers: How many.
        features: As there.
        dropout: As there; also between the layers.

    Raises:
        UnsupportedError: A width is not above 0.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        labels: int = 0,
        *,
        width: int = 128,
        hidden: int = 512,
        layers: int = 1,
        features: tuple[str, ...] = (VECTOR,),
        dropout: float = 0.0,
    ) -> None:
        if width < 1 or hidden < 1:
            raise UnsupportedError(
                f"mlp-projection: width {width}, hidden {hidden}", "give both, or choose the head projection"
            )
        super().__init__(widths, labels, width=0, features=features, dropout=dropout)
        sizes = [self.width, *[hidden] * layers]
        steps = [
            nn.Sequential(nn.Linear(inside, outside), nn.GELU(), nn.Dropout(dropout))
            for inside, outside in pairwise(sizes)
        ]
        self.width = width
        self.project = nn.Sequential(*steps, projected(sizes[-1], width))


def projected(inside: int, outside: int) -> nn.Linear:
    """A layer that begins as a rotation, or the shadow of one: likeness is kept as well as the width allows."""
    layer = nn.Linear(inside, outside, bias=False)
    nn.init.orthogonal_(layer.weight)
    return layer
