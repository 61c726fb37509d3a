"""Simulated people: where they click, how they draw boxes, what they paint."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manylens.training.promptable import boxes, clicks
from manylens.training.promptable.coarse import SURE, coarse

masks_drawn = (
    st.integers(0, 10_000)
    .map(
        lambda seed: torch.from_numpy(
            np.random.default_rng(seed).random((3, 9, 11)) < np.random.default_rng(seed).uniform(0.05, 0.95)
        )
    )
    .filter(lambda masks: bool(masks.flatten(1).any(dim=1).all()))
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def square(side: int = 20, start: int = 5, stop: int = 15) -> torch.Tensor:
    mask = torch.zeros(1, side, side, dtype=torch.bool)
    mask[:, start:stop, start:stop] = True
    return mask


# ------------------------------------------------------------------ clicks


def test_depth_is_the_distance_to_what_is_not_the_mask():
    mask = np.random.default_rng(0).random((12, 15)) < 0.8
    mask[0] = True
    framed = np.pad(mask, 1)
    outside = np.argwhere(~framed) - 1
    found = clicks.depth(mask)
    for y, x in np.ndindex(mask.shape):
        nearest = np.sqrt(((outside - [y, x]) ** 2).sum(axis=1).min()) if mask[y, x] else 0.0
        assert found[y, x] == pytest.approx(nearest, abs=0.1)  # the 5x5 chamfer is exact to a few hundredths


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (np.ones((5, 7), bool), (2, 2)),
        (np.pad(np.ones((3, 3), bool), ((2, 4), (1, 5))), (2, 3)),
        (np.pad(np.ones((1, 1), bool), ((0, 4), (4, 0))), (4, 0)),
    ],
)
def test_the_middle_is_the_deepest_pixel(mask, expected):
    assert clicks.middle(mask) == expected


@given(masks_drawn, st.sampled_from(["anywhere", "middle"]), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_a_first_click_is_on_its_object(masks, place, seed):
    points = clicks.first(masks, place, seeded(seed)).long()
    assert all(masks[number, y, x] for number, (x, y) in enumerate(points.tolist()))


def test_first_clicks_lie_deeper_than_pixels_do():
    mask = square().expand(4000, -1, -1)
    depths = torch.from_numpy(clicks.depth(mask[0].numpy()))
    x, y = clicks.first(mask, "anywhere", seeded()).long().unbind(1)
    mean_of_clicks, mean_of_pixels = depths[y, x].mean(), depths[mask[0]].mean()
    assert mean_of_clicks > 1.15 * mean_of_pixels
    assert (depths[y, x] <= 1).any()  # the edge is clicked, too


def test_anywhere_is_every_pixel_as_likely():
    mask = torch.zeros(1, 4, 5, dtype=torch.bool)
    mask[0, [0, 1, 3, 3], [4, 0, 2, 4]] = True
    points = clicks.anywhere(mask.expand(8000, -1, -1), seeded()).long()
    counts = torch.bincount(points[:, 1] * 5 + points[:, 0], minlength=20)
    assert counts[~mask.flatten()].sum() == 0
    assert (counts[mask.flatten()] / 8000 - 0.25).abs().max() < 0.02


@given(masks_drawn, st.integers(0, 10_000), st.sampled_from(["anywhere", "middle"]))
@settings(max_examples=40, deadline=None)
def test_a_correcting_click_is_in_the_largest_error_and_says_what_is_there(masks, seed, place):
    found = torch.from_numpy(np.random.default_rng((seed, 1)).random(tuple(masks.shape)) < 0.5)
    found[0] = masks[0]  # nothing is wrong with the first
    points, labels = clicks.correcting(masks, found, place, seeded(seed))
    for number, ((x, y), label) in enumerate(zip(points.long().tolist(), labels.tolist(), strict=True)):
        truth, answer = masks[number].numpy(), found[number].numpy()
        assert label == int(truth[y, x])
        if number == 0:
            assert truth[y, x]
            continue
        sizes = regions(truth & ~answer) + regions(answer & ~truth)
        assert truth[y, x] != answer[y, x]
        mine = next(region for region in sizes if (y, x) in region)
        assert len(mine) == max(map(len, sizes))


def regions(mask: np.ndarray) -> list[set[tuple[int, int]]]:
    """The 4-connected regions, by filling."""
    left, found = {tuple(int(i) for i in place) for place in np.argwhere(mask)}, []
    while left:
        todo, region = [left.pop()], set()
        while todo:
            y, x = todo.pop()
            region.add((y, x))
            near = {(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)} & left
            left -= near
            todo += near
        found.append(region)
    return found


def test_the_middle_of_an_error_is_the_same_each_time_and_random_clicks_are_by_the_seed():
    masks, found = square(), torch.zeros_like(square())
    assert clicks.correcting(masks, found, "middle")[0].tolist() == [[9.0, 9.0]]
    once, again, other = (clicks.correcting(masks, found, "anywhere", seeded(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


# ------------------------------------------------------------------ boxes


@given(masks_drawn)
@settings(max_examples=40, deadline=None)
def test_the_box_around_a_mask_is_the_smallest(masks):
    for mask, (x0, y0, x1, y1) in zip(masks.numpy(), boxes.around(masks).tolist(), strict=True):
        rows, columns = np.nonzero(mask)
        assert (x0, y0, x1, y1) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_noise_of_a_box_has_a_tenth_of_its_side_and_at_most_twenty_pixels_of_1024():
    small = torch.tensor([[400.0, 400, 460, 520]]).expand(20_000, -1)
    moved = boxes.jittered(small, (1024, 1024), generator=seeded()) - small
    assert moved.std(dim=0).tolist() == pytest.approx([6, 11.4, 6, 11.4], rel=0.05)  # of 12, cut at 20
    assert moved.abs().max() == 20
    assert moved.mean(dim=0).abs().max() < 0.3


@given(st.integers(0, 1000), st.floats(0.1, 2.0))
@settings(max_examples=40, deadline=None)
def test_a_moved_box_stays_a_box_inside_the_picture(seed, spread):
    corners = torch.rand(8, 2, 2, generator=seeded(seed)).sort(dim=1).values.flatten(1)
    given = torch.cat([corners[:, :2] * 30, corners[:, 2:] * 30 + 1], dim=1)
    x0, y0, x1, y1 = boxes.jittered(given, (32, 40), spread=spread, most=1.0, generator=seeded(seed)).unbind(1)
    assert (x0 >= 0).all()
    assert (y0 >= 0).all()
    assert (x1 <= 40).all()
    assert (y1 <= 32).all()
    assert (x1 - x0 >= 1 - 1e-4).all()
    assert (y1 - y0 >= 1 - 1e-4).all()


# ------------------------------------------------------------------ coarse masks


def test_a_coarse_mask_is_about_the_object_but_not_it():
    masks = square(48, 12, 36).expand(32, -1, -1)
    found = coarse(masks, (48, 48), seeded())
    assert found.shape == (32, 1, 48, 48)
    assert found.abs().max() == SURE
    painted = found[:, 0] > 0
    overlap = (painted & masks).sum(dim=(1, 2)) / (painted | masks).sum(dim=(1, 2))
    assert overlap.min() > 0.4
    assert overlap.mean() > 0.6
    assert (overlap < 0.98).float().mean() > 0.9
    sizes = painted.sum(dim=(1, 2)) / masks.sum(dim=(1, 2))
    assert sizes.min() < 0.95 < 1.05 < sizes.max()  # grown as well as shrunk


def test_a_coarse_mask_is_of_the_decoders_shape_and_never_empty():
    masks = torch.zeros(3, 40, 40, dtype=torch.bool)
    masks[0, 0, 0] = masks[1, 39, 39] = True
    masks[2, :, 20] = True
    found = coarse(masks, (10, 10), seeded())
    assert found.shape == (3, 1, 10, 10)
    assert (found.flatten(1).amax(dim=1) > -SURE).all()
