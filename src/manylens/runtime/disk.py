"""A bounded folder of named arrays: the disk level of every cache.

Each entry is one uncompressed zip of ``.npy`` members: no pickle, and a checksum of each, in the zip's comments, tells
a damaged file, which is dropped. Files are replaced whole, so processes that share the folder never see half of one;
and never changed in place, so a mapped file stays what it was after it was replaced or dropped.
"""

from __future__ import annotations

import io
import logging
import math
import mmap
import os
import re
import struct
import threading
import time
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from manylens.runtime.paths import replacing

Arrays = dict[str, np.ndarray]

_log = logging.getLogger(__name__)
_SUFFIX = ".npz"
_STALE_PART_SECONDS = 3600.0
# A scan of the folder follows each 1/16 of the limit written and leaves as much free: the limit holds between scans.
_SLACK = 16
# Of a zip's member: its signature and the lengths of its name and of what follows the name, before the content.
_LOCAL_HEADER = struct.Struct("<4s22xHH")
# Of what follows the name: the kind of a field and its length; zipfile adds one of 20 bytes for large files.
_EXTRA = struct.Struct("<HH")
_PADDING_FIELD = 0xD935
_ZIP64_BYTES = 20
_ALIGNED = 64
_BLOCK = 1 << 16
_LARGE = 2 << 20
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00.."
    rb"\{'descr': '([<>|][biufcSU]\d+)', 'fortran_order': False, 'shape': \(([\d, ]*)\), \} *\n",
    re.DOTALL,
)
_NUMBER = re.compile(r"\d+")


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

    def get(self, digest: str, *, writable: bool = False) -> Arrays | None:
        """The arrays of ``digest``, or ``None``. A damaged file is dropped. A large file is mapped, not read.

        Args:
            digest: Of the entry.
            writable: Whether the arrays are other than read-only, as some engines refuse memory that cannot be written;
                what is written to them never reaches the file.
        """
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
        for array in arrays.values():
            array.flags.writeable = writable
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
            array = np.asarray(array, order="C")
            head = io.BytesIO()
            np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(array))
            content = array.reshape(-1).view(np.uint8)
            info = zipfile.ZipInfo(f"{name}.npy")
            info.extra = _padding(file.tell(), info.filename)
            with archive.open(info, "w", force_zip64=True) as member:
                member.write(head.getvalue())
                member.write(content.data)
            info.comment = _checksum(head.getvalue(), content.data)


def _padding(start: int, name: str) -> bytes:
    """An extra field for the header of a member that begins at ``start``, so that its arrays are aligned in memory.

    Products with arrays that are not, NumPy copies each time.
    """
    length = _LOCAL_HEADER.size + len(name.encode()) + _ZIP64_BYTES + _EXTRA.size
    more = -(start + length) % _ALIGNED
    return _EXTRA.pack(_PADDING_FIELD, more) + bytes(more)


def _checksum(head: Any, content: Any) -> bytes:
    """Of a member, in decimals: the CRC of its header, of the sums of its content's blocks, and of what is left over.

    It is six times as fast as a CRC of the whole, and tells what happens to files: blocks that are cut off, emptied,
    overwritten or exchanged, and single bits. Words that change places within a block of 64 KiB it does not tell.
    """
    whole = memoryview(content).cast("B")
    count = len(whole) // _BLOCK
    blocks = np.frombuffer(whole, np.uint64, count * _BLOCK // 8) if count else np.zeros(0, np.uint64)
    sums = blocks.reshape(count, _BLOCK // 8).sum(axis=1, dtype=np.uint64)
    return b"%010d" % zlib.crc32(whole[count * _BLOCK :], zlib.crc32(sums.tobytes(), zlib.crc32(head)))


def _read(path: Path) -> Arrays:
    with path.open("rb") as file:
        content: Any
        # A mapping holds a file open, and many small arrays may be in memory at a time.
        if os.fstat(file.fileno()).st_size >= _LARGE:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        else:
            content = np.fromfile(file, np.uint8)
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    whole = memoryview(content).cast("B")
    return {info.filename.removesuffix(".npy"): _array(_member(whole, info), info) for info in members}


def _member(whole: memoryview, info: zipfile.ZipInfo) -> memoryview:
    """The bytes of an uncompressed member, without a copy.

    Raises:
        ValueError: The file is damaged.
    """
    signature, name, extra = _LOCAL_HEADER.unpack_from(whole, info.header_offset)
    start = info.header_offset + _LOCAL_HEADER.size + name + extra
    data = whole[start : start + info.file_size]
    if signature != b"PK\3\4" or info.compress_type != zipfile.ZIP_STORED or len(data) != info.file_size:
        raise ValueError(f"{info.filename}: not where it should be")
    return data


def _array(data: memoryview, info: zipfile.ZipInfo) -> np.ndarray:
    """The array of a ``.npy`` file in memory, checked against its checksum; it shares the memory.

    Raises:
        ValueError: The file is damaged, or not of ours.
    """
    # As we write it, and read without Python's parser, which would be most of the time of a small array.
    told = _HEADER.match(data)
    if told is None:
        raise ValueError(f"{info.filename}: of another format")
    kind, sides = (one.decode() for one in told.groups())
    shape, dtype, start = tuple(map(int, _NUMBER.findall(sides))), np.dtype(kind), told.end()
    if math.prod(shape) * dtype.itemsize != len(data) - start:
        raise ValueError(f"{info.filename}: does not hold one plain array")
    if _checksum(data[:start], data[start:]) != info.comment:
        raise ValueError(f"{info.filename}: wrong checksum")
    return np.ndarray(shape, dtype, data, start)
