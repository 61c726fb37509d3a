"""A frozen TensorFlow graph read into OpenVINO, the wanted part only.

OpenVINO's own front end converts the whole SSD graph in about four seconds; the part that matters is convolutions and
constants, which take a tenth of a second to read here. The file's wire format is walked with a few lines, so neither
TensorFlow nor its protobuf classes are needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.errors import WeightsError
from manylens.models.wire import fields, mapped, varint

if TYPE_CHECKING:
    import openvino as ov

_DTYPES = {1: np.float32, 3: np.int32, 9: np.int64}


@dataclass(frozen=True)
class Node:
    """One operation of the graph."""

    op: str
    inputs: tuple[str, ...]
    attributes: Mapping[str, memoryview]

    def text(self, name: str) -> str:
        """A string attribute."""
        return next(bytes(v).decode() for f, v in fields(self.attributes[name]) if f == 2)

    def ints(self, name: str) -> list[int]:
        """A list of integers, as strides are kept."""
        found: list[int] = []
        for number, value in fields(next(v for f, v in fields(self.attributes[name]) if f == 1)):
            if number == 3 and isinstance(value, int):
                found.append(value)
            elif number == 3:
                at = 0
                while at < len(value):
                    item, at = varint(value, at)
                    found.append(item)
        return found

    def tensor(self) -> np.ndarray:
        """The value of a constant."""
        kind: np.dtype[Any] = np.dtype(np.float32)
        shape, content, plain = [], memoryview(b""), []
        for number, value in fields(next(v for f, v in fields(self.attributes["value"]) if f == 8)):
            if number == 1:
                kind = np.dtype(_DTYPES[value])
            elif number == 2:
                shape = [dict(fields(dim)).get(1, 0) for f, dim in fields(value) if f == 2]
            elif number == 4:
                content = value
            elif number in (5, 7, 10):
                plain.append(value)
        if len(content):
            return np.frombuffer(content, kind).reshape(shape)
        flat = [np.frombuffer(v, kind) if isinstance(v, memoryview) else np.array([v], kind) for v in plain]
        return np.broadcast_to(np.concatenate(flat), shape) if shape else np.concatenate(flat).reshape(())


def read_nodes(path: Path) -> dict[str, Node]:
    """The nodes of a frozen graph by name.

    Raises:
        WeightsError: If the file is no frozen graph.
    """
    try:
        nodes = dict(_node(value) for number, value in fields(mapped(path)) if number == 1)
    except (ValueError, IndexError, KeyError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path.name}: not a frozen TensorFlow graph", "pull the model again") from error
    if not nodes:
        raise WeightsError(f"{path.name}: holds no graph", "pull the model again")
    return nodes


def _node(data: memoryview) -> tuple[str, Node]:
    name, op, inputs, attributes = "", "", [], {}
    for number, value in fields(data):
        if number == 1:
            name = bytes(value).decode()
        elif number == 2:
            op = bytes(value).decode()
        elif number == 3:
            inputs.append(bytes(value).decode().split(":")[0])
        elif number == 5:
            entry = dict(fields(value))
            attributes[bytes(entry[1]).decode()] = entry[2]
    return name, Node(op, tuple(inputs), attributes)


def build(path: Path, source: str, outputs: Sequence[str], size: int) -> ov.Model:
    """The part of a convolutional graph between ``source`` and ``outputs``.

    Args:
        path: The frozen graph.
        source: Name of the node whose value is the picture, normalised to -1..1; the model takes its place.
        outputs: Names of convolutional outputs.
        size: Side of the square input in pixels.

    Returns:
        A model from uint8 RGB ``(1, size, size, 3)`` to one float32 ``(1, h, w, C)`` for each output.

    Raises:
        WeightsError: If the file is no such graph.
    """
    import openvino as ov
    from openvino import opset13 as op

    image = op.parameter([1, size, size, 3], np.uint8, name="image")
    scaled = op.subtract(op.multiply(op.convert(image, "f32"), np.float32(2 / 255)), np.float32(1))
    builder = _Builder(read_nodes(path), path.name)
    builder.values[source] = op.transpose(scaled, np.array([0, 3, 1, 2]))
    results = []
    for name in outputs:
        result = op.result(op.transpose(builder.value(name), np.array([0, 2, 3, 1])))
        result.output(0).set_names({name})
        results.append(result)
    return ov.Model(results, [image], path.stem)


class _Builder:
    """Turns nodes into OpenVINO nodes (channels first) or, where nothing but constants goes in, into arrays."""

    def __init__(self, nodes: Mapping[str, Node], file: str) -> None:
        self.nodes = nodes
        self.file = file
        self.values: dict[str, Any] = {}

    def value(self, name: str) -> Any:
        """The value of a node; its inputs come first. The graph is deep, so no recursion."""
        stack = [name]
        while stack:
            top = stack[-1]
            if top in self.values:
                stack.pop()
                continue
            if top not in self.nodes:
                raise WeightsError(f"{self.file}: has no node {top!r}", "pull the model again")
            missing = [i for i in self.nodes[top].inputs if i not in self.values]
            if missing:
                stack += missing
                continue
            node = self.nodes[top]
            self.values[top] = self._make(node, [self.values[i] for i in node.inputs])
        return self.values[name]

    def _make(self, node: Node, inputs: list[Any]) -> Any:
        if node.op == "Const":
            return node.tensor()
        if node.op == "Identity":
            return inputs[0]
        if all(isinstance(value, np.ndarray) for value in inputs):
            return _fold(node.op, inputs)
        return _layer(node, inputs)


def _fold(kind: str, inputs: list[np.ndarray]) -> np.ndarray:
    if kind == "Rsqrt":
        return 1 / np.sqrt(inputs[0])
    return {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply}[kind](*inputs)


def _layer(node: Node, inputs: list[Any]) -> Any:
    from openvino import opset13 as op

    if node.op == "Relu6":
        return op.clamp(inputs[0], 0.0, 6.0)
    if node.op in ("Conv2D", "DepthwiseConv2dNative"):
        return _convolution(node, *inputs)
    make = {"Add": op.add, "BiasAdd": op.add, "Sub": op.subtract, "Mul": op.multiply}.get(node.op)
    if make is None:
        raise WeightsError(f"the graph has an operation {node.op!r} that is not read here", "pull the model again")
    # Vectors broadcast over channels, which stand first here.
    return make(*(_channels(value) if isinstance(value, np.ndarray) else value for value in inputs))


def _channels(value: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(value.reshape(1, -1, 1, 1) if value.ndim else value, np.float32)


def _convolution(node: Node, x: Any, kernel: np.ndarray) -> Any:
    from openvino import opset13 as op

    strides, zero = node.ints("strides")[1:3], [0, 0]
    padding = "same_upper" if node.text("padding") == "SAME" else "valid"
    if node.op == "Conv2D":
        return op.convolution(x, _contiguous(kernel.transpose(3, 2, 0, 1)), strides, zero, zero, [1, 1], padding)
    grouped = _contiguous(kernel.transpose(2, 3, 0, 1)[:, :, None])
    return op.group_convolution(x, grouped, strides, zero, zero, [1, 1], padding)


def _contiguous(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, np.float32)
