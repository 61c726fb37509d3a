"""Dense heads: shapes, and the same answers on every engine."""

from __future__ import annotations

import inspect
import json
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from tests.models.adapted.heads.dense import SIZE, WIDTHS, by_openvino, by_tracing, eager, features, roused

from manylens.models.adapted.heads.detection import Detector
from manylens.models.adapted.heads.pyramid import SCALES, Level, Pyramid, spread
from manylens.models.adapted.heads.queries import MaskQueries, places
from manylens.models.adapted.heads.semantic import LinearSemantic, UPerNet

BLOCKS = ("block.1", "block.3", "block.5", "block.7")
SMALL = {"queries": 6, "width": 16, "layers": 2, "heads": 4}
HEADS = {
    "linear": (LinearSemantic, {}, ("logits",)),
    "linear of two": (LinearSemantic, {"features": ("block.7", "dense")}, ("logits",)),
    "upernet": (UPerNet, {"width": 16}, ("logits",)),
    "upernet of four": (UPerNet, {"width": 16, "features": BLOCKS}, ("logits",)),
    "queries": (MaskQueries, SMALL, ("classes", "masks")),
    "queries, masked": (
        MaskQueries,
        {**SMALL, "annealed": False, "features": ("block.3", "dense")},
        ("classes", "masks"),
    ),
    "detector": (Detector, {"width": 16, "depth": 1}, ("scores", "boxes", "points", "cells")),
    "detector of two": (
        Detector,
        {"width": 16, "features": ("block.3", "dense"), "scales": (4, 1)},
        ("scores", "boxes"),
    ),
}
SHAPES = {
    "linear": {"logits": (2, 3, 5, 7)},
    "linear of two": {"logits": (2, 3, 5, 7)},
    "upernet": {"logits": (2, 3, 20, 28)},
    "upernet of four": {"logits": (2, 3, 20, 28)},
    "queries": {"classes": (2, 6, 4), "masks": (2, 6, 20, 28)},
    "queries, masked": {"classes": (2, 6, 4), "masks": (2, 6, 20, 28)},
    "detector": {"scores": (2, 187, 3), "boxes": (2, 187, 4), "points": (187, 2), "cells": (187, 2)},
    "detector of two": {"scores": (2, 595, 3), "boxes": (2, 595, 4), "points": (595, 2), "cells": (595, 2)},
}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def made(name):
    kind, options, outputs = HEADS[name]
    torch.manual_seed(0)
    return kind(WIDTHS, 3, **options), outputs


@pytest.mark.parametrize("name", HEADS)
def test_shapes(name):
    head, _ = made(name)
    found = head.eval()(features(head.needs), SIZE)
    assert {key: tuple(one.shape) for key, one in found.items()} == SHAPES[name]


@pytest.mark.parametrize("name", HEADS)
def test_every_parameter_learns(name):
    head, _ = made(name)
    roused(head).train()
    found = head(features(head.needs), SIZE)
    sum(one.sin().mean() for one in found.values() if one.requires_grad).backward()
    assert [key for key, one in head.named_parameters() if one.grad is None or not one.grad.abs().sum()] == []


@pytest.mark.parametrize("name", HEADS)
def test_tracing_gives_the_same(name):
    head, outputs = made(name)
    given = features(roused(head).needs)
    for one, other in zip(by_tracing(head, outputs, given), eager(head, outputs, given), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", HEADS)
def test_openvino_gives_the_same(name):
    head, outputs = made(name)
    given = features(roused(head).needs)
    for one, other in zip(by_openvino(head, outputs, given), eager(head, outputs, given), strict=True):
        assert np.abs(other).max() > 0.1  # there is something to tell apart
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", HEADS)
def test_kept_features_of_half_precision_will_do(name):
    head, outputs = made(name)
    half = features(roused(head).needs, dtype=torch.float16)
    same = {key: one.float() for key, one in half.items()}
    for one, other in zip(eager(head, outputs, half), eager(head, outputs, same), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", HEADS)
def test_a_picture_is_answered_alike_alone_and_among_others(name):
    head, outputs = made(name)
    both = features(roused(head).needs)
    alone = {key: one[1:] for key, one in both.items()}
    for key, one, other in zip(outputs, eager(head, outputs, alone), eager(head, outputs, both), strict=True):
        np.testing.assert_allclose(one, other if key in ("points", "cells") else other[1:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", HEADS)
def test_a_head_is_rebuilt_from_json(name):
    kind, options, outputs = HEADS[name]
    stored = json.loads(json.dumps({"widths": WIDTHS, "labels": 3, "options": options}))
    one, _ = made(name)
    other = kind(
        stored["widths"],
        stored["labels"],
        **{k: v if not isinstance(v, list) else tuple(v) for k, v in stored["options"].items()},
    )
    other.load_state_dict(one.state_dict())
    given = features(one.needs)
    for a, b in zip(eager(one.eval(), outputs, given), eager(other.eval(), outputs, given), strict=True):
        np.testing.assert_array_equal(a, b)
    every = inspect.signature(kind).parameters.values()
    assert [p.name for p in every if p.kind is not p.KEYWORD_ONLY] == ["widths", "labels"]


@pytest.mark.parametrize(("scale", "sides"), [(4.0, (20, 28)), (2.0, (10, 14)), (1.0, (5, 7)), (0.5, (3, 4))])
def test_levels_of_a_pyramid(scale, sides):
    assert set(SCALES) == {4.0, 2.0, 1.0, 0.5}
    assert Level(24, 8, scale)(torch.randn(1, 24, 5, 7)).shape == (1, 8, *sides)


def test_levels_are_of_their_own_blocks():
    pyramid = Pyramid(WIDTHS, BLOCKS, 8, SCALES)
    given = features(BLOCKS)
    before = pyramid(given)
    given["block.3"] = given["block.3"] + 1.7 * torch.randn_like(given["block.3"])
    assert [bool((a != b).any()) for a, b in zip(before, pyramid(given), strict=True)] == [False, True, False, False]


@pytest.mark.parametrize(
    ("depth", "count", "names"),
    [
        (12, 4, ("block.2", "block.5", "block.8", "block.11")),
        (4, 4, ("block.0", "block.1", "block.2", "block.3")),
        (7, 4, ("block.0", "block.2", "block.4", "block.6")),
        (12, 1, ("dense",)),
        (3, 4, ("dense",)),
    ],
)
def test_blocks_are_spread_evenly(depth, count, names):
    assert spread(depth, count) == names


def test_places_of_the_detector_are_the_middles_of_its_cells():
    head = Detector(WIDTHS, 3, width=8, depth=0).eval()
    found = head(features(("dense",)), SIZE)
    points, cells = found["points"].numpy(), found["cells"].numpy()
    expected = []
    for scale, rows, columns in ((2, 10, 14), (1, 5, 7), (0.5, 3, 4)):
        cell = 14 / scale
        expected += [((x + 0.5) * cell, (y + 0.5) * cell, cell) for y in range(rows) for x in range(columns)]
    np.testing.assert_allclose(points, np.array(expected)[:, :2], rtol=1e-6)
    np.testing.assert_allclose(cells, np.array(expected)[:, 2:].repeat(2, 1), rtol=1e-6)
    # Before training each box reaches a cell to every side.
    middle = (found["boxes"][0, :, :2] + found["boxes"][0, :, 2:]) / 2
    assert (middle - found["points"]).abs().max() < 3
    assert found["scores"].sigmoid().mean().item() == pytest.approx(0.01, rel=0.3)


def test_boxes_are_in_pixels_of_the_picture_not_of_the_grid():
    head = roused(Detector(WIDTHS, 3, width=8))
    given = features(head.needs)
    once, twice = head(given, SIZE), head(given, (SIZE[0] * 2, SIZE[1] * 3))
    torch.testing.assert_close(once["boxes"] * torch.tensor([3.0, 2.0, 3.0, 2.0]), twice["boxes"])


def test_places_of_cells_differ_and_do_not_depend_on_the_size_of_the_map():
    small, large = places(3, 4, 16, torch.zeros(1)), places(9, 12, 16, torch.zeros(1))
    apart = torch.cdist(small, small) + torch.eye(12)
    assert apart.min() > 1e-3
    # The middle of a cell of the small map is that of the middle one of nine of the large map.
    torch.testing.assert_close(large.view(9, 12, 16)[1::3, 1::3].flatten(0, 1), small)


def test_attention_is_masked_less_and_less():
    head = MaskQueries(WIDTHS, 3, **{**SMALL, "layers": 3})
    shares = []
    for done in (0.0, 0.2, 0.4, 0.6, 0.9, 1.0):
        head.anneal(done)
        shares.append(head.shares.tolist())
    assert shares[0] == [1, 1, 1]
    assert shares[-1] == shares[-2] == [0, 0, 0]
    assert all(a >= b for one, other in pairwise(shares) for a, b in zip(one, other, strict=True))
    assert all(one == sorted(one) for one in shares)  # the first layer's masks go first
    always = MaskQueries(WIDTHS, 3, **SMALL, annealed=False)
    always.anneal(1.0)
    assert always.shares.tolist() == [1, 1]


def test_a_masked_query_sees_only_its_mask_and_a_trained_one_everything():
    head = roused(MaskQueries(WIDTHS, 3, **{**SMALL, "layers": 1}))
    given = features(head.needs, batch=1)
    ground = head.enter(given["dense"].permute(0, 3, 1, 2))
    masks = torch.full((1, 6, 20, 28), -5.0)
    masks[0, 0, :8, :8] = 5.0  # the four first cells of the upper left corner; the other queries found nothing
    bias = head._bias(masks, 0, ground).reshape(6, 5, 7)
    assert (bias[0] == 0).nonzero().tolist() == [[y, x] for y in range(2) for x in range(2)]
    assert (bias[1:] == 0).all()
    head.anneal(1.0)
    assert (head._bias(masks, 0, ground) == 0).all()


def test_stages_are_given_in_training_only_and_the_last_is_the_answer():
    head, _ = made("queries")
    found = head.train()(features(head.needs), SIZE)
    assert found["stage_classes"].shape == (3, 2, 6, 4)
    assert found["stage_masks"].shape == (3, 2, 6, 20, 28)
    assert torch.equal(found["stage_classes"][-1], found["classes"])
    assert torch.equal(found["stage_masks"][-1], found["masks"])


def test_the_size_may_be_that_of_a_traced_picture():
    head = roused(Detector({"dense": 3}, 2, width=8, depth=1))

    class Whole(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.head = head

        def forward(self, pixels):
            maps = torch.nn.functional.avg_pool2d(pixels, 14).permute(0, 2, 3, 1)
            return self.head({"dense": maps}, (pixels.shape[-2], pixels.shape[-1]))["boxes"]

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(Whole(), (torch.rand(1, 3, 56, 56),))
        for sides in ((56, 56), (70, 98)):
            pixels = torch.rand(2, 3, *sides)
            torch.testing.assert_close(traced(pixels), Whole()(pixels))
