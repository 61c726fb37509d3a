"""Fixtures of the catalog's tests: an own home, a wheel, an index, a hub."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from manylens.catalog import Catalog, WeightsStore

from .helpers import (
    ALPHA,
    BETA,
    HUB_FILES,
    PACKAGE,
    Server,
    build_wheel,
    model,
    serve_repository,
    wheel_file,
    wheel_table,
)

REAL_ENVIRONMENT = dict(os.environ)
REAL_PYTHON = sys.executable


@pytest.fixture
def real_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives a test of real weights the user's own settings and caches, so that they are fetched once."""
    monkeypatch.undo()
    for name in set(os.environ) - set(REAL_ENVIRONMENT) - {"PYTEST_CURRENT_TEST"}:
        monkeypatch.delenv(name)
    for name, value in REAL_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the user's caches, settings or connections."""
    for name in ("MANYLENS_OFFLINE", "HF_HUB_OFFLINE", "HF_TOKEN", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("MANYLENS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """A folder that serves as package index, with one wheel in it."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    build_wheel(folder, {"tiny_weights/alpha.bin": ALPHA, "tiny_weights/beta.bin": BETA})
    return folder


@pytest.fixture
def quick_pip(wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for ``python -m pip download ... -d FOLDER NAME==VERSION`` that only copies the wheel."""
    path = tmp_path / "python"
    path.write_text(f'#!/bin/sh\nwhile [ "$1" != -d ]; do shift; done\ncp "{wheels}"/*.whl "$2"\n')
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))


@pytest.fixture
def real_pip(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the stand-in away again."""
    monkeypatch.setattr(sys, "executable", REAL_PYTHON)


@pytest.fixture
def catalog(wheels: Path, quick_pip: None, tmp_path: Path) -> Catalog:
    """Rows of the small wheel: ``t/both`` takes two files, ``t/alpha`` one of them, ``t/nc`` is non-commercial."""
    path = tmp_path / "catalog.toml"
    path.write_text(
        wheel_table(next(wheels.glob("*.whl")).stat().st_size)
        + model("t/both", wheel_file("alpha.bin", ALPHA) + wheel_file("beta.bin", BETA))
        + model("t/alpha", wheel_file("alpha.bin", ALPHA))
        + model("t/nc", wheel_file("beta.bin", BETA), extra="commercial = false")
        + model("t/wrong", wheel_file("alpha.bin", ALPHA[::-1], "tiny_weights/alpha.bin"))
        + model("t/hub", "", extra='repo = "owner/name"\nrevision = "main"')
        + model("t/composed", "", extra='uses = ["detect:closed"]', tasks='{ answer = ["default"] }')
    )
    return Catalog.load(path)


@pytest.fixture
def store(tmp_path: Path) -> WeightsStore:
    return WeightsStore(tmp_path / "home")


@pytest.fixture
def quiet() -> dict[str, Callable[..., None]]:
    """Arguments of `ensure` and `pull` for a run that prints nothing."""
    return {"progress": lambda *_: None, "announce": lambda row: None}


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def index(server: Server, wheels: Path, real_pip: None, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The folder of wheels as a package index over HTTP."""
    wheel = next(wheels.glob("*.whl"))
    server.files[f"/{wheel.name}"] = wheel.read_bytes()
    server.files[f"/simple/{PACKAGE}/"] = f'<a href="/{wheel.name}">{wheel.name}</a>'.encode()
    server.headers[f"/simple/{PACKAGE}/"] = {"Content-Type": "text/html"}
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
    return server


@pytest.fixture
def hub(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A model hub with the repository ``owner/name``."""
    serve_repository(server, "owner/name", HUB_FILES)
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    return server
