"""A traced network as ONNX: by torch's own tracer, which needs no further package."""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from manylens.errors import EngineError
from manylens.models import checkpoint, network

if TYPE_CHECKING:
    import onnx

    from manylens.models.network import Blueprint

OPSET = 17
"""The first with layer norm as one operation; every runtime of the last years reads it."""

MOST_BYTES = 2**31 - 1
"""Of one protobuf message."""

BATCH = "batch"
"""Name of the free first side."""


def converted(blueprint: Blueprint) -> onnx.ModelProto:
    """The ONNX model of a network; sides that the blueprint leaves free are free in it.

    Raises:
        EngineError: The network has an operation that ONNX does not, or is too large for one file.
    """
    import onnx

    example = tuple(blueprint.example())
    module: Any = blueprint.module()
    file: Any = io.BytesIO()
    try:
        # The tracer's state is the process's; and where it fails, it prints the graph.
        with (
            network._tracing,
            torch.no_grad(),
            warnings.catch_warnings(),
            checkpoint.quiet(),
            contextlib.redirect_stdout(io.StringIO()),
            _Plain(),
        ):
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module,
                example,
                file,
                dynamo=False,
                opset_version=OPSET,
                input_names=list(blueprint.inputs),
                output_names=list(blueprint.outputs),
                dynamic_axes=free_sides(blueprint, example),
            )
            answers = module(*example)
    except (RuntimeError, ValueError, TypeError) as error:
        why = str(error).strip().splitlines() or [type(error).__name__]
        raise EngineError(
            f"{blueprint.name}: cannot be written as ONNX ({why[0][:200]})", "export it as openvino"
        ) from error
    if file.tell() > MOST_BYTES:
        raise EngineError(f"{blueprint.name}: is larger than the 2 GiB of an ONNX file", "export it as openvino")
    made = onnx.load_from_string(file.getvalue())
    for output, answer in zip(made.graph.output, answers if isinstance(answers, tuple) else (answers,), strict=True):
        # The tracer gives up on sides that come of sums; but for the first they do not depend on the input.
        for axis, side in list(enumerate(answer.shape))[1:]:
            output.type.tensor_type.shape.dim[axis].dim_value = side
    return made


def free_sides(blueprint: Blueprint, example: Sequence[Tensor]) -> dict[str, dict[int, str]]:
    """Names of the free sides of inputs and outputs; of outputs only the first is known."""
    found: dict[str, dict[int, str]] = {}
    for name, tensor in zip(blueprint.inputs, example, strict=True):
        shape = blueprint.shapes.get(name, tensor.shape)
        sides = {axis: BATCH if axis == 0 else f"{name}_{axis}" for axis, side in enumerate(shape) if side == -1}
        if sides:
            found[name] = sides
    if found:
        found |= {name: {0: BATCH} for name in blueprint.outputs}
    return found


class _Plain(TorchFunctionMode):
    """Says some calls in other words while it is on: the same numbers, in operations that the tracer gets right."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.unflatten:
            return _unflattened(*args, **kwargs)
        if func is functional.adaptive_avg_pool2d:
            return _pooled(*args, **kwargs)
        return func(*args, **kwargs)


def _unflattened(x: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """As a plain reshape: torch's own way is taken for one of a fixed shape, and the batch is then no longer free."""
    shape: list[Any] = list(x.shape)  # numbers of the trace, not of Python: some are free
    dim %= len(shape)
    parts = [int(side) for side in sizes]
    if -1 in parts:
        parts[parts.index(-1)] = int(shape[dim]) // -math.prod(parts)
    return x.reshape([*shape[:dim], *parts, *shape[dim + 1 :]])


def _pooled(x: Tensor, output_size: int | Sequence[int]) -> Tensor:
    """Means over cells as two products: ONNX knows the operation only where cells divide the sides."""
    rows, columns = (output_size, output_size) if isinstance(output_size, int) else output_size
    down, across = (_means(int(side), int(cells), x) for side, cells in zip(x.shape[-2:], (rows, columns), strict=True))
    return down @ x @ across.T


def _means(side: int, cells: int, like: Tensor) -> Tensor:
    """``(cells, side)``: each row takes the mean of one cell, whose ends are rounded outwards."""
    found = torch.zeros(cells, side, dtype=like.dtype, device=like.device)
    for cell in range(cells):
        start, end = cell * side // cells, -(-(cell + 1) * side // cells)
        found[cell, start:end] = 1 / (end - start)
    return found
