"""The encoder of a model as features by name, whatever its family: what heads are put on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from manylens.errors import UnsupportedError
from manylens.models.base import Trainable

BLOCK = "block."
"""Features ``block.N`` are the map after the encoder's block N, from 0."""


class Backbone(nn.Module):
    """Pixels to features.

    Args:
        trainable: The model, opened. Its module becomes a part of this one: ``encoder`` in its parameters' names.
        needs: Features that are wanted: ``vector`` ``(B, D)``; ``mean``, the mean of the last map, ``(B, D)``;
            ``dense``, the last map, ``(B, h, w, D)``; ``block.N``, the map after block N (or, counted from the end,
            ``block.-1``), ``(B, h, w, D)``.

    Raises:
        UnsupportedError: The model cannot give one of them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, trainable: Trainable, needs: Iterable[str] = ("vector",)) -> None:
        super().__init__()
        self.encoder = trainable.module
        self.needs = tuple(dict.fromkeys(needs))
        self._opened: Any = (trainable,)  # in a tuple, so that torch does not look for modules in it
        if not trainable.mean:
            raise UnsupportedError(
                "this model prepares pictures in a way of its own, so that no head can be put on it",
                "name another, such as manylens/vit-s",
            )
        self.register_buffer("mean", torch.tensor(trainable.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(trainable.std).view(1, 3, 1, 1), persistent=False)
        self._blocks = {name: self._block(name) for name in self.needs if name.startswith(BLOCK)}
        self.widths = self._measured()

    @property
    def trainable(self) -> Trainable:
        """The model that it was made of."""
        return self._opened[0]

    @property
    def patch(self) -> int:
        """What the sides of pictures must be multiples of."""
        return self.trainable.patch or 1

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Features of float32 pixels ``(B, 3, H, W)`` in 0..1."""
        kept: dict[str, Tensor] = {}
        hooks = [
            self.trainable.blocks[number].register_forward_hook(_keeping(kept, name))
            for name, number in self._blocks.items()
        ]
        try:
            found = self.trainable.forward((pixels - self.mean) / self.std)
        finally:
            for hook in hooks:
                hook.remove()
        sides = (pixels.shape[-2], pixels.shape[-1])
        made: dict[str, Tensor] = {}
        for name in self.needs:
            if name in kept:
                made[name] = self._map(kept[name], sides)
            elif name == "mean":
                made[name] = found["dense"].mean(dim=(1, 2))
            elif name in found:
                made[name] = found[name]
            else:
                raise UnsupportedError(f"the model gives no {name!r}", f"it gives {', '.join(found)}")
        return made

    def _map(self, output: Tensor, sides: tuple[int, int]) -> Tensor:
        """A block's output as ``(B, h, w, D)``."""
        if output.ndim == 4:
            return output.permute(0, 2, 3, 1)
        patch = self.trainable.patch
        return output[:, self.trainable.prefix :].unflatten(1, (sides[0] // patch, sides[1] // patch))

    def _block(self, name: str) -> int:
        blocks = len(self.trainable.blocks)
        number = int(name.removeprefix(BLOCK))
        if not -blocks <= number < blocks:
            raise UnsupportedError(f"{name}: the model has {blocks} blocks", f"name one of 0 to {blocks - 1}")
        return number % blocks

    def _measured(self) -> Mapping[str, int]:
        """The width of each feature, by one small picture."""
        side = max(self.patch * 2, 32) // self.patch * self.patch
        was = self.training
        self.eval()
        with torch.no_grad():
            found = self(torch.zeros(1, 3, side, side, device=self.mean.device))
        self.train(was)
        return {name: one.shape[-1] for name, one in found.items()}


def _keeping(kept: dict[str, Tensor], name: str) -> Any:
    def keep(module: nn.Module, given: Any, made: Any) -> None:
        kept[name] = made[0] if isinstance(made, tuple) else made

    return keep
