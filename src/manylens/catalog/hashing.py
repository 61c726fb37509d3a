"""Content hashes of weight files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import IO, Protocol

CHUNK = 1 << 20

_known: dict[tuple[str, int, int], str] = {}


class _Writable(Protocol):
    def write(self, data: bytes, /) -> object: ...


def copy_hashing(source: IO[bytes], target: _Writable) -> tuple[str, int]:
    """Copies a stream and hashes it on the way.

    Returns:
        The sha256 in hex, and how many bytes there were.
    """
    digest, size = hashlib.sha256(), 0
    while chunk := source.read(CHUNK):
        digest.update(chunk)
        target.write(chunk)
        size += len(chunk)
    return digest.hexdigest(), size


def file_sha256(path: Path) -> str:
    """The sha256 of a file's content, in hex; read anew every time."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def cached_sha256(path: Path) -> str:
    """The sha256 of a file, remembered in this process as long as its size and time of change stay the same."""
    stat = path.stat()
    key = (str(path.resolve()), stat.st_mtime_ns, stat.st_size)
    if key not in _known:
        _known[key] = file_sha256(path)
    return _known[key]


def folder_hash(folder: Path) -> str:
    """Sixteen hex digits over the names and content of all files of a folder.

    Hidden files do not count, and no card (``*.md``): a word that is mended in it makes no other model.
    """
    digest = hashlib.sha256()
    for path in sorted(path for path in visible_files(folder) if path.suffix != ".md"):
        digest.update(f"{path.relative_to(folder).as_posix()}:{cached_sha256(path)}\n".encode())
    return digest.hexdigest()[:16]


def visible_files(folder: Path) -> list[Path]:
    """All files below a folder, without those that are hidden or lie in a hidden folder."""
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
