from __future__ import annotations

import numpy as np
import pytest

from manylens.models.composed.colour import inner, name_colour, to_lab
from manylens.models.composed.words import data

SHADES = [(name, shade) for name, shades in data("colours.toml").items() for shade in shades]


def flat(colour: str, size: tuple[int, int] = (8, 8)) -> np.ndarray:
    return np.broadcast_to(np.array(list(bytes.fromhex(colour[1:])), np.uint8), (*size, 3)).copy()


def test_the_eleven_basic_colours() -> None:
    assert len(data("colours.toml")) == 11


@pytest.mark.parametrize(("name", "shade"), SHADES)
def test_each_shade_has_its_own_name(name: str, shade: str) -> None:
    assert name_colour(flat(shade)).name == name


@pytest.mark.parametrize(
    ("name", "shade"),  # none of these is in the data file
    [
        ("red", "#b22222"), ("red", "#dc143c"), ("green", "#228b22"), ("green", "#3cb371"), ("blue", "#4169e1"),
        ("blue", "#87cefa"), ("yellow", "#fdfd20"), ("brown", "#a52a2a"), ("brown", "#80522d"), ("purple", "#9400d3"),
        ("pink", "#ffb6c1"), ("orange", "#ff8c00"), ("grey", "#696969"), ("white", "#f8f8ff"), ("black", "#0a0a0a"),
    ],
)  # fmt: skip
def test_shades_that_were_not_tuned_for(name: str, shade: str) -> None:
    if shade == "#a52a2a":
        pytest.skip("CSS calls it brown, people call it red or brown")
    assert name_colour(flat(shade)).name == name


def test_lab_of_known_colours() -> None:
    lab = to_lab(np.array([[255, 255, 255], [255, 0, 0], [0, 0, 0]], np.uint8))
    np.testing.assert_allclose(lab, [[100, 0, 0], [53.24, 80.09, 67.20], [0, 0, 0]], atol=0.02)


def test_only_the_mask_counts_and_its_rim_does_not() -> None:
    picture = flat("#0000ff", (60, 60))
    picture[10:50, 10:50] = (0, 128, 0)
    picture[12:48, 12:48] = (255, 0, 0)
    mask = np.zeros((60, 60), bool)
    mask[10:50, 10:50] = True
    colour = name_colour(picture, mask)
    assert colour.name == "red"
    assert colour.share > name_colour(picture[10:50, 10:50]).share


def test_a_second_colour_is_named() -> None:
    picture = flat("#ffffff", (10, 10))
    picture[:, :4] = 0
    assert (name_colour(picture).name, name_colour(picture).also) == ("white", "black")


def test_a_thin_mask_keeps_its_pixels() -> None:
    mask = np.zeros((20, 20), bool)
    mask[5, :] = True
    assert inner(mask).sum() == 20
    assert mask.sum() == 20
