"""A mask decoder on the features of a ViT that it does not change: queries, each of which finds one region.

After Mask2Former (Cheng et al., Masked-attention Mask Transformer, 2022), with the plain ViT as the only pixel decoder
and the masks of attention annealed away as in EoMT (Kerssies et al., Your ViT is Secretly an Image Segmentation Model,
2025): a trained head attends everywhere, so its answer does not hang on a threshold within it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from manylens.models.adapted.heads.pyramid import ChannelNorm, joined, total

_FAR = -1e4
"""Added to an attention logit, it leaves no weight, in half precision too."""


class Attention(nn.Module):
    """Multi-head attention of queries to keys, written out so that every engine can trace it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
        """``(B, Q, D)``, ``(B, K, D)`` twice, and what is added to the logits ``(B, 1, Q, K)``: ``(B, Q, D)``."""
        asked, keys, values = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, x in ((self.query, query), (self.key, key), (self.value, value))
        )
        found = F.scaled_dot_product_attention(asked, keys, values, attn_mask=bias)
        mixed: Tensor = self.out(found.transpose(1, 2).flatten(2))
        return mixed


class Layer(nn.Module):
    """Queries look at the picture, then at each other, then think: the order of Mask2Former."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.look, self.talk = Attention(width, heads), Attention(width, heads)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.think = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, place: Tensor, memory: Tensor, keys: Tensor, bias: Tensor) -> Tensor:
        """Queries ``(B, Q, D)``, their places ``(Q, D)``; the picture ``(B, K, D)`` without and with its places."""
        x = self.norms[0](x + self.drop(self.look(x + place, keys, memory, bias)))
        x = self.norms[1](x + self.drop(self.talk(x + place, x + place, x)))
        made: Tensor = self.norms[2](x + self.drop(self.think(x)))
        return made


class MaskQueries(nn.Module):
    """Queries that cross-attend to the patch maps; each gives a class and a mask.

    Args:
        widths: Channels by name of feature.
        labels: Number of classes C.
        features: Names of the maps that it sees, side by side: ``dense``, or some blocks.
        queries: How many regions a picture may have at most, Q.
        width: Channels inside.
        layers: Of the decoder.
        heads: Of its attention.
        doublings: How often the sides of the masks are double those of the patch grid.
        dropout: In training, of what a layer adds.
        annealed: Whether attention is masked less and less as training goes on; else it always is, as in Mask2Former.
    """

    shares: Tensor

    def __init__(
        self,
        widths: Mapping[str, int],
        labels: int,
        *,
        features: Sequence[str] = ("dense",),
        queries: int = 50,
        width: int = 128,
        layers: int = 3,
        heads: int = 8,
        doublings: int = 2,
        dropout: float = 0.0,
        annealed: bool = True,
    ) -> None:
        super().__init__()
        self.needs = tuple(features)
        self.width, self.annealed = width, annealed
        inner = total(widths, self.needs)
        self.enter = nn.Sequential(ChannelNorm(inner), nn.Conv2d(inner, width, 1))
        self.grow = nn.Sequential(*(_Double(width) for _ in range(doublings)))
        self.content, self.place = nn.Embedding(queries, width), nn.Embedding(queries, width)
        self.layers = nn.ModuleList(Layer(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.classes = nn.Linear(width, labels + 1)
        self.masks = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)
        )
        self.register_buffer("shares", torch.ones(layers))

    def anneal(self, share: float) -> None:
        """Set how much attention is masked, by the share of the training that is done, 0..1; call it before each step.

        Each layer's masks go one after the other, the first layer's first, by the power 0.9 of what is left (EoMT).
        All are gone when 85 % is done, so that the head is also trained as it will be used.
        """
        if not self.annealed:
            return
        count = len(self.layers)
        for i in range(count):
            start, end = 0.85 * i / (count + 1), 0.85 * (i + 2) / (count + 1)
            left = min(max((end - share) / (end - start), 0.0), 1.0)
            self.shares[i] = left**0.9

    def forward(self, features: Mapping[str, Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
        """``classes`` ``(B, Q, C + 1)``, logits, the last for no object, and ``masks`` ``(B, Q, h, w)``, logits.

        In training ``stage_classes`` and ``stage_masks`` are those before the first layer and after each, ``(S, B,
        ...)``, for the loss; the last of them are the answer.
        """
        ground = self.enter(joined(features, self.needs, self.classes.weight))
        pixels = self.grow(ground)
        batch, _, rows, columns = ground.shape
        memory = ground.flatten(2).transpose(1, 2)
        keys = memory + places(rows, columns, self.width, ground)
        x = self.content.weight.unsqueeze(0).expand(batch, -1, -1)
        stages = [self._answer(x, pixels)]
        for number, layer in enumerate(self.layers):
            bias = self._bias(stages[-1][1], number, ground)
            x = layer(x, self.place.weight, memory, keys, bias)
            stages.append(self._answer(x, pixels))
        classes, masks = stages[-1]
        if not self.training:
            return {"classes": classes, "masks": masks}
        every = [torch.stack(one) for one in zip(*stages, strict=True)]
        return {"classes": classes, "masks": masks, "stage_classes": every[0], "stage_masks": every[1]}

    def _answer(self, x: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
        x = self.norm(x)
        # Of the order of one at the start whatever the width.
        weights = self.masks(x) / math.sqrt(self.width)
        return self.classes(x), (weights @ pixels.flatten(2)).unflatten(2, pixels.shape[-2:])

    def _bias(self, masks: Tensor, number: int, ground: Tensor) -> Tensor:
        """What keeps a query from looking outside its own mask: ``(B, 1, Q, h * w)``."""
        small = F.interpolate(masks.detach(), size=ground.shape[-2:], mode="bilinear", align_corners=False)
        inside = (small >= 0).flatten(2)
        share = self.shares[number]
        # A query that found nothing yet looks everywhere.
        everywhere = ~inside.any(dim=-1, keepdim=True)
        if self.training:
            everywhere = everywhere | (torch.rand(everywhere.shape, device=masks.device) >= share)
        else:
            everywhere = everywhere | (share < 0.5)
        return ((~(inside | everywhere)).to(ground.dtype) * _FAR).unsqueeze(1)


class _Double(nn.Module):
    """Twice the sides: EoMT's upscaling block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.mix = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.norm = ChannelNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.norm(self.mix(F.gelu(self.up(x))))
        return made


def places(rows: int, columns: int, width: int, like: Tensor) -> Tensor:
    """Sines of where each cell lies within the map: ``(rows * columns, width)``; half of it says the row.

    Args:
        rows: Of the map.
        columns: Likewise.
        width: A multiple of four.
        like: Gives type and device.
    """
    quarter = width // 4
    rates = 1.0 / 10000 ** (torch.arange(quarter, device=like.device, dtype=torch.float32) / quarter)

    def sines(count: int) -> Tensor:
        along = (torch.arange(count, device=like.device, dtype=torch.float32) + 0.5) / count * (2 * math.pi)
        turns = along[:, None] * rates
        return torch.cat([turns.sin(), turns.cos()], dim=1)

    down = sines(rows)[:, None].expand(-1, columns, -1)
    across = sines(columns)[None].expand(rows, -1, -1)
    return torch.cat([down, across], dim=2).flatten(0, 1).to(like.dtype)
