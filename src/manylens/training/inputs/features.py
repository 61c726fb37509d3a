"""Features of a frozen encoder: each picture and view is encoded once, and kept on disk.

The key is made of the picture's bytes, the view, the weights, the pre-processing, the layer, the engine and the
precision, so that another training with another head takes them from there, and none that would differ.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from manylens.data.fingerprint import FileHashes
from manylens.models.adapted.encoding import Encoding
from manylens.models.adapted.picture import PREPROCESSING
from manylens.runtime.store import EmbeddingStore, Key
from manylens.training.inputs.pictures import Pictures

if TYPE_CHECKING:
    from torch import Tensor

    from manylens.session import Session
    from manylens.training.inputs.views import Views

_MOST = 32 << 30
_IN_MEMORY = 1 << 30


def place(session: Session, otherwise: Path) -> Path:
    """The folder where a session's features are kept.

    Args:
        session: Its disk store is their neighbour.
        otherwise: They lie in this one where the session has none on disk.
    """
    beside = session.store.folder
    return (beside.parent if beside is not None else otherwise) / "features"


def store(folder: Path) -> EmbeddingStore:
    """The place where features are kept: as much as half of the disk's free room, at most 32 GiB."""
    near = next(path for path in (folder, *folder.parents) if path.exists())
    return EmbeddingStore(folder, memory_bytes=0, disk_bytes=min(_MOST, shutil.disk_usage(near).free // 2))


class Features:
    """The features of pictures in several views; those of vectors stay in memory, maps are read when asked for.

    Args:
        encoding: The encoder on its engine.
        weights: Hash of its weights.
        pictures: The pictures.
        kept: Where features are kept.
        views: Makes the views of each picture; without it there is the picture alone.
    """

    def __init__(
        self,
        encoding: Encoding,
        weights: str,
        pictures: Pictures,
        kept: EmbeddingStore,
        views: Views | None = None,
    ) -> None:
        self._encoding, self._weights, self._pictures, self._store = encoding, weights, pictures, kept
        self._views = views
        self.views = views.count if views is not None else 1
        with FileHashes() as hashes:
            self._ids = [hashes.of(path) for path in pictures.paths]
        self._vectors: dict[str, np.ndarray] = {}
        self.encoded = self.found = 0

    def __len__(self) -> int:
        return len(self._pictures)

    def prepare(self, progress: Callable[[float, str], None] = lambda share, line: None) -> None:
        """Encode what is not kept."""
        total = len(self) * self.views
        for view in range(self.views):
            missing = []
            for number in range(len(self)):
                found = self._kept(number, view)
                if found is None:
                    missing.append(number)
                else:
                    self._remember(number, view, found)
            self.found += len(self) - len(missing)
            for numbers, squares in self._pictures.stream(missing, self._encoding.batch):
                for number, found in zip(numbers, self._encoded(numbers, squares, view), strict=True):
                    self._remember(number, view, found)
                self.encoded += len(numbers)
                progress((self.encoded + self.found) / total, f"encoding, {self.encoded} of {total - self.found}")

    def get(self, numbers: np.ndarray, views: np.ndarray) -> dict[str, Tensor]:
        """Features by name of pictures int64 ``(n,)``, each in one of its views: ``(n, ...)``, as they are kept."""
        import torch

        if len(self._vectors) == len(self._encoding.needs):
            return {name: torch.from_numpy(found[numbers, views]) for name, found in self._vectors.items()}
        rows = [self._row(number, view) for number, view in zip(numbers.tolist(), views.tolist(), strict=True)]
        return {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in self._encoding.needs}

    def vectors(self, name: str) -> np.ndarray:
        """A feature of all pictures in all views, ``(pictures, views, D)``; for those that are vectors."""
        return self._vectors[name]

    def _row(self, number: int, view: int) -> Mapping[str, np.ndarray]:
        found = self._kept(number, view)
        if found is None:  # the disk was full, or it was cleared meanwhile
            (found,) = self._encoded([number], self._pictures.of([number]), view)
        return found

    def _encoded(self, numbers: Sequence[int], squares: np.ndarray, view: int) -> list[dict[str, np.ndarray]]:
        if view:
            assert self._views is not None
            squares = self._views.make(squares, numbers, view)
        made = self._encoding(squares)
        rows = []
        for place, number in enumerate(numbers):
            # Maps take half the room; what they lose is far below what heads can tell.
            row = {name: one[place].astype(np.float32 if one.ndim == 2 else np.float16) for name, one in made.items()}
            for name, array in row.items():
                self._store.put(self._key(number, view, name), {name: array})
            rows.append(row)
        return rows

    def _kept(self, number: int, view: int) -> dict[str, np.ndarray] | None:
        found: dict[str, np.ndarray] = {}
        for name in self._encoding.needs:
            arrays = self._store.get(self._key(number, view, name))
            if arrays is None:
                return None
            found |= arrays
        return found

    def _remember(self, number: int, view: int, row: Mapping[str, np.ndarray]) -> None:
        for name, array in row.items():
            size = len(self) * self.views * array.nbytes
            if array.ndim == 1 and size <= _IN_MEMORY:
                if name not in self._vectors:
                    self._vectors[name] = np.zeros((len(self), self.views, *array.shape), array.dtype)
                self._vectors[name][number, view] = array

    def _key(self, number: int, view: int, name: str) -> Key:
        settings = self._encoding.settings
        seen = self._views.name(number, view) if self._views is not None else ""
        prepared = f"{PREPROCESSING}-{self._pictures.side}" + (f"-{seen}" if seen else "")
        return Key(f"file {self._ids[number]}", self._weights, prepared, name, settings.engine, settings.precision)
