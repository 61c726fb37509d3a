"""A tiny base model, a session of the test's own and a picture, for models that were adapted."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from tests import tiny

import manylens
from manylens.media import Image


@pytest.fixture(autouse=True)
def one_core():
    """Networks as small as these only wait for a second thread."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return tiny.dinov2(tmp_path_factory.mktemp("base"), width=16, side=28)


@pytest.fixture
def session(tmp_path, monkeypatch) -> manylens.Session:
    monkeypatch.setenv("MANYLENS_HOME", str(tmp_path / "home"))
    return manylens.Session(home=tmp_path / "home", engine="torch")


@pytest.fixture
def picture() -> Image:
    return Image.of(np.random.default_rng(3).integers(0, 256, (40, 56, 3), dtype=np.uint8))
