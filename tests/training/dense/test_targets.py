from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from manylens.data.records import Annotation, Category, Record
from manylens.evaluation.measures.semantic import Semantic
from manylens.media import to_rle
from manylens.training.dense.losses import VOID
from manylens.training.dense.scenes import Scenes
from manylens.training.dense.store import ObjectStore
from manylens.training.dense.targets import Classes, class_map, objects
from manylens.training.errors import TrainError

CATEGORIES = (Category(1, "cat"), Category(2, "sky", is_thing=False), Category(3, "dog"))
SIDE = 24


def rectangle(x0, y0, x1, y1):
    mask = np.zeros((SIDE, SIDE), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def picture(*parts):
    annotations = [
        Annotation(str(i), name, mask=to_rle(rectangle(*box)), **more) for i, (name, box, more) in enumerate(parts)
    ]
    return Record("p", Path("p.png"), SIDE, SIDE, annotations=tuple(annotations))


RECORD = picture(
    ("sky", (0, 0, 24, 8), {}),
    ("cat", (2, 4, 10, 14), {}),
    ("cat", (8, 6, 14, 14), {}),
    ("", (12, 12, 20, 20), {"ignore": True}),
    ("dog", (10, 16, 24, 24), {}),
    ("dog", (0, 20, 6, 24), {"crowd": True}),
)


def scene(record=RECORD, names=("cat", "sky", "dog")):
    return Scenes(ObjectStore.of([record], names), SIDE).scene(0, 0)


def test_a_class_map_is_painted_as_evaluation_paints_it():
    classes = Classes.of(CATEGORIES)
    painted = class_map(scene(), classes)
    judge = Semantic(CATEGORIES)
    np.testing.assert_array_equal(painted, judge._true(RECORD, (SIDE, SIDE)))
    assert (painted[12:20, 12:20] == VOID).all()  # what is not judged lies on top, whatever its place
    assert painted[15, 0] == VOID


@pytest.mark.parametrize(
    ("categories", "unlabelled", "names", "things", "ground"),
    [
        (CATEGORIES, "void", ("cat", "sky", "dog"), (True, False, True), VOID),
        (CATEGORIES, "background", ("background", "cat", "sky", "dog"), (False, True, False, True), 0),
        ((*CATEGORIES[:1], Category(9, "background")), "background", ("cat", "background"), (True, False), 1),
        ((*CATEGORIES[:1], Category(9, "background")), "void", ("cat", "background"), (True, False), VOID),
    ],
)
def test_classes(categories, unlabelled, names, things, ground):
    found = Classes.of(categories, unlabelled=unlabelled)
    assert (found.names, found.things, found.ground) == (names, things, ground)
    assert found.stuff == {i for i, thing in enumerate(things) if not thing}


def test_pixels_of_which_nothing_is_said_may_be_background():
    classes = Classes.of(CATEGORIES, unlabelled="background")
    painted = class_map(scene(names=classes.names), classes)
    assert painted[15, 0] == 0
    assert painted[5, 20] == classes.names.index("sky")
    assert (painted[12:20, 12:20] == VOID).all()


@pytest.mark.parametrize(
    ("categories", "said"),
    [((), "data: has no categories"), ((CATEGORIES[0], Category(7, "cat")), "category 'cat': is there twice")],
)
def test_bad_categories(categories, said):
    with pytest.raises(TrainError, match=said):
        Classes.of(categories)


def test_instances_are_things_that_are_told_apart():
    found = objects(scene(), Classes.of(CATEGORIES))
    assert found.classes.tolist() == [0, 0, 2]
    assert found.boxes.tolist() == [[2, 4, 10, 14], [8, 6, 14, 14], [10, 16, 24, 24]]
    assert found.masks.numpy().sum(axis=(1, 2)).tolist() == [80, 48, 112]
    assert found.void.tolist() == [[12, 12, 20, 20], [0, 20, 6, 24]]


@pytest.mark.parametrize(("kind", "numbers"), [("panoptic", [0, 0, 1, 2]), ("semantic", [0, 1, 2])])
def test_segments_cover_what_the_class_map_says(kind, numbers):
    classes = Classes.of(CATEGORIES)
    painted = class_map(scene(), classes)
    found = objects(scene(), classes, kind)
    assert found.classes.tolist() == numbers
    masks = found.masks.numpy()
    assert (masks.sum(axis=0) <= 1).all()
    again = np.full_like(painted, VOID)
    for number, mask in zip(found.classes.tolist(), masks, strict=True):
        again[mask] = number
    if kind == "panoptic":  # a crowd is no segment of its own
        again[20:24, 0:6] = classes.names.index("dog")
    np.testing.assert_array_equal(again, painted)


def test_masks_may_be_smaller():
    found = objects(scene(), Classes.of(CATEGORIES), side=6)
    assert found.masks.shape == (3, 6, 6)
    np.testing.assert_allclose(found.masks.sum(dim=(1, 2)), [80 / 16, 48 / 16, 112 / 16], rtol=1e-5)


@pytest.mark.parametrize("kind", ["instance", "panoptic", "semantic"])
def test_a_picture_of_nothing(kind):
    found = objects(scene(replace(RECORD, annotations=())), Classes.of(CATEGORIES), kind, side=6)
    assert found.classes.shape == (0,)
    assert found.masks.shape == (0, 6, 6)
    assert found.boxes.shape == found.void.shape == (0, 4)
