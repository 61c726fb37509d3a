"""Pictures as squares of one size, read on all cores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from manylens.models.adapted.picture import square
from manylens.runtime.cpu import threads

if TYPE_CHECKING:
    from torch import Tensor


class Pictures:
    """Pictures by their number, each a square of one size.

    Args:
        paths: Of the pictures.
        side: Of the squares, in pixels.
        keep: Bytes of squares that may stay in memory, so that later epochs need not decode again.
    """

    def __init__(self, paths: Sequence[Path], side: int, keep: int = 1 << 30) -> None:
        self.paths, self.side = paths, side
        self._room = keep // (side * side * 3)
        self._kept: dict[int, np.ndarray] = {}
        self._pool = ThreadPoolExecutor(threads())  # decoding and resizing leave the interpreter free

    def __len__(self) -> int:
        return len(self.paths)

    def of(self, numbers: Sequence[int]) -> np.ndarray:
        """Squares uint8 ``(n, side, side, 3)``."""
        return np.stack(list(self._pool.map(self._one, numbers)))

    def tensor(self, numbers: Sequence[int]) -> Tensor:
        """Pixels float32 ``(n, 3, side, side)`` in 0..1."""
        import torch

        return torch.from_numpy(self.of(numbers)).permute(0, 3, 1, 2).float().div_(255)

    def stream(self, numbers: Sequence[int], batch: int) -> Iterator[tuple[Sequence[int], np.ndarray]]:
        """Batches of numbers and squares, the next one being read while one is worked on."""
        parts = [numbers[start : start + batch] for start in range(0, len(numbers), batch)]
        ahead = ThreadPoolExecutor(1)
        try:
            waiting = [ahead.submit(self.of, part) for part in parts[:2]]
            for place, part in enumerate(parts):
                squares = waiting.pop(0).result()
                if place + 2 < len(parts):
                    waiting.append(ahead.submit(self.of, parts[place + 2]))
                yield part, squares
        finally:
            ahead.shutdown(wait=False, cancel_futures=True)

    def _one(self, number: int) -> np.ndarray:
        found = self._kept.get(number)
        if found is None:
            from manylens.media import Image

            found = square(Image.of(self.paths[number]).array, self.side)
            if len(self._kept) < self._room:
                self._kept[number] = found
        return found

    def __getstate__(self) -> dict[str, object]:
        return {"paths": self.paths, "side": self.side, "_room": 0, "_kept": {}}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._pool = ThreadPoolExecutor(1)  # in a worker process, which has one core
