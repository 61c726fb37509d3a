"""SAM's networks as torch modules: for the torch engine, for tracing the decoder, and for training.

The decoder computes what ``SamMaskDecoder`` of transformers does, arranged so that little is multiplied that depends on
both the prompt and the thousands of picture tokens:

- a projection of the picture's tokens is folded into the few prompt tokens that it meets
  (``(W k) . q`` is ``k . (W' q)``), which leaves a sixth of the work;
- the first layer's picture tokens are the same for all prompts and are not repeated;
- transposed convolutions of stride 2 are matrix products whose pixels are put in order once, at the end, on four
  channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import SamModel


class Encoder(nn.Module):
    """Pictures uint8 ``(B, S, S, 3)`` and the sizes ``(B, 2)``, height and width, of what is not padding, to
    embeddings ``(B, S / patch, S / patch, C)``.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, sam: SamModel, mean: tuple[float, ...], deviation: tuple[float, ...]) -> None:
        super().__init__()
        self.network: Any = sam.vision_encoder
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation), persistent=False)

    def forward(self, pictures: Tensor, inner: Tensor) -> Tensor:  # noqa: D102
        pixels = (pictures.float() - self.mean.float()) / self.deviation.float()
        places = torch.arange(pictures.shape[1], device=pictures.device)
        rows, columns = places < inner[:, :1], places < inner[:, 1:]
        pixels = pixels * (rows[:, :, None] & columns[:, None, :])[..., None]
        return self.network(pixels.permute(0, 3, 1, 2).to(self.mean.dtype)).last_hidden_state.permute(0, 2, 3, 1)


class Decoder(nn.Module):
    """Prompt tokens ``(B, N, C)``, output tokens first, on one picture's embedding ``(1, G, G, C)``, and where
    ``masked`` logits ``(B, 1, 4G, 4G)``, to logits ``(B, M, 4G, 4G)`` and their predicted IoU ``(B, M)``.
    """

    places: Tensor
    bare: Tensor
    first_weight: Tensor
    first_bias: Tensor
    second_weight: Tensor
    second_bias: Tensor

    def __init__(self, sam: SamModel, masked: bool) -> None:
        super().__init__()
        decoder: Any = sam.mask_decoder
        self.decoder = decoder
        self.mask_embed: Any = sam.prompt_encoder.mask_embed if masked else None
        with torch.no_grad():
            places = sam.get_image_wide_positional_embeddings()
            bare = sam.prompt_encoder.no_mask_embed.weight
        self.count: int = decoder.num_mask_tokens
        self.register_buffer("places", places.flatten(2).transpose(1, 2).clone(), persistent=False)
        self.register_buffer("bare", bare.detach()[None].clone(), persistent=False)
        first, second = decoder.upscale_conv1, decoder.upscale_conv2
        # (in, out, 2, 2) to (4 * out, in): the pixel within the 2x2 first, then the channel.
        for name, layer in (("first", first), ("second", second)):
            weight = layer.weight.detach().permute(2, 3, 1, 0).flatten(0, 2).clone()
            self.register_buffer(f"{name}_weight", weight, persistent=False)
            self.register_buffer(f"{name}_bias", layer.bias.detach().repeat(4), persistent=False)

    def forward(self, embedding: Tensor, tokens: Tensor, masks: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: D102
        keys = embedding.flatten(1, 2)
        keys = keys + (self.bare if masks is None else self.mask_embed(masks).flatten(2).transpose(1, 2))
        queries, keys = self._transform(tokens, keys)
        return self._drawn(queries, keys, embedding.shape[1]), self.decoder.iou_prediction_head(queries[:, 0])

    def _drawn(self, queries: Tensor, keys: Tensor, grid: int) -> Tensor:
        """Logits ``(B, M, 4G, 4G)`` from what the transformer made of tokens and picture."""
        mlps = self.decoder.output_hypernetworks_mlps
        hyper = torch.stack([mlp(queries[:, 1 + i]) for i, mlp in enumerate(mlps)], dim=1)
        return self._in_order(self._upscaled(keys) @ hyper.transpose(1, 2), grid)

    def _transform(self, tokens: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """The two-way transformer: tokens ``(B, N, C)`` and picture tokens ``(1 or B, T, C)``."""
        transformer = self.decoder.transformer
        queries = tokens
        for layer in transformer.layers:
            placed = keys + self.places
            if layer.skip_first_layer_pe:
                queries = _attention(layer.self_attn, queries, queries)
            else:
                queries = queries + _attention(layer.self_attn, queries + tokens, queries)
            queries = layer.layer_norm1(queries)
            queries = queries + _from_picture(layer.cross_attn_token_to_image, queries + tokens, placed, keys)
            queries = layer.layer_norm2(queries)
            queries = layer.layer_norm3(queries + layer.mlp(queries))
            keys = keys + _to_picture(layer.cross_attn_image_to_token, placed, queries + tokens, queries)
            keys = layer.layer_norm4(keys)
        placed = keys + self.places
        queries = queries + _from_picture(transformer.final_attn_token_to_image, queries + tokens, placed, keys)
        return transformer.layer_norm_final_attn(queries), keys

    def _upscaled(self, keys: Tensor) -> Tensor:
        """Picture tokens ``(B, T, C)`` to pixels ``(B, 16 T, C / 8)``: 4x4 of each token, 2x2 of 2x2."""
        batch, count, _ = keys.shape
        norm: Any = self.decoder.upscale_layer_norm
        x = F.linear(keys, self.first_weight, self.first_bias).reshape(batch, count * 4, -1)
        x = F.gelu(F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps))
        return F.gelu(F.linear(x, self.second_weight, self.second_bias)).reshape(batch, count * 16, -1)

    def _in_order(self, logits: Tensor, grid: int) -> Tensor:
        """``(B, 16 T, M)`` pixels, 2x2 of 2x2 of each token, to ``(B, M, 4G, 4G)``."""
        x = logits.reshape(-1, grid, grid, 2, 2, 2, 2, self.count)
        return x.permute(0, 7, 1, 3, 5, 2, 4, 6).reshape(-1, self.count, 4 * grid, 4 * grid)


def _heads(x: Tensor, heads: int) -> Tensor:
    """``(B, N, C)`` to ``(B, heads, N, C / heads)``."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _attention(part: Any, asking: Tensor, told: Tensor) -> Tensor:
    """Attention among the few tokens: queries and keys of ``asking``, values of ``told``."""
    query, key, value = (
        _heads(layer(x), part.num_attention_heads)
        for layer, x in ((part.q_proj, asking), (part.k_proj, asking), (part.v_proj, told))
    )
    found = (query @ key.transpose(-1, -2) * part.scaling).softmax(dim=-1) @ value
    return part.out_proj(found.transpose(1, 2).flatten(2))


def _from_picture(part: Any, asking: Tensor, placed: Tensor, keys: Tensor) -> Tensor:
    """Tokens ``(B, N, C)`` attend to picture tokens ``(1 or B, T, C)``.

    The keys' projection is folded into the queries, that of the values is done on what attention gathers. The keys'
    bias adds the same to all scores of a query and falls out.
    """
    heads, width = part.num_attention_heads, keys.shape[-1]
    query = _heads(part.q_proj(asking), heads) * part.scaling
    folded = query @ part.k_proj.weight.unflatten(0, (heads, -1))
    weights = (folded.flatten(1, 2) @ placed.transpose(1, 2)).softmax(dim=-1)
    gathered = (weights @ keys).reshape(-1, heads, asking.shape[1], width)
    found = gathered @ part.v_proj.weight.unflatten(0, (heads, -1)).transpose(1, 2)
    return part.out_proj(found.transpose(1, 2).flatten(2) + part.v_proj.bias)


def _to_picture(part: Any, placed: Tensor, asked: Tensor, told: Tensor) -> Tensor:
    """Picture tokens ``(1 or B, T, C)`` attend to tokens: keys of ``asked``, values of ``told``, ``(B, N, C)``.

    The projections of the picture's queries and of what comes out are folded into the tokens' keys and values.
    """
    heads, count = part.num_attention_heads, asked.shape[1]
    key = _heads(part.k_proj(asked), heads) * part.scaling
    value = _heads(part.v_proj(told), heads)
    folded = (key @ part.q_proj.weight.unflatten(0, (heads, -1))).flatten(1, 2)
    offset = (key @ part.q_proj.bias.reshape(heads, -1, 1)).flatten(1, 2)
    scores = folded @ placed.transpose(1, 2) + offset
    # Over the tokens, with the picture's pixels last: the many stay together.
    weights = scores.unflatten(1, (heads, count)).softmax(dim=2).flatten(1, 2)
    mixed = (value @ part.out_proj.weight.unflatten(1, (heads, -1)).permute(1, 2, 0)).flatten(1, 2)
    return weights.transpose(1, 2) @ mixed + part.out_proj.bias


def prompt_tables(sam: SamModel) -> dict[str, np.ndarray]:
    """What prompts are encoded by, float32: ``frequencies`` ``(2, C / 2)``, ``labels`` ``(5, C)`` for the labels -1 to
    3, and ``outputs`` ``(1 + M, C)``, the tokens that the decoder answers in.
    """
    encoder: Any = sam.prompt_encoder
    decoder: Any = sam.mask_decoder
    rows = [encoder.not_a_point_embed.weight, *(embed.weight for embed in encoder.point_embed)]
    tables = {
        "frequencies": encoder.shared_embedding.positional_embedding,
        "labels": torch.cat(rows),
        "outputs": torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight]),
    }
    return {name: table.detach().float().cpu().numpy() for name, table in tables.items()}


def token_weights(sam: SamModel) -> dict[str, np.ndarray]:
    """What :class:`manylens.models.sam.halves.Halves` computes with: float32 arrays by ``SamMaskDecoder``'s names,
    ``eps`` of each norm, the whole numbers ``heads``, ``layers`` and ``masks``, ``bare``, which stands for a mask where
    there is none, and the picture's ``places``.
    """
    decoder: Any = sam.mask_decoder
    transformer = decoder.transformer
    found = {
        name: tensor.detach().float().cpu().numpy()
        for name, tensor in decoder.state_dict().items()
        if not name.startswith(("upscale_", "iou_token", "mask_tokens"))
    }
    for name, part in decoder.named_modules():
        if isinstance(part, nn.LayerNorm) and not name.startswith("upscale_"):
            found[f"{name}.eps"] = np.float32(part.eps)
    heads = transformer.final_attn_token_to_image.num_attention_heads
    numbers = {"heads": heads, "layers": len(transformer.layers), "masks": decoder.num_mask_tokens}
    bare: Any = sam.prompt_encoder.no_mask_embed.weight
    found["bare"] = bare.detach().float().cpu().numpy()
    found["places"] = picture_weights(sam)["places"]
    return found | {name: np.array(number) for name, number in numbers.items()}


def picture_weights(sam: SamModel) -> dict[str, np.ndarray]:
    """What :func:`manylens.models.sam.picture_graphs.build` computes with, float32: ``places`` ``(1, T, C)``, the two
    upscaling steps as matrices, the norm between them, ``eps`` of the picture tokens' norms, and the whole numbers
    ``heads`` and ``masks``.
    """
    plain = Decoder(sam, masked=False)
    decoder: Any = plain.decoder
    norm = decoder.upscale_layer_norm
    tensors = {
        "places": plain.places,
        "first.weight": plain.first_weight,
        "first.bias": plain.first_bias,
        "second.weight": plain.second_weight,
        "second.bias": plain.second_bias,
        "norm.weight": norm.weight,
        "norm.bias": norm.bias,
    }
    found = {name: tensor.detach().float().cpu().numpy() for name, tensor in tensors.items()}
    transformer = decoder.transformer
    numbers = {
        "norm.eps": norm.eps,
        "eps": transformer.layers[0].layer_norm4.eps,
        "masks": plain.count,
        "heads": transformer.final_attn_token_to_image.num_attention_heads,
    }
    return found | {name: np.array(number) for name, number in numbers.items()}
