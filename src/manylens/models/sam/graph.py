"""SAM's image encoder as an OpenVINO graph.

The network is that of ``SamVisionEncoder`` in transformers (ViTDet: windowed attention with decomposed relative
positions), built from its weights so that each step has the form that runs fastest on a processor:

- a window's padding is cut in after the queries, keys and values are made, and cut out before the projection, so that
  no padded token is multiplied by a weight;
- global attention goes a few rows of queries at a time, so that the scores stay near the processor, and the full
  ``tokens x tokens`` table is never in memory;
- tokens stand in one row, and a patch is a row of a matrix product: the engine then keeps one order of axes;
- the scale is folded into the weights of the queries, the normalisation of the colours into the first product.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.models.sam.spec import Vision

if TYPE_CHECKING:
    import openvino as ov

_CHUNKS = 4
"""Parts that the queries of global attention are cut into."""


def build(vision: Vision, weights: Mapping[str, np.ndarray]) -> ov.Model:
    """The encoder.

    Args:
        vision: What it is like.
        weights: float32 arrays by the names of ``SamVisionEncoder``.

    Returns:
        A model from ``picture`` uint8 ``(1, S, S, 3)`` and ``inner`` int64 ``(1, 2)``, the height and width of the part
        that is not padding, to float32 ``(1, S / patch, S / patch, C)``.
    """
    return _Builder(vision, weights).model()


class _Builder:
    def __init__(self, vision: Vision, weights: Mapping[str, np.ndarray]) -> None:
        from openvino import opset13

        self.op, self.v, self.w = opset13, vision, weights

    def model(self) -> ov.Model:
        import openvino as ov

        op, v, w = self.op, self.v, self.w
        picture = op.parameter([1, v.side, v.side, 3], np.uint8, name="picture")
        inner = op.parameter([1, 2], np.int64, name="inner")
        # True, but not so that the engine could know: with a constant table its products would be in float32.
        given = op.reduce_logical_or(op.greater_equal(inner, np.int64(0)), np.array([0, 1]), False)
        self.one = op.convert(given, "f32")
        x = op.add(self.patches(picture, inner), w["patch_embed.projection.bias"])
        if "pos_embed" in w:
            x = op.add(x, w["pos_embed"].reshape(1, v.grid**2, v.width))
        for number in range(v.depth):
            x = self.block(number, x)
        found = self.neck(x)
        found.output(0).get_tensor().set_names({"embedding"})
        return ov.Model([found], [picture, inner], "sam-encoder")

    def patches(self, picture: Any, inner: Any) -> Any:
        """Colours less the mean, padding at zero, in patches: ``(1, G * G, D)``.

        Tokens stand in one row: those of two axes the engine would take for a picture, and put its channels elsewhere.
        """
        op, v = self.op, self.v
        inside = self.inside(inner, 0, (1, v.side, 1, 1)), self.inside(inner, 1, (1, 1, v.side, 1))
        x = op.subtract(op.convert(picture, "f32"), np.array(v.mean, np.float32))
        x = op.multiply(op.multiply(x, inside[0]), inside[1])
        kernel = self.w["patch_embed.projection.weight"] / np.array(v.deviation, np.float32)[:, None, None]
        if (used := v.grid * v.patch) < v.side:  # what is left over belongs to no patch
            x = op.slice(x, np.array([0, 0]), np.array([used, used]), np.array([1, 1]), np.array([1, 2]))
        # A patch is a row, as its pixels come: the product takes less than a convolution and its layouts.
        x = op.transpose(self.reshape(x, [v.grid, v.patch, v.grid, v.patch * 3]), np.array([0, 2, 1, 3]))
        x = self.reshape(x, [1, v.grid**2, v.patch**2 * 3])
        return op.matmul(x, self.constant(kernel.transpose(0, 2, 3, 1).reshape(v.width, -1)), False, True)

    def inside(self, inner: Any, axis: int, shape: tuple[int, ...]) -> Any:
        """1 where a row (axis 0) or column (axis 1) is of the picture, 0 where it is padding."""
        op = self.op
        end = op.gather(inner, np.array([axis]), np.int64(1))
        return op.convert(op.less(self.constant(np.arange(self.v.side).reshape(shape)), end), "f32")

    def block(self, number: int, x: Any) -> Any:
        op, v, name = self.op, self.v, f"layers.{number}"
        window = 0 if number in v.wide else v.window
        y = self.norm(f"{name}.layer_norm1", x, v.epsilon)
        x = op.add(x, self.attention(f"{name}.attn", y, window))
        y = self.linear(f"{name}.mlp.lin1", self.norm(f"{name}.layer_norm2", x, v.epsilon))
        return op.add(x, self.linear(f"{name}.mlp.lin2", self.activated(y)))

    def activated(self, x: Any) -> Any:
        return self.op.relu(x) if self.v.activation == "relu" else self.op.gelu(x, "erf")

    def attention(self, name: str, x: Any, window: int) -> Any:
        """Attention within windows of a side, or over all where that is 0: ``(1, G * G, D)`` to the same."""
        op, v, w = self.op, self.v, self.w
        size = v.width // v.heads
        weight, bias = w[f"{name}.qkv.weight"], w.get(f"{name}.qkv.bias", np.zeros(3 * v.width, np.float32))
        scale = np.ones(3 * v.width, np.float32)
        scale[: v.width] = size**-0.5
        weight, bias = weight * scale[:, None], bias * scale
        x = op.add(op.matmul(x, self.constant(weight), False, True), bias)
        if window:
            padding = -v.grid % window
            cells = (v.grid + padding) // window
            x = self.padded(self.reshape(x, [1, v.grid, v.grid, 3 * v.width]), bias, padding)
            shape = [cells, window, cells, window, 3, v.heads, size]
            x = op.transpose(self.reshape(x, shape), np.array([4, 0, 2, 5, 1, 3, 6]))
            x, side, windows = self.reshape(x, [3, cells * cells, v.heads, window, window, size]), window, cells * cells
        else:
            x = op.transpose(self.reshape(x, [1, v.grid, v.grid, 3, v.heads, size]), np.array([3, 0, 4, 1, 2, 5]))
            side, windows = v.grid, 1
        query, key, value = (op.squeeze(part, np.array([0])) for part in op.split(x, np.int64(0), 3).outputs())
        x = self.attend(name, query, key, value, (windows, side, size))
        if window:
            x = op.transpose(
                self.reshape(x, [cells, cells, v.heads, window, window, size]), np.array([0, 3, 1, 4, 2, 5])
            )
            x = self.reshape(x, [1, v.grid + padding, v.grid + padding, v.width])
            if padding:
                ends = np.array([v.grid, v.grid])
                x = op.slice(x, np.array([0, 0]), ends, np.array([1, 1]), np.array([1, 2]))
        else:
            x = op.transpose(x, np.array([0, 2, 1, 3]))
        return self.linear(f"{name}.proj", self.reshape(x, [1, v.grid**2, v.width]))

    def padded(self, x: Any, bias: np.ndarray, padding: int) -> Any:
        """Tokens that are padding: what the layer gives for zeros."""
        op, v = self.op, self.v
        if not padding:
            return x
        right = np.broadcast_to(bias, (1, v.grid, padding, len(bias)))
        below = np.broadcast_to(bias, (1, padding, v.grid + padding, len(bias)))
        return op.concat([op.concat([x, self.constant(right)], 2), self.constant(below)], 1)

    def attend(self, name: str, query: Any, key: Any, value: Any, about: tuple[int, int, int]) -> Any:
        """``(W, heads, side, side, size)`` each, to ``(W, heads, side * side, size)``."""
        op, v = self.op, self.v
        windows, side, size = about
        keys, values = (self.reshape(x, [windows, v.heads, side * side, size]) for x in (key, value))
        rows = self.relative(f"{name}.rel_pos_h", query, side) if v.relative else None
        swapped = op.transpose(query, np.array([0, 1, 3, 2, 4]))
        columns = None
        if v.relative:
            columns = op.transpose(self.relative(f"{name}.rel_pos_w", swapped, side), np.array([0, 1, 3, 2, 4]))
        chunks = _CHUNKS if windows == 1 and side % _CHUNKS == 0 else 1
        step, found = side // chunks, []
        for start in range(0, side, step):
            part = self.reshape(self.rows(query, start, step, chunks), [windows, v.heads, step * side, size])
            scores = op.matmul(part, keys, False, True)
            if rows is not None:
                scores = self.reshape(scores, [windows * v.heads, step, side, side, side])
                along = self.rows(rows, start, step, chunks), self.rows(columns, start, step, chunks)
                scores = op.add(scores, self.reshape(along[0], [windows * v.heads, step, side, side, 1]))
                scores = op.add(scores, self.reshape(along[1], [windows * v.heads, step, side, 1, side]))
                scores = self.reshape(scores, [windows, v.heads, step * side, side * side])
            found.append(op.matmul(op.softmax(scores, -1), values, False, False))
        return op.concat(found, 2) if len(found) > 1 else found[0]

    def rows(self, x: Any, start: int, step: int, chunks: int) -> Any:
        """Some rows of ``(W, heads, side, side, ...)``."""
        one, axis = np.array([1]), np.array([2])
        return x if chunks == 1 else self.op.slice(x, np.array([start]), np.array([start + step]), one, axis)

    def relative(self, name: str, query: Any, side: int) -> Any:
        """Each query by the relative positions along its first axis: ``(W, heads, side, side, side)``."""
        away = np.arange(side)[:, None] - np.arange(side)[None, :] + side - 1
        table = self.w[name][away].transpose(0, 2, 1)[None, None]
        table = self.constant(table / np.float32(table.shape[3] ** -0.5))  # the queries are scaled already
        return self.op.matmul(query, self.op.multiply(table, self.one), False, False)

    def neck(self, x: Any) -> Any:
        op = self.op
        first, second = self.w["neck.conv1.weight"], self.w["neck.conv2.weight"]
        x = self.norm("neck.layer_norm1", op.matmul(x, self.constant(first[:, :, 0, 0]), False, True), 1e-6)
        x = op.transpose(self.reshape(x, [1, self.v.grid, self.v.grid, len(first)]), np.array([0, 3, 1, 2]))
        x = op.convolution(x, self.constant(second), [1, 1], [1, 1], [1, 1], [1, 1])
        return self.norm("neck.layer_norm2", op.transpose(x, np.array([0, 2, 3, 1])), 1e-6)

    def norm(self, name: str, x: Any, epsilon: float) -> Any:
        op = self.op
        flat = op.mvn(x, np.array([-1]), True, epsilon, "inside_sqrt")
        return op.add(op.multiply(flat, self.w[f"{name}.weight"]), self.w[f"{name}.bias"])

    def linear(self, name: str, x: Any) -> Any:
        op = self.op
        return op.add(op.matmul(x, self.constant(self.w[f"{name}.weight"]), False, True), self.w[f"{name}.bias"])

    def reshape(self, x: Any, shape: list[int]) -> Any:
        return self.op.reshape(x, np.array(shape), False)

    def constant(self, values: np.ndarray) -> Any:
        return self.op.constant(np.ascontiguousarray(values))
