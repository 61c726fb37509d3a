"""What the tests of dense heads share: random features, and a head as a network of tensors by position."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from manylens.models.network import Blueprint, traced

WIDTHS = {"dense": 24, "block.1": 16, "block.3": 16, "block.5": 16, "block.7": 16}
SIZE = (70, 98)


def features(names: Sequence[str], grid: tuple[int, int] = (5, 7), batch: int = 2, seed: int = 0, dtype=torch.float32):
    """Random maps ``(B, h, w, D)`` by name."""
    torch.manual_seed(seed)
    return {name: torch.randn(batch, *grid, WIDTHS[name]).to(dtype) for name in names}


class ByPosition(torch.nn.Module):
    """A head that takes its features by position and gives a tuple."""

    def __init__(self, head: torch.nn.Module, outputs: Sequence[str], size: tuple[int, int] = SIZE) -> None:
        super().__init__()
        self.head, self.outputs, self.size = head, outputs, size

    def forward(self, *maps: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = self.head(dict(zip(self.head.needs, maps, strict=True)), self.size)
        return tuple(found[name] for name in self.outputs)


def roused(head: torch.nn.Module, seed: int = 1) -> torch.nn.Module:
    """The head with weights and statistics that are not those of the start, where many answers are alike."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for one in head.parameters():
            one.add_(torch.randn_like(one) * 0.1)
        for name, one in head.named_buffers():
            if name.endswith("running_mean"):
                one.add_(torch.randn_like(one))
            if name.endswith("running_var"):
                one.mul_(2.0)
    return head.eval()


def by_tracing(head: torch.nn.Module, outputs: Sequence[str], given: Mapping[str, torch.Tensor]) -> list[np.ndarray]:
    """What torch's tracer makes of a head, run on other features than it was traced with."""
    other = {name: torch.randn_like(one) for name, one in given.items()}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        network = torch.jit.trace(ByPosition(head, outputs), tuple(other[name] for name in head.needs))
        return [one.numpy() for one in network(*(given[name] for name in head.needs))]


def by_openvino(head: torch.nn.Module, outputs: Sequence[str], given: Mapping[str, torch.Tensor]) -> list[np.ndarray]:
    """What OpenVINO makes of it, any number of pictures at a time, in full precision."""
    import openvino as ov

    names = list(head.needs)
    maps = [given[name] for name in names]
    drawing = Blueprint(
        "head",
        lambda: ByPosition(head, outputs),
        lambda: [torch.randn_like(one)[:1].repeat(3, 1, 1, 1) for one in maps],
        tuple(names),
        tuple(outputs),
        {name: (-1, *one.shape[1:]) for name, one in zip(names, maps, strict=True)},
    )
    compiled = ov.Core().compile_model(traced(drawing), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled([one.numpy() for one in maps])
    return [found[name] for name in outputs]


def eager(head: torch.nn.Module, outputs: Sequence[str], given: Mapping[str, torch.Tensor]) -> list[np.ndarray]:
    with torch.no_grad():
        found = head(given, SIZE)
    return [found[name].numpy() for name in outputs]
