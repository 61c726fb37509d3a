"""J and F: cases worked by hand, and a slow version with a dilation by a disk, as DAVIS computes them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.morphology import dilation, disk

from manylens.evaluation.measures.boundaries import outline, outline_agreement, region_overlap
from tests.evaluation.scripted import rectangle

SIZE = (40, 30)
SQUARE = rectangle(SIZE, (10, 10, 20, 20))


def slow_outline(mask):
    height, width = mask.shape
    found = np.zeros_like(mask)
    for y, x in np.ndindex(mask.shape):
        for dy, dx in ((0, 1), (1, 0), (1, 1)):
            below, right = min(y + dy, height - 1), min(x + dx, width - 1)
            found[y, x] |= mask[y, x] != mask[below, right]
    return found


def slow_agreement(found, truth, tolerance):
    reach = disk(math.ceil(tolerance * np.linalg.norm(truth.shape)))
    ours, theirs = slow_outline(found), slow_outline(truth)
    precision = (ours & dilation(theirs, reach)).sum() / ours.sum() if ours.any() else 1.0
    recall = (theirs & dilation(ours, reach)).sum() / theirs.sum() if theirs.any() else 1.0
    if not ours.any() and theirs.any():
        recall = 0.0
    if ours.any() and not theirs.any():
        precision = 0.0
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def moved(by):
    return np.roll(SQUARE, by, axis=1)


@pytest.mark.parametrize(
    ("found", "truth", "overlap", "agreement"),
    [
        pytest.param(SQUARE, SQUARE, 1, 1, id="the same"),
        pytest.param(~SQUARE & SQUARE, ~SQUARE & SQUARE, 1, 1, id="both empty"),
        pytest.param(~SQUARE & SQUARE, SQUARE, 0, 0, id="nothing found"),
        pytest.param(SQUARE, ~SQUARE & SQUARE, 0, 0, id="nothing there"),
        pytest.param(moved(1), SQUARE, 9 / 11, 1, id="one pixel off: within the tolerance of ceil(0.4)"),
        pytest.param(moved(-10), SQUARE, 0, None, id="side by side"),
        pytest.param(np.ones_like(SQUARE), SQUARE, 100 / 1200, 0, id="the whole picture has no outline"),
    ],
)
def test_by_hand(found, truth, overlap, agreement):
    assert region_overlap(found, truth) == pytest.approx(overlap)
    if agreement is not None:
        assert outline_agreement(found, truth) == pytest.approx(agreement)


def test_outlines_out_of_reach_do_not_count():
    """Moved by 3 with a reach of 1: what is left are pieces of the rows that both squares have in common."""
    # Each outline has 11 + 11 + 9 + 9 pixels: x 9..19 in rows 9 and 19, and both columns in rows 10..18.
    assert outline(SQUARE).sum() == 40
    # Moved, x is 12..22 in the rows: those to 19, and 20 (a neighbour of 19), are near; of the columns only the ends of
    # the one at 12, which touch the rows. The other way round it is the same.
    near = 2 * 9 + 2
    assert outline_agreement(moved(3), SQUARE) == pytest.approx(near / 40)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 24), st.integers(2, 24), st.sampled_from([0.008, 0.05, 0.12]), st.integers(0, 2**16))
def test_against_the_slow_version(height, width, tolerance, seed):
    rng = np.random.default_rng(seed)
    coarse = rng.random((2, 4, 4)) < 0.4
    found, truth = np.repeat(np.repeat(coarse, 6, axis=1), 6, axis=2)[:, :height, :width]
    assert (outline(truth) == slow_outline(truth)).all()
    assert outline_agreement(found, truth, tolerance) == pytest.approx(slow_agreement(found, truth, tolerance))
    assert outline_agreement(truth, found, tolerance) == pytest.approx(outline_agreement(found, truth, tolerance))
    assert outline_agreement(truth, truth, tolerance) == 1
