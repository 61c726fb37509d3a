"""SegGPT as two torch modules that compute what transformers' ``SegGptForImageSegmentation`` does, with less work.

The reference repeats the asked picture under every example and runs all these canvases through every layer. With
feature ensemble the asked half of all of them is the same at every layer: its attention output is averaged over the
examples before it is added. So here that half is one, beside N example halves, instead of N; only its attention, which
looks at each example in turn, is computed N times: N + 1 halves go through the matrices instead of 2 N. Nothing is left
out: up to the order of sums the result is the reference's. The decoder paints only the half that is read.

What belongs to a plane (a picture, or a painted mask) alone ends where attention begins. Its patch embedding is a
module of its own, so that it can be kept (:mod:`manylens.models.seggpt.answers`). From the first attention on, an
example's tokens depend on the asked picture, so nothing deeper of an example can be kept without changing the result.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from manylens.models.seggpt.shape import Shape


class Patches(nn.Module):
    """The patch embedding: planes ``(N, 3, h, w)``, normalised, to tokens ``(N, rows * columns, D)``."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.projection = model.model.embeddings.patch_embeddings.projection

    def forward(self, planes: torch.Tensor) -> torch.Tensor:  # noqa: D102 - the class says it
        return self.projection(planes).flatten(2).transpose(1, 2)


class Painter(nn.Module):
    """The rest: tokens of examples and of the asked picture to the colours of the asked picture's mask.

    Inputs, all float32 and from :class:`Patches`:

    - pictures ``(N, n, D)``: of the example pictures;
    - masks ``(N, n, D)``: of their painted masks;
    - query ``(1, n, D)``: of the asked picture;
    - ensemble ``(1,)``: 1 with two examples or more, else 0. The layer that joins the streams of pictures and masks
      averages both together in transformers' feature ensemble, which a single example does not have (the authors' own
      code averages each stream for itself there; transformers is what is followed).

    Output: colours ``(3, h, w)``, normalised as the planes are.

    Args:
        model: ``SegGptForImageSegmentation``; its modules are shared, not copied.
        shape: Its sizes.
    """

    above_picture: torch.Tensor
    below_picture: torch.Tensor
    above_mask: torch.Tensor
    blank: torch.Tensor

    def __init__(self, model: Any, shape: Shape) -> None:
        super().__init__()
        config, embeddings = model.config, model.model.embeddings
        self.rows, self.columns, self.patch = shape.rows, shape.columns, shape.patch
        self.merge = config.merge_index
        self.taps = frozenset(config.intermediate_hidden_state_indices)
        self.layers = nn.ModuleList(_Layer(layer, shape) for layer in model.model.encoder.layers[: max(self.taps) + 1])
        self.norm, self.decoder = model.model.encoder.layernorm, model.decoder
        with torch.no_grad():
            places = embeddings.interpolate_pos_encoding(2 * shape.rows, shape.columns).flatten(1, 2)
            picture = embeddings.segment_token_input.flatten() + embeddings.type_token_instance.flatten()
            mask = embeddings.segment_token_prompt.flatten() + embeddings.type_token_instance.flatten()
            above, below = places.split(places.shape[1] // 2, dim=1)
            blank = embeddings.mask_token.reshape(1, 1, -1) + below + mask
        # The order of a stream: the examples, then the asked picture.
        self.register_buffer("above_picture", above + picture, persistent=False)
        self.register_buffer("below_picture", below + picture, persistent=False)
        self.register_buffer("above_mask", above + mask, persistent=False)
        self.register_buffer("blank", blank, persistent=False)

    def forward(  # noqa: D102 - the class says it
        self, pictures: torch.Tensor, masks: torch.Tensor, query: torch.Tensor, ensemble: torch.Tensor
    ) -> torch.Tensor:
        # (streams, N + 1, n, D): the stream of pictures and the stream of masks, which is blank where it is asked for.
        streams = torch.stack(
            [
                torch.cat([pictures + self.above_picture, query + self.below_picture]),
                torch.cat([masks + self.above_mask, self.blank]),
            ]
        )
        found = []
        for number, layer in enumerate(self.layers):
            streams = layer(streams, ensemble if number == self.merge else None)
            if number == self.merge:
                streams = streams.mean(dim=0, keepdim=True)
            if number in self.taps:
                found.append(self.norm(self._read(streams)))
        return self._painted(torch.cat(found, dim=-1))

    def _read(self, streams: torch.Tensor) -> torch.Tensor:
        """The asked half below the last row of patches of the first example, ``(1, columns + n, D)``.

        The decoder's 3x3 convolution sees one row of pixels across the seam.
        """
        return torch.cat([streams[0, :1, -self.columns :], streams[0, -1:]], dim=1)

    def _painted(self, tokens: torch.Tensor) -> torch.Tensor:
        grid = self.decoder.decoder_embed(tokens).reshape(
            1, self.rows + 1, self.columns, self.patch, self.patch, self.decoder.decoder_hidden_size
        )
        maps = grid.permute(0, 5, 1, 3, 2, 4).reshape(
            1, self.decoder.decoder_hidden_size, (self.rows + 1) * self.patch, self.columns * self.patch
        )
        return self.decoder.decoder_pred(maps)[0, :, self.patch :]


class _Layer(nn.Module):
    """A transformer layer on ``(streams, N + 1, n, D)``, the last of each stream being the asked picture."""

    table_h: torch.Tensor
    table_w: torch.Tensor
    place: torch.Tensor

    def __init__(self, layer: Any, shape: Shape) -> None:
        super().__init__()
        attention = layer.attention
        self.before, self.after, self.mlp = layer.layernorm_before, layer.layernorm_after, layer.mlp
        self.qkv, self.proj = attention.qkv, attention.proj
        self.heads, self.scale = attention.num_attention_heads, attention.scale
        self.rows, self.columns = 2 * shape.rows, shape.columns
        self.relative = attention.use_relative_position_embeddings
        if self.relative:
            with torch.no_grad():
                for side, size in (("h", self.rows), ("w", self.columns)):
                    table = attention.get_rel_pos(size, size, getattr(attention, f"rel_pos_{side}"))
                    self.register_buffer(f"table_{side}", table.transpose(1, 2).contiguous(), persistent=False)
                self.register_buffer("place", _places(self.rows, self.columns), persistent=False)

    def forward(self, streams: torch.Tensor, join: torch.Tensor | None) -> torch.Tensor:
        found = self.proj(self._attended(self.before(streams)))
        if join is not None:
            asked = found[:, -1:]
            mean = asked.mean(dim=0, keepdim=True)
            found = torch.cat([found[:, :-1], asked + join * (mean - asked)], dim=1)
        streams = streams + found
        return streams + self.mlp(self.after(streams))

    def _attended(self, x: torch.Tensor) -> torch.Tensor:
        """Attention over each example's canvas, the asked half averaged over the examples; shape as ``x``."""
        count, tokens, channels = x.shape[0], self.rows * self.columns // 2, x.shape[-1]
        # (streams, N + 1, n, 3, heads, d)
        parts = self.qkv(x).unflatten(-1, (3, self.heads, channels // self.heads))
        examples, asked = parts[:, :-1], parts[:, -1:]
        canvas = torch.cat([examples, asked.expand_as(examples)], dim=2).flatten(0, 1)
        query, key, value = canvas.permute(2, 0, 3, 1, 4).unbind(0)
        out = self._mixed(query * self.scale, key, value, query)
        out = out.transpose(1, 2).reshape(count, -1, 2 * tokens, channels)
        return torch.cat([out[:, :, :tokens], out[:, :, tokens:].mean(dim=1, keepdim=True)], dim=1)

    def _mixed(self, scaled: torch.Tensor, key: torch.Tensor, value: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
        if not self.relative:
            return F.scaled_dot_product_attention(scaled, key, value, scale=1.0)
        # What a query feels of a key's row and column is a product of its own with a one-hot of that row and column,
        # so it joins the product of query and key: the (tokens x tokens) bias of the reference is never made.
        grid = query.unflatten(2, (self.rows, self.columns))
        by_row = torch.matmul(grid, self.table_h).flatten(2, 3)
        by_column = torch.matmul(grid.transpose(2, 3), self.table_w).transpose(2, 3).flatten(2, 3)
        wide_query = torch.cat([scaled, by_row, by_column], dim=-1)
        wide_key = torch.cat([key, self.place.expand(key.shape[0], key.shape[1], -1, -1)], dim=-1)
        if torch.jit.is_tracing():  # OpenVINO's attention takes values of another width
            return F.scaled_dot_product_attention(wide_query, wide_key, value, scale=1.0)
        wide_value = F.pad(value, (0, self.rows + self.columns))  # torch's falls back to a slow one where widths differ
        return F.scaled_dot_product_attention(wide_query, wide_key, wide_value, scale=1.0)[..., : value.shape[-1]]


def _places(rows: int, columns: int) -> torch.Tensor:
    """One-hot row and column of each token: ``(1, 1, rows * columns, rows + columns)``."""
    row = torch.arange(rows).repeat_interleave(columns)
    column = torch.arange(columns).repeat(rows)
    return torch.cat([F.one_hot(row, rows), F.one_hot(column, columns)], dim=-1).float()[None, None]
