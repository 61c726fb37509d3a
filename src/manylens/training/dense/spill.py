"""Many short strings of bytes, held in memory while they are few and in a temporary file once they are many."""

from __future__ import annotations

import os
import tempfile
import weakref
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_IN_MEMORY = 2 << 20


class Spill:
    """Strings of bytes by number; only added to. A copy in another process reads the same file.

    Args:
        in_memory: Bytes that may stay in memory.
    """

    def __init__(self, in_memory: int = _IN_MEMORY) -> None:
        self._limit = in_memory
        self._held = bytearray()
        self._ends = array("q", [0])
        self._path: Path | None = None
        self._file: int | None = None

    def __len__(self) -> int:
        return len(self._ends) - 1

    @property
    def size(self) -> int:
        """Bytes of all strings."""
        return self._ends[-1]

    def add(self, text: bytes) -> None:
        """Add one.

        Raises:
            OSError: The disk is full.
        """
        self._held += text
        self._ends.append(self._ends[-1] + len(text))
        if len(self._held) > self._limit:
            self.flush()

    def flush(self) -> None:
        """Write what is in memory to the file, if there is or must be one."""
        if self._path is None and len(self._held) <= self._limit:
            return
        if self._path is None:
            number, name = tempfile.mkstemp(prefix="manylens-", suffix=".rle")
            self._path, self._file = Path(name), number
            weakref.finalize(self, _remove, number, self._path, os.getpid())
        assert self._file is not None
        view = memoryview(self._held)
        while len(view):
            view = view[os.write(self._file, view) :]
        self._held = bytearray()

    def get(self, number: int) -> bytes:
        """One of them."""
        start, end = self._ends[number], self._ends[number + 1]
        written = self._ends[-1] - len(self._held)
        if start >= written:
            return bytes(self._held[start - written : end - written])
        # Not mapped: pages of a mapped file count as memory of the process. And a place given with each reading is
        # right for many threads and forked processes at once.
        assert self._file is not None
        return os.pread(self._file, end - start, start)

    def lengths(self) -> npt.NDArray[np.int64]:
        """The length of each."""
        ends = np.array(self._ends, np.int64)
        return np.asarray(ends[1:] - ends[:-1])

    def __getstate__(self) -> dict[str, Any]:
        self.flush()
        return {**self.__dict__, "_file": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._path is not None:
            self._file = os.open(self._path, os.O_RDONLY)
            weakref.finalize(self, os.close, self._file)


def _remove(number: int, path: Path, owner: int) -> None:
    os.close(number)
    if os.getpid() == owner:  # a forked process has the file open too, but it is not its own
        path.unlink(missing_ok=True)
