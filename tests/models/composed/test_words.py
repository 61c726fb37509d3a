from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manylens.models.composed.words import (
    bare,
    counted,
    data,
    listed,
    numbered,
    plural,
    singular,
    split_names,
    with_article,
)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("cat", ("cat",)),
        ("cat and dog", ("cat", "dog")),
        ("cat, dog", ("cat", "dog")),
        ("cat . dog .", ("cat", "dog")),
        ("cat.", ("cat",)),
        ("the Cats and all the dogs", ("cat", "dog")),
        ("a cat, a dog, and two people", ("cat", "dog", "two person")),
        ("traffic lights; stop signs", ("traffic light", "stop sign")),
        ("cat, cats, the cat", ("cat",)),
        ("sandwich and candy", ("sandwich", "candy")),
        ("orange", ("orange",)),
        (" , and . ", ()),
    ],
)
def test_split_names(text: str, names: tuple[str, ...]) -> None:
    assert split_names(text) == names


@pytest.mark.parametrize(
    ("many", "one"),
    [
        ("cats", "cat"),
        ("buses", "bus"),
        ("people", "person"),
        ("glasses", "glasses"),
        ("wine glasses", "wine glasses"),
        ("sheep", "sheep"),
        ("boxes", "box"),
        ("sandwiches", "sandwich"),
        ("knives", "knife"),
        ("horses", "horse"),
        ("berries", "berry"),
        ("couches", "couch"),
        ("toothbrushes", "toothbrush"),
        ("bus", "bus"),
        ("tennis", "tennis"),
    ],
)
def test_singular(many: str, one: str) -> None:
    assert singular(many) == one


@pytest.mark.parametrize("name", ["cat", "bus", "person", "berry", "box", "toy", "knife", "sheep", "traffic light"])
def test_singular_undoes_plural(name: str) -> None:
    assert singular(plural(name)) == name


@pytest.mark.parametrize("group", data("categories.toml").values())
def test_every_name_of_a_group_is_its_own_singular(group: list[str]) -> None:
    assert [singular(name) for name in group] == group
    assert [singular(plural(name)) for name in group if name != "wine glass"] == [n for n in group if n != "wine glass"]


@given(st.text(alphabet="abc the.,and", max_size=40))
def test_names_never_hold_separators(text: str) -> None:
    for name in split_names(text):
        assert name == name.strip()
        assert name
        assert "," not in name


@pytest.mark.parametrize(("phrase", "kept"), [("all of the cats", "cats"), ("the", ""), ("another cat", "another cat")])
def test_bare(phrase: str, kept: str) -> None:
    assert bare(phrase) == kept


@pytest.mark.parametrize(
    ("phrase", "found"),
    [("two cups", (2, "cups")), ("12 cats", (12, "cats")), ("cup", (None, "cup")), ("two", (2, "")), ("", (None, ""))],
)
def test_numbered(phrase: str, found: tuple[int | None, str]) -> None:
    assert numbered(phrase) == found


def test_phrases() -> None:
    assert counted(0, "person") == "no people"
    assert counted(1, "cat") == "1 cat"
    assert with_article("apple") == "an apple"
    assert with_article("scissors") == "scissors"
    assert listed(["a", "b", "c"]) == "a, b and c"
