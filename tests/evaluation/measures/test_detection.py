from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manylens.data.problems import DataError, Problems
from manylens.data.records import Annotation, Category, Record
from manylens.evaluation.intervals import estimates
from manylens.evaluation.measure import Regions
from manylens.evaluation.measures import detection as module
from manylens.evaluation.measures.detection import Detection
from manylens.evaluation.measures.detection_tally import FIGURES
from manylens.media import bounds, from_rle, to_rle
from tests.evaluation.measures import checks, coco
from tests.evaluation.measures.coco import CATEGORIES, HEIGHT, NAMES, WIDTH, Made, Shape, Thing, expected, made

KINDS = ["box", "mask"]
LEFT, RIGHT = (0.0, 0.0, 50.0, 50.0), (80.0, 0.0, 130.0, 50.0)
BLANK = to_rle(np.zeros((HEIGHT, WIDTH), bool))


def evaluated(data: Made, kind: str):
    return checks.tally_of(Detection(CATEGORIES, kind=kind), data.pairs(kind))


def equal(ours, oracle):
    assert list(ours) == list(oracle)
    for name in oracle:
        np.testing.assert_allclose(ours[name], oracle[name], rtol=0, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ties", [False, True])
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_all_figures_equal_those_of_pycocotools(kind, ties, seed):
    data = made(seed, ties=ties)
    equal(evaluated(data, kind).all(), expected(data.oracle(kind)))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_a_whole_weight_is_the_image_that_often_for_pycocotools(kind, seed):
    data = made(seed)
    counts = np.random.default_rng(seed).integers(0, 4, len(data.images)).tolist()
    figures = evaluated(data, kind).figures(np.array([counts, [1] * len(counts)], float))
    drawn = coco.repeated(data, counts)
    if drawn.images:
        equal({name: values[0] for name, values in figures.items()}, expected(drawn.oracle(kind)))
    equal({name: values[1] for name, values in figures.items()}, expected(data.oracle(kind)))


@pytest.mark.parametrize(("false_alarms", "found"), [(99, True), (100, False), (110, False)])
def test_a_hundred_detections_of_a_class_in_an_image_are_judged(false_alarms, found):
    right, wrong = (Thing(0, "cat", Shape(box, BLANK), area=2500.0) for box in (LEFT, RIGHT))
    alarms = tuple(replace(wrong, score=0.9 - i / 1000) for i in range(false_alarms))
    data = Made((0, 1), (right,), (replace(right, score=0.1), *alarms, replace(wrong, image=1, score=0.05)))
    figures = evaluated(data, "box").all()
    equal(figures, expected(data.oracle("box")))
    assert (figures["AR100"] == 1.0) is found


def test_of_objects_that_overlap_alike_the_last_is_taken_as_in_pycocotools():
    """The first detection lies between both objects and takes the last, so the second one finds its own gone."""
    a, b, between = ((float(x), 0.0, float(x + 30), 10.0) for x in (0, 10, 5))
    at = lambda box, score=0.0: Thing(0, "cat", Shape(box, BLANK), score, area=300.0)  # noqa: E731
    data = Made((0,), (at(a), at(b)), (at(between, 0.9), at(b, 0.8)))
    figures = evaluated(data, "box").all()
    equal(figures, expected(data.oracle("box")))
    assert figures["AR100"] == pytest.approx((2 + 9 * 1) / 20)  # both at IoU 0.5, one of two at the nine above


def test_a_case_worked_by_hand():
    """Right, wrong, right, and one of three missed: precision 1 up to recall 1/3, then 2/3 up to recall 2/3."""
    records = [record("a", (LEFT, RIGHT)), record("b", (LEFT,))]
    below = (0.0, 60.0, 50.0, 110.0)
    predictions = [regions((LEFT, 0.9), (below, 0.8), (RIGHT, 0.7)), None]
    tally = checks.tally_of(Detection(CATEGORIES), list(zip(records, predictions, strict=True)))
    figures = tally.all()
    area = (34 * 1 + 33 * 2 / 3) / 101  # points 0.00 to 0.33, then 0.34 to 0.66
    assert figures["AP50"] == pytest.approx(area)
    assert figures["AP"] == pytest.approx(area)  # the boxes fit exactly
    assert figures["AR1"] == pytest.approx(1 / 3)
    assert figures["AR100"] == figures["ARm"] == pytest.approx(2 / 3)
    assert np.isnan(figures["APs"])
    assert np.isnan(figures["AP/dog"])
    assert tally.scores() == pytest.approx([(1 + 2 / 3) / 2, 0.0])


def test_the_score_of_a_picture_is_its_mean_over_thresholds():
    loose = (LEFT[0], LEFT[1], LEFT[2], LEFT[1] + 0.62 * (LEFT[3] - LEFT[1]))  # found at IoU 0.50, 0.55 and 0.60
    pair = (record("a", (LEFT,)), regions((loose, 0.9)))
    tally = checks.tally_of(Detection(CATEGORIES), [pair])
    assert tally.scores() == pytest.approx([0.3])
    assert tally.score_name == "AP of this picture alone"


@pytest.mark.parametrize("kind", KINDS)
def test_the_truth_as_prediction_scores_one_and_nothing_scores_zero(kind):
    data = made(1)
    truth = tuple(replace(one, crowd=False, ignore=False) for one in data.truth)
    right = tuple(replace(one, score=0.5) for one in truth)
    perfect, empty = (evaluated(Made(data.images, truth, found), kind).all() for found in (right, ()))
    known = [name for name in perfect if not np.isnan(perfect[name])]
    assert {"AP", "AR100", "APs", "APm", "AP/cat"} < set(known)
    few = {"AR1", "AR10"}  # an image may hold more objects than that
    assert [perfect[name] for name in known if name not in few] == pytest.approx([1.0] * len(set(known) - few))
    assert [empty[name] for name in known] == [0.0] * len(known)


def test_no_prediction_counts_as_an_empty_one():
    pairs = made(2).pairs("box")
    nothing = Regions((), np.zeros(0), np.zeros((0, 4)))
    a, b = (checks.tally_of(Detection(CATEGORIES), [(pairs[0][0], one), *pairs[1:]]) for one in (None, nothing))
    checks.same(a.figures(np.ones((1, 8))), b.figures(np.ones((1, 8))))


@pytest.mark.parametrize("kind", KINDS)
def test_what_holds_of_every_tally(kind, tmp_path):
    pairs, make = made(5).pairs(kind), partial(Detection, CATEGORIES, kind=kind)
    checks.order_and_batches_do_not_matter(make, pairs)
    checks.a_weight_repeats(make, pairs, [0, 3, 1, 2, 0, 1, 1, 4])
    checks.survives_a_file(checks.tally_of(make(), pairs), tmp_path)


def test_weights_need_not_be_whole():
    """Twice the weight of everything is the same; a tenth more of an image lies between once and twice."""
    tally = evaluated(made(5), "box")
    weights = np.random.default_rng(0).uniform(0.1, 2, (3, 8))
    checks.same(tally.figures(weights), tally.figures(weights * 2))
    once, more, twice = (tally.figures(np.array([[1, 1, 1, x, 1, 1, 1, 1.0]]))["AR100"][0] for x in (1, 1.1, 2))
    assert min(once, twice) < more < max(once, twice)


@pytest.mark.parametrize("kind", KINDS)
def test_how_many_images_are_judged_at_once_does_not_matter(kind, monkeypatch):
    data = made(7)
    whole = evaluated(data, kind)
    monkeypatch.setattr(module, "_IMAGES_AT_ONCE", 3)
    checks.same(whole.figures(np.ones((1, 8))), evaluated(data, kind).figures(np.ones((1, 8))))
    monkeypatch.setattr(module, "_PAIRS_AT_ONCE", 1)
    checks.same(whole.figures(np.ones((1, 8))), evaluated(data, kind).figures(np.ones((1, 8))))


def test_how_many_weightings_are_worked_out_at_once_does_not_matter(monkeypatch):
    from manylens.evaluation.measures import detection_tally

    tally = evaluated(made(7), "box")
    weights = np.random.default_rng(1).integers(0, 3, (9, 8)).astype(float)
    whole = tally.figures(weights)
    monkeypatch.setattr(detection_tally, "_AT_ONCE", 1)
    checks.same(whole, tally.figures(weights))


def record(id, boxes=(), *, name="cat", size=(WIDTH, HEIGHT), **rest):
    objects = tuple(Annotation(f"{id}-{i}", name, box, **rest) for i, box in enumerate(boxes))
    return Record(id, Path("none"), *size, annotations=objects)


def regions(*found, name="cat", **rest):
    return Regions(
        [name] * len(found), np.array([score for _, score in found]), np.array([b for b, _ in found]), **rest
    )


NAN = float("nan")
MASK = coco.made(0).truth[0].shape.mask


@pytest.mark.parametrize(
    ("kind", "prediction", "problem", "id"),
    [
        ("box", regions((LEFT, NAN), ids=["p7"]), "NaN score", "p7"),
        ("box", regions((LEFT, np.inf)), "NaN score", "one/0"),
        ("box", regions((LEFT, 0.5), name="unicorn"), "unknown category", "one/0"),
        ("box", regions((LEFT, 0.5), name="sky"), "unknown category", "one/0"),
        ("box", regions(((0, 0, NAN, 9), 0.5), ids=["p7"]), "bad box", "p7"),
        ("box", regions(((9, 0, 4, 9), 0.5)), "bad box", "one/0"),
        ("box", Regions(["cat"], np.array([0.5])), "bad box", "one/0"),
        ("mask", regions((LEFT, 0.5)), "no mask", "one/0"),
        ("mask", Regions(["cat"], np.array([0.5]), masks=[MASK | {"size": [WIDTH, HEIGHT]}]), "mask size", "one/0"),
        ("mask", Regions(["cat"], np.array([0.5]), masks=[MASK | {"counts": "!!"}], ids=["p7"]), "bad mask", "p7"),
        ("mask", Regions(["cat"], np.array([0.5]), masks=[{}]), "no mask", "one/0"),
    ],
)
def test_a_bad_prediction_is_told_by_id_and_left_out(kind, prediction, problem, id):
    truth = Record(
        "one", Path("none"), WIDTH, HEIGHT, annotations=(Annotation("t", "cat", box=(0, 0, 50, 50), mask=MASK),)
    )
    categories = (*CATEGORIES, Category(9, "sky", is_thing=False))
    good = Regions(["cat"], np.array([0.4]), np.array([truth.annotations[0].box]), [MASK])
    joined = Regions(
        [*prediction.names, "cat"],
        np.append(prediction.scores, 0.4),
        None if prediction.boxes is None else np.vstack([prediction.boxes, good.boxes]),
        None if prediction.masks is None else [*prediction.masks, MASK],
        [*prediction.ids, "good"] if prediction.ids else (),
    )
    measure = Detection(categories, kind=kind)
    figures = checks.tally_of(measure, [(truth, joined)]).all()
    assert next((one.kind, one.id) for one in measure.problems) == (problem, id)
    assert measure.problems.left_out == len(measure.problems)
    if len(measure.problems) == 1:
        assert figures["AP"] == pytest.approx(1.0)  # the good one is judged as if it stood alone
    with pytest.raises(DataError, match=id):
        checks.tally_of(Detection(categories, Problems(strict=True), kind=kind), [(truth, joined)])


@pytest.mark.parametrize(
    ("kind", "annotation", "problem"),
    [
        ("box", Annotation("t", "unicorn", LEFT), "unknown category"),
        ("box", Annotation("t", "cat", (0, 0, NAN, 9)), "bad box"),
        ("mask", Annotation("t", "cat", LEFT), "no mask"),
        ("mask", Annotation("t", "cat", mask=MASK | {"counts": "!!"}), "bad mask"),
        ("mask", Annotation("t", "cat", mask=MASK | {"size": [4, 4], "counts": "0"}), "mask size"),
        ("box", Annotation("t", "sky", LEFT), None),
        ("box", Annotation("t", columns={"question": "How many?"}), None),
        ("box", Annotation("t", "unicorn", LEFT, ignore=True), None),
    ],
)
def test_a_bad_annotation_is_told_by_id_and_left_out(kind, annotation, problem):
    measure = Detection((*CATEGORIES, Category(9, "sky", is_thing=False)), kind=kind)
    truth = Record("one", Path("none"), WIDTH, HEIGHT, annotations=(annotation,))
    figures = checks.tally_of(measure, [(truth, None)]).all()
    assert [(one.kind, one.id) for one in measure.problems] == ([(problem, "t")] if problem else [])
    assert np.isnan(figures["AP"])


def test_an_empty_mask_is_told_and_counts_as_a_false_alarm():
    truth = Record("one", Path("none"), WIDTH, HEIGHT, annotations=(Annotation("t", "cat", mask=MASK),))
    measure = Detection(CATEGORIES, kind="mask")
    found = Regions(["cat", "cat"], np.array([0.9, 0.5]), masks=[BLANK, MASK])
    assert checks.tally_of(measure, [(truth, found)]).all()["AP"] == pytest.approx(0.5)
    assert [(one.kind, one.id, one.left_out) for one in measure.problems] == [("empty mask", "one/0", False)]


def test_an_image_that_comes_twice_is_judged_once():
    measure = Detection(CATEGORIES)
    tally = checks.tally_of(measure, [(record("a", [LEFT]), None), (record("a", [LEFT]), regions((LEFT, 0.5)))])
    assert [(one.kind, one.id) for one in measure.problems] == [("duplicate id", "a")]
    assert tally.all()["AP"] == 0.0


def test_a_prediction_must_have_a_score_for_each_name():
    with pytest.raises(DataError, match="image a: 1 scores for 2 names"):
        checks.tally_of(Detection(CATEGORIES), [(record("a"), Regions(["cat", "cat"], np.array([0.5])))])


def test_the_box_around_a_mask_stands_in_for_a_box():
    data = made(4)
    without = [
        (
            replace(image, annotations=tuple(replace(one, area=None) for one in image.annotations)),
            replace(found, boxes=None),
        )
        for image, found in data.pairs("mask")
    ]
    around = lambda one: replace(one, shape=Shape(_tight(one.shape.mask), one.shape.mask), area=None)  # noqa: E731
    boxed = Made(data.images, tuple(map(around, data.truth)), tuple(map(around, data.found)))
    equal(checks.tally_of(Detection(CATEGORIES), without).all(), expected(boxed.oracle("box")))


def _tight(mask):
    return bounds(from_rle(mask))


def test_without_categories_classes_are_the_names_that_are_met():
    pairs = [(record("a", [LEFT]), regions((LEFT, 0.5))), (record("b", [RIGHT], name="dog"), None)]
    figures = checks.tally_of(Detection(), pairs).all()
    assert [figures[name] for name in ("AP", "AP/cat", "AP/dog")] == pytest.approx([0.5, 1.0, 0.0])
    alone = checks.tally_of(Detection(), [(record("a", [LEFT], name=""), regions((LEFT, 0.5), name=""))])
    assert list(alone.all()) == list(FIGURES)


def test_columns_of_records_are_kept_for_slices():
    images = [replace(record(id, [LEFT]), columns={"site": site}) for id, site in (("a", "north"), ("b", "south"))]
    tally = checks.tally_of(Detection(CATEGORIES, columns=["site"]), [(one, None) for one in images])
    assert tally.units.columns == {"site": ["north", "south"]}


def test_the_curve_is_the_mean_of_pycocotools_and_the_table_counts():
    data = made(11)
    tally, judge = evaluated(data, "box"), data.oracle("box")
    details = tally.details()
    for line, at in (("IoU 0.50", 0), ("IoU 0.75", 5)):
        precision = judge.eval["precision"][at, :, :, 0, 2]
        mean = precision[:, precision[0] > -1].mean(axis=1)
        assert details["precision_recall"]["lines"][line]["y"] == pytest.approx(mean, abs=1e-6)
    cat = dict(zip(details["classes"]["header"], details["classes"]["rows"][0], strict=True))
    judged = [one for one in data.truth if one.name == "cat" and not one.crowd and not one.ignore]
    assert (cat["class"], cat["objects"]) == ("cat", len(judged))
    assert cat["detections"] == sum(one.name == "cat" for one in data.found)
    assert cat["AP"] == tally.all()["AP/cat"]
    assert [row[0] for row in details["classes"]["rows"]] == list(NAMES)


def test_nothing_at_all_has_no_figures_and_breaks_nothing():
    tally = Detection(CATEGORIES).tally()
    assert len(tally.units) == 0
    assert all(np.isnan(value) for value in tally.all().values())
    assert tally.details()["precision_recall"]["lines"] == {}
    assert len(tally.scores()) == 0


def test_intervals_lie_about_the_figures():
    tally = evaluated(made(13, images=40), "box")
    found = estimates(tally, resamples=100)
    for name in ("AP", "AP50", "AP/cat", "AR100"):
        assert found[name].low < found[name].value < found[name].high
