"""Everything, the main object and examples on made scenes: things of known features on a ground of its own."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from manylens.models.dense import matching
from manylens.models.dense.grids import unit
from manylens.models.regions import like, scoring
from manylens.models.regions.everything import everything, nodes_of
from manylens.models.regions.main import main_object
from manylens.models.regions.solver import Scene, encode_scene

HEIGHT, WIDTH, GRID = 120, 160, (24, 32)
TONES = np.random.default_rng(5).normal(size=(5, 24)).astype(np.float32)  # ground, disc, square, spot, stripe
DISC, SQUARE, SPOT, OTHER = 1, 2, 3, 4


def picture(*things: tuple[int, int, int]) -> np.ndarray:
    """Kinds of every pixel; each thing is (kind, x, y): a disc, or a square for ``SQUARE``; spots lie in discs."""
    kinds = np.zeros((HEIGHT, WIDTH), np.uint8)
    for kind, x, y in things:
        if kind == SQUARE:
            kinds[y - 20 : y + 20, x - 20 : x + 20] = kind
        else:
            cv2.circle(kinds, (x, y), 8 if kind == SPOT else 24, kind, -1)
    return kinds


def encode(kinds: np.ndarray, seed: int = 0) -> tuple[Scene, np.ndarray]:
    rng = np.random.default_rng(seed)
    shares = [cv2.resize((kinds == k).astype(np.float32), GRID[::-1], interpolation=cv2.INTER_AREA) for k in range(5)]
    patches = np.stack(shares, axis=-1) @ TONES + 0.05 * rng.normal(size=(*GRID, 24)).astype(np.float32)
    outline = cv2.morphologyEx(kinds, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    edges = np.clip(cv2.GaussianBlur(outline.astype(np.float32), (0, 0), 1.0) * 1.5, 0, 1)
    saliency = np.array([0.1, 0.9, 0.3, 0.9, 0.3], np.float32)[kinds]
    return encode_scene(np.zeros((*kinds.shape, 3), np.uint8), patches, edges, saliency), patches


def plain() -> tuple[Scene, np.ndarray]:
    return encode(np.zeros((HEIGHT, WIDTH), np.uint8))


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))


KINDS = picture((DISC, 45, 60), (SPOT, 50, 60), (SQUARE, 115, 60))


@pytest.fixture(scope="module")
def scene() -> Scene:
    return encode(KINDS)[0]


# ---------------------------------------------------------------------- everything


@pytest.mark.parametrize("kinds", [(SPOT,), (DISC, SPOT), (SQUARE,), (0,)], ids=["spot", "disc", "square", "ground"])
def test_everything_holds_every_thing(scene, kinds):
    assert max(iou(one.mask, np.isin(KINDS, kinds)) for one in everything(scene)) > 0.8


def test_everything_is_ordered_distinct_and_bounded(scene):
    found = everything(scene)
    scores = [one.score for one in found]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    assert max(iou(a.mask, b.mask) for i, a in enumerate(found) for b in found[:i]) < 0.85
    fewer = everything(scene, most=2)
    assert [one.score for one in fewer] == scores[:2]


def test_levels_say_what_lies_in_what(scene):
    found = everything(scene)
    best = {
        name: max(found, key=lambda one, kinds=kinds: iou(one.mask, np.isin(KINDS, kinds)))
        for name, kinds in {"disc": (DISC, SPOT), "spot": (SPOT,), "square": (SQUARE,)}.items()
    }
    order = ["whole", "part", "subpart"]
    assert order.index(best["spot"].level) > order.index(best["disc"].level)
    assert best["square"].level == "whole"


def test_nodes_are_the_hierarchies_own_each_once(scene):
    regions, trees = scene.regions(), scene.trees()
    members = nodes_of(regions, trees, 0.01, 0.5)
    known = {row.tobytes() for tree in trees for row in tree.members(np.arange(len(tree.parent)))}
    assert {row.tobytes() for row in members} <= known
    assert len(np.unique(members, axis=0)) == len(members)
    share = regions.areas(members) / regions.sizes.sum()
    assert (share >= 0.01 - 1e-6).all()
    assert (share <= 0.5 + 1e-6).all()


# ---------------------------------------------------------------------- the main object


def test_the_main_object_is_the_salient_one(scene):
    found = main_object(scene)
    assert found is not None
    assert iou(found.mask, np.isin(KINDS, (DISC, SPOT))) > 0.8
    assert 0.5 < found.score <= 1


@pytest.mark.parametrize("find", [lambda s: everything(s), lambda s: [main_object(s)]], ids=["everything", "main"])
def test_nothing_stands_out_of_one_colour(find):
    assert not any(find(plain()[0]))


def test_outlines_that_only_the_edge_network_sees_are_no_regions(scene):
    grey = np.full((HEIGHT, WIDTH, 3), 110, np.uint8)
    assert everything(scene)
    assert not everything(scene, grey)
    faint = grey + np.where(KINDS == DISC, 3, 0).astype(np.uint8)[..., None]
    found = everything(scene, faint)
    assert max(iou(one.mask, KINDS == DISC) for one in found) > 0.8
    assert max(iou(one.mask, KINDS == SQUARE) for one in found) < 0.5


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (8, 400)])
def test_the_smallest_pictures_have_an_answer(size):
    rng = np.random.default_rng(0)
    values = rng.random(size).astype(np.float32)
    patches = rng.normal(size=(1, max(1, size[1] // 14), 24)).astype(np.float32)
    small = encode_scene(np.zeros((*size, 3), np.uint8), patches, values, values)
    assert all(one.mask.shape == size for one in everything(small))
    found = main_object(small)
    assert found is None or found.mask.shape == size
    example = like.shown(patches, np.ones(size, bool))
    assert like.find(small, patches, [[example]])[0].member.shape == (len(small.features),)
    like.instances(small, patches, [[example]])


# ---------------------------------------------------------------------- examples


def example(kind: int, x: int = 60, y: int = 50, seed: int = 1):
    kinds = picture((kind, x, y))
    return like.shown(encode(kinds, seed)[1], kinds == kind)


@pytest.mark.parametrize("kind", [DISC, SQUARE])
def test_what_examples_show_is_found(kind):
    kinds = picture((DISC, 40, 70), (SQUARE, 120, 50))
    where, patches = encode(kinds)
    (found,) = like.find(where, patches, [[example(kind), example(kind, 90, 60, 2)]])
    assert found.score > 0.9
    assert iou(where.full(found.member), kinds == kind) > 0.85


def test_several_classes_share_no_pixel_and_the_absent_one_is_unsure():
    kinds = picture((DISC, 40, 70), (SQUARE, 120, 50))
    where, patches = encode(kinds)
    disc, square, other = like.find(where, patches, [[example(k)] for k in (DISC, SQUARE, OTHER)])
    assert not (disc.member & square.member).any()
    assert iou(where.full(disc.member), kinds == DISC) > 0.85
    assert iou(where.full(square.member), kinds == SQUARE) > 0.85
    assert other.score < like.LEAST < min(disc.score, square.score)


def test_a_stranger_a_little_like_the_thing_is_not_taken_with_it(monkeypatch):
    shown = [example(DISC)]
    tones = TONES.copy()
    tones[OTHER] = TONES[OTHER] + 0.45 * TONES[DISC]
    monkeypatch.setitem(globals(), "TONES", tones)
    kinds = picture((DISC, 40, 70), (OTHER, 120, 50))
    where, patches = encode(kinds)
    (found,) = like.find(where, patches, [shown])
    assert iou(where.full(found.member), kinds == DISC) > 0.85
    alone, patches = encode(picture((OTHER, 120, 50)))
    (stranger,) = like.find(alone, patches, [shown])
    assert iou(alone.full(stranger.member), kinds == OTHER) > 0.85  # evidence alone takes it
    assert stranger.score < like.LEAST < found.score


def test_a_thing_in_two_places_keeps_both():
    kinds = picture((DISC, 40, 60), (DISC, 120, 60))
    where, patches = encode(kinds)
    (found,) = like.find(where, patches, [[example(DISC)]])
    assert iou(where.full(found.member), kinds == DISC) > 0.85


def test_what_is_nowhere_is_unsure():
    where, patches = encode(picture((SQUARE, 120, 50)))
    assert like.find(where, patches, [[example(OTHER)]])[0].score < like.LEAST


def test_an_example_that_fills_its_picture():
    kinds = np.full((HEIGHT, WIDTH), DISC, np.uint8)
    shown = like.shown(encode(kinds, 3)[1], kinds == DISC)
    target = picture((DISC, 40, 70))
    where, patches = encode(target)
    (found,) = like.find(where, patches, [[shown]])
    assert iou(where.full(found.member), target == DISC) > 0.7


def test_instances_are_found_one_by_one():
    kinds = picture((DISC, 35, 60), (DISC, 120, 70), (SQUARE, 80, 25))
    where, patches = encode(kinds)
    (found,) = like.instances(where, patches, [[example(DISC)]])
    sure = [where.full(one.member) for one in found if one.score >= 0.5]
    assert len(sure) == 2
    truths = [(kinds == DISC) & (np.arange(WIDTH) < 80), (kinds == DISC) & (np.arange(WIDTH) >= 80)]
    for truth in truths:
        assert max(iou(mask, truth) for mask in sure) > 0.8


def test_another_instance_in_the_example_is_not_what_it_is_not():
    kinds = picture((DISC, 35, 60), (DISC, 120, 70))
    where, patches = encode(kinds)
    one = (kinds == DISC) & (np.arange(WIDTH) < 80)
    twins = unit(patches[12:16, 22:26])  # of the other disc
    strict, lenient = like.shown(patches, one), like.shown_one(patches, one)
    assert matching.likeness(twins, strict.beside(), 1).min() > 0.99
    assert matching.likeness(twins, lenient.beside(), 1).max() < 0.9
    assert np.array_equal(lenient.inside(), strict.inside())
    assert sum(found.score >= 0.5 for found in like.instances(where, patches, [[lenient]])[0]) == 2


def test_evidence_is_a_mean_over_the_superpixel():
    where, _ = encode(KINDS)
    weights = like._weights(where.labels, GRID)
    assert np.allclose(weights.sum(axis=1), 1, atol=1e-5)
    ramp = np.broadcast_to(np.arange(GRID[1], dtype=np.float32), GRID).ravel()
    pixels = np.arange(WIDTH) * GRID[1] // WIDTH
    sums = np.bincount(where.labels.ravel(), np.broadcast_to(pixels, where.labels.shape).ravel())
    assert np.allclose(weights @ ramp, sums / np.bincount(where.labels.ravel()), atol=1e-3)


def test_a_mask_of_superpixels_is_the_same_cropped_or_whole(scene):
    rng = np.random.default_rng(0)
    for _ in range(5):
        member = rng.random(len(scene.features)) < 0.3
        mask = scene.full(member)
        assert mask.shape == (HEIGHT, WIDTH)
        assert iou(mask, member[scene.labels]) > 0.7
    assert not scene.full(np.zeros(len(scene.features), bool)).any()


def test_the_size_prior_likes_a_third_of_the_picture():
    cues = np.zeros((3, 5))
    cues[:, 3] = np.log([0.01, 1 / np.e, 0.99])
    assert scoring.size_prior(cues).argmax() == 1
