"""The tokens' half of SAM's mask decoder, in NumPy: a handful of tokens a prompt, and 4 million weights.

A network of an engine pays for each of its layers when it is loaded, however little they multiply, and these are three
quarters of the decoder's layers for a hundredth of its work: a first click in a new process would wait for them. The
picture's half is in :mod:`manylens.models.sam.picture_graphs`, and :mod:`manylens.models.sam.module` is both halves as
one torch module. The tokens stay in float32 whatever the precision of the picture's half.

Attention between the two halves is arranged so that no projection multiplies all of the picture's tokens: the
projection of the keys is folded into the queries, and that of the values is done on what was gathered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

_PRODUCT = 1 << 18
"""Multiplications of one matrix product: one of this size is not shared out among threads, which would go on waiting
for the next while the engine's own threads want the cores."""


class Spread(NamedTuple):
    """What the picture's tokens need of a prompt's tokens to attend to them, by head and token.

    Attributes:
        asked: ``(B, heads * N, C)``: the product with a placed picture token, and
        offset: ``(B, heads * N, 1)`` added to it, is the score.
        told: ``(B, heads * N, C)``, what is added to a picture token by its share. The shares of a head sum to one, so
            that what is added to all picture tokens is in it.
        finish: ``(2, C)``: scale and offset of the norm that follows.
    """

    asked: np.ndarray
    offset: np.ndarray
    told: np.ndarray
    finish: np.ndarray


class TokenSide:
    """Steps of ``SamMaskDecoder`` on the prompts' tokens, float32 ``(B, N, C)``.

    Args:
        weights: As :func:`manylens.models.sam.module.token_weights` gives them.
    """

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        self._weights = weights
        self.heads, self.layers, self.masks = (int(weights[name]) for name in ("heads", "layers", "masks"))

    def consider(self, layer: int, queries: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """The tokens attend to each other."""
        name = f"transformer.layers.{layer}"
        if layer == 0:
            queries = self._attention(f"{name}.self_attn", queries, queries)
        else:
            queries = queries + self._attention(f"{name}.self_attn", queries + tokens, queries)
        return self._norm(f"{name}.layer_norm1", queries)

    def asked(self, layer: int, queries: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """``(B, heads * N, C)``, whose product with a placed picture token is the score of attention to it.

        The bias of the keys adds the same to all scores of a query and falls out. The layer after the last is the last
        attention.
        """
        name = self._gathering(layer)
        query = self._heads(self._linear(f"{name}.q_proj", queries + tokens))
        folded = query * np.float32(query.shape[-1] ** -0.5) @ self._by_head(f"{name}.k_proj.weight")
        return folded.reshape(len(folded), -1, folded.shape[-1])

    def learnt(self, layer: int, queries: np.ndarray, gathered: np.ndarray) -> np.ndarray:
        """What was gathered ``(B, heads * N, C)`` from the picture is taken in, and thought about."""
        name = self._gathering(layer)
        values = gathered.reshape(len(gathered), self.heads, -1, gathered.shape[-1])
        found = (values @ self._by_head(f"{name}.v_proj.weight").swapaxes(1, 2)).swapaxes(1, 2)
        found = found.reshape(*queries.shape[:2], -1) + self._weights[f"{name}.v_proj.bias"]
        queries = queries + self._linear(f"{name}.out_proj", found)
        if layer == self.layers:
            return self._norm("transformer.layer_norm_final_attn", queries)
        name = f"transformer.layers.{layer}"
        queries = self._norm(f"{name}.layer_norm2", queries)
        hidden = np.maximum(self._linear(f"{name}.mlp.lin1", queries), 0)
        return self._norm(f"{name}.layer_norm3", queries + self._linear(f"{name}.mlp.lin2", hidden))

    def spread(self, layer: int, queries: np.ndarray, tokens: np.ndarray) -> Spread:
        """What the picture's tokens attend to, their own projections folded in."""
        name = f"transformer.layers.{layer}"
        part = f"{name}.cross_attn_image_to_token"
        key = self._heads(self._linear(f"{part}.k_proj", queries + tokens))
        key *= np.float32(key.shape[-1] ** -0.5)
        value = self._heads(self._linear(f"{part}.v_proj", queries))
        asked = key @ self._by_head(f"{part}.q_proj.weight")
        offset = key @ self._weights[f"{part}.q_proj.bias"].reshape(self.heads, -1, 1)
        told = value @ self._weights[f"{part}.out_proj.weight"].T.reshape(self.heads, value.shape[-1], -1)
        told += self._weights[f"{part}.out_proj.bias"] / np.float32(self.heads)
        rows, width = len(queries), queries.shape[-1]
        finish = [f"{name}.layer_norm4.weight", f"{name}.layer_norm4.bias"]
        return Spread(
            asked.reshape(rows, -1, width),
            offset.reshape(rows, -1, 1),
            told.reshape(rows, -1, width),
            np.stack([self._weights[one] for one in finish]),
        )

    def answers(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What each mask is drawn by, ``(B, M, C / 8)``, and the masks' predicted IoU ``(B, M)``."""
        drawn = [self._mlp(f"output_hypernetworks_mlps.{i}", queries[:, 1 + i]) for i in range(self.masks)]
        return np.stack(drawn, axis=1), self._mlp("iou_prediction_head", queries[:, 0])

    def _gathering(self, layer: int) -> str:
        if layer == self.layers:
            return "transformer.final_attn_token_to_image"
        return f"transformer.layers.{layer}.cross_attn_token_to_image"

    def _attention(self, name: str, asking: np.ndarray, told: np.ndarray) -> np.ndarray:
        query, key, value = (
            self._heads(self._linear(f"{name}.{part}_proj", x))
            for part, x in (("q", asking), ("k", asking), ("v", told))
        )
        scores = query * np.float32(query.shape[-1] ** -0.5) @ key.swapaxes(-1, -2)
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        return self._linear(f"{name}.out_proj", (shares @ value).swapaxes(1, 2).reshape(*asking.shape[:2], -1))

    def _mlp(self, name: str, x: np.ndarray) -> np.ndarray:
        x = np.maximum(self._linear(f"{name}.proj_in", x), 0)
        number = 0
        while f"{name}.layers.{number}.weight" in self._weights:
            x = np.maximum(self._linear(f"{name}.layers.{number}", x), 0)
            number += 1
        return self._linear(f"{name}.proj_out", x)

    def _heads(self, x: np.ndarray) -> np.ndarray:
        """``(B, N, D)`` to ``(B, heads, N, D / heads)``."""
        return x.reshape(*x.shape[:2], self.heads, -1).swapaxes(1, 2)

    def _by_head(self, name: str) -> np.ndarray:
        """A projection's weight ``(D, C)`` as ``(heads, D / heads, C)``."""
        weight = self._weights[name]
        return weight.reshape(self.heads, -1, weight.shape[-1])

    def _linear(self, name: str, x: np.ndarray) -> np.ndarray:
        weight, rows = self._weights[f"{name}.weight"], x.reshape(-1, x.shape[-1])
        found = np.empty((len(rows), len(weight)), np.float32)
        step = max(1, _PRODUCT // (rows.size or 1))
        for start in range(0, len(weight), step):
            np.matmul(rows, weight[start : start + step].T, out=found[:, start : start + step])
        found += self._weights[f"{name}.bias"]
        return found.reshape(*x.shape[:-1], -1)

    def _norm(self, name: str, x: np.ndarray) -> np.ndarray:
        x = x - x.mean(axis=-1, keepdims=True)
        x /= np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + self._weights[f"{name}.eps"])
        return x * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]
