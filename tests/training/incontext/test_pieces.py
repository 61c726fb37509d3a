"""Pairs, paint, hiding and the loss of training in context."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import SegGptConfig, SegGptForImageSegmentation
from transformers.models.seggpt.modeling_seggpt import SegGptLoss

from manylens.media import Image
from manylens.models.seggpt import colours
from manylens.training.dense.store import ObjectStore
from manylens.training.incontext.canvases import Canvases, Drawing
from manylens.training.incontext.hiding import asked, hidden, spread
from manylens.training.incontext.losses import hidden_loss
from manylens.training.incontext.network import InContext
from manylens.training.incontext.painting import APART, painted, random_colours
from manylens.training.incontext.pairs import Partners, shown
from manylens.training.recipes.base import Draw
from manylens.training.recipes.incontext import Painted
from tests.models.hub import kit
from tests.models.hub.test_seggpt import CONFIG, SIDE

NAMES = ("disc", "bar")


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed or 0)


# ------------------------------------------------------------------ the loss


def canvas_of(seed: int, patches: int = 4, patch: int = 8) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    painted, wanted = (torch.randn(2, 3, 2 * patches * patch, patches * patch, generator=generator) for _ in range(2))
    return painted, wanted, torch.rand(2, 2 * patches**2, generator=generator) < 0.6


def test_the_loss_is_that_of_transformers():
    painted, wanted, patches = canvas_of(0)
    config = SegGptConfig(**{**CONFIG, "image_size": [64, 32]})
    above, below = wanted.split(32, dim=2)
    expected = SegGptLoss(config)(above, painted, below, patches)
    found = hidden_loss(painted, wanted, spread(patches, (4, 4), 8), config.beta)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("beta", [0.01, 1.0])
def test_the_loss_is_its_formula_over_hidden_pixels_alone(beta):
    painted, wanted, patches = canvas_of(1, patches=2, patch=2)
    total, count = 0.0, 0
    for b in range(2):
        for row in range(8):
            for column in range(4):
                if patches[b, (row // 2) * 2 + column // 2]:
                    for channel in range(3):
                        away = abs(float(painted[b, channel, row, column] - wanted[b, channel, row, column]))
                        total += 0.5 * away**2 / beta if away < beta else away - 0.5 * beta
                        count += 1
    found = hidden_loss(painted, wanted, spread(patches, (2, 2), 2), beta)
    assert float(found) == pytest.approx(total / count, rel=1e-4)


def test_what_is_not_hidden_does_not_count():
    painted, wanted, patches = canvas_of(2)
    counted = spread(patches, (4, 4), 8)
    painted.requires_grad_()
    loss = hidden_loss(painted, wanted, counted)
    loss.backward()
    moved = painted.grad.abs().amax(dim=1, keepdim=True) > 0
    assert torch.equal(moved, counted)
    other = torch.where(counted, painted.detach(), painted.detach() + 5)
    assert float(hidden_loss(other, wanted, counted)) == pytest.approx(float(loss.detach()))
    assert float(hidden_loss(painted, wanted, torch.zeros_like(counted)).detach()) == 0


# ------------------------------------------------------------------ hiding


@pytest.mark.parametrize("share", [0.25, 0.75])
def test_blocks_hide_about_their_share_of_the_whole_canvas(share):
    found = hidden(200, (8, 6), rng(), share=share, half=0.0)
    assert found.shape == (200, 96)
    shares = found.float().mean(dim=1)
    assert shares.max() <= share
    assert shares.mean() == pytest.approx(share, rel=0.2)
    above, below = found.float().mean(dim=0).view(2, 48).mean(dim=1)
    assert above == pytest.approx(float(below), abs=0.05)


def test_a_half_hides_what_is_asked_and_all_of_it():
    assert torch.equal(hidden(3, (4, 4), rng(), half=1.0), asked((4, 4)).expand(3, -1))
    mixed = hidden(400, (8, 8), rng(), half=0.3)
    assert float((mixed == asked((8, 8))).all(dim=1).float().mean()) == pytest.approx(0.3, abs=0.06)
    assert hidden(20, (1, 1), rng(), share=0.1, half=0).any(dim=1).all()


# ------------------------------------------------------------------ paint


@given(st.integers(1, 13), st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_random_colours_are_apart_from_black_and_from_each_other(count, seed):
    found = np.concatenate([np.zeros((1, 3)), random_colours(count, rng(seed))])
    away = np.linalg.norm(found[:, None] - found[None], axis=2)
    assert away[~np.eye(count + 1, dtype=bool)].min() >= (APART if count <= 6 else 30)


def test_random_colours_are_spread_over_all():
    found = np.concatenate([random_colours(1, rng(seed)) for seed in range(600)])
    assert found.mean(axis=0) == pytest.approx([127.5] * 3, abs=12)
    assert (found.std(axis=0) > 65).all()


def test_the_smaller_mask_is_on_top():
    large, small = np.ones((4, 4), bool), np.zeros((4, 4), bool)
    small[1:3, 1:3] = True
    paint = np.array([[10, 20, 30], [200, 0, 0]], np.uint8)
    for order in ((0, 1), (1, 0)):
        plane = painted([(large, small)[i] for i in order], paint[list(order)], (4, 4))
        assert (plane[small] == paint[1]).all()
        assert (plane[~small] == paint[0]).all()
    assert not painted([], np.zeros((0, 3), np.uint8), (2, 2)).any()


# ------------------------------------------------------------------ pairs


@pytest.fixture
def store(things) -> ObjectStore:
    return ObjectStore.of(things.select(split="train"), NAMES)


def test_partners_share_a_class_and_are_another_picture(store):
    partners = Partners(store)
    held = [set(shown(store, number)) for number in range(len(store))]
    assert held == [{0}, {1}, {0, 1}] * 2
    met: dict[int, set[int]] = {}
    for number in range(len(store)):
        for seed in range(60):
            other = partners.of(shown(store, number), rng(seed), but=number)
            assert other != number
            assert held[number] & held[other]
            met.setdefault(number, set()).add(other)
    assert met[0] == {2, 3, 5}  # all that show a disc
    assert partners.of([], rng()) is None


def test_a_class_is_in_both_halves_and_each_half_shows_its_own_picture(store):
    squares = [np.full((SIDE, SIDE, 3), number, np.uint8) for number in range(len(store))]
    canvases = Canvases(store, store, SIDE, (squares.__getitem__,) * 2, Drawing(flip=0, scale=(1, 1)))
    for number in range(len(store)):
        canvas = canvases.draw(number, rng(number))
        assert canvas is not None
        assert (canvas.asked.picture == number).all()
        other = int(canvas.example.picture[0, 0, 0])
        assert set(canvas.names) <= set(shown(store, number)) & set(shown(store, other))
        for half, picture in ((canvas.asked, number), (canvas.example, other)):
            for name, mask in zip(canvas.names, half.masks, strict=True):
                rows = [row for row in store.rows(picture) if store.class_of(row) == name and not store.is_crowd(row)]
                assert np.array_equal(mask, np.logical_or.reduce([store.mask(row) for row in rows]))
            crowds = [store.mask(row) for row in store.rows(picture) if store.is_crowd(row)]
            assert half.unknown.sum() == sum(mask.sum() for mask in crowds)


def test_instances_are_two_views_of_one_picture_and_each_keeps_its_place(store):
    squares = [np.full((SIDE, SIDE, 3), number, np.uint8) for number in range(len(store))]
    canvases = Canvases(store, store, SIDE, (squares.__getitem__,) * 2, Drawing(kind="instance", scale=(1, 1.3)))
    canvas = canvases.draw(2, rng(1))
    assert (canvas.example.picture == 2).all()
    assert (canvas.asked.picture == 2).all()
    assert canvas.names == (0, 1)
    for one, other in zip(canvas.example.masks, canvas.asked.masks, strict=True):
        assert not np.array_equal(one, other)
        assert one.sum() == pytest.approx(other.sum(), rel=0.8)


def test_the_same_draw_gives_the_same_canvas_and_another_epoch_another(store, things, network):
    squares = [Image.of(path).array for path in store.paths]
    canvases = Canvases(store, store, SIDE, (squares.__getitem__,) * 2, Drawing())
    source = Painted(canvases, network, share=0.75, half=0.5, least=False)
    one, again, later = (source.__getitems__([Draw(2, epoch, 7), Draw(1, epoch, 7)]) for epoch in (0, 0, 1))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["asked_paint"], later["asked_paint"])


# ------------------------------------------------------------------ the network


@pytest.fixture(scope="module")
def network(tiny_seggpt) -> Any:
    return InContext(kit.opened(tiny_seggpt).trainable())


def test_a_colour_means_the_same_in_both_halves(store, network):
    squares = [Image.of(path).array for path in store.paths]
    canvases = Canvases(store, store, SIDE, (squares.__getitem__,) * 2, Drawing(flip=0, scale=(1, 1)))
    batch = Painted(canvases, network, share=0.75, half=0.5, least=False).__getitems__([Draw(2, 0, 3)])
    planes = [network.levels(batch[name][0]).transpose(1, 2, 0).round() for name in ("example_paint", "asked_paint")]
    drawn = [{tuple(colour) for colour in plane.reshape(-1, 3) if colour.any()} for plane in planes]
    assert len(drawn[0]) == int(batch["counts"][0])
    assert drawn[0] == drawn[1]
    assert batch["judged"].shape == (1, 1, 2 * SIDE, SIDE)
    assert not batch["judged"].all()  # the crowd of picture 2


def test_it_paints_and_scores_as_transformers_class_does(tiny_seggpt, network, store):
    reference = SegGptForImageSegmentation.from_pretrained(tiny_seggpt).eval()
    squares = [Image.of(path).array for path in store.paths]
    canvases = Canvases(store, store, SIDE, (squares.__getitem__,) * 2, Drawing())
    batch = Painted(canvases, network, share=0.75, half=0.5, least=False).__getitems__([Draw(n, 0, 3) for n in (0, 1)])
    with torch.no_grad():
        expected = reference(
            pixel_values=batch["asked"],
            prompt_pixel_values=batch["example"],
            prompt_masks=batch["example_paint"],
            labels=batch["asked_paint"],
            bool_masked_pos=batch["hidden"],
        )
        found = network(batch)
        torch.testing.assert_close(found, expected.pred_masks, atol=1e-4, rtol=1e-4)
        whole = {**batch, "judged": torch.ones_like(batch["judged"])}
        torch.testing.assert_close(network.loss(whole, found), expected.loss, atol=1e-5, rtol=1e-4)
        unknown = {**batch, "judged": ~spread(batch["hidden"], (4, 4), 8)}
        assert float(network.loss(unknown, found)) == 0  # what nobody knows is not scored


def test_paint_is_read_again_as_the_masks_it_was_made_of(network):
    random = rng(3)
    masks = [random.random((SIDE, SIDE)) < 0.3 for _ in range(5)]
    plane = painted(masks, colours.palette(5), (SIDE, SIDE))
    canvas = torch.cat([torch.zeros(3, SIDE, SIDE), network.normalised([plane])[0]], dim=1)
    np.testing.assert_allclose(network.levels(canvas[:, SIDE:]).transpose(1, 2, 0), plane, atol=0.01)
    found = network.read(canvas, 5)
    for number, mask in enumerate(found):
        assert np.array_equal(mask, (plane == colours.palette(5)[number]).all(axis=2))


def test_a_batch_without_a_canvas_is_empty(network):
    store = ObjectStore(NAMES)
    store.ids.append("empty")
    store._starts.append(0)
    canvases = Canvases(store, store, SIDE, (lambda number: np.zeros((SIDE, SIDE, 3), np.uint8),) * 2, Drawing())
    source = Painted(canvases, network, share=0.5, half=0.5, least=False)
    assert len(source.__getitems__([Draw(0, 0, 0)])["asked"]) == 0
