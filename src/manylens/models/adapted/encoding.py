"""A frozen encoder on its engine: squares in, features out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.models import network
from manylens.models.network import Blueprint, Network

if TYPE_CHECKING:
    from manylens.models.adapted.backbone import Backbone
    from manylens.runtime.engines import EngineSettings


def blueprint(
    name: str, module: Callable[[], Any], outputs: Sequence[str], side: int, free: bool = True, changes: int = 1
) -> Blueprint:
    """A network from squares, uint8 ``(N, side, side, 3)``, as a blueprint for either engine.

    Args:
        name: Of the network.
        module: Makes the torch module from pixels ``(N, 3, H, W)`` in 0..1 to a dict of tensors.
        outputs: Names of what it gives, in order.
        side: Of the squares.
        free: Whether any number of squares goes in.
        changes: See :class:`manylens.models.network.Blueprint`.
    """

    def wrapped() -> Any:
        import torch

        inner = module()

        class Squares(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = inner

            def forward(self, squares: torch.Tensor) -> tuple[torch.Tensor, ...]:
                dtype = next(self.inner.parameters()).dtype
                found = self.inner(squares.permute(0, 3, 1, 2).to(dtype) / 255)
                return tuple(found[name] for name in outputs)

        return Squares().eval()

    def example() -> Any:
        import torch

        return (torch.zeros((2, side, side, 3), dtype=torch.uint8),)

    shapes = {"squares": (-1 if free else 1, side, side, 3)}
    return Blueprint(name, wrapped, example, ("squares",), tuple(outputs), shapes, changes=changes)


class Encoding:
    """The features of a backbone, on the engine that is measured to be the fastest here.

    Args:
        backbone: In evaluation mode; its weights do not change while this is used.
        side: Of the squares.
        settings: Engine, precision, threads and device.
        weights: Hash of the backbone's weights.
    """

    batch = 16

    def __init__(self, backbone: Backbone, side: int, settings: EngineSettings, weights: str) -> None:
        self.needs = backbone.needs
        self.settings = settings
        name = f"backbone {' '.join(self.needs)} {side}"
        self._network: Network = network.build(blueprint(name, lambda: backbone, self.needs, side), settings, weights)

    def __call__(self, squares: np.ndarray) -> dict[str, np.ndarray]:
        """Features by name of uint8 ``(N, side, side, 3)``; float32."""
        return dict(zip(self.needs, self._network(squares), strict=True))

    def close(self) -> None:
        """Give the memory back."""
        self._network.close()
