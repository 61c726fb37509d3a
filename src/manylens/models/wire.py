"""The wire format of protobuf messages, walked without their classes.

Frozen TensorFlow graphs and ONNX files are protobuf messages; of both only a few fields are wanted here, and the
arrays in them can be used where they lie in the file.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def mapped(path: Path) -> memoryview:
    """The bytes of a file, read as they are used. The map lives for as long as an array points into it.

    Raises:
        ValueError: The file is empty.
    """
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def varint(data: memoryview, at: int) -> tuple[int, int]:
    """The number at a place, and the place after it."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    """The fields of one message: number and value (an int, or the bytes).

    Raises:
        ValueError: The message ends in the middle of a field.
    """
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        wire = key & 7
        if wire == 0:
            value, at = varint(data, at)
            yield key >> 3, value
            continue
        size = {1: 8, 5: 4}.get(wire)
        if size is None:
            size, at = varint(data, at)
        if at + size > len(data):
            raise ValueError("the message is cut off")
        yield key >> 3, data[at : at + size]
        at += size
