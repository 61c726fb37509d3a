"""Where media come from: a path, bytes or a data URI, and what is wrong with one that cannot be read."""

from __future__ import annotations

import base64
import binascii
import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeGuard
from urllib.parse import unquote_to_bytes

from manylens.errors import MediaError

Encoded = str | os.PathLike[str] | bytes | bytearray | memoryview

_paths_allowed: ContextVar[bool] = ContextVar("paths_allowed", default=True)


@contextmanager
def without_paths() -> Iterator[None]:
    """Refuse file paths inside this block, so that a request from outside cannot read the files of this machine.

    Bytes, data URIs and arrays still work. The refusal holds for the current thread or asyncio task.
    """
    token = _paths_allowed.set(False)
    try:
        yield
    finally:
        _paths_allowed.reset(token)


@dataclass(frozen=True, slots=True)
class Source:
    """Encoded media that can be opened again and again.

    Attributes:
        name: What to call it in messages: the path as given, ``bytes`` or ``data URI``.
        path: The file, or None for bytes.
        data: The bytes, or None for a file.
    """

    name: str
    path: Path | None = None
    data: bytes | None = None

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Open for reading; what goes wrong with the file itself becomes a MediaError that names it."""
        if self.data is not None:
            yield io.BytesIO(self.data)
            return
        assert self.path is not None
        try:
            file = self.path.open("rb")
        except OSError as error:
            raise _unreadable(self.name, error) from error
        with file:
            yield file

    def read(self) -> bytes:
        """Everything, as bytes."""
        with self.open() as file:
            return file.read()

    @property
    def label(self) -> str:
        """The file's name without its folder; for bytes, what they are called in messages."""
        return self.path.name if self.path is not None else self.name


def is_encoded(source: object) -> TypeGuard[Encoded]:
    """Whether this is a path, bytes or a data URI, which `find` takes."""
    return isinstance(source, str | os.PathLike | bytes | bytearray | memoryview)


def find(source: Encoded, *, folders: bool = False) -> Source:
    """Turn a path, bytes or a data URI into a source that is there, is not empty and can be read.

    Args:
        source: A path; the content of a file; or ``data:...`` (base64 or percent-encoded).
        folders: Whether a folder will do.

    Raises:
        MediaError: The file is missing, empty, not readable, a folder or a device; the data URI is broken; the string
            is a web address; or paths are refused here (`without_paths`).
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return _filled(Source("bytes", data=bytes(source)))
    text = os.fspath(source)
    if isinstance(text, bytes):
        text = os.fsdecode(text)
    if isinstance(source, str):
        if text[:5].lower() == "data:":
            return _filled(Source("data URI", data=_data_uri(text)))
        if match := re.match(r"([a-z][a-z0-9+.-]+)://", text, re.IGNORECASE):
            raise MediaError(
                f"{short(text)}: {match[1].lower()} addresses are not opened", "download it first and give its path"
            )
    if not _paths_allowed.get():
        raise MediaError(f"{short(text)}: paths are not accepted here", "send the content as a data URI")
    if not text:
        raise MediaError("'': an empty path", "give the path of a file")
    return _existing(text, folders)


def short(text: str, limit: int = 160) -> str:
    """The text, shortened in its middle so that a message stays one readable line."""
    return text if len(text) <= limit else f"{text[: limit // 2]}...{text[-limit // 4 :]}"


def _existing(text: str, folders: bool) -> Source:
    name = short(text)
    try:
        path = Path(text).expanduser()
        path.stat()  # tells a missing file from one that may not be seen
        if path.is_dir():
            if folders:
                return Source(name, path)
            raise MediaError(f"{name}: is a folder", "give one of the files in it")
        if not path.is_file():
            raise MediaError(f"{name}: is not a regular file", "give the path of a file")
    except (OSError, ValueError, RuntimeError) as error:  # ValueError: a null byte; RuntimeError: no such user in ~user
        raise _unreadable(name, error) from error
    return _filled(Source(name, path))


def _filled(source: Source) -> Source:
    with source.open() as file:
        if not file.read(1):
            raise MediaError(f"{source.name}: the file is empty", "give a file that holds something")
    return source


def _unreadable(name: str, error: Exception) -> MediaError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return MediaError(f"{name}: no such file", "check the path")
    if isinstance(error, PermissionError):
        return MediaError(f"{name}: no permission to read it", "change its permissions or give another file")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return MediaError(f"{name}: cannot be read ({reason.lower().rstrip('.')})", "check the path")


def _data_uri(text: str) -> bytes:
    head, comma, body = text.partition(",")
    if not comma:
        raise MediaError("data URI: has no comma between its type and its content", "write data:image/png;base64,...")
    raw = unquote_to_bytes(body)
    if not head.lower().endswith(";base64"):
        return raw
    try:
        return base64.b64decode(b"".join(raw.split()), validate=True)
    except binascii.Error as error:
        raise MediaError("data URI: its base64 is broken", "encode the whole file again") from error
