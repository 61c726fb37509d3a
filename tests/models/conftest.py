"""Real models for the tests that are marked ``weights``; each is fetched and loaded once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from manylens import models
from manylens.catalog import Catalog, WeightsStore
from manylens.runtime.context import Context
from manylens.runtime.engines import EngineSettings

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="session")
def weights() -> Callable[[str], Mapping[str, Path]]:
    """The verified files of a catalog row, by name: ``weights("manylens/vit-s")``."""
    catalog, store = Catalog.load(), WeightsStore()
    return cache(lambda identity: store.ensure(catalog[identity]))


@pytest.fixture(scope="session")
def load(weights) -> Callable[..., models.base.Model]:
    """A loaded model: ``load("manylens/vit-s", precision="bf16")``."""
    catalog = Catalog.load()

    @cache
    def loaded(identity: str, **settings: Any) -> Any:
        return models.load(catalog[identity], weights(identity), EngineSettings(**settings))

    return loaded


@pytest.fixture(scope="session")
def run(load) -> Callable[..., Any]:
    """The result of one request: ``run("manylens/ssd-coco", request)``; a list given as ``notes`` takes the notes."""

    def once(identity: str, request: Any, notes: list[str] | None = None, **settings: Any) -> Any:
        ctx = Context(call=lambda task, inner: once("manylens/minilm", inner))
        result = next(load(identity, **settings).run([request], ctx))
        if notes is not None:
            notes += ctx.notes.get("notes", [])
        return result

    return once


@pytest.fixture(scope="session")
def example() -> Callable[[str], Path]:
    """The path of an example photograph."""
    return lambda name: EXAMPLES / name
