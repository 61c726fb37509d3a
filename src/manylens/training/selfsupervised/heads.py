"""The head whose prototypes the student and the teacher vote for (Caron et al., 2021)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


class DinoHead(nn.Module):
    """Some linear layers with GELU, then cosines with prototypes: vectors ``(n, D)`` to logits ``(n, K)``.

    The last layer is weight-normed and its norms are 1, as DINO does where batches are not huge: only the directions of
    the prototypes are learnt.

    Args:
        width: D.
        prototypes: K.
        hidden: Width of the hidden layers.
        bottleneck: Width in which the cosines are taken.
        layers: How many linear layers there are before the prototypes.
    """

    def __init__(
        self, width: int, prototypes: int = 4096, hidden: int = 2048, bottleneck: int = 256, layers: int = 3
    ) -> None:
        super().__init__()
        widths = [width, *[hidden] * (layers - 1), bottleneck]
        steps: list[nn.Module] = []
        for before, after in pairwise(widths):
            steps += [nn.Linear(before, after), nn.GELU()]
        self.mlp = nn.Sequential(*steps[:-1])
        self.prototypes = nn.Parameter(torch.empty(prototypes, bottleneck))
        for one in self.mlp:
            if isinstance(one, nn.Linear):
                nn.init.trunc_normal_(one.weight, std=0.02)
                nn.init.zeros_(one.bias)
        nn.init.normal_(self.prototypes)

    def forward(self, vectors: Tensor) -> Tensor:
        """See the class."""
        found = functional.normalize(self.mlp(vectors), dim=-1, eps=1e-6)
        return functional.linear(found, functional.normalize(self.prototypes, dim=-1))
