"""The same layers as a torch module and as an OpenVINO graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.models.realesrgan.ncnn import Layer

if TYPE_CHECKING:
    import openvino
    import torch


def torch_module(layers: Sequence[Layer]) -> torch.nn.Module:
    """A module: ``(B, 3, H, W)`` in 0..1 to ``(B, 3, 4H, 4W)``, not clipped."""
    import torch
    from torch.nn import functional as F

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for number, layer in enumerate(layers):
                for name, values in layer.weights.items():
                    self.register_parameter(f"{name}{number}", torch.nn.Parameter(torch.from_numpy(values.copy())))

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            blobs: dict[str, torch.Tensor] = {}
            left = _uses(layers)
            for number, layer in enumerate(layers):
                given = [_taken(blobs, left, name) for name in layer.inputs]
                made = pixels if layer.kind == "Input" else self._made(number, layer, given)
                blobs.update(dict.fromkeys(layer.outputs, made))
            return blobs[layers[-1].outputs[0]]

        def _made(self, number: int, layer: Layer, given: list[torch.Tensor]) -> torch.Tensor:
            match layer.kind:
                case "Convolution":
                    kernel, bias = self.get_parameter(f"kernel{number}"), self.get_parameter(f"bias{number}")
                    made = F.conv2d(given[0], kernel, bias, padding=int(layer.number(4)))
                    return made if layer.leak is None else F.leaky_relu(made, layer.leak)
                case "PReLU":
                    return F.prelu(given[0], self.get_parameter(f"slope{number}"))
                case "PixelShuffle":
                    return F.pixel_shuffle(given[0], int(layer.number(0)))
                case "Interp":
                    return F.interpolate(given[0], scale_factor=layer.number(1), mode="nearest")
                case "Concat":
                    return torch.cat(given, dim=1)
                case "Eltwise" | "BinaryOp":
                    return sum((w * x if w != 1 else x for w, x in zip(_shares(layer), given, strict=True)), start=0)  # type: ignore[return-value]
            return given[0]  # a split

    return Network()


def openvino_graph(layers: Sequence[Layer]) -> openvino.Model:
    """A graph of free height and width: ``(1, 3, H, W)`` in 0..1 to ``(1, 3, 4H, 4W)``, not clipped."""
    import openvino as ov
    from openvino import opset13 as op

    image = op.parameter([1, 3, -1, -1], np.float32, name="image")

    def made(layer: Layer, given: list[Any]) -> Any:
        match layer.kind:
            case "Convolution":
                pad = [int(layer.number(4))] * 2
                found = op.convolution(given[0], op.constant(layer.weights["kernel"]), [1, 1], pad, pad, [1, 1])
                found = op.add(found, op.constant(layer.weights["bias"].reshape(1, -1, 1, 1)))
                return found if layer.leak is None else op.prelu(found, op.constant(np.float32(layer.leak)))
            case "PReLU":
                return op.prelu(given[0], op.constant(layer.weights["slope"]))
            case "PixelShuffle":
                return op.depth_to_space(given[0], "depth_first", int(layer.number(0)))
            case "Interp":
                return op.interpolate(
                    given[0],
                    op.constant(np.full(2, layer.number(1), np.float32)),
                    "nearest",
                    "scales",
                    coordinate_transformation_mode="asymmetric",
                    nearest_mode="floor",
                    axes=op.constant([2, 3], np.int32),
                )
            case "Concat":
                return op.concat(given, axis=1)
            case "Eltwise" | "BinaryOp":
                terms = [
                    x if w == 1 else op.multiply(x, op.constant(np.float32(w)))
                    for w, x in zip(_shares(layer), given, strict=True)
                ]
                return op.add(*terms)
        return given[0]

    blobs: dict[str, Any] = {}
    for layer in layers:
        found = image if layer.kind == "Input" else made(layer, [blobs[name] for name in layer.inputs])
        blobs.update(dict.fromkeys(layer.outputs, found))
    return ov.Model([blobs[layers[-1].outputs[0]]], [image], "realesrgan")


def _shares(layer: Layer) -> Sequence[float]:
    """What each input of a sum counts."""
    return layer.several(1) if layer.kind == "Eltwise" and layer.several(1) else [1.0] * len(layer.inputs)


def _uses(layers: Sequence[Layer]) -> dict[str, int]:
    """How many layers take each blob."""
    counts: dict[str, int] = {}
    for layer in layers:
        for name in layer.inputs:
            counts[name] = counts.get(name, 0) + 1
    return counts


def _taken(blobs: Mapping[str, Any], left: dict[str, int], name: str) -> Any:
    """A blob; it is let go after its last use, so that memory does not grow with depth."""
    left[name] -= 1
    return blobs[name] if left[name] else blobs.pop(name)  # type: ignore[attr-defined]
