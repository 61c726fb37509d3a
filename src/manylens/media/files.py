"""Writing files so that nothing half-written ever stays."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from manylens.errors import OutputError

Writer = Callable[[BinaryIO], object]

_REASONS = {
    errno.ENOSPC: ("the disk is full", "free some space or choose another folder"),
    errno.EDQUOT: ("the disk quota is used up", "free some space or choose another folder"),
    errno.EFBIG: ("the file is too large for this disk", "choose another folder"),
    errno.EACCES: ("no permission to write here", "choose another folder or change its permissions"),
    errno.EPERM: ("no permission to write here", "choose another folder or change its permissions"),
    errno.EROFS: ("this disk can only be read", "choose another folder"),
    errno.ENOENT: ("this folder cannot be made", "choose another folder"),
    errno.EISDIR: ("this is a folder", "give the name of a file"),
    errno.ENOTDIR: ("a part of this path is a file, not a folder", "choose another folder"),
    errno.EEXIST: ("a part of this path is a file, not a folder", "choose another folder"),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter name"),
}


def atomic_write(path: str | os.PathLike[str], content: bytes | Writer) -> Path:
    """Write a file whole or not at all; what stood there stays untouched when it fails.

    The content goes to a temporary name in the same folder, is flushed to the disk and then renamed. Missing folders
    are made. A symbolic link is written through, and an existing file keeps its permissions.

    Args:
        path: Where the file shall stand.
        content: The bytes, or a function that writes them to the open binary file it is given.

    Returns:
        The path written.

    Raises:
        OutputError: The disk is full, or the folder cannot be written to. Any other error of a ``content`` function
            is passed on as it is, after the temporary file is removed.
    """
    path = Path(path)
    try:
        target = Path(os.path.realpath(path))
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        target.parent.mkdir(parents=True, exist_ok=True)
        # A short temporary name: a target name of the greatest allowed length must not make it too long.
        temporary = target.parent / f".{target.name[:40]}.{secrets.token_hex(6)}.part"
        try:
            _write(temporary, content)
            if target.exists():
                temporary.chmod(target.stat().st_mode & 0o7777)
            temporary.replace(target)
        except BaseException:  # also when the user presses Ctrl-C
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        reason, remedy = _REASONS.get(error.errno or 0, (f"cannot be written ({error.strerror or error})", ""))
        raise OutputError(f"{path}: {reason}", remedy) from error
    return path


def _write(temporary: Path, content: bytes | Writer) -> None:
    with temporary.open("xb") as file:
        if callable(content):
            content(file)
        else:
            file.write(content)
        file.flush()
        os.fsync(file.fileno())  # a full disk may show only here, and a rename must not outrun the content
