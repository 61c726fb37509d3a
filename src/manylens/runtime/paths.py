"""Where manylens keeps its files, and whether it may use the network."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_TRUE = frozenset({"1", "true", "yes", "on"})


def home() -> Path:
    """The folder of all caches: ``$MANYLENS_HOME``, or the user's cache folder. Not created until something is kept."""
    named = os.environ.get("MANYLENS_HOME", "").strip()
    if named:
        return Path(named).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("manylens", appauthor=False))


def compiled_folder() -> Path:
    """Folder of compiled networks. Left to its cache to create."""
    return home() / "compiled"


def engines_file() -> Path:
    """The engines that were measured fastest on this machine."""
    return home() / "engines.json"


def offline() -> bool:
    """True when ``MANYLENS_OFFLINE`` asks for no connection at all."""
    return os.environ.get("MANYLENS_OFFLINE", "").strip().lower() in _TRUE


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Opens a temporary file that takes the place of ``path`` when the block ends well, and goes otherwise.

    Raises:
        OSError: The folder cannot be written or the disk is full; what stood at ``path`` is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:40]}.", suffix=".part", dir=path.parent)
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
