"""One config: read, changed, compared, and what is said where a key or value is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from manylens.training.config import Config, assignments, differences, keys, nearest, read, with_changes, write
from manylens.training.errors import TrainError


def test_it_comes_back_from_its_file_as_it_was(tmp_path):
    config = Config.of({"task": "classify", "optimiser": {"lr": 1e-3}, "schedule": {"milestones": [3, 5]}})
    write(config, tmp_path / "config.yaml")
    assert Config.of(read(tmp_path / "config.yaml")) == config
    (tmp_path / "config.json").write_text(json.dumps(config.to_json()))
    assert Config.of(read(tmp_path / "config.json")) == config


@pytest.mark.parametrize(
    ("word", "key", "value"),
    [
        ("optimiser.lr=1e-3", "optimiser.lr", 0.001),
        ("loop.epochs=5", "loop.epochs", 5),
        ("data.check=false", "data.check", False),
        ("schedule.milestones=[3, 5]", "schedule.milestones", [3, 5]),
        ("data.group=", "data.group", ""),
        ("model=org/name", "model", "org/name"),
        ("head.options={hidden: 8}", "head.options", {"hidden": 8}),
        ("data.source=a=b.csv", "data.source", "a=b.csv"),
        ("data.source=v1.5", "data.source", "v1.5"),
    ],
)
def test_assignments_are_read_as_yaml(word, key, value):
    assert assignments([word]) == {key: value}


def test_a_word_without_an_equals_sign_is_no_assignment():
    with pytest.raises(TrainError, match="is no assignment"):
        assignments(["optimiser.lr"])


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("optimizer.lr", "optimiser.lr"),
        ("transfer.layerdecay", "transfer.layer_decay"),
        ("lr", "optimiser.lr"),
        ("loop.lr", "optimiser.lr"),
        ("batchsize", "loop.batch_size"),
        ("zzzz", ""),
    ],
)
def test_the_nearest_key_is_found(wrong, meant):
    assert nearest(wrong) == meant


def test_values_change_by_dotted_key_and_nothing_else_does():
    before = {"a": {"b": 1, "c": 2}}
    assert with_changes(before, {"a.b": 3, "d.e": 4}) == {"a": {"b": 3, "c": 2}, "d": {"e": 4}}
    assert before == {"a": {"b": 1, "c": 2}}
    with pytest.raises(TrainError, match=r"'a\.b\.x': a\.b has no parts"):
        with_changes(before, {"a.b.x": 1})


def test_differences_name_both_values():
    assert differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2}) == ["a.b is 1, was 3"]


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "\x00"])
def test_a_file_that_is_no_config_is_named(text, tmp_path):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(TrainError, match=r"bad\.yaml"):
        read(tmp_path / "bad.yaml")
    with pytest.raises(TrainError, match="cannot be read"):
        read(tmp_path / "none.yaml")


def test_the_guide_names_every_section():
    guide = (Path(__file__).parents[2] / "docs" / "train.md").read_text()
    sections = {key.partition(".")[0] for key in keys() if "." in key}
    assert {name for name in sections if f"`{name}." not in guide} <= {"head", "ensemble"}
