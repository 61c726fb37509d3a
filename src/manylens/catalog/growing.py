"""Sizes in a folder that somebody else is writing to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def file_sizes(folder: Path) -> Iterator[tuple[str, int]]:
    """Name and bytes of every file below a folder, links not counted.

    Files and folders may come and go meanwhile: what is gone is passed over (``Path.rglob`` raises there).
    """
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            with suppress(OSError):
                if not path.is_symlink():
                    yield name, path.stat().st_size
