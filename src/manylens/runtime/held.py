"""Arrays that go from one compiled network to the next as they are: never copied, and bfloat16 where the networks are.

NumPy has no bfloat16: such an array is of uint16, the upper halves of float32 numbers.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Literal

import numpy as np

_UPPER = 1 if sys.byteorder == "little" else 0


class Held:
    """An array as a network takes it or writes it.

    Args:
        array: float32, or bfloat16 as uint16; C-contiguous. What is written here is written there.
    """

    def __init__(self, array: np.ndarray) -> None:
        import openvino

        self._array = array  # the engine does not hold it itself
        self.shape = array.shape
        kind = openvino.Type.bf16 if array.dtype == np.uint16 else openvino.Type.f32
        self.tensor = openvino.Tensor(array, openvino.Shape(array.shape), kind)


def empty(shape: Sequence[int], precision: Literal["f32", "bf16"]) -> np.ndarray:
    """An array of a network's precision that is not written yet."""
    return np.empty(shape, np.float32 if precision == "f32" else np.uint16)


def write(array: np.ndarray, numbers: np.ndarray) -> None:
    """Write float32 numbers to an array of :func:`empty` of their shape, rounded to the nearest."""
    if array.dtype == np.float32:
        array[:] = numbers
    else:
        rounded = (np.ascontiguousarray(numbers).view(np.uint32) + np.uint32(0x8000)).view(np.uint16)
        array[:] = rounded[..., _UPPER::2]
