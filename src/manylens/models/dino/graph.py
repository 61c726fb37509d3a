"""The vision transformer as an OpenVINO graph, for every kind of checkpoint and any size of picture.

Built from the weights rather than traced: it compiles in a tenth of the time, keeps attention as one operation, and
gives the class token's attention without computing the rest of that map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.models.dino.plan import Plan
from manylens.models.dino.positions import antialiased, bicubic, rotations
from manylens.models.dino.weights import Vit

if TYPE_CHECKING:
    import openvino as ov

OUTPUTS = ("token", "patches", "attention")
"""Names of what the network gives; ``logits`` comes after them where it has a classifier."""


def outputs(plan: Plan) -> tuple[str, ...]:
    """Names of what the network of a plan gives, in order."""
    return (*OUTPUTS, "logits") if plan.head else OUTPUTS


def inputs(plan: Plan) -> tuple[str, ...]:
    """Names of what it takes, in order; :func:`places` makes all but the first."""
    return ("image", "rows", "columns") if plan.theta is None else ("image", "cosines", "sines")


def places(plan: Plan, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """What a graph has to know of a grid of patches, float32.

    Two matrices ``(rows, grid)`` and ``(columns, grid)`` that resize the table of positions; or, where positions are
    rotations, cosines and sines ``(rows * columns, D / heads)``.
    """
    if plan.theta is not None:
        return rotations(rows, columns, plan.width // plan.heads, plan.theta)
    resize = antialiased if plan.antialiased else bicubic
    return tuple(resize(plan.grid, new).astype(np.float32) for new in (rows, columns))  # type: ignore[return-value]


def build(vit: Vit, mean: Sequence[float], std: Sequence[float], scale: float = 1 / 255) -> ov.Model:
    """The network up to the last block that is read.

    Args:
        vit: The weights.
        mean: Of each channel, for pixels times ``scale``.
        std: Of each channel.
        scale: What pixels are multiplied with before the mean is taken off.

    Returns:
        A model from RGB ``(N, H, W, 3)``, uint8 or with fractions float32, and :func:`places` to float32: class tokens
        ``(N, D)``, patch tokens ``(N, cells, D)`` row by row, the class token's attention to the patches
        ``(N, heads, cells)`` in the block that gives the vector, and ``(N, labels)`` logits of a classifier.
    """
    import openvino as ov
    from openvino import opset13 as op

    plan, w = vit.plan, vit.arrays
    image = op.parameter([-1, -1, -1, 3], np.float32 if plan.fractions else np.uint8, name="image")
    where = [op.parameter([-1, plan.grid or plan.width // plan.heads], np.float32, name=n) for n in inputs(plan)[1:]]
    offset, factor = (np.asarray(v, np.float32) for v in (np.divide(mean, scale), np.divide(scale, std)))
    x = op.multiply(op.subtract(op.convert(image, "f32"), offset), factor)
    kernel = op.constant(np.ascontiguousarray(w["patches.weight"]))
    x = op.convolution(op.transpose(x, np.array([0, 3, 1, 2])), kernel, [plan.patch] * 2, [0, 0], [0, 0], [1, 1])
    x = op.transpose(op.reshape(x, np.array([0, plan.width, -1]), True), np.array([0, 2, 1]))
    x = op.add(x, w["patches.bias"])
    first = w["cls_token"].reshape(1, 1, -1)
    if plan.theta is None:
        table = w["position_embeddings"][0]
        first, x = first + table[:1], op.add(x, _resized(table[1:], plan, *where))
    count = op.gather(op.shape_of(x), np.array([0]), np.int64(0))
    first = np.concatenate([first, w["register_tokens"]], axis=1) if plan.registers else first
    shape = op.concat([count, op.constant(np.array(first.shape[1:]))], 0)
    x = op.concat([op.broadcast(op.constant(np.ascontiguousarray(first)), shape), x], 1)

    states, looks = [], []
    turns = where if plan.theta is not None else []
    for number in range(plan.taps.last + 1):
        x, look = _block(vit, f"blocks.{number}", x, turns)
        states.append(x)
        looks.append(look)
    vector, dense = states[plan.taps.vector], states[plan.taps.dense]
    if plan.taps.normed:
        vector = dense = _norm(vit, "norm", vector)
    token, patches = op.gather(vector, np.int64(0), np.int64(1)), _after(dense, plan.prefix, 1)
    found = [token, patches, _attention(*looks[plan.taps.vector], plan)]
    if plan.head:
        seen = token
        if plan.head == "both":
            seen = op.concat([token, op.reduce_mean(patches, np.array([1]), False)], 1)
        found.append(_linear(vit, "classifier", seen))
    model = ov.Model(found, [image, *where], "vit")
    for port, name in zip(model.outputs, outputs(plan), strict=True):
        port.get_tensor().set_names({name})
    return model


def _resized(table: np.ndarray, plan: Plan, rows: Any, columns: Any) -> Any:
    """The table ``(grid * grid, D)`` for another grid: ``(1, rows * columns, D)``."""
    from openvino import opset13 as op

    grid = op.constant(np.ascontiguousarray(table.reshape(plan.grid, plan.grid * plan.width)))
    high = op.reshape(op.matmul(rows, grid, False, False), np.array([-1, plan.grid, plan.width]), False)
    wide = op.matmul(columns, high, False, False)
    return op.reshape(wide, np.array([1, -1, plan.width]), False)


def _block(vit: Vit, name: str, x: Any, turns: Sequence[Any]) -> tuple[Any, tuple[Any, Any]]:
    """The state after a block, and its queries and keys ``(N, heads, tokens, D / heads)``."""
    from openvino import opset13 as op

    heads, size = vit.plan.heads, vit.plan.width // vit.plan.heads

    def split(y: Any) -> Any:
        return op.transpose(op.reshape(y, np.array([0, 0, heads, size]), True), np.array([0, 2, 1, 3]))

    y = _norm(vit, f"{name}.norm1", x)
    query, key, value = (split(_linear(vit, f"{name}.attention.{part}_proj", y)) for part in "qkv")
    if turns:
        query, key = (_turned(part, vit.plan, *turns) for part in (query, key))
    y = op.transpose(op.scaled_dot_product_attention(query, key, value), np.array([0, 2, 1, 3]))
    y = _linear(vit, f"{name}.attention.o_proj", op.reshape(y, np.array([0, 0, vit.plan.width]), True))
    x = op.add(x, _scaled(vit, f"{name}.scale1", y))
    y = _mlp(vit, f"{name}.mlp", _norm(vit, f"{name}.norm2", x))
    return op.add(x, _scaled(vit, f"{name}.scale2", y)), (query, key)


def _turned(part: Any, plan: Plan, cosines: Any, sines: Any) -> Any:
    """Rotary positions on queries or keys; the tokens before the patches have none."""
    from openvino import opset13 as op

    axis = np.array([2])
    first = op.slice(part, np.array([0]), np.array([plan.prefix]), np.array([1]), axis)
    patches = _after(part, plan.prefix, 2)
    one, other = op.split(patches, np.int64(3), 2).outputs()
    halves = op.concat([op.negative(other), one], 3)
    return op.concat([first, op.add(op.multiply(patches, cosines), op.multiply(halves, sines))], 2)


def _attention(query: Any, key: Any, plan: Plan) -> Any:
    """The class token's attention to the patches."""
    from openvino import opset13 as op

    asks = op.slice(query, np.array([0]), np.array([1]), np.array([1]), np.array([2]))
    scale = np.float32((plan.width // plan.heads) ** -0.5)
    shares = op.softmax(op.multiply(op.matmul(asks, key, False, True), scale), 3)
    return op.squeeze(_after(shares, plan.prefix, 3), np.array([2]))


def _mlp(vit: Vit, name: str, x: Any) -> Any:
    from openvino import opset13 as op

    hidden = _linear(vit, f"{name}.up", x)
    if vit.plan.gated:
        hidden = op.multiply(_active(vit.plan, _linear(vit, f"{name}.gate", x)), hidden)
    else:
        hidden = _active(vit.plan, hidden)
    return _linear(vit, f"{name}.down", hidden)


def _active(plan: Plan, x: Any) -> Any:
    from openvino import opset13 as op

    if plan.activation == "silu":
        return op.swish(x)
    return op.relu(x) if plan.activation == "relu" else op.gelu(x, "erf" if plan.activation == "gelu" else "tanh")


def _after(x: Any, count: int, axis: int) -> Any:
    from openvino import opset13 as op

    return op.slice(x, np.array([count]), np.array([np.iinfo(np.int64).max]), np.array([1]), np.array([axis]))


def _linear(vit: Vit, name: str, x: Any) -> Any:
    from openvino import opset13 as op

    product = op.matmul(x, op.constant(np.ascontiguousarray(vit.arrays[f"{name}.weight"])), False, True)
    bias = vit.arrays.get(f"{name}.bias")
    return product if bias is None else op.add(product, bias)


def _scaled(vit: Vit, name: str, x: Any) -> Any:
    from openvino import opset13 as op

    return op.multiply(x, vit.arrays[name]) if name in vit.arrays else x


def _norm(vit: Vit, name: str, x: Any) -> Any:
    from openvino import opset13 as op

    scaled = op.mvn(x, np.array([-1]), True, vit.plan.epsilon, "inside_sqrt")
    return op.add(op.multiply(scaled, vit.arrays[f"{name}.weight"]), vit.arrays[f"{name}.bias"])
