"""The content hash: equal for equal decoded content, whatever the file it came from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

_BYTES = 20  # 40 hexadecimal digits: far beyond any chance of two contents meeting


def content_id(kind: str, parts: Iterable[npt.NDArray[np.generic] | str | float | int]) -> str:
    """Hash decoded content to 40 hexadecimal digits.

    Args:
        kind: ``image``, ``audio``, ``video`` or ``series``; equal bytes of two kinds have two ids.
        parts: Arrays (their type, shape and values count) and plain values, in an order that is fixed for the kind.
    """
    digest = hashlib.blake2b(digest_size=_BYTES)
    digest.update(kind.encode())
    for part in parts:
        if isinstance(part, np.ndarray):
            little = np.ascontiguousarray(part, dtype=part.dtype.newbyteorder("<"))
            digest.update(f"|{little.dtype.str}{little.shape}|".encode())
            digest.update(little.data if little.size else b"")
        else:
            digest.update(f"|{part!r}|".encode())
    return digest.hexdigest()
