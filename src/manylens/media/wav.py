"""Reading WAV files: PCM of 8 to 32 bits and float, without any library."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from manylens.errors import MediaError

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_TYPES = {(_PCM, 8): "u1", (_PCM, 16): "<i2", (_PCM, 32): "<i4", (_FLOAT, 32): "<f4", (_FLOAT, 64): "<f8"}
_STREAMED = (0, 0xFFFFFFFF)  # sizes that a program writes when it cannot go back to fill in the true one


def is_wav(data: bytes) -> bool:
    """Whether these bytes begin as a WAV file does."""
    return data[:4] == b"RIFF" and data[8:12] == b"WAVE"


def read_wav(data: bytes, name: str) -> tuple[npt.NDArray[np.float32], int] | None:
    """Decode a WAV file.

    Args:
        data: The whole file.
        name: What to call it in an error.

    Returns:
        Float32 ``(N, channels)`` in -1..1 and the sample rate in hertz; None for a coding other than PCM and float.

    Raises:
        MediaError: The file is cut short or broken.
    """
    form: tuple[int, int, int, int] | None = None
    position = 12
    while position + 8 <= len(data):
        tag, size = struct.unpack_from("<4sI", data, position)
        body = data[position + 8 : position + 8 + size]
        if tag == b"fmt ":
            form = _form(body, name)
        elif tag == b"data":
            if form is None:
                break
            if size in _STREAMED:
                body = data[position + 8 :]
            elif len(body) < size:
                raise MediaError(
                    f"{name}: the WAV file is cut short ({len(body)} of {size} bytes of sound)",
                    "get a whole copy of it",
                )
            return _decode(body, form)
        position += 8 + size + size % 2
    raise MediaError(f"{name}: the WAV file is cut short or broken", "get a whole copy of it")


def _form(body: bytes, name: str) -> tuple[int, int, int, int]:
    if len(body) < 16:
        raise MediaError(f"{name}: the WAV file is cut short or broken", "get a whole copy of it")
    coding, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", body)
    if coding == _EXTENSIBLE and len(body) >= 26:
        coding = struct.unpack_from("<H", body, 24)[0]
    if not channels or not rate:
        raise MediaError(f"{name}: the WAV file states {channels} channels at {rate} Hz", "get a whole copy of it")
    return coding, channels, rate, bits


def _decode(body: bytes, form: tuple[int, int, int, int]) -> tuple[npt.NDArray[np.float32], int] | None:
    coding, channels, rate, bits = form
    body = body[: len(body) // (channels * bits // 8 or 1) * (channels * bits // 8)]
    if coding == _PCM and bits == 24:
        # To 32 bits: three bytes become the upper three of four, which keeps the sign.
        padded = np.zeros((len(body) // 3, 4), np.uint8)
        padded[:, 1:] = np.frombuffer(body, np.uint8).reshape(-1, 3)
        values = padded.view("<i4")[:, 0]
    elif (coding, bits) in _TYPES:
        values = np.frombuffer(body, _TYPES[coding, bits])
    else:
        return None
    return to_float(values).reshape(-1, channels), rate


def to_float(values: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    """Samples as float32, integers scaled so that their full range is -1..1."""
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    if values.dtype == np.uint8:
        return np.asarray((values.astype(np.float32) - 128) / 128, np.float32)
    full = 2.0 ** (8 * values.dtype.itemsize - 1)
    return np.asarray(values.astype(np.float64) / full, np.float32)
