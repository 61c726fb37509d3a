"""Clicks worked out by hand, and what must hold for any mask."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from manylens.evaluation.measures.clicker import Click, Clicker, depth_inside
from tests.evaluation.scripted import rectangle

SIZE = (20, 12)
OBJECT = rectangle(SIZE, (4, 3, 11, 8))
MASKS = arrays.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))


@pytest.mark.parametrize(
    ("truth", "predicted", "expected"),
    [
        pytest.param(OBJECT, None, Click(6, 5, True), id="first: the deepest point, the leftmost of equals"),
        pytest.param(OBJECT, ~OBJECT & OBJECT, Click(6, 5, True), id="an empty mask is no mask"),
        pytest.param(OBJECT, rectangle(SIZE, (4, 3, 8, 8)), Click(9, 4, True), id="what is missing"),
        pytest.param(OBJECT, rectangle(SIZE, (4, 3, 18, 8)), Click(13, 5, False), id="what is too much"),
        pytest.param(OBJECT, rectangle(SIZE, (7, 3, 18, 8)), Click(13, 5, False), id="the deeper of both"),
        pytest.param(OBJECT, rectangle(SIZE, (9, 3, 13, 8)), Click(6, 5, True), id="the deeper of both, the other way"),
        pytest.param(OBJECT, OBJECT, None, id="nothing is wrong"),
        pytest.param(
            rectangle(SIZE, (0, 0, 5, 12)), None, Click(2, 2, True), id="the picture's edge counts as a border"
        ),
        pytest.param(np.ones((5, 5), bool), None, Click(2, 2, True), id="the whole picture has a middle"),
        pytest.param(~OBJECT & OBJECT, None, None, id="no object"),
    ],
)
def test_where_it_clicks(truth, predicted, expected):
    assert Clicker(truth).click(predicted) == expected


def test_equal_depths_go_to_the_background_as_in_the_protocol():
    truth, predicted = rectangle(SIZE, (2, 2, 5, 5)), rectangle(SIZE, (10, 2, 13, 5))
    assert Clicker(truth).click(predicted) == Click(11, 3, False)


def test_a_click_is_not_repeated():
    clicker = Clicker(OBJECT)
    seen = [clicker.click(None) for _ in range(int(OBJECT.sum()))]
    assert len(set(seen)) == OBJECT.sum()
    assert clicker.click(None) is None
    assert clicker.clicks == seen


def test_pixels_that_nobody_minds_are_never_clicked():
    ignore = rectangle(SIZE, (0, 0, 8, 12))
    clicker = Clicker(OBJECT, ignore)
    while (click := clicker.click(None)) is not None:
        assert not ignore[click.y, click.x]
    assert clicker.clicks


@given(MASKS)
def test_depth_is_the_distance_to_the_nearest_pixel_outside(mask):
    """Against every pair of pixels."""
    outside = np.argwhere(~np.pad(mask, 1)) - 1
    depth = depth_inside(mask)
    for y, x in np.ndindex(mask.shape):
        expected = np.sqrt(((outside - (y, x)) ** 2).sum(1)).min()
        assert depth[y, x] == pytest.approx(expected, abs=1e-4)


@given(MASKS, st.integers(0, 2**16))
def test_a_click_is_on_a_wrong_pixel_and_says_which_way(truth, seed):
    predicted = np.random.default_rng(seed).random(truth.shape) < 0.5
    click = Clicker(truth).click(predicted)
    if click is None:
        assert (truth == predicted).all()
    else:
        assert truth[click.y, click.x] == click.inside
        assert predicted[click.y, click.x] != click.inside
        assert Clicker(truth).click(predicted) == click
