import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from manylens.data.records import Annotation, Category, Record
from manylens.evaluation.measure import Regions
from manylens.evaluation.measures.semantic import Semantic, SemanticTally, near_outline
from manylens.evaluation.tally import Tally
from manylens.media import to_rle

CATEGORIES = [Category(7, "cat"), Category(2, "sky", is_thing=False), Category(30, "sea", is_thing=False)]
IDS = np.array([one.id for one in CATEGORIES] + [-1])  # by place; the last is for void


def record(places, id="a", **rest):
    """A picture of a map of places in the categories, -1 for void."""
    annotations = tuple(
        Annotation(f"{id}-{i}", one.name, mask=to_rle(places == i))
        for i, one in enumerate(CATEGORIES)
        if (places == i).any()
    )
    return Record(id, Path(f"{id}.png"), places.shape[1], places.shape[0], annotations=annotations, **rest)


def judge(*pairs):
    measure = Semantic(CATEGORIES)
    for truth, prediction in pairs:
        measure.add(truth, prediction)
    return measure


def maps(rng, *, void=True):
    """A map of places with blocks, and one that is like it."""
    true = np.kron(rng.integers(-1 if void else 0, 3, (5, 6)), np.ones((5, 5), int))[: rng.integers(20, 26)]
    found = np.where(rng.random(true.shape) < 0.2, rng.integers(-1, 3, true.shape), np.roll(true, 1, 1))
    return true, found


def same(figures, expected):
    assert figures.keys() >= expected.keys()
    for name, value in expected.items():
        assert figures[name] == pytest.approx(value, abs=1e-9, nan_ok=True), name


def test_it_is_what_torchmetrics_and_scikit_learn_give():
    import torch
    from sklearn.metrics import accuracy_score, balanced_accuracy_score, jaccard_score
    from torchmetrics.functional.segmentation import mean_iou

    rng = np.random.default_rng(0)
    pairs = [maps(rng, void=False) for _ in range(5)]
    pairs = [(true[:20], np.maximum(found[:20], 0)) for true, found in pairs]
    figures = judge(*((record(true, str(i)), IDS[found]) for i, (true, found) in enumerate(pairs))).tally().all()
    true, found = (np.stack(one).ravel() for one in zip(*pairs, strict=True))
    each = jaccard_score(true, found, average=None)
    by_torch = mean_iou(torch.tensor(found)[None], torch.tensor(true)[None], 3, input_format="index", per_class=True)
    assert by_torch[0].tolist() == pytest.approx(each.tolist())
    expected = {
        "mIoU": each.mean(),
        "pixel accuracy": accuracy_score(true, found),
        "mean accuracy": balanced_accuracy_score(true, found),
        "frequency-weighted IoU": jaccard_score(true, found, average="weighted"),
    }
    same(figures, expected | {f"IoU/{one.name}": each[i] for i, one in enumerate(CATEGORIES)})


def outline(mask):
    """As Cheng et al. tell it: what d erosions by a 3 x 3 square take away, the end of the picture an edge."""
    reach = max(1, round(0.02 * math.hypot(*mask.shape)))
    padded = np.pad(mask, 1)
    return mask & ~ndimage.binary_erosion(padded, np.ones((3, 3)), iterations=reach)[1:-1, 1:-1]


@pytest.mark.parametrize("shape", [(12, 9), (60, 80), (130, 50)])
def test_boundary_iou_is_that_of_the_paper_class_by_class(shape):
    rng = np.random.default_rng(shape[0])
    true = np.kron(rng.integers(-1, 3, (13, 16)), np.ones((10, 10), int))[: shape[0], : shape[1]]
    found = np.where(rng.random(shape) < 0.01, rng.integers(-1, 3, shape), np.roll(true, 2, 0))
    figures = judge((record(true), IDS[found])).tally().all()
    seen = np.where(true < 0, -1, found)
    expected = {}
    for i, one in enumerate(CATEGORIES):
        edge, other = outline(true == i), outline(seen == i)
        expected[f"boundary IoU/{one.name}"] = (
            (edge & other).sum() / union if (union := (edge | other).sum()) else np.nan
        )
    same(figures, expected | {"boundary IoU": np.nanmean(list(expected.values()))})


@pytest.mark.parametrize("classes", [3, 300])
def test_outlines_of_many_classes_are_found_alike(classes):
    labels = np.kron(np.array([[-1, 0], [1, classes - 1]]), np.ones((30, 40), int)).astype(np.int32)
    expected = np.any([outline(labels == one) for one in np.unique(labels)], axis=0)
    assert (near_outline(labels, classes) == expected).all()


@pytest.mark.parametrize(
    ("true", "found", "expected"),
    [
        # Half of the sky is called cat: cat 2/4, sky 2/4.
        (
            [0, 0, 1, 1, 1, 1],
            [0, 0, 0, 0, 1, 1],
            {"IoU/cat": 0.5, "IoU/sky": 0.5, "mIoU": 0.5, "pixel accuracy": 2 / 3},
        ),
        # A class of neither is in no mean; one that is only predicted is.
        ([0, 0, 0, 0], [0, 0, 0, 1], {"IoU/cat": 0.75, "IoU/sky": 0, "IoU/sea": np.nan, "mIoU": 0.375}),
        ([0, 0, 0, 0], [0, 0, 0, 1], {"mean accuracy": 0.75, "frequency-weighted IoU": 0.75}),
        # Whatever is predicted on void does not count.
        ([0, 0, -1, -1], [0, 0, 1, 1], {"IoU/cat": 1, "IoU/sky": np.nan, "mIoU": 1, "boundary IoU": 1}),
        # Nothing predicted on something is missed.
        ([0, 0, 0, 0], [0, -1, -1, -1], {"IoU/cat": 0.25, "pixel accuracy": 0.25}),
    ],
)
def test_hand_worked(true, found, expected):
    true, found = np.array([true]), np.array([found])
    same(judge((record(true), IDS[found])).tally().all(), expected)


def test_regions_are_painted_by_score_and_ignored_parts_are_void():
    annotations = (
        Annotation("1", "cat", mask=to_rle([[1, 1, 1, 1, 0, 0]])),
        Annotation("2", "sky", mask=to_rle([[0, 0, 1, 1, 1, 0]])),  # later: on top
        Annotation("3", "", mask=to_rle([[0, 0, 0, 1, 0, 0]]), ignore=True),
    )
    truth = Record("a", Path("a.png"), 6, 1, annotations=annotations)
    masks = [to_rle([[1, 1, 1, 1, 1, 1]]), to_rle([[1, 1, 0, 0, 0, 0]])]
    for scores, expected in (([0.3, 0.6], 1), ([0.6, 0.3], 0.25)):
        measure = judge((truth, Regions(["sky", "cat"], np.array(scores, np.float32), masks=masks)))
        assert measure.tally().all()["mIoU"] == expected
        assert not measure.problems


def test_what_is_wrong_is_taken_down_with_its_id():
    truth = record(np.zeros((2, 3), int))
    found = np.array([[7, 7, 7], [7, 99, 99]])
    measure = judge(
        (truth, found), (record(np.zeros((2, 3), int), "b"), found.T), (record(np.zeros((2, 3), int), "c"), None)
    )
    assert measure.tally().all()["IoU/cat"] == pytest.approx(4 / 12)
    assert [(one.kind, one.id, one.left_out) for one in measure.problems] == [
        ("unknown category", "a/99", False),
        ("mask size", "b", True),
    ]
    assert measure.tally().units.ids == ["a", "c"]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_properties(seed):
    rng = np.random.default_rng(seed)
    truths = [maps(rng) for _ in range(4)]
    pairs = [(record(true, str(i)), IDS[found]) for i, (true, found) in enumerate(truths)]
    tally = judge(*pairs).tally()
    order, weights = rng.permutation(4), rng.integers(0, 3, 4)
    same(judge(*(pairs[i] for i in order)).tally().all(), tally.all())
    repeated = [pairs[i] for i in range(4) for _ in range(weights[i])]
    weighted = {name: float(value[1]) for name, value in tally.figures(np.array([np.ones(4), weights])).items()}
    same(weighted, judge(*repeated).tally().all())
    perfect = judge(*((truth, IDS[true]) for (truth, _), (true, _) in zip(pairs, truths, strict=True))).tally().all()
    assert {round(value, 12) for value in perfect.values() if not np.isnan(value)} == {1}
    nothing = judge(*((truth, None) for truth, _ in pairs)).tally().all()
    assert {value for value in nothing.values() if not np.isnan(value)} == {0}
    by_regions = [
        Regions(
            [one.name for one in CATEGORIES],
            np.ones(3, np.float32),
            masks=[to_rle(found == i) for i in range(3)],
        )
        for _, found in truths
    ]
    if all((found == i).any() for _, found in truths for i in range(3)):
        same(judge(*((pairs[i][0], by_regions[i]) for i in range(4))).tally().all(), tally.all())


def test_it_is_saved_and_read_back_and_says_which_pictures_went_badly(tmp_path):
    true = np.array([[0, 0, 1, 1]])
    measure = judge((record(true, "good"), IDS[true]), (record(true, "bad"), IDS[[[0, 1, 1, 1]]]))
    tally = Tally.load(measure.tally().save(tmp_path / "tally.npz"))
    assert isinstance(tally, SemanticTally)
    same(tally.all(), measure.tally().all())
    assert tally.scores().tolist() == pytest.approx([1, (1 / 2 + 2 / 3) / 2])
    details = json.loads(json.dumps(tally.details()))
    assert details["confusion"]["values"] == [[0.75, 0.25, 0], [0, 1, 0], [0, 0, 0]]
    assert [row[0] for row in details["classes"]["rows"]] == ["cat", "sky"]


def test_where_no_region_is_there_is_background():
    places = np.zeros((6, 8), bool)
    places[:, :3] = True
    classes = [Category(0, "background", False), Category(1, "thing", False)]
    annotations = (Annotation("g", "background", mask=to_rle(~places)), Annotation("t", "thing", mask=to_rle(places)))
    measure = Semantic(classes)
    found = Regions(["thing"], np.ones(1, np.float32), masks=[to_rle(places)])
    measure.add(Record("a", Path("a.png"), 8, 6, annotations=annotations), found)
    assert measure.tally().all()["mIoU"] == 1
