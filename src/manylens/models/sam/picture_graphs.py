"""The picture's half of SAM's mask decoder as three OpenVINO graphs, few enough that a new process has them at once.

The tokens' half is :mod:`manylens.models.sam.tokens`. Between the two go only small arrays, apart from the picture's
tokens themselves: ``keys``, and ``placed``, which are the same with their places added.

- ``GATHER``: prompts' tokens attend to the picture's: used by each layer and at the end;
- ``SPREAD``: the picture's tokens attend to a prompt's, and are normalised: used by each layer, with its weights given;
- ``DRAW``: the picture's tokens become masks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.runtime.engines import Precision

if TYPE_CHECKING:
    import openvino as ov

GATHER, SPREAD, DRAW = NAMES = "sam-gather", "sam-spread", "sam-draw"
"""Names of the graphs, in the order in which a prompt needs them."""


PARTS = 4
"""The picture's tokens are spread to and drawn in as many parts: what is between two steps stays near the processor."""


def rows_of_part(grid: int) -> int:
    """Rows of the picture's grid in one part: all of them, where the parts would not be of one size."""
    return grid // PARTS if grid % PARTS == 0 else grid


def build(name: str, weights: Mapping[str, np.ndarray], precision: Precision) -> ov.Model:
    """One of the graphs, for one prompt.

    Args:
        name: ``GATHER``, ``SPREAD`` or ``DRAW``.
        weights: As :func:`manylens.models.sam.module.picture_weights` gives them.
        precision: In which the picture's tokens are given and taken; everything else is float32.
    """
    return {GATHER: _gather, SPREAD: _spread, DRAW: _draw}[name](weights, precision)


def _gather(weights: Mapping[str, np.ndarray], precision: Precision) -> ov.Model:
    """Keys, placed keys and ``asked`` ``(1, n, C)`` to what attention gathers of the keys, ``(1, n, C)``."""
    from openvino import opset13 as op

    _, count, width = weights["places"].shape
    (given, keys), (also, placed) = (_picture(name, count, width, precision) for name in ("keys", "placed"))
    asked = _given("asked", 1, -1, width)
    # Over the picture's tokens, which come first: the engine then keeps the three steps apart. In one kernel, each of
    # its threads would put all keys in order again.
    shares = op.softmax(op.matmul(placed, asked, False, True), 1)
    return _model([op.matmul(shares, keys, True, False)], [given, also, asked], ["gathered"])


def _spread(weights: Mapping[str, np.ndarray], precision: Precision) -> ov.Model:
    """Keys, placed keys and places ``(1, P, C)`` of a part, and a :class:`~manylens.models.sam.tokens.Spread`, to the
    next keys, bare and placed.
    """
    from openvino import opset13 as op

    heads, (count, width, _) = int(weights["heads"]), _part(weights)
    (given, keys), (also, placed) = (_picture(name, count, width, precision) for name in ("keys", "placed"))
    places, finish = _given("places", 1, count, width), _given("finish", 2, width)
    asked, offset, told = _given("asked", 1, -1, width), _given("offset", 1, -1, 1), _given("told", 1, -1, width)
    scores = op.add(op.matmul(asked, placed, False, True), offset)
    # Over a head's tokens, with the picture's tokens last: the many stay together.
    shares = op.softmax(op.reshape(scores, np.array([0, heads, -1, count]), True), 2)
    mixed = op.matmul(op.reshape(shares, np.array([0, -1, count]), True), told, True, False)
    scale, shift = op.split(finish, np.int64(0), 2).outputs()
    flat = op.mvn(op.add(keys, mixed), np.array([-1]), True, float(weights["eps"]), "inside_sqrt")
    found = op.add(op.multiply(flat, scale), shift)
    both = [op.convert(one, precision) for one in (found, op.add(found, places))]
    return _model(both, [given, also, places, asked, offset, told, finish], ["keys", "placed"])


def _draw(weights: Mapping[str, np.ndarray], precision: Precision) -> ov.Model:
    """Keys of a part and what masks are drawn by, ``(1, M, C / 8)``, to that part's rows of the logits
    ``(1, M, 4R, 4G)``.

    Transposed convolutions of stride 2 are matrix products, whose pixels are put in order once, at the end.
    """
    from openvino import opset13 as op

    first, second, norm = (weights[f"{name}.weight"] for name in ("first", "second", "norm"))
    (count, width, grid), masks = _part(weights), int(weights["masks"])
    given, keys = _picture("keys", count, width, precision)
    drawn = _given("drawn", 1, masks, width // 8)
    x = op.add(op.matmul(keys, op.constant(first), False, True), weights["first.bias"])
    x = op.reshape(x, np.array([1, 4 * count, len(norm)]), False)
    x = op.mvn(x, np.array([-1]), True, float(weights["norm.eps"]), "inside_sqrt")
    x = op.gelu(op.add(op.multiply(x, norm), weights["norm.bias"]), "erf")
    x = op.gelu(op.add(op.matmul(x, op.constant(second), False, True), weights["second.bias"]), "erf")
    x = op.matmul(op.reshape(x, np.array([1, 16 * count, width // 8]), False), drawn, False, True)
    x = op.reshape(x, np.array([1, count // grid, grid, 2, 2, 2, 2, masks]), False)
    x = op.transpose(x, np.array([0, 7, 1, 3, 5, 2, 4, 6]))
    low_res = op.reshape(x, np.array([1, masks, 4 * count // grid, 4 * grid]), False)
    return _model([low_res], [given, drawn], ["low_res"])


def _part(weights: Mapping[str, np.ndarray]) -> tuple[int, int, int]:
    """Tokens of a part, their width, and tokens of a row."""
    _, count, width = weights["places"].shape
    grid = round(count**0.5)
    return rows_of_part(grid) * grid, width, grid


def _picture(name: str, count: int, width: int, precision: Precision) -> tuple[Any, Any]:
    """The picture's tokens as they are given, and in float32 for what follows."""
    import openvino as ov
    from openvino import opset13 as op

    given = op.parameter([1, count, width], getattr(ov.Type, precision), name)
    return given, op.convert(given, "f32")


def _given(name: str, *shape: int) -> Any:
    from openvino import opset13 as op

    return op.parameter(list(shape), np.float32, name)


def _model(found: list[Any], given: list[Any], names: list[str]) -> ov.Model:
    import openvino as ov

    for one, name in zip(found, names, strict=True):
        one.output(0).get_tensor().set_names({name})
    for one in given:
        one.output(0).get_tensor().set_names({one.friendly_name})
    return ov.Model(found, given, names[0])
