import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from manylens.models.dense import attention, matching
from manylens.models.dense.grids import cover, unit, upsampled
from manylens.models.dense.matching import Shown
from manylens.models.dense.neighbours import votes


def scene(*things: tuple[slice, slice, int], noise: float = 0.1, seed: int = 0) -> np.ndarray:
    """Features (8, 10, 16): axis 0 is the ground, each thing an axis of its own, at any length."""
    rng = np.random.default_rng(seed)
    features = noise * rng.normal(size=(8, 10, 16))
    features[..., 0] += 1
    for rows, columns, axis in things:
        features[rows, columns, 0] -= 1
        features[rows, columns, axis] += 1
    return (features * rng.uniform(0.5, 5, (8, 10, 1))).astype(np.float32)


def marked(rows: slice, columns: slice, value: float = 1.0) -> np.ndarray:
    plane = np.zeros((8, 10), np.float32)
    plane[rows, columns] = value
    return plane


CUP, PLATE = (slice(1, 4), slice(1, 4), 1), (slice(4, 7), slice(5, 9), 2)


def test_each_class_is_found_where_it_is():
    example = scene(CUP, PLATE)
    classes = [[Shown(example, marked(*CUP[:2]))], [Shown(example, marked(*PLATE[:2]))]]
    asked = scene((slice(0, 3), slice(6, 9), 1), (slice(5, 8), slice(0, 4), 2), seed=1)
    found = matching.scores(asked, classes)
    assert ((found[0] > 0.5) == marked(slice(0, 3), slice(6, 9)).astype(bool)).all()
    assert ((found[1] > 0.5) == marked(slice(5, 8), slice(0, 4)).astype(bool)).all()


def test_what_lies_beside_one_class_does_not_speak_against_another():
    """The picture that shows the cup has a plate in it that nobody marked."""
    cup, plate = scene(CUP, PLATE), scene(PLATE, seed=2)
    classes = [[Shown(cup, marked(*CUP[:2]))], [Shown(plate, marked(*PLATE[:2]))]]
    found = matching.scores(scene(PLATE, seed=3), classes)
    assert found[1][PLATE[:2]].min() > 0.9
    assert found[0].max() < 0.5


def test_several_examples_show_several_sides():
    sides = [Shown(scene(CUP), marked(*CUP[:2])), Shown(scene(PLATE, seed=4), marked(*PLATE[:2]))]
    found = matching.scores(scene(CUP, PLATE, seed=5), [sides])[0]
    assert found[CUP[:2]].min() > 0.5
    assert found[PLATE[:2]].min() > 0.5
    assert found[0, 9] < 0.5


def test_an_example_that_fills_its_picture_needs_no_surroundings():
    whole = np.ones((8, 10), np.float32)
    example = Shown(scene((slice(0, 8), slice(0, 10), 1)), whole)
    assert not len(example.beside())
    found = matching.scores(scene(CUP, seed=6), [[example]])[0]
    assert ((found > 0.5) == marked(*CUP[:2]).astype(bool)).all()


def test_a_thing_smaller_than_a_patch_has_a_patch():
    example = Shown(scene(), marked(slice(2, 3), slice(2, 3), 0.01))
    assert len(example.inside()) == 1
    assert len(example.beside()) == 79


def test_memory_is_bounded_and_changes_nothing(monkeypatch):
    example = [[Shown(scene(CUP), marked(*CUP[:2]))]]
    whole = matching.scores(scene(CUP, seed=7), example)
    monkeypatch.setattr(matching, "_CELLS", 100)
    assert matching.scores(scene(CUP, seed=7), example) == pytest.approx(whole, abs=1e-6)


def test_likeness_is_the_mean_cosine_of_the_nearest():
    rng = np.random.default_rng(0)
    asked, bank = unit(rng.normal(size=(7, 5))), unit(rng.normal(size=(20, 5)))
    expected = np.sort(asked @ bank.T, axis=1)[:, -3:].mean(axis=1)
    assert matching.likeness(asked, bank, 3) == pytest.approx(expected, abs=1e-6)
    assert matching.likeness(asked, bank[:2], 3) == pytest.approx((asked @ bank[:2].T).mean(axis=1), abs=1e-6)


@given(arrays.arrays(np.float32, (3, 4, 5), elements=st.floats(0, 1, width=32)))
def test_a_pixel_is_of_one_class_at_most_and_no_less_sure_than_the_threshold(planes):
    masks, sure = matching.masks(planes, (33, 21), 0.5)
    assert masks.shape == (3, 21, 33)
    assert masks.sum(axis=0).max() <= 1
    full = upsampled(planes, (33, 21))
    assert (masks.any(axis=0) == (full.max(axis=0) >= 0.5)).all()
    assert all(score >= 0.5 - 1e-6 for mask, score in zip(masks, sure, strict=True) if mask.any())


def test_masks_of_many_classes_need_no_plane_of_each_at_the_pictures_size():
    import tracemalloc

    planes = np.random.default_rng(0).random((40, 6, 8), dtype=np.float32)
    tracemalloc.start()
    masks, _ = matching.masks(planes, (640, 480))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < masks.nbytes + 8 * 4 * 640 * 480
    assert (masks.argmax(axis=0)[masks.any(axis=0)] == upsampled(planes, (640, 480)).argmax(0)[masks.any(axis=0)]).all()


def test_no_class_is_no_mask():
    masks, sure = matching.masks(np.zeros((0, 4, 5), np.float32), (33, 21))
    assert masks.shape == (0, 21, 33)
    assert sure.shape == (0,)


@pytest.mark.parametrize(("size", "shape"), [((64, 96), (8, 12)), ((5, 7), (10, 14)), ((63, 40), (9, 7))])
def test_cover_keeps_the_share_of_the_whole(size, shape):
    mask = np.zeros(size, bool)
    mask[: size[0] // 2, : size[1] // 3] = True
    found = cover(mask, shape)
    assert found.shape == shape
    assert 0 <= found.min() <= found.max() <= 1
    assert found.mean() == pytest.approx(mask.mean(), abs=0.05)


@given(arrays.arrays(np.float64, (2, 4, 5), elements=st.floats(0, 1)), st.floats(0.1, 0.9))
def test_what_is_kept_of_attention_is_the_fewest_patches_that_hold_the_share(maps, share):
    for plane, found in zip(maps, attention.kept(maps, share), strict=True):
        if not plane.sum() > 1e-9:
            continue
        assert plane[found].sum() >= share * plane.sum() - 1e-9
        assert plane[found].min() >= plane[~found].max(initial=0)
        assert plane[found].sum() - plane[found].min() <= share * plane.sum() + 1e-9


def test_the_main_object_is_where_heads_look_together_without_holes():
    heads = np.full((3, 12, 16), 0.05)
    for head, (rows, columns) in enumerate([(slice(3, 6), slice(4, 10)), (slice(6, 9), slice(4, 10))] * 2):
        heads[head % 3, rows, columns] += 1
    heads[:, 5, 7] = 0
    heads[0, 0, 15] = 2  # a lone patch that one head cannot leave
    mask, score = attention.main_object(heads, (160, 120))
    assert mask.shape == (120, 160)
    assert mask[40:80, 50:90].all()
    assert not mask[:10, 140:].any()
    assert 0.5 < score <= 1


def test_even_attention_has_a_main_object_without_a_score():
    mask, score = attention.main_object(np.ones((2, 4, 4)), (20, 20))
    assert mask.any()
    assert score == pytest.approx(0, abs=1e-6)


def test_votes_are_shares_and_forget_what_is_far():
    learnt = np.eye(4)[[0, 0, 1, 2]]
    found = votes(learnt, np.array([0, 0, 1, 3]), np.eye(4)[[1, 0]], k=2)
    assert found.shape == (2, 4)
    assert found.sum(axis=1) == pytest.approx(1)
    assert found[1] == pytest.approx([1, 0, 0, 0])
    assert found[0, 1] > 0.99
