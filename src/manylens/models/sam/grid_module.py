"""SAM's mask decoder for a grid of clicks, as torch modules: it judges masks first and draws only those that pass.

It computes what ``SamMaskDecoder`` of transformers does, in :mod:`manylens.models.sam.module`'s terms, arranged for
many clicks on one picture:

- what no click changes (the first layer's keys, values and queries of the picture) is made once, by :class:`Shared`;
- projections of the picture's tokens are folded into the few tokens of a click, so that no step but the upscaling
  multiplies all of the picture's channels by all of a layer's;
- the picture's tokens carry their places all the way, and what needs them bare takes a small table off its result;
- the last attention answers only the tokens that are read: the quality and the masks of an unclear click;
- the picture's attention to a click's tokens is normalised by a matrix product, since a softmax over seven of 56
  columns costs more than all else in its layer;
- upscaling, nearly half of the work, is done for those clicks alone of which a mask passes, and only where the photo
  lies in the network's square.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import SamModel

from manylens.models.sam.module import Decoder, _attention, _heads

_GREATEST = 85.0
"""Scores are centred on their head's mean and cut here, where seven of them still have a finite sum of exponentials."""


class Shared(nn.Module):
    """A picture's embedding ``(1, G, G, C)`` to what all clicks share: its tokens ``(T, C)``, and the keys, values and
    queries ``(T, C / 2)`` of the first layer.
    """

    places: Tensor
    bare: Tensor

    def __init__(self, sam: SamModel) -> None:
        super().__init__()
        self.layer: Any = sam.mask_decoder.transformer.layers[0]
        with torch.no_grad():
            places, bare = sam.get_image_wide_positional_embeddings(), sam.prompt_encoder.no_mask_embed.weight
        self.register_buffer("places", places[0].flatten(1).T.contiguous(), persistent=False)
        self.register_buffer("bare", bare.detach().clone(), persistent=False)

    def forward(self, embedding: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # noqa: D102
        tokens = embedding[0].flatten(0, 1) + self.bare
        gathers, spreads = self.layer.cross_attn_token_to_image, self.layer.cross_attn_image_to_token
        placed = tokens + self.places
        # The bias of what comes back to the picture is added here, once.
        bases = tokens + spreads.out_proj.bias
        return bases, gathers.k_proj(placed), gathers.v_proj(tokens), spreads.q_proj(placed)


class GridDecoder(nn.Module):
    """What :class:`Shared` gives, the tokens ``(B, N, C)`` of clicks, the least quality ``(1,)`` and the numbers
    ``(h, w)`` of the picture's tokens that are drawn, to the clicks ``(K,)`` of which a mask is better, their masks'
    logits ``(K, M - 1, 4h, 4w)`` and qualities ``(K, M - 1)``.

    Args:
        sam: The checkpoint's module.
        count: Tokens ``N`` of a click.
    """

    groups: Tensor
    last_values: Tensor
    upscale_offset: Tensor

    def __init__(self, sam: SamModel, count: int) -> None:
        super().__init__()
        plain = Decoder(sam, masked=False)
        self.plain = plain
        transformer: Any = plain.decoder.transformer
        self.layers: Any = transformer.layers
        self.last: Any = transformer.final_attn_token_to_image
        self.last_norm: Any = transformer.layer_norm_final_attn
        self.heads = int(self.last.num_attention_heads)
        places = plain.places[0]
        self.register_buffer("groups", torch.block_diag(*[torch.ones(count, count)] * self.heads), persistent=False)
        with torch.no_grad():
            # Tables of a value for each of the picture's tokens: their places as each step would see them.
            offset = plain.first_bias - F.linear(places, plain.first_weight)
            self.register_buffer("upscale_offset", offset, persistent=False)
            for number, layer in enumerate(self.layers):
                self._keep(f"placed{number}", layer.layer_norm4.bias + places)
                if number:
                    gathers, spreads = layer.cross_attn_token_to_image, layer.cross_attn_image_to_token
                    self._keep(f"values{number}", self._by_head(F.linear(places, gathers.v_proj.weight)))
                    self._keep(f"bare{number}", spreads.out_proj.bias - places)
            self._keep("last_values", self._by_head(F.linear(places, self.last.v_proj.weight)))

    def forward(  # noqa: D102
        self,
        bases: Tensor,
        keys: Tensor,
        values: Tensor,
        queries: Tensor,
        tokens: Tensor,
        least: Tensor,
        cells: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        asking, placed = self._first(bases, keys, values, queries, tokens)
        for number in range(1, len(self.layers)):
            layer = self.layers[number]
            told = asking + tokens
            asking = layer.layer_norm1(asking + _attention(layer.self_attn, told, asking))
            values_of_places: Tensor = getattr(self, f"values{number}")
            found = self._gathered(layer.cross_attn_token_to_image, asking + tokens, placed, values_of_places)
            asking = self._thought(layer, asking + found)
            part = layer.cross_attn_image_to_token
            key = self._centred(part, asking + tokens)
            scores = placed @ (part.q_proj.weight.T @ key) + (part.q_proj.bias @ key)[:, None]
            mixed = placed + getattr(self, f"bare{number}") + self._weights(scores) @ self._mixed(part, asking)
            placed = self._normed(layer.layer_norm4, mixed, number)
        # The quality and masks 1 and up.
        read = torch.cat([asking[:, :1], asking[:, 2 : 1 + self.plain.count]], dim=1)
        its = torch.cat([tokens[:, :1], tokens[:, 2 : 1 + self.plain.count]], dim=1)
        read = self.last_norm(read + self._gathered(self.last, read + its, placed, self.last_values))
        quality = self.plain.decoder.iou_prediction_head(read[:, 0])[:, 1:]
        rows = torch.nonzero((quality > least).any(dim=1)).flatten()
        chosen = (rows[:, None] * placed.shape[1] + cells.flatten()).flatten()
        return rows, self._drawn(read[rows], placed.flatten(0, 1)[chosen], cells), quality[rows]

    def _first(
        self, bases: Tensor, keys: Tensor, values: Tensor, queries: Tensor, tokens: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The first layer, whose picture is the same for all clicks: tokens ``(B, N, C)``, and picture tokens with
        their places ``(B, T, C)``.
        """
        layer = self.layers[0]
        batch, count, _ = tokens.shape
        asking = layer.layer_norm1(_attention(layer.self_attn, tokens, tokens))
        part = layer.cross_attn_token_to_image
        query = (part.q_proj(asking + tokens) * part.scaling).reshape(batch * count, self.heads, -1).transpose(0, 1)
        scores = query @ self._by_head(keys).transpose(1, 2)
        found = scores.softmax(dim=-1) @ self._by_head(values)
        asking = self._thought(layer, asking + part.out_proj(found.transpose(0, 1).reshape(batch, count, -1)))
        part = layer.cross_attn_image_to_token
        weights = self._weights(queries @ self._centred(part, asking + tokens))
        return asking, self._normed(layer.layer_norm4, bases + weights @ self._mixed(part, asking), 0)

    def _thought(self, layer: Any, asking: Tensor) -> Tensor:
        asking = layer.layer_norm2(asking)
        return layer.layer_norm3(asking + layer.mlp(asking))

    def _gathered(self, part: Any, asking: Tensor, placed: Tensor, places: Tensor) -> Tensor:
        """Tokens ``(B, N, C)`` attend to the picture; ``places`` ``(heads, T, D)`` are the values of its places."""
        batch, count, width = asking.shape
        query = self._apart(part.q_proj(asking) * part.scaling)
        weights = (placed @ (part.k_proj.weight.T @ query)).softmax(dim=1).transpose(1, 2)
        gathered = (weights @ placed).reshape(batch, self.heads, count, width)
        found = gathered @ part.v_proj.weight.reshape(self.heads, -1, width).transpose(1, 2)
        found = found - weights.reshape(batch, self.heads, count, -1) @ places
        return part.out_proj(found.transpose(1, 2).flatten(2) + part.v_proj.bias)

    def _centred(self, part: Any, told: Tensor) -> Tensor:
        """Keys of the tokens, less their mean: the softmax does not see it, and the scores stay small."""
        key = part.k_proj(told) * part.scaling
        return self._apart(key - key.mean(dim=1, keepdim=True))

    def _weights(self, scores: Tensor) -> Tensor:
        """Scores ``(B, T, heads * N)`` to their softmax over the tokens of each head."""
        raised = scores.clamp(max=_GREATEST).exp()
        return raised / (raised @ self.groups)

    def _mixed(self, part: Any, told: Tensor) -> Tensor:
        """What each token and head gives to the picture: ``(B, heads * N, C)``."""
        value = _heads(part.v_proj(told), self.heads)
        return (value @ part.out_proj.weight.unflatten(1, (self.heads, -1)).permute(1, 2, 0)).flatten(1, 2)

    def _normed(self, norm: Any, tokens: Tensor, number: int) -> Tensor:
        """The picture's tokens, normalised, with their places."""
        flat = F.layer_norm(tokens, norm.normalized_shape, None, None, norm.eps)
        return flat * norm.weight + getattr(self, f"placed{number}")

    def _drawn(self, read: Tensor, placed: Tensor, cells: Tensor) -> Tensor:
        """Logits ``(K, M - 1, 4h, 4w)`` of ``placed`` ``(K * h * w, C)``."""
        plain = self.plain
        mlps = list(plain.decoder.output_hypernetworks_mlps)[1:]
        hyper = torch.stack([mlp(read[:, 1 + i]) for i, mlp in enumerate(mlps)], dim=1)
        norm: Any = plain.decoder.upscale_layer_norm
        # Sizes are said, not -1: there may be no click at all.
        clicks, (high, wide) = read.shape[0], cells.shape
        x = F.linear(placed, plain.first_weight).reshape(clicks, high * wide, len(plain.first_weight))
        x = x + self.upscale_offset[cells.flatten()]
        x = x.reshape(clicks, high * wide * 4, norm.normalized_shape[0])
        x = F.gelu(F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps))
        x = F.gelu(F.linear(x, plain.second_weight, plain.second_bias))
        x = x.reshape(clicks, high * wide * 16, hyper.shape[-1])
        x = (x @ hyper.transpose(1, 2)).reshape(clicks, high, wide, 2, 2, 2, 2, len(mlps))
        return x.permute(0, 7, 1, 3, 5, 2, 4, 6).reshape(clicks, len(mlps), 4 * high, 4 * wide)

    def _by_head(self, table: Tensor) -> Tensor:
        """``(T, heads * D)`` to ``(heads, T, D)``."""
        return table.reshape(table.shape[0], self.heads, -1).transpose(0, 1)

    def _apart(self, x: Tensor) -> Tensor:
        """Tokens ``(B, N, heads * D)`` as columns that are zero but for their head: ``(B, heads * D, heads * N)``."""
        batch, count, width = x.shape
        heads = x.reshape(batch, count, self.heads, -1).permute(0, 2, 3, 1).unsqueeze(3)
        eye = torch.eye(self.heads, dtype=x.dtype, device=x.device)
        return (heads * eye[None, :, None, :, None]).reshape(batch, width, self.heads * count)

    def _keep(self, name: str, table: Tensor) -> None:
        self.register_buffer(name, table.detach().clone(), persistent=False)
