"""Heads that say what a whole picture shows: linear, MLP and attentive probe."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

VECTOR, MEAN, DENSE = "vector", "mean", "dense"


class Linear(nn.Module):
    """A linear probe on the picture's vector, standardised.

    Args:
        widths: Width of each feature that the backbone gives.
        labels: How many classes there are.
        features: Which vectors are laid side by side: ``vector``, ``mean`` or both.
        dropout: Share of the vector that is dropped while it trains.
        bias: Whether classes have an offset.
        cosine: Whether logits are cosines of vector and class, as LDAM wants them.
    """

    factor: Tensor
    norm: nn.Module

    def __init__(
        self,
        widths: Mapping[str, int],
        labels: int,
        *,
        features: tuple[str, ...] = (VECTOR,),
        dropout: float = 0.0,
        bias: bool = True,
        cosine: bool = False,
    ) -> None:
        super().__init__()
        self.needs = tuple(features)
        self.width = sum(widths[name] for name in self.needs)
        self.norm = Standardised(self.width)
        self.dropout = nn.Dropout(dropout)
        self.classes = nn.Linear(self.width, labels, bias=bias and not cosine)
        self.cosine = cosine
        # What an answer's logits are multiplied with: what the loss does to cosines, once the training is over.
        self.register_buffer("factor", torch.ones(()))
        nn.init.normal_(self.classes.weight, std=0.01)
        if self.classes.bias is not None:
            nn.init.zeros_(self.classes.bias)

    def vector(self, features: Mapping[str, Tensor]) -> Tensor:
        """The picture's vector ``(B, width)``, standardised."""
        return self.norm(torch.cat([features[name].float() for name in self.needs], dim=-1))

    def forward(self, features: Mapping[str, Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
        """``logits`` ``(B, labels)``."""
        return {"logits": self.of_vector(self.embedded(features))}

    def embedded(self, features: Mapping[str, Tensor]) -> Tensor:
        """What the last layer sees, ``(B, D)``."""
        return self.vector(features)

    def of_vector(self, vector: Tensor) -> Tensor:
        """Logits of what :meth:`embedded` gave."""
        vector = self.dropout(vector)
        if not self.cosine:
            return self.classes(vector) * self.factor
        unit = nn.functional.normalize
        return nn.functional.linear(unit(vector, dim=-1), unit(self.classes.weight, dim=-1)) * self.factor


class Mlp(Linear):
    """As :class:`Linear`, with hidden layers between.

    Args:
        hidden: Width of the hidden layers.
        layers: How many.
        widths: As of :class:`Linear`, like the rest.
        labels: As there.
        features: As there.
        dropout: As there; also between the layers.
        bias: As there.
        cosine: As there.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        labels: int,
        *,
        hidden: int = 256,
        layers: int = 1,
        features: tuple[str, ...] = (VECTOR,),
        dropout: float = 0.0,
        bias: bool = True,
        cosine: bool = False,
    ) -> None:
        super().__init__(widths, labels, features=features, dropout=dropout, bias=bias, cosine=cosine)
        sizes = [self.width, *[hidden] * layers]
        steps = [
            nn.Sequential(nn.Linear(inside, outside), nn.GELU(), nn.Dropout(dropout))
            for inside, outside in pairwise(sizes)
        ]
        self.hidden = nn.Sequential(*steps)
        self.classes = nn.Linear(hidden, labels, bias=bias and not cosine)

    def embedded(self, features: Mapping[str, Tensor]) -> Tensor:
        """See :meth:`Linear.embedded`."""
        return self.hidden(self.vector(features))


class Attentive(Linear):
    """An attentive probe: learned queries attend to the patches, and a linear layer reads what they gather.

    After Chen et al. (2024), "Context autoencoder", and the probe of I-JEPA and V-JEPA.

    Args:
        heads: Of the attention.
        queries: How many.
        features: Maps whose patches are attended to, side by side: ``dense``, or those of blocks, such as ``block.3``,
            where what is small and plain is not yet lost.
        widths: As of :class:`Linear`, like the rest.
        labels: As there.
        dropout: As there.
        bias: As there.
        cosine: As there.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        labels: int,
        *,
        heads: int = 6,
        queries: int = 1,
        features: tuple[str, ...] = (DENSE,),
        dropout: float = 0.0,
        bias: bool = True,
        cosine: bool = False,
    ) -> None:
        super().__init__(widths, labels, features=features, dropout=dropout, bias=bias, cosine=cosine)
        while self.width % heads:
            heads -= 1
        self.heads = heads
        self.query = nn.Parameter(torch.randn(queries, self.width) * 0.02)
        self.key_value = nn.Linear(self.width, 2 * self.width)
        self.out = nn.Linear(self.width, self.width)
        self.norm = nn.LayerNorm(self.width)
        self.after = nn.LayerNorm(self.width)
        self.classes = nn.Linear(self.width * queries, labels, bias=bias and not cosine)

    def vector(self, features: Mapping[str, Tensor]) -> Tensor:
        """What the queries gathered, ``(B, queries * width)``."""
        tokens = self.norm(torch.cat([features[name].float() for name in self.needs], dim=-1).flatten(1, 2))
        key, value = self.key_value(tokens).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        query = self.query.unflatten(-1, (self.heads, -1)).transpose(0, 1).expand(tokens.shape[0], -1, -1, -1)
        gathered = nn.functional.scaled_dot_product_attention(query, key, value)
        gathered = self.out(gathered.transpose(1, 2).flatten(2))
        return self.after(gathered + self.query).flatten(1)


class Standardised(nn.Module):
    """Takes the mean off each feature and divides by its deviation, as measured once over the training pictures."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))

    def measure(self, vectors: Tensor) -> None:
        """Take mean and deviation of ``(N, width)``; a feature that never changes is left at its scale."""
        vectors = vectors.float()
        self.mean.copy_(vectors.mean(dim=0))
        spread = vectors.std(dim=0, unbiased=False) if len(vectors) > 1 else torch.ones_like(self.deviation)
        # A feature that barely moves would become noise at full scale.
        self.deviation.copy_(torch.where(spread > 1e-3 * spread.mean(), spread, torch.ones_like(spread)))

    def forward(self, vectors: Tensor) -> Tensor:
        """Standardise ``(..., width)``."""
        return (vectors - self.mean) / self.deviation
