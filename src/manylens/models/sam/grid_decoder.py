"""SAM's mask decoder as a grid of clicks asks it: early, and with what all clicks share made once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.models.network import Blueprint, Network
from manylens.models.promptable.decoder import Scene
from manylens.models.promptable.everything import Promising
from manylens.models.sam.decoder import EMBEDDING, Answers, SamDecoder

if TYPE_CHECKING:
    import torch
    from transformers import SamModel

SHARED, DECODER = "sam-grid-shared", "sam-grid-decoder"
"""Names of the networks."""
BATCH = 8
"""Clicks of one run: their picture tokens stay near the processor. Fixed, so that all shapes are known beforehand."""
_LOGITS = 4
"""Logits along a side of one of the picture's tokens."""
_POINTS = 2
"""Points of a prompt: a click and the padding after it."""
_ROUNDING = 1 / 128
"""Share by which half precision may round a quality; what passes for that alone is taken away by whoever asked."""
_ANY = -1e30
"""A quality that every mask is better than."""


class SamGridDecoder(SamDecoder):
    """A :class:`~manylens.models.sam.decoder.SamDecoder` that is an
    :class:`~manylens.models.promptable.everything.EarlyDecoder` as well.

    Args:
        side: As of :class:`~manylens.models.sam.decoder.SamDecoder`.
        low_res: The same.
        tables: The same.
        answers: The same.
        network: Gives a network of :func:`blueprint` by name, called on first use.
    """

    def __init__(
        self,
        side: int,
        low_res: int,
        tables: Mapping[str, np.ndarray],
        answers: Answers,
        network: Callable[[str], Network],
    ) -> None:
        super().__init__(side, low_res, tables, answers)
        self._network = network
        self._shared: tuple[np.ndarray, list[np.ndarray]] | None = None

    def promising(
        self, scene: Scene, points: np.ndarray, labels: np.ndarray, least: float, used: tuple[int, int] | None = None
    ) -> Promising:
        """See :class:`manylens.models.promptable.everything.EarlyDecoder`."""
        picture, tokens = self._picture(scene[EMBEDDING]), self.tokens(points, labels)
        spared = np.array([max(least - abs(least) * _ROUNDING, _ANY)], np.float32)
        cells = self._cells(used)
        parts = [self._batch(picture, tokens, start, spared, cells) for start in range(0, len(tokens), BATCH)]
        return Promising(*(np.concatenate(part) for part in zip(*parts, strict=True)))

    def forget(self) -> None:
        """Let go of what was kept of the last picture."""
        self._shared = None

    def _cells(self, used: tuple[int, int] | None) -> np.ndarray:
        """Numbers int64 ``(h, w)`` of the picture's tokens that hold so many columns and rows of logits."""
        grid = self.low_res // _LOGITS
        wide, high = (grid, grid) if used is None else (min(-(-one // _LOGITS), grid) for one in used)
        return np.arange(grid * grid).reshape(grid, grid)[:high, :wide]

    def _batch(
        self, picture: list[np.ndarray], tokens: np.ndarray, start: int, least: np.ndarray, cells: np.ndarray
    ) -> Promising:
        some = tokens[start : start + BATCH]
        filled = np.concatenate([some, np.repeat(some[:1], BATCH - len(some), axis=0)])
        rows, low_res, iou = self._network(DECODER)(*picture, filled, least, cells)
        own = rows < len(some)
        if not own.all():
            rows, low_res, iou = rows[own], low_res[own], iou[own]
        return Promising(rows.astype(np.intp) + start, low_res, iou)

    def _picture(self, embedding: np.ndarray) -> list[np.ndarray]:
        """What all clicks on a picture share, kept for the picture that was asked last."""
        kept = self._shared
        if kept is None or kept[0] is not embedding:
            kept = self._shared = embedding, self._network(SHARED)(embedding)
        return kept[1]


def blueprint(name: str, grid: int, channels: int, load: Callable[[], SamModel]) -> Blueprint:
    """A network of :class:`SamGridDecoder`.

    Args:
        name: ``SHARED`` or ``DECODER``.
        grid: Picture tokens along each side.
        channels: Of the embedding.
        load: Gives the checkpoint's module.
    """
    tables = ("bases", "keys", "values", "queries")
    if name == SHARED:

        def shared() -> torch.nn.Module:
            from manylens.models.sam.grid_module import Shared

            return Shared(load())

        def embedding() -> list[torch.Tensor]:
            import torch

            return [torch.zeros(1, grid, grid, channels)]

        return Blueprint(name, shared, embedding, (EMBEDDING,), tables, changes=2)

    def decoder() -> torch.nn.Module:
        from manylens.models.sam.grid_module import GridDecoder

        return GridDecoder(load(), _tokens(load()))

    def example() -> list[torch.Tensor]:
        import torch

        part: Any = load().mask_decoder.transformer.layers[0].cross_attn_token_to_image
        widths = (channels, part.internal_dim, part.internal_dim, part.internal_dim)
        told = [torch.zeros(grid**2, width) for width in widths]
        cells = torch.arange(grid**2).reshape(grid, grid)
        return [*told, torch.zeros(BATCH, _tokens(load()), channels), torch.full((1,), _ANY), cells]

    inputs, outputs = (*tables, "tokens", "least", "cells"), ("rows", "low_res", "iou")
    return Blueprint(name, decoder, example, inputs, outputs, shapes={"cells": (-1, -1)}, changes=2)


def _tokens(sam: SamModel) -> int:
    """Tokens of a click: the quality's, the masks', its own and the padding's."""
    return 1 + int(sam.mask_decoder.num_mask_tokens) + _POINTS
