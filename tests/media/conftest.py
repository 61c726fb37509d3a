"""Small pictures and files, made where they are needed."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

Encode = Callable[..., bytes]


@pytest.fixture
def pixels() -> np.ndarray:
    """Random RGB, 7 wide and 5 high: no two ways to turn it look the same."""
    return np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)


@pytest.fixture
def encode() -> Encode:
    """Encode an array or Pillow image as a file's bytes."""

    def encode(picture: Any, format_name: str, **options: Any) -> bytes:
        image = picture if isinstance(picture, PIL.Image.Image) else PIL.Image.fromarray(picture)
        file = io.BytesIO()
        image.save(file, format_name, **options)
        return file.getvalue()

    return encode


@pytest.fixture
def disk_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the disk full: what is written arrives in part, then flushing it fails."""
    import errno
    import os

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("manylens.media.files.os.fsync", full)


@pytest.fixture
def folder_of(tmp_path: Path) -> Callable[[], set[str]]:
    """The names in the test's folder."""
    return lambda: {path.name for path in tmp_path.iterdir()}
