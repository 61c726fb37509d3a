"""One config: what of it goes into a file and comes back, and what the guide says of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from manylens.training.config import Config
from manylens.training.errors import TrainError
from manylens.training.values import keys, read, write


def test_it_comes_back_from_its_file_as_it_was(tmp_path):
    config = Config.of({"task": "classify", "optimiser": {"lr": 1e-3}, "schedule": {"milestones": [3, 5]}})
    write(config.to_json(), tmp_path / "config.yaml")
    assert Config.of(read(tmp_path / "config.yaml")) == config
    (tmp_path / "config.json").write_text(json.dumps(config.to_json()))
    assert Config.of(read(tmp_path / "config.json")) == config


def test_the_guide_names_every_section():
    guide = (Path(__file__).parents[2] / "docs" / "train.md").read_text()
    sections = {key.partition(".")[0] for key in keys(Config) if "." in key}
    assert {name for name in sections if f"`{name}." not in guide} <= {"head", "ensemble"}


@pytest.mark.parametrize(
    ("task", "recipe", "given", "batch"),
    [
        ("classify", None, 0, 32),
        ("segment", None, 0, 8),
        ("segment", "promptable", 0, 4),
        ("segment", "promptable", 7, 7),
        ("segment", "no-such", 0, 32),  # told by name where the recipe is looked for
    ],
)
def test_the_batch_fits_the_recipe_where_nothing_is_said(task, recipe, given, batch):
    made = Config.of({"task": task, "recipe": recipe, "loop": {"batch_size": given}})
    assert made.loop.batch_size == batch
    assert made.changed({"seed": 3}).loop.batch_size == batch


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"task": "classify", "seeed": 1}, r"^config 'seeed': there is no such key; did you mean seed\?$"),
        ({"task": "clasify", "seeed": 1}, r"^config 'task': 'clasify' does not fit \(and 1 more mistake\); "),
        ({"loop": {"epochs": 0}, "side": 3}, r"^config 'task': is missing \(and 2 more mistakes\); give it"),
        ({"task": "embed", "a": 1, "b": 2}, r"^config 'a': there is no such key \(and 1 more mistake\); see docs"),
    ],
)
def test_one_mistake_is_told_and_the_others_counted(values, says):
    with pytest.raises(TrainError, match=says):
        Config.of(values)
