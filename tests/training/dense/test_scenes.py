from dataclasses import replace

import numpy as np
import pytest

from manylens.media import from_rle
from manylens.training.dense import geometry
from manylens.training.dense.paste import paste_rates
from manylens.training.dense.scene import Scene, pasted
from manylens.training.dense.scenes import Augmentation, Scenes
from manylens.training.dense.store import ObjectStore
from tests.training.dense import made_up
from tests.training.dense.made_up import NAMES, SIDE


@pytest.fixture
def records(tmp_path):
    return made_up.records(6, tmp_path)


@pytest.fixture
def store(records):
    return ObjectStore.of(records, NAMES)


def squares(numbers):
    return np.stack([made_up.picture(number)[0] for number in numbers])


def scenes(store, augmentation=None, **options):
    return Scenes(store, SIDE, augmentation=augmentation, squares=squares, **options)


def test_view_0_is_the_picture_as_it_is(store, records):
    for augmentation in (None, Augmentation(paste=1.0)):
        for number, one in enumerate(records):
            scene = scenes(store, augmentation).scene(number, 0, pixels=True)
            assert (scene.pixels == squares([number])[0]).all()
            assert (scene.masks == np.stack([from_rle(a.mask) for a in one.annotations])).all()
            assert [NAMES[k] for k in scene.classes] == [a.category for a in one.annotations]
            np.testing.assert_array_equal(scene.boxes, geometry.around(scene.masks))


@pytest.mark.parametrize("paste", [0.0, 1.0])
def test_views_depend_on_seed_picture_and_number_only(store, paste):
    augmentation = Augmentation(paste=paste)
    one = [scenes(store, augmentation).scene(i, v, pixels=True) for i in range(3) for v in (1, 2)]
    again = scenes(store, augmentation)
    other = [again.scene(i, v, pixels=True) for v in (2, 1) for i in (2, 1, 0)][::-1]
    other = [other[i + 3 * (v - 1)] for i in range(3) for v in (1, 2)]
    for a, b in zip(one, other, strict=True):
        assert (a.pixels == b.pixels).all()
        assert (a.masks == b.masks).all()
    assert len({a.pixels.tobytes() for a in one}) == 6
    reseeded = scenes(store, augmentation, seed=1).scene(0, 1, pixels=True)
    assert (reseeded.pixels != one[0].pixels).any()


@pytest.mark.parametrize("paste", [0.0, 1.0])
def test_targets_made_without_pixels_are_those_of_the_pixels(store, paste):
    made = scenes(store, Augmentation(paste=paste))
    for number in range(6):
        with_pixels, without = made.scene(number, 3, pixels=True), made.scene(number, 3)
        assert without.pixels is None
        assert (with_pixels.masks == without.masks).all()
        assert (with_pixels.classes == without.classes).all()
        assert (made.views(squares([number]), [number], 3)[0] == with_pixels.pixels).all()


@pytest.mark.parametrize("paste", [0.0, 1.0])
def test_masks_lie_on_what_they_are_of(store, paste):
    made = scenes(store, Augmentation(paste=paste, soft=0.0))
    pure = 0
    for number in range(6):
        for view in (1, 2, 3):
            scene = made.scene(number, view, pixels=True)
            assert not (scene.masks.sum(axis=0) > 1).any()
            for kind, mask in zip(scene.classes, scene.masks, strict=True):
                if mask.sum() < 30:
                    continue  # most of it is edge
                apart = np.abs(scene.pixels[mask].astype(int) - made_up.COLOURS[kind].astype(int)).sum(axis=1)
                assert np.median(apart) < 60
                pure += 1
    assert pure > 20


def test_boxes_without_masks_are_cut_off_where_the_view_ends(store):
    augmentation = Augmentation(scale=(0.5, 2.0))
    alone, both = scenes(store, augmentation, masks=False), scenes(store, augmentation)
    compared = 0
    for number in range(6):
        for view in range(1, 5):
            one, other = alone.scene(number, view), both.scene(number, view)
            assert one.masks is None
            if len(one) == len(other):
                # Masks are round: one that is cut may be narrower than its box.
                assert (one.boxes[:, :2] <= other.boxes[:, :2] + 1.01).all()
                assert (one.boxes[:, 2:] >= other.boxes[:, 2:] - 1.01).all()
                compared += 1
    assert compared > 10


def test_colours_change_pixels_only(store):
    plain, coloured = scenes(store, Augmentation()), scenes(store, Augmentation(colour=1.0))
    one, other = plain.scene(2, 1, pixels=True), coloured.scene(2, 1, pixels=True)
    assert (one.masks == other.masks).all()
    assert (one.pixels != other.pixels).mean() > 0.5


def test_pictures_may_be_changed_differently(store):
    made = scenes(store, [Augmentation(flip=0, scale=(1, 1)), *[Augmentation(scale=(0.3, 0.4))] * 5])
    assert (made.scene(0, 1, pixels=True).pixels == squares([0])[0]).all()
    assert (made.scene(1, 1, pixels=True).pixels == geometry.FILL).all(axis=-1).mean() > 0.5


def test_names_tell_views_apart(store, records):
    how = Augmentation()
    names = {scenes(store, how).name(i, v) for i in range(3) for v in (1, 2)}
    names |= {scenes(store, how, seed=1).name(0, 1), scenes(store, Augmentation(flip=0)).name(0, 1)}
    pasting = scenes(store, Augmentation(paste=1.0)).name(0, 1)
    names |= {pasting}
    assert len(names) == 9
    assert scenes(store, how).name(0, 0) == scenes(store).name(0, 1) == ""
    # What may be pasted is a part of what a picture looks like; without pasting, other pictures do not matter.
    fewer = ObjectStore.of(records[:3], NAMES)
    assert scenes(fewer, Augmentation(paste=1.0)).name(0, 1) != pasting
    assert scenes(fewer, how).name(0, 1) in names


def blank(masks, classes, pixels):
    masks = np.array(masks)
    crowd = np.zeros(len(masks), bool)
    return Scene(
        np.array(classes, np.int64), geometry.around(masks), crowd, masks, np.full((8, 8, 3), pixels, np.uint8)
    )


def rectangle(x0, y0, x1, y1):
    mask = np.zeros((8, 8), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def test_what_is_pasted_hides_what_is_below():
    below = blank([rectangle(0, 0, 4, 4), rectangle(5, 5, 8, 8), rectangle(2, 2, 3, 3)], [0, 1, 1], 10)
    above = blank([rectangle(2, 0, 6, 4)], [1], 200)
    found = pasted(below, above)
    assert found.classes.tolist() == [0, 1, 1]  # the last of those below is hidden
    assert found.boxes.tolist() == [[0, 0, 2, 4], [5, 5, 8, 8], [2, 0, 6, 4]]
    assert (found.masks[0] == rectangle(0, 0, 2, 4)).all()
    assert (found.masks[2] == above.masks[0]).all()
    assert (found.pixels[above.masks[0]] == 200).all()
    assert (found.pixels[~above.masks[0]] == 10).all()
    assert (below.pixels == 10).all()  # nothing is written into what was given
    assert below.masks[0].sum() == 16


def test_soft_edges_mix_pixels_and_leave_masks_alone():
    below, above = blank([rectangle(0, 0, 2, 2)], [0], 10), blank([rectangle(3, 3, 6, 6)], [1], 200)
    hard, soft = pasted(below, above), pasted(below, above, soft=1.0)
    assert (hard.masks == soft.masks).all()
    assert set(np.unique(hard.pixels)) == {10, 200}
    assert len(np.unique(soft.pixels)) > 4


def test_nothing_pasted_is_the_same_scene():
    below = blank([rectangle(0, 0, 2, 2)], [0], 10)
    assert pasted(below, below.only(np.array([False]))) is below


@pytest.mark.parametrize(
    ("counts", "options", "shares"),
    [
        ((100, 25, 4), {}, (1, 2, 5)),
        ((100, 25, 4), {"power": 0}, (1, 1, 1)),
        ((100, 50), {"power": 1}, (1, 2)),
        ((100, 0, 25), {}, (1, 0, 2)),
        ((100, 25), {"things": (False, True)}, (0, 1)),
        ((0, 0), {}, (0, 0)),
    ],
)
def test_rates_of_pasting(counts, options, shares):
    expected = np.array(shares, float) / max(sum(shares), 1)
    np.testing.assert_allclose(paste_rates(counts, **options), expected)


def test_rare_classes_are_pasted_more(store):
    counts = np.bincount(store.classes, minlength=2)
    assert counts.min() > 0
    found = {}
    for name, rates in (("as often", ()), ("discs only", (1.0, 0.0)), ("bars rather", (0.1, 0.9))):
        made = scenes(store, Augmentation(paste=1.0, rates=rates, scale=(1, 1), flip=0))
        drawn = np.concatenate([made._pool.drawn(np.random.default_rng(s), 5) for s in range(400)])
        found[name] = (store.classes[drawn] == 1).mean()
    assert found["as often"] == pytest.approx(counts[1] / counts.sum(), abs=0.04)
    assert found["discs only"] == 0
    assert found["bars rather"] == pytest.approx(0.9, abs=0.03)


def test_crowds_and_what_is_not_judged_is_not_pasted(records):
    marked = [
        replace(one, annotations=tuple(replace(a, crowd=n % 2 == 0, ignore=n % 2 == 1) for a in one.annotations))
        for n, one in enumerate(records)
    ]
    made = scenes(ObjectStore.of(marked, NAMES), Augmentation(paste=1.0))
    assert made._pool is None
    scene = made.scene(0, 1)
    assert scene.crowd.all()
    assert (made.scene(1, 0).classes == -1).all()
