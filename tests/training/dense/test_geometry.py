import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manylens.training.dense import geometry
from manylens.training.dense.geometry import FILL, View

SIDE = 40


def scene(seed):
    """A square whose colour says what is where: an object is the only thing that is bright."""
    random = np.random.default_rng(seed)
    masks = np.zeros((3, SIDE, SIDE), bool)
    for one in masks:
        y, x = random.integers(2, 24, 2)
        high, wide = random.integers(6, 14, 2)
        one[y : y + high, x : x + wide] = True
    square = np.zeros((SIDE, SIDE, 3), np.uint8)
    for number, one in enumerate(masks):
        square[one, number] = 255
    return square, masks


@given(st.integers(0, 5000))
def test_pixels_masks_and_boxes_stay_together(seed):
    square, masks = scene(seed)
    view = geometry.drawn(SIDE, np.random.default_rng(seed), scale=(0.5, 2.0))
    pixels, seen, boxes = view.pixels(square), view.masks(masks), view.boxes(geometry.around(masks))
    outside = view.masks(np.ones((1, SIDE, SIDE), bool))[0]
    for number in range(3):
        bright = (pixels[..., number] >= 128) & outside
        assert (bright != seen[number]).sum() <= 0.02 * SIDE * SIDE  # they are rounded apart from each other
        if seen[number].sum() < 20:
            continue
        tight = geometry.around(seen[number : number + 1])[0]
        assert np.abs(tight - boxes[number]).max() <= 1.01  # half a pixel is of the object or not


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("window", [(0, 0, 40, 40), (10, 5, 30, 25), (-20, -20, 60, 60), (-5, 3, 15, 23)])
def test_a_box_goes_where_its_corners_go(window, flip):
    view = View(SIDE, window, flip)
    x0, y0, x1, y1 = window
    box = np.array([[12.0, 9.0, 22.0, 19.0]], np.float32)

    def moved(x, y):
        there = (x - x0) / (x1 - x0) * SIDE, (y - y0) / (y1 - y0) * SIDE
        return (SIDE - there[0] if flip else there[0]), there[1]

    (ax, ay), (bx, by) = moved(12, 9), moved(22, 19)
    expected = np.clip([min(ax, bx), ay, max(ax, bx), by], 0, SIDE)
    np.testing.assert_allclose(view.boxes(box)[0], expected, rtol=1e-6)


def test_the_plain_view_changes_nothing():
    square, masks = scene(0)
    view = geometry.whole(SIDE)
    assert view.plain
    assert (view.pixels(square) == square).all()
    assert (view.masks(masks) == masks).all()
    assert not View(SIDE, view.window, flip=True).plain


def test_a_flip_is_numpys_and_two_are_none():
    square, masks = scene(1)
    view = View(SIDE, (0, 0, SIDE, SIDE), flip=True)
    assert (view.pixels(square) == square[:, ::-1]).all()
    assert (view.masks(masks) == masks[:, :, ::-1]).all()
    assert (view.masks(view.masks(masks)) == masks).all()
    boxes = geometry.around(masks)
    assert (view.boxes(view.boxes(boxes)) == boxes).all()


def test_outside_is_the_mean_colour_no_object_and_void():
    square, _ = scene(2)
    view = View(SIDE, (-40, -40, 40, 40))
    pixels = view.pixels(square)
    assert (pixels[:20] == FILL).all()
    assert (pixels[:, :20] == FILL).all()
    labels = view.labels(np.full((SIDE, SIDE), 3), -1)
    assert (labels[20:, 20:] == 3).all()
    assert (labels[:20] == -1).all()
    assert not view.masks(np.ones((1, SIDE, SIDE), bool))[0, :20].any()


def test_labels_are_never_mixed():
    labels = np.random.default_rng(0).choice([0, 7, -1], (SIDE, SIDE))
    for seed in range(20):
        found = geometry.drawn(SIDE, np.random.default_rng(seed)).labels(labels, -1)
        assert set(np.unique(found)) <= {0, 7, -1}


def test_views_are_drawn_from_the_generator_alone():
    one = [geometry.drawn(SIDE, np.random.default_rng(s)) for s in range(50)]
    assert one == [geometry.drawn(SIDE, np.random.default_rng(s)) for s in range(50)]
    assert len(set(one)) > 40
    assert 0.3 < np.mean([view.flip for view in one]) < 0.7
    sides = [view.window[2] - view.window[0] for view in one]
    assert min(sides) < 30
    assert max(sides) > 60
    for view in one:  # what is larger lies within the window, what is smaller within the square
        x0, y0, x1, y1 = view.window
        if x1 - x0 <= SIDE:
            assert min(x0, y0) >= 0
            assert max(x1, y1) <= SIDE
        else:
            assert max(x0, y0) <= 0
            assert min(x1, y1) >= SIDE


def test_neither_flip_nor_scale_is_no_change():
    assert all(geometry.drawn(SIDE, np.random.default_rng(s), flip=0, scale=(1, 1)).plain for s in range(10))


@pytest.mark.parametrize("shape", [(80, 120), (20, 30), (40, 40), (13, 90)])
def test_a_mask_is_squared_as_its_picture_is(shape):
    from manylens.models.adapted.picture import square

    mask = np.zeros(shape, bool)
    mask[shape[0] // 4 : shape[0] // 2, shape[1] // 3 : shape[1] // 2 + 4] = True
    picture = np.where(mask[..., None], 255, 0).astype(np.uint8).repeat(3, axis=2)
    found = geometry.squared(mask, SIDE)
    assert found.shape == (SIDE, SIDE)
    apart = found != (square(picture, SIDE)[..., 0] >= 128)
    assert apart.sum() <= 0.02 * SIDE * SIDE


def test_a_thin_object_does_not_vanish():
    mask = np.zeros((400, 400), bool)
    mask[200] = True  # a tenth of a pixel high
    assert geometry.squared(mask, SIDE).any()
    assert not geometry.squared(np.zeros((400, 400), bool), SIDE).any()


def test_boxes_around_masks():
    masks = np.zeros((3, 6, 8), bool)
    masks[0, 2:4, 1:7] = True
    masks[2, 5, 7] = True
    assert geometry.around(masks).tolist() == [[1, 2, 7, 4], [0, 0, 0, 0], [7, 5, 8, 6]]
