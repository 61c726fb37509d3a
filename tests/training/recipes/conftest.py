"""A recipe on a tiny encoder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from manylens.data import Dataset
from manylens.runtime.engines import EngineSettings
from manylens.training import recipes
from manylens.training.config import Config
from manylens.training.recipes.base import Given
from tests.training.recipes.kit import BASE, SIDE, TASKS


@pytest.fixture
def recipe(tiny_vit, session, tmp_path):
    """Makes a recipe on a tiny encoder."""

    @contextmanager
    def made(name: str, found: Dataset, **changes: Any) -> Iterator[Any]:
        values = {"task": TASKS[name], "recipe": name, "side": SIDE, "model": str(tiny_vit)}
        keys = {key.replace("__", "."): one for key, one in changes.items()}
        config = Config.of(values).changed(keys)
        said: list[str] = []
        with session.module(str(tiny_vit)) as trainable:
            given = Given(
                config=config,
                data=found,
                trainable=trainable,
                session=session,
                base=BASE,
                cache=tmp_path / "features",
                settings=EngineSettings("torch", threads=1),
                say=said.append,
            )
            one = recipes.find(TASKS[name], name)[1](given)
            one.said = said
            yield one

    return made
