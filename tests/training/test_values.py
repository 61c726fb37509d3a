"""Values of a config: read, changed, compared, and what is said where a key is wrong."""

from __future__ import annotations

import pytest

from manylens.training.config import Config
from manylens.training.errors import TrainError
from manylens.training.values import assignments, differences, flat, keys, nearest, read, with_changes


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
    assert nearest(wrong, keys(Config)) == meant


def test_values_change_by_dotted_key_and_nothing_else_does():
    before = {"a": {"b": 1, "c": 2}}
    assert with_changes(before, {"a.b": 3, "d.e": 4}) == {"a": {"b": 3, "c": 2}, "d": {"e": 4}}
    assert before == {"a": {"b": 1, "c": 2}}
    with pytest.raises(TrainError, match=r"'a\.b\.x': a\.b has no parts"):
        with_changes(before, {"a.b.x": 1})


def test_differences_name_both_values():
    assert differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2}) == ["a.b is 1, was 3"]


def test_nested_values_are_had_by_dotted_key():
    assert flat({"a": {"b": 1, "c": {"d": [2]}}, "e": {}}) == {"a.b": 1, "a.c.d": [2], "e": {}}


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "\x00"])
def test_a_file_that_is_no_config_is_named(text, tmp_path):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(TrainError, match=r"bad\.yaml"):
        read(tmp_path / "bad.yaml")
    with pytest.raises(TrainError, match="cannot be read"):
        read(tmp_path / "none.yaml")
