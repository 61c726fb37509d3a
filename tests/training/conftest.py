"""A tiny vision transformer as a checkpoint folder, and pictures of two kinds that it can tell apart."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import manylens
from tests import tiny


@pytest.fixture(scope="package", autouse=True)
def one_core() -> Iterator[None]:
    """Networks as small as these only wait for a second thread."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture(scope="session")
def tiny_vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DINOv2 of four blocks and 24 numbers a token, seeded; pictures of 28 pixels."""
    return tiny.dinov2(tmp_path_factory.mktemp("tiny-vit"), width=24, blocks=4)


@pytest.fixture(scope="session")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder a class: lying, standing and slanted stripes, 16 pictures each."""
    root = tmp_path_factory.mktemp("stripes")
    random = np.random.default_rng(0)
    y, x = np.mgrid[0:28, 0:28]
    for name, across in (("lying", y), ("standing", x), ("slanted", x + y)):
        (root / name).mkdir()
        for number in range(16):
            wave = 127 + 80 * np.sin(across * random.uniform(0.8, 1.2) + random.uniform(0, 6))
            noise = random.normal(0, 12, (28, 28, 3))
            Image.fromarray((wave[..., None] + noise).clip(0, 255).astype(np.uint8)).save(root / name / f"{number}.png")
    return root


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> manylens.Session:
    """A session whose caches are the test's own; torch on one thread, as a second only waits on what is so small."""
    monkeypatch.setenv("MANYLENS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return manylens.Session(home=tmp_path / "home", engine="torch")
