"""Reads a network in ncnn's two files: ``.param``, its layers as text, and ``.bin``, their weights.

Only what feed-forward convolutional networks need is known; anything else is an error and never skipped. The formats
are those of ncnn's wiki ("param and model file structure", "operation param weight table").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from manylens.errors import WeightsError

_MAGIC = "7767517"
_HALF = 0x01306B47
"""Tag before weights that are kept as float16; 0 stands before float32."""
_ARRAY = -23300
"""An id ``-23300 - n`` is parameter ``n`` as an array: its length, then its numbers."""
_KNOWN = frozenset("Input Split Convolution PReLU PixelShuffle Interp BinaryOp Concat Eltwise".split())  # noqa: SIM905


@dataclass(frozen=True)
class Layer:
    """A layer of a network.

    Attributes:
        kind: ncnn's name for it.
        name: Its own name.
        inputs: The blobs that it takes.
        outputs: The blobs that it gives.
        numbers: Its parameters by ncnn's id; arrays are tuples.
        weights: ``kernel`` float32 ``(out, in, k, k)`` and ``bias`` ``(out,)`` of a convolution, ``slope`` ``(C,)`` of
            a PReLU.
    """

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    numbers: Mapping[int, float | tuple[float, ...]]
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)

    def number(self, id: int, default: float = 0) -> float:
        """A parameter that is one number."""
        value = self.numbers.get(id, default)
        return value[0] if isinstance(value, tuple) else value

    def several(self, id: int) -> tuple[float, ...]:
        """A parameter that is an array; empty where it is not given."""
        value = self.numbers.get(id, ())
        return value if isinstance(value, tuple) else (value,)

    @property
    def leak(self) -> float | None:
        """Slope below zero of the leaky ReLU that is part of a convolution; None without one."""
        return self.several(10)[0] if self.number(9) == 2 else None


def read(param: Path, weights: Path) -> list[Layer]:
    """The layers in order, with their weights as float32.

    Raises:
        WeightsError: A file is not ncnn's, holds a layer that is not known here, or they do not belong together.
    """
    blob = np.frombuffer(weights.read_bytes(), np.uint8)
    place, made = 0, []
    for layer in _layers(param):
        place, found = _weights(layer, blob, place, weights.name)
        made.append(Layer(layer.kind, layer.name, layer.inputs, layer.outputs, layer.numbers, found))
    if place != blob.size:
        raise WeightsError(f"{weights.name}: holds {blob.size - place} bytes too many", "pull the model again")
    return made


def _layers(path: Path) -> list[Layer]:
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    rows = [line.split() for line in lines if line.strip()]
    try:
        if rows[0] != [_MAGIC] or int(rows[1][0]) != len(rows) - 2:
            raise ValueError("its head is not ncnn's")
        return [_layer(row) for row in rows[2:]]
    except (ValueError, IndexError) as error:
        raise WeightsError(f"{path.name}: not a network of ncnn ({error})", "pull the model again") from error


def _layer(row: Sequence[str]) -> Layer:
    kind, name, takes, gives = row[0], row[1], int(row[2]), int(row[3])
    if kind not in _KNOWN:
        raise ValueError(f"a layer {kind} is not known here")
    blobs = row[4 : 4 + takes + gives]
    numbers: dict[int, float | tuple[float, ...]] = {}
    for text in row[4 + takes + gives :]:
        key, _, value = text.partition("=")
        if int(key) <= _ARRAY:
            length, *values = value.split(",")
            if int(length) != len(values):
                raise ValueError(f"an array of {name} is cut short")
            numbers[_ARRAY - int(key)] = tuple(map(float, values))
        else:
            numbers[int(key)] = float(value)
    layer = Layer(kind, name, tuple(blobs[:takes]), tuple(blobs[takes:]), numbers)
    if kind == "Convolution" and layer.number(9) not in (0, 2):
        raise ValueError(f"the activation of {name} is not known here")
    return layer


def _weights(layer: Layer, blob: np.ndarray, place: int, name: str) -> tuple[int, dict[str, np.ndarray]]:
    """The weights of a layer that begin at ``place``, and where the next layer's begin."""

    def take(count: int, dtype: str) -> np.ndarray:
        nonlocal place
        size = count * np.dtype(dtype).itemsize
        if place + size > blob.size:
            raise WeightsError(f"{name}: ends in the middle of {layer.name}", "pull the model again")
        values = blob[place : place + size].view(dtype)
        place += -(-size // 4) * 4  # what is shorter than four bytes is filled up
        return values

    if layer.kind == "PReLU":
        slope = take(int(layer.number(0)), "<f4").astype(np.float32)
        return place, {"slope": slope}
    if layer.kind != "Convolution":
        return place, {}
    out, side, count = int(layer.number(0)), int(layer.number(1)), int(layer.number(6))
    tag = int(take(1, "<u4")[0])
    if tag not in (0, _HALF):
        raise WeightsError(f"{name}: weights of {layer.name} are kept in a form that is not read", "pull it again")
    kernel = take(count, "<f2" if tag else "<f4").astype(np.float32).reshape(out, -1, side, side)
    bias = take(out, "<f4").astype(np.float32) if layer.number(5) else np.zeros(out, np.float32)
    return place, {"kernel": kernel, "bias": bias}
