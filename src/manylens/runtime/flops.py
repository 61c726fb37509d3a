"""Floating-point operations of what runs, counted while it runs: a multiplication with its addition counts as two.

For networks on OpenVINO they are read off the graph as it was compiled (matrix products, convolutions, attention), for
torch by its own counter; the rest (norms, activations, our own NumPy) is not counted, as is usual in the field.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import openvino

_COUNTED = ("Convolution", "Deconvolution", "FullyConnected", "MatMul", "Subgraph")
_ATTENTION_INPUTS = 3


class Flops:
    """What was counted.

    Attributes:
        total: Operations so far.
        complete: False where some network had shapes that are free, so that its operations could not be counted.
    """

    def __init__(self) -> None:
        self.total = 0
        self.complete = True
        self._lock = threading.Lock()

    def add(self, count: int | None) -> None:
        """Count a run of a network; None for one that cannot be counted."""
        with self._lock:
            self.total += count or 0
            self.complete &= count is not None


_counting: list[Flops] = []


def active() -> bool:
    """Whether somebody counts."""
    return bool(_counting)


def ran(count: int | None) -> None:
    """Tell everybody who counts that a network ran."""
    for flops in _counting:
        flops.add(count)


@contextmanager
def counting() -> Iterator[Flops]:
    """Count what runs in this block: OpenVINO in any thread, torch in this one.

    After it has begun to count, torch runs slower; do not measure time in the same block.
    """
    from torch.utils.flop_counter import FlopCounterMode

    flops, torch_counter = Flops(), FlopCounterMode(display=False)
    _counting.append(flops)
    try:
        with torch_counter:
            yield flops
    finally:
        _counting.remove(flops)
        flops.add(torch_counter.get_total_flops())


def of_graph(compiled: openvino.CompiledModel, batch: int) -> int | None:
    """Operations of one run of a compiled network; None where its shapes are free beyond the batch.

    Args:
        compiled: The network.
        batch: What stands for a free leading dimension.
    """
    total = 0
    for node in compiled.get_runtime_model().get_ops():
        kind = str(node.get_rt_info()["layerType"].value)
        if kind not in _COUNTED:
            continue
        inputs = [_shape(port, batch) for port in node.inputs()]
        output = _shape(node.output(0), batch)
        count = _of_node(kind, inputs, output)
        if count is None:
            return None
        total += count
    return total


def _of_node(kind: str, inputs: Sequence[tuple[int, ...] | None], output: tuple[int, ...] | None) -> int | None:
    if kind == "Subgraph":  # a fused attention is one of these; all others are element by element
        if len(inputs) < _ATTENTION_INPUTS or any(one is not None and len(one) != 4 for one in inputs[:3]):
            return 0
        queries, keys = inputs[0], inputs[1]
        if queries is None or keys is None or output is None or len(output) != 4:
            return None
        length = math.prod(keys) // (math.prod(output) // output[-2])  # of the sequence that is looked at
        return 4 * math.prod(output) * length
    first, second = inputs[0], inputs[1]
    if first is None or second is None or output is None:
        return None
    match kind:
        case "Convolution":
            weights = second  # (out, in, ...) or grouped (groups, out, in, ...)
            per_output = math.prod(weights) // _channels(weights, output)
            return 2 * math.prod(output) * per_output
        case "Deconvolution":
            return 2 * math.prod(first) * (math.prod(second) // first[1])
    return 2 * math.prod(output) * first[-1]


def _channels(weights: tuple[int, ...], output: tuple[int, ...]) -> int:
    return weights[0] * weights[1] if len(weights) == len(output) + 1 else weights[0]


def _shape(port: Any, batch: int) -> tuple[int, ...] | None:
    shape = port.get_partial_shape()
    sides = [batch if place == 0 and side.is_dynamic else side for place, side in enumerate(shape)]
    if any(not isinstance(side, int) and side.is_dynamic for side in sides):
        return None
    return tuple(side if isinstance(side, int) else side.get_length() for side in sides)
