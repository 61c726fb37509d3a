"""The network of SAM 2 in the pieces that run: torch modules made of those of transformers.

Each takes and gives plain tensors, so that either engine can run it. What transformers computes anew in each call and
is always the same (tables of sines, the positions of the picture) is computed once. A video's memory keeps frames by
themselves, so the attention to them needs no repeated tables.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Encoder(nn.Module):
    """Pixels ``(1, 3, side, side)`` to the decoder's three maps, the finest first; the last is the embedding."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.vision = model.vision_encoder
        self.finest, self.middle = model.mask_decoder.conv_s0, model.mask_decoder.conv_s1

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: D102
        finest, middle, embedding = self.vision(pixels).fpn_hidden_states
        return self.finest(finest), self.middle(middle), embedding


class MaskDecoder(nn.Module):
    """Prompts to masks, on an embedding that may be one for all prompts or one for each.

    Inputs of :meth:`forward`: ``embedding`` ``(b, C, h, w)`` with ``b`` 1 or ``B``; ``finest`` ``(1, C/8, 4h, 4w)`` and
    ``middle`` ``(1, C/4, 2h, 2w)``; ``fresh`` ``(1,)``, 1 where no memory was attended to; ``points`` ``(B, N, C)``,
    the sines of their places, which turn too fast for half precision and so are made before; ``labels`` int64
    ``(B, N)``; ``masks`` ``(m, 1, 4h, 4w)`` logits; ``given`` ``(1,)``, 1 where these count.

    Outputs: logits ``(B, M, 4h, 4w)``, qualities ``(B, M)``, whether the object is there ``(B, 1)`` as a logit, and of
    a video the pointer that each mask would leave ``(B, M, C)``.
    """

    places: Tensor
    no_memory: Tensor
    no_pointer: Tensor

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.prompts, self.decoder = model.prompt_encoder, model.mask_decoder
        self.register_buffer("places", model.get_image_wide_positional_embeddings().detach())
        self.register_buffer("no_memory", model.no_memory_embedding.detach().reshape(1, -1, 1, 1))
        self.pointer = getattr(model, "object_pointer_proj", None)
        if self.pointer is not None:
            self.register_buffer("no_pointer", model.no_object_pointer.detach())

    def forward(  # noqa: D102
        self,
        embedding: Tensor,
        finest: Tensor,
        middle: Tensor,
        fresh: Tensor,
        points: Tensor,
        labels: Tensor,
        masks: Tensor,
        given: Tensor,
    ) -> tuple[Tensor, ...]:
        decoder, count = self.decoder, points.shape[0]
        image = embedding + fresh.reshape(1, 1, 1, 1) * self.no_memory + self._dense(masks, given)
        own = torch.cat([decoder.obj_score_token.weight, decoder.iou_token.weight, decoder.mask_tokens.weight])
        tokens = torch.cat([own.expand(count, -1, -1), self._sparse(points, labels)], dim=1)
        # Attention asks as many pictures as prompts; the addition below broadcasts again.
        seen, keys = decoder.transformer(
            point_embeddings=tokens.unsqueeze(1),
            image_embeddings=image.expand(count, -1, -1, -1),
            image_positional_embeddings=self.places,
            attention_similarity=None,
        )
        seen = seen.squeeze(1)
        found = seen[:, 2 : 2 + decoder.num_mask_tokens]
        height, width = embedding.shape[-2:]
        up = decoder.upscale_conv1(keys.squeeze(1).transpose(1, 2).reshape(count, -1, height, width)) + middle
        up = decoder.activation(decoder.upscale_layer_norm(up))
        up = decoder.activation(decoder.upscale_conv2(up) + finest)
        heads = decoder.output_hypernetworks_mlps
        weights = torch.stack([head(found[:, number]) for number, head in enumerate(heads)], dim=1)
        logits = (weights @ up.flatten(2)).reshape(count, -1, 4 * height, 4 * width)
        quality, there = decoder.iou_prediction_head(seen[:, 1]), decoder.pred_obj_score_head(seen[:, 0])
        if self.pointer is None:
            return logits, quality, there
        pointers = torch.where(there[:, None] > 0, self.pointer(found), self.no_pointer)
        return logits, quality, there, pointers

    def _sparse(self, points: Tensor, labels: Tensor) -> Tensor:
        """Tokens ``(B, N, C)`` of points."""
        prompts, label = self.prompts, labels.unsqueeze(-1)
        placed = torch.where(label == -1, prompts.not_a_point_embed.weight, points)
        return torch.where(label >= 0, placed + prompts.point_embed(labels.clamp(min=0)), placed)

    def _dense(self, masks: Tensor, given: Tensor) -> Tensor:
        """What is added to the picture for a mask: ``(m, C, h, w)``."""
        none = self.prompts.no_mask_embed.weight.reshape(1, -1, 1, 1)
        return torch.where(given.reshape(1, 1, 1, 1) > 0, self.prompts.mask_embed(masks), none)


class MemoryAttention(nn.Module):
    """The embedding of a frame, seen in the light of what is remembered of an object.

    Inputs of :meth:`forward`: ``embedding`` ``(1, C, h, w)``; ``memory`` ``(M, h * w, D)`` of the remembered frames;
    ``slots`` int64 ``(M,)``, the row of the temporal table of each; ``pointers`` ``(P, C)`` of earlier frames;
    ``times`` ``(P,)``, how long ago these are, as a share of the longest time. Output: ``(1, C, h, w)``.
    """

    places: Tensor
    remembered_places: Tensor
    cosine: Tensor
    sine: Tensor
    periods: Tensor

    def __init__(self, model: Any) -> None:
        super().__init__()
        config = model.config
        self.attention = model.memory_attention
        self.temporal = model.memory_temporal_positional_encoding
        timed = config.enable_temporal_pos_encoding_for_object_pointers
        self.time: Any = model.temporal_positional_encoding_projection_layer if timed else None
        self.width, self.depth = model.hidden_dim, model.mem_dim
        height, width = model.backbone_feature_sizes[-1]
        table = _sines(model.vision_encoder.neck.position_encoding, (1, self.width, height, width))
        self.register_buffer("places", table)
        table = _sines(model.memory_encoder.position_encoding, (1, self.depth, height, width))
        self.register_buffer("remembered_places", table)
        cosine, sine = self.attention.rotary_emb(self.attention.position_ids, self.attention.position_ids)
        self.register_buffer("cosine", cosine[0].detach())
        self.register_buffer("sine", sine[0].detach())
        half = self.width // 2
        self.register_buffer("periods", 10000.0 ** (2 * (torch.arange(half) // 2) / half))

    def forward(  # noqa: D102
        self, embedding: Tensor, memory: Tensor, slots: Tensor, pointers: Tensor, times: Tensor
    ) -> Tensor:
        state = embedding.flatten(2).transpose(1, 2)[0] + 0.1 * self.places
        # (M, N, D) where each remembered frame stands in space and time; pointers stand in time only.
        where = self.remembered_places + self.temporal.reshape(-1, 1, self.depth)[slots]
        splits = self.width // self.depth
        told = pointers.reshape(-1, self.depth)
        told_when = told + self._times(times).repeat_interleave(splits, dim=0)
        for layer in self.attention.layers:
            seen = layer.layer_norm1(state)
            state = state + self._attend(layer.self_attn, seen, seen.unsqueeze(0), seen)
            seen = layer.layer_norm2(state)
            values = torch.cat([memory.flatten(0, 1), told])
            state = state + self._attend(layer.cross_attn_image, seen, memory + where, values, told_when)
            seen = layer.layer_norm3(state)
            state = state + layer.linear2(layer.activation(layer.linear1(seen)))
        return self.attention.layer_norm(state).transpose(0, 1).reshape(embedding.shape)

    def _attend(
        self, part: Any, queries: Tensor, keys: Tensor, values: Tensor, unplaced: Tensor | None = None
    ) -> Tensor:
        """Attention of ``(N, C)`` to frames ``(M, N, D)``, whose keys are turned by their place, and to others."""
        heads = part.num_attention_heads
        query = self._turned(part.q_proj(queries), heads).transpose(0, 1)
        key = self._turned(part.k_proj(keys), heads).flatten(0, 1)
        if unplaced is not None:
            key = torch.cat([key, part.k_proj(unplaced).reshape(-1, heads, key.shape[-1])])
        value = part.v_proj(values).reshape(-1, heads, key.shape[-1])
        found = F.scaled_dot_product_attention(
            query.unsqueeze(0), key.transpose(0, 1).unsqueeze(0), value.transpose(0, 1).unsqueeze(0)
        )
        return part.o_proj(found[0].transpose(0, 1).flatten(1))

    def _turned(self, x: Tensor, heads: int) -> Tensor:
        """``(..., N, heads * d)`` as ``(..., N, heads, d)``, pairs turned by their place (axial rotary embedding)."""
        x = x.reshape(*x.shape[:-1], heads, -1)
        pairs = x.reshape(*x.shape[:-1], -1, 2)
        crossed = torch.stack([-pairs[..., 1], pairs[..., 0]], dim=-1).flatten(-2)
        return x * self.cosine.unsqueeze(1) + crossed * self.sine.unsqueeze(1)

    def _times(self, times: Tensor) -> Tensor:
        """The places in time ``(P, D)`` of pointers."""
        if self.time is None:
            return times.unsqueeze(1) * torch.zeros(1, self.depth, dtype=times.dtype, device=times.device)
        angles = times.unsqueeze(1) / self.periods
        return self.time(torch.cat([angles.sin(), angles.cos()], dim=-1))


class MemoryEncoder(nn.Module):
    """A frame and the mask that was found in it, as what is remembered of them.

    Inputs of :meth:`forward`: ``embedding`` ``(1, C, h, w)``; ``logits`` ``(1, 1, side, side)``; ``sure`` ``(1,)``, 1
    where the mask was prompted and is taken as it is; ``there`` ``(1, 1)``, a logit. Output: ``(h * w, D)``.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder = model.memory_encoder
        self.scale = model.config.sigmoid_scale_for_mem_enc
        self.bias = model.config.sigmoid_bias_for_mem_enc
        self.hidden = model.occlusion_spatial_embedding_parameter

    def forward(self, embedding: Tensor, logits: Tensor, sure: Tensor, there: Tensor) -> Tensor:  # noqa: D102
        mask = torch.where(sure.reshape(1, 1, 1, 1) > 0, (logits > 0).to(logits.dtype), torch.sigmoid(logits))
        found = self.encoder(embedding, mask * self.scale + self.bias)[0].flatten(2).transpose(1, 2)[0]
        return found if self.hidden is None else torch.where(there > 0, found, found + self.hidden)


class MaskShrinker(nn.Module):
    """A mask ``(1, 1, side, side)`` of 0 and 1 as the logits ``(1, 1, side / 4, side / 4)`` of a prompt."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.shrink = model.mask_downsample

    def forward(self, mask: Tensor) -> Tensor:  # noqa: D102
        return self.shrink(mask)


def _sines(encoding: Any, shape: tuple[int, int, int, int]) -> Tensor:
    """The table of sines ``(h * w, C)`` of places."""
    return encoding(shape, "cpu", torch.float32).flatten(2).transpose(1, 2)[0].detach()
