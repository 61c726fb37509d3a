"""Embeddings that outlive a call: a level in memory over a level on disk, both bounded.

An encoder is most of the time of a click, so what it gave for a picture is kept.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from manylens.runtime.disk import Arrays, DiskCache, size_of

Hit = Literal["memory", "disk"] | None

_FORMAT = 1
_PLAIN_KINDS = frozenset("biufcSU")


@dataclass(frozen=True)
class Key:
    """What an embedding depends on; any difference gives another embedding.

    Args:
        pixels: Content hash of the picture (or of the text, the sound).
        weights: Hash of the weights.
        preprocessing: Name and version of the preparation of the pixels.
        layer: Which output was kept.
        engine: Engine that ran the model.
        precision: Precision that it ran in.
    """

    pixels: str
    weights: str
    preprocessing: str
    layer: str
    engine: str
    precision: str

    @property
    def digest(self) -> str:
        """A stable name of this key: 64 hexadecimal digits."""
        return hashlib.sha256(json.dumps([_FORMAT, *astuple(self)]).encode()).hexdigest()


@dataclass(frozen=True)
class StoreStats:
    """Use and size of a store; the counts begin with the store object, the sizes are what is held now."""

    memory_hits: int
    disk_hits: int
    misses: int
    memory_items: int
    memory_bytes: int
    disk_items: int
    disk_bytes: int

    def to_json(self) -> dict[str, int]:
        """The same as a plain dictionary."""
        return asdict(self)


class EmbeddingStore:
    """A two-level store of named arrays, safe between threads and between processes.

    Args:
        folder: Folder of the disk level; ``None`` keeps in memory only.
        memory_bytes: Limit of the memory level.
        disk_bytes: Limit of the disk level. The files that were not read for longest leave first; a hit in
            memory does not count as a reading of the file.
    """

    def __init__(self, folder: Path | str | None, memory_bytes: int = 256 << 20, disk_bytes: int = 2 << 30) -> None:
        self.folder = Path(folder) if folder is not None else None
        self._memory = _MemoryLevel(memory_bytes)
        self._disk = DiskCache(Path(folder), disk_bytes) if folder is not None else None
        self._lock = threading.Lock()
        self._flights: dict[str, _Flight] = {}
        self._counts = {"memory": 0, "disk": 0, "miss": 0}

    def get(self, key: Key) -> Arrays | None:
        """The arrays kept for ``key``, read-only, or ``None``."""
        return self._find(key.digest)[0]

    def find(self, key: Key) -> tuple[Arrays | None, Hit]:
        """As :meth:`get`, and where the arrays were: ``memory`` or ``disk``."""
        return self._find(key.digest)

    def put(self, key: Key, arrays: Mapping[str, np.ndarray]) -> Arrays:
        """Keeps a copy of ``arrays`` and gives it back, read-only. A disk that cannot take it is no error.

        Raises:
            TypeError: An array holds Python objects or a type that numpy cannot name.
        """
        frozen = {name: _frozen(name, array) for name, array in arrays.items()}
        digest = key.digest
        self._memory.put(digest, frozen)
        if self._disk is not None:
            self._disk.put(digest, frozen)
        return dict(frozen)

    def get_or_compute(
        self, key: Key, compute: Callable[[], Mapping[str, np.ndarray]], *, check: Callable[[], None] | None = None
    ) -> tuple[Arrays, Hit]:
        """The arrays of ``key``, computed when they are not kept.

        Threads that ask for the same key at once compute it once: the others wait and get the same arrays. When the
        one that computes fails, its error is its own, and one of those that wait computes in its place.

        Args:
            key: What the arrays depend on.
            compute: Gives the arrays.
            check: Called now and then while waiting for another thread; may raise to stop waiting.

        Returns:
            The arrays, read-only, and where they were found: ``"memory"``, ``"disk"`` or ``None`` when computed.
        """
        digest = key.digest
        while True:
            with self._lock:
                flight = self._flights.get(digest)
                leads = flight is None
                if flight is None:
                    flight = self._flights[digest] = _Flight()
            if leads:
                return self._lead(key, flight, compute)
            if flight.leader == threading.get_ident():
                raise RuntimeError(f"{key}: asked for by its own computation")  # it would wait for itself
            arrays = flight.wait(check)
            if arrays is not None:
                self._count("memory")
                return dict(arrays), "memory"

    def stats(self) -> StoreStats:
        """Hits and sizes; looks through the folder."""
        with self._lock:
            counts = dict(self._counts)
        sizes = [size for _, size, _ in self._disk.files()] if self._disk is not None else []
        return StoreStats(
            memory_hits=counts["memory"],
            disk_hits=counts["disk"],
            misses=counts["miss"],
            memory_items=self._memory.items,
            memory_bytes=self._memory.bytes,
            disk_items=len(sizes),
            disk_bytes=sum(sizes),
        )

    def clear(self) -> None:
        """Forgets everything, in memory and on disk."""
        self._memory.clear()
        if self._disk is not None:
            self._disk.clear()

    def _lead(self, key: Key, flight: _Flight, compute: Callable[[], Mapping[str, np.ndarray]]) -> tuple[Arrays, Hit]:
        try:
            arrays, hit = self._find(key.digest)
            if arrays is None:
                arrays = self.put(key, compute())
            flight.arrays = arrays
            return dict(arrays), hit
        finally:
            with self._lock:
                del self._flights[key.digest]
            flight.done.set()

    def _find(self, digest: str) -> tuple[Arrays | None, Hit]:
        arrays = self._memory.get(digest)
        if arrays is not None:
            self._count("memory")
            return dict(arrays), "memory"
        if self._disk is not None and (arrays := self._disk.get(digest)) is not None:
            self._memory.put(digest, arrays)
            self._count("disk")
            return dict(arrays), "disk"
        self._count("miss")
        return None, None

    def _count(self, what: str) -> None:
        with self._lock:
            self._counts[what] += 1


class _Flight:
    """One computation that several threads wait for."""

    def __init__(self) -> None:
        self.leader = threading.get_ident()
        self.done = threading.Event()
        self.arrays: Arrays | None = None

    def wait(self, check: Callable[[], None] | None) -> Arrays | None:
        while not self.done.wait(0.1 if check else None):
            if check:
                check()
        return self.arrays


class _MemoryLevel:
    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._held: OrderedDict[str, Arrays] = OrderedDict()
        self.bytes = 0

    @property
    def items(self) -> int:
        return len(self._held)

    def get(self, digest: str) -> Arrays | None:
        with self._lock:
            arrays = self._held.get(digest)
            if arrays is not None:
                self._held.move_to_end(digest)
            return arrays

    def put(self, digest: str, arrays: Arrays) -> None:
        size = size_of(arrays)
        with self._lock:
            if (old := self._held.pop(digest, None)) is not None:
                self.bytes -= size_of(old)
            if size > self._limit:
                return
            while self.bytes + size > self._limit:
                self.bytes -= size_of(self._held.popitem(last=False)[1])
            self._held[digest] = arrays
            self.bytes += size

    def clear(self) -> None:
        with self._lock:
            self._held.clear()
            self.bytes = 0


def _frozen(name: str, array: np.ndarray) -> np.ndarray:
    array = np.asarray(array)
    # Types from outside numpy (bfloat16) would come back from a file as raw bytes: refuse them now.
    if array.dtype.kind not in _PLAIN_KINDS or array.dtype.isbuiltin == 2:
        raise TypeError(f"{name}: arrays of {array.dtype} cannot be kept")
    if array.flags.writeable or not array.flags.owndata or not array.flags.c_contiguous:
        array = array.copy(order="C")
        array.flags.writeable = False
    return array
