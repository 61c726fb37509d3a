"""A bounded folder of named arrays: the disk level of every cache.

Each entry is one uncompressed zip of ``.npy`` members: no pickle, and the zip's checksums tell a damaged file, which is
dropped. Files are replaced whole, so processes that share the folder never see half of one.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np

from manylens.runtime.paths import replacing

Arrays = dict[str, np.ndarray]

_log = logging.getLogger(__name__)
_SUFFIX = ".npz"
_STALE_PART_SECONDS = 3600.0
# A scan of the folder follows each 1/16 of the limit written and leaves as much free: the limit holds between scans.
_SLACK = 16


class DiskCache:
    """Arrays by a hexadecimal digest. A disk that is full or read-only is warned of once and done without.

    Args:
        folder: Folder of the files, made when something is kept.
        limit: Most bytes of all files; those that were not read for longest leave first.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._lock = threading.Lock()
        self._since_scan = math.inf  # bytes written since the folder was last measured: never yet
        self._warned = False

    def get(self, digest: str) -> Arrays | None:
        """The arrays of ``digest``, read-only, or ``None``. A damaged file is dropped."""
        path = self._path(digest)
        try:
            arrays = _read(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._warn("read", error)
            return None
        except Exception as error:  # any parser of a damaged file may fail in its own way
            _log.info("%s: damaged file dropped (%s)", path, error)
            with suppress(OSError):
                path.unlink(missing_ok=True)
            return None
        with suppress(OSError):
            os.utime(path)
        return arrays

    def put(self, digest: str, arrays: Arrays) -> None:
        """Keeps arrays, unless they are larger than the limit or the disk does not take them."""
        # The members' headers are small; what they add is bounded by this.
        size = size_of(arrays) + 512 * (len(arrays) + 1)
        room = self._limit - self._limit // _SLACK
        if size > room:
            return
        try:
            self._make_room(size, room)
            with replacing(self._path(digest)) as file:
                _write(file, arrays)
        except OSError as error:
            self._warn("written", error)

    def files(self) -> list[tuple[float, int, Path]]:
        """Last use, size in bytes and path of each kept file."""
        found = []
        for path in self._folder.glob(f"??/*{_SUFFIX}"):
            with suppress(OSError):
                state = path.stat()
                found.append((state.st_mtime, state.st_size, path))
        return found

    def clear(self) -> None:
        """Removes all files."""
        for *_, path in self.files():
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def _path(self, digest: str) -> Path:
        return self._folder / digest[:2] / f"{digest}{_SUFFIX}"

    def _make_room(self, size: int, room: int) -> None:
        with self._lock:
            self._since_scan += size
            if self._since_scan <= self._limit // _SLACK:
                return
            self._since_scan = 0
            files = sorted(self.files())
            excess = sum(size for _, size, _ in files) + size - room
            for _, freed, path in files:
                if excess <= 0:
                    break
                path.unlink(missing_ok=True)
                excess -= freed
            self._drop_stale_parts()

    def _drop_stale_parts(self) -> None:
        """A killed writer leaves its temporary file; a live one is younger than an hour."""
        for path in self._folder.glob("??/.*.part"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _STALE_PART_SECONDS:
                    path.unlink(missing_ok=True)

    def _warn(self, verb: str, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            reason = error.strerror or str(error)
            _log.warning("%s: cannot be %s (%s); going on without it", self._folder, verb, reason)


def size_of(arrays: Arrays) -> int:
    """Bytes of all arrays."""
    return sum(array.nbytes for array in arrays.values())


def _write(file: IO[bytes], arrays: Arrays) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _read(path: Path) -> Arrays:
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            with archive.open(member) as file:
                array = np.lib.format.read_array(file, allow_pickle=False)
                if file.read(1):
                    raise ValueError(f"{member}: holds more than one array")
            array.flags.writeable = False
            arrays[member.removesuffix(".npy")] = array
    return arrays
