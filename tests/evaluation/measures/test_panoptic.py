import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from manylens.data.problems import DataError
from manylens.data.records import Annotation, Category, Record
from manylens.evaluation.measure import Regions
from manylens.evaluation.measures.panoptic import Panoptic, PanopticMap, PanopticTally
from manylens.evaluation.tally import Tally
from manylens.media import to_rle

SAMPLE = Path(__file__).parents[2] / "assets" / "panoptic"
CATEGORIES = [Category(1, "cat"), Category(2, "dog"), Category(3, "sky", is_thing=False), Category(4, "sea", False)]
NAMES = [one.name for one in CATEGORIES]


def record(ids, classes, *, crowds=(), ignored=(), id="a"):
    """A picture of an id map, 0 for void; classes by id."""
    annotations = tuple(
        Annotation(f"{id}-{one}", name, mask=to_rle(ids == one), crowd=one in crowds, ignore=one in ignored)
        for one, name in classes.items()
    )
    return Record(id, Path(f"{id}.png"), ids.shape[1], ids.shape[0], annotations=annotations)


def regions(ids, classes, scores=None):
    masks = [to_rle(ids == one) for one in classes]
    return Regions(list(classes.values()), np.array(scores or np.ones(len(masks)), np.float32), masks=masks)


def judge(*pairs, categories=CATEGORIES):
    measure = Panoptic(categories)
    for truth, prediction in pairs:
        measure.add(truth, prediction)
    return measure


def slow(pairs, categories):
    """The rules as they are told, segment by segment over whole masks."""
    iou, tp, fp, fn = (defaultdict(float) for _ in range(4))
    for true, true_classes, crowds, found, found_classes in pairs:
        matched_true, matched = set(), set()
        for i, name in true_classes.items():
            for j, guess in found_classes.items():
                if i in crowds or name != guess:
                    continue
                one, other = true == i, found == j
                value = (one & other).sum() / (one | other & (true != 0)).sum()
                if value > 0.5:
                    tp[name] += 1
                    iou[name] += value
                    matched_true.add(i)
                    matched.add(j)
        for i, name in true_classes.items():
            fn[name] += i not in matched_true and i not in crowds
        for j, name in found_classes.items():
            own = [i for i in crowds if true_classes[i] == name]
            excused = (true == 0) | (np.isin(true, own[-1:]))
            if j not in matched and ((found == j) & excused).sum() / (found == j).sum() <= 0.5:
                fp[name] += 1
    figures = {}
    for group, kinds in (("", (True, False)), (" things", (True,)), (" stuff", (False,))):
        rows = []
        for name in (one.name for one in categories if one.is_thing in kinds):
            both = tp[name] + fp[name] / 2 + fn[name] / 2
            row = (iou[name] / both, iou[name] / tp[name] if tp[name] else 0, tp[name] / both) if both else None
            figures[f"PQ/{name}"] = row[0] if row else np.nan
            rows += [row] if row else []
        for i, name in enumerate(("PQ", "SQ", "RQ")):
            figures[name + group] = np.mean([row[i] for row in rows]) if rows else np.nan
    return figures


def blobs(rng, *, shape=(18, 23), count=6):
    """An id map with void, its classes, and crowds in ascending order."""
    cells = rng.integers(0, count + 1, (6, 6))
    ids = np.kron(cells, np.ones((4, 4), int))[: shape[0], : shape[1]]
    classes = {int(one): str(rng.choice(NAMES)) for one in np.unique(ids) if one}
    return ids, classes, [one for one in classes if rng.random() < 0.2]


def shaken(rng, ids, classes):
    ids = np.roll(ids, tuple(rng.integers(-2, 3, 2)), (0, 1))
    ids = np.where(rng.random(ids.shape) < rng.choice([0, 0.1, 0.3]), rng.choice(list({0} | set(classes))), ids)
    named = {one: name if rng.random() < 0.8 else str(rng.choice(NAMES)) for one, name in classes.items()}
    return ids, {one: name for one, name in named.items() if (ids == one).any()}


def same(figures, expected):
    assert figures.keys() == expected.keys()
    for name, value in expected.items():
        assert figures[name] == pytest.approx(value, abs=1e-12, nan_ok=True), name


@pytest.mark.parametrize("seed", range(40))
def test_it_is_what_a_slow_reading_of_the_rules_gives(seed):
    rng = np.random.default_rng(seed)
    pairs, by_map, by_masks = [], [], []
    for number in range(3):
        true, classes, crowds = blobs(rng)
        found, named = shaken(rng, true, classes)
        pairs.append((true, classes, crowds, found, named))
        truth = record(true, classes, crowds=crowds, id=str(number))
        by_map.append((truth, PanopticMap(found, named)))
        by_masks.append((truth, regions(found, named)))
    expected = slow(pairs, CATEGORIES)
    for measure in (judge(*by_map), judge(*by_masks)):
        same(measure.tally().all(), expected)
        assert not measure.problems


# What the evaluation script of panopticapi gives for its sample: PQ, SQ, RQ of all, things, stuff. The prediction is
# the truth itself, or that of `moved`, without crowds and with.
REFERENCE = {
    "itself": [1, 1, 1, 1, 1, 1, 1, 1, 1],
    "moved": [
        *(0.3512264652745274, 0.5957564299123491, 0.4955128205128205),
        *(0.1501855812643565, 0.4500710317776656, 0.24102564102564106),
        *(0.5522673492846981, 0.7414418280470327, 0.7499999999999999),
    ],
    "crowds": [
        *(0.2761989190331766, 0.4787211129516911, 0.3896987366375121),
        *(0.05596583410763913, 0.2836477322448442, 0.09863945578231292),
        *(0.5698430322672265, 0.7388189538941538, 0.7777777777777777),
    ],
}


def sample(kind):
    """Pairs and categories of the reference's sample of two pictures."""
    told = json.loads((SAMPLE / "panoptic.json").read_text())
    categories = [Category(one["id"], one["name"], bool(one["isthing"])) for one in told["categories"]]
    names = {one.id: one.name for one in categories}
    pairs = []
    for row in told["annotations"]:
        colours = np.asarray(Image.open(SAMPLE / row["file_name"])).astype(np.int32)
        ids = colours @ np.array([1, 256, 65536])
        classes = {one["id"]: names[one["category_id"]] for one in row["segments_info"]}
        assert {one["id"]: one["area"] for one in row["segments_info"]} == {
            one: int((ids == one).sum()) for one in classes
        }
        crowds = [one for one in classes if one % 3 == 0] if kind == "crowds" else []
        found, named = (ids, classes) if kind == "itself" else moved(ids, classes)
        pairs.append((record(ids, classes, crowds=crowds, id=str(row["image_id"])), PanopticMap(found, named)))
    return pairs, categories


def moved(ids, classes):
    """The truth, shifted; every fifth segment has the class of the one before, every seventh is cut in two."""
    found = np.roll(ids, (4, -7), (0, 1))
    order = sorted(classes)
    named = {one: classes[order[i - 1] if i % 5 == 0 else one] for i, one in enumerate(order)}
    for part, one in enumerate(order[::7], 1):
        assert part not in classes
        cut = (found == one) & (np.arange(found.shape[1]) > np.median(np.nonzero(found == one)[1]))
        found[cut] = part
        named[part] = named[one]
    present = set(np.unique(found).tolist())
    return found, {one: name for one, name in named.items() if one in present}


@pytest.mark.parametrize("kind", REFERENCE)
def test_it_is_exact_on_the_sample_of_the_reference_implementation(kind):
    pairs, categories = sample(kind)
    figures = judge(*pairs, categories=categories).tally().all()
    names = [f"{figure}{group}" for group in ("", " things", " stuff") for figure in ("PQ", "SQ", "RQ")]
    assert [figures[name] for name in names] == pytest.approx(REFERENCE[kind], abs=1e-12)


def strip(*parts):
    """A picture of one row: pairs of (id, pixels)."""
    return np.array([[one for one, pixels in parts for _ in range(pixels)]])


@pytest.mark.parametrize(
    ("true", "crowds", "ignored", "found", "expected"),
    [
        # 6 of 10 + 6 - 6 pixels: a match of IoU 0.6.
        (strip((1, 10), (2, 10)), (), (), strip((1, 6), (0, 4), (2, 10)), {"PQ/cat": 0.6, "PQ/dog": 1, "PQ": 0.8}),
        # Exactly one half is no match: one missed, one false alarm.
        (strip((1, 10), (2, 10)), (), (), strip((1, 5), (0, 5), (2, 10)), {"PQ/cat": 0, "SQ": 0.5, "PQ/dog": 1}),
        # What lies in void is taken from the union.
        (strip((1, 6), (0, 14)), (), (), strip((1, 12), (0, 8)), {"PQ/cat": 1, "PQ/dog": np.nan, "PQ": 1}),
        # More than half in void: no false alarm; exactly half: one.
        (strip((0, 6), (1, 14)), (), (), strip((2, 11), (0, 9)), {"PQ/dog": np.nan, "PQ/cat": 0}),
        (strip((0, 6), (1, 14)), (), (), strip((2, 12), (0, 8)), {"PQ/dog": 0, "PQ/cat": 0}),
        # What is ignored is void.
        (strip((2, 6), (1, 14)), (), (2,), strip((2, 11), (0, 9)), {"PQ/dog": np.nan, "PQ/cat": 0}),
        # A crowd is never missed or matched; it excuses its own class only.
        (strip((1, 20)), (1,), (), strip((0, 20)), {"PQ/cat": np.nan, "PQ": np.nan}),
        (strip((1, 20)), (1,), (), strip((1, 20)), {"PQ/cat": np.nan, "PQ": np.nan}),
        (strip((1, 20)), (1,), (), strip((2, 20)), {"PQ/cat": np.nan, "PQ/dog": 0, "PQ": 0}),
    ],
)
def test_hand_worked(true, crowds, ignored, found, expected):
    classes = {1: "cat", 2: "dog"}
    present = [{one: name for one, name in classes.items() if (ids == one).any()} for ids in (true, found)]
    truth = record(true, present[0], crowds=crowds, ignored=ignored)
    figures = judge((truth, PanopticMap(found, present[1]))).tally().all()
    assert {name: figures[name] for name in expected} == pytest.approx(expected, nan_ok=True)


def test_overlaps_are_settled_by_score_and_taken_down():
    true = strip((1, 10), (2, 10))
    masks = [to_rle(strip((1, 14), (0, 6))), to_rle(strip((0, 10), (1, 10)))]
    truth = record(true, {1: "cat", 2: "dog"})
    for scores, expected in (([0.5, 0.9], (1, 1)), ([0.9, 0.5], (10 / 14, 6 / 10))):
        measure = judge((truth, Regions(["cat", "dog"], np.array(scores, np.float32), masks=masks)))
        figures = measure.tally().all()
        assert (figures["PQ/cat"], figures["PQ/dog"]) == pytest.approx(expected)
        assert dict(measure.problems.counts) == {"overlapping masks": 1}
        assert measure.problems.left_out == 0


def test_true_masks_that_overlap_keep_their_order_and_what_is_ignored_is_void():
    cat, dog, none = strip((1, 14), (0, 6)), strip((0, 10), (1, 10)), strip((1, 2), (0, 18))
    annotations = [
        Annotation("1", "cat", mask=to_rle(cat)),
        Annotation("2", "dog", mask=to_rle(dog)),
        Annotation("3", "", mask=to_rle(none), ignore=True),
    ]
    truth = Record("a", Path("a.png"), 20, 1, annotations=tuple(annotations))
    measure = judge((truth, PanopticMap(strip((0, 2), (1, 12), (2, 6)), {1: "cat", 2: "dog"})))
    assert measure.tally().all()["PQ"] == 1
    assert dict(measure.problems.counts) == {"overlapping masks": 1}


def test_what_is_wrong_is_taken_down_with_its_id():
    true = strip((1, 10), (2, 10))
    good, empty = to_rle(true == 1), to_rle(true == 9)
    names = ["cat", "cat", "yeti", "cat", "cat"]
    masks = [good, good, good, empty, {"size": [1, 20], "counts": "0?"}]
    scores = np.array([0.9, np.nan, 1, 1, 1], np.float32)
    measure = judge((record(true, {1: "cat"}), Regions(names, scores, masks=masks, ids=["p", "q", "r", "s", "t"])))
    assert measure.tally().all()["PQ"] == 1
    assert {one.kind: one.id for one in measure.problems} == {
        "NaN score": "q",
        "unknown category": "r",
        "empty mask": "s",
        "bad mask": "t",
    }


@pytest.mark.parametrize(
    "prediction",
    [
        PanopticMap(np.ones((2, 20), int), {1: "cat"}),
        Regions(["cat"], np.ones(1, np.float32), masks=[to_rle(np.ones((2, 20)))]),
        Regions(["cat"], np.ones(1, np.float32), boxes=np.ones((1, 4), np.float32)),
    ],
)
def test_a_prediction_of_another_shape_leaves_the_picture_out(prediction):
    measure = judge((record(strip((1, 20)), {1: "cat"}, id="b"), prediction))
    assert len(measure.tally().units) == 0
    assert np.isnan(measure.tally().all()["PQ"])
    assert [one.id for one in measure.problems] == ["b"]
    assert measure.problems.left_out == 1


def test_truth_that_cannot_be_used_is_void():
    annotations = (
        Annotation("1", "cat", mask=to_rle(strip((1, 20)) == 1)),
        Annotation("2", "yeti", mask=to_rle(strip((1, 20)) == 1)),
        Annotation("3", "cat", box=(0, 0, 1, 1)),
        Annotation("4", "cat", mask=to_rle(np.ones((3, 3)))),
    )
    measure = judge((Record("a", Path("a.png"), 20, 1, annotations=annotations), None))
    assert measure.tally().all()["PQ"] == 0
    assert {one.kind: one.id for one in measure.problems} == {"unknown category": "2", "no mask": "3", "bad mask": "4"}


def test_there_must_be_categories():
    with pytest.raises(DataError):
        Panoptic()
    with pytest.raises(DataError):
        Panoptic([Category(1, "cat"), Category(2, "cat")])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_properties(seed):
    rng = np.random.default_rng(seed)
    truths, pairs = [], []
    for number in range(4):
        true, classes, crowds = blobs(rng)
        truths.append((true, classes))
        pairs.append((record(true, classes, crowds=crowds, id=str(number)), PanopticMap(*shaken(rng, true, classes))))
    tally = judge(*pairs).tally()
    order, weights = rng.permutation(4), rng.integers(0, 3, 4)
    same(judge(*(pairs[i] for i in order)).tally().all(), tally.all())
    repeated = [pairs[i] for i in range(4) for _ in range(weights[i])]
    weighted = {name: float(value[1]) for name, value in tally.figures(np.array([np.ones(4), weights])).items()}
    same(weighted, judge(*repeated).tally().all())
    plain = [record(*truth, id=str(i)) for i, truth in enumerate(truths)]
    perfect = judge(*((one, PanopticMap(*truth)) for one, truth in zip(plain, truths, strict=True))).tally().all()
    assert {value for value in perfect.values() if not np.isnan(value)} <= {1}
    nothing = judge(*((one, None) for one in plain)).tally().all()
    assert {value for value in nothing.values() if not np.isnan(value)} <= {0}
    assert perfect["PQ"] == 1 or not any(classes for _, classes in truths)


def test_it_is_saved_and_read_back_and_says_which_pictures_went_badly(tmp_path):
    true = strip((1, 10), (2, 10))
    classes = {1: "cat", 2: "sky"}
    measure = Panoptic(CATEGORIES, columns=["site"])
    for id, found in (("good", true), ("bad", strip((0, 10), (2, 10)))):
        truth = record(true, classes, id=id)
        truth = Record(id, truth.path, 20, 1, annotations=truth.annotations, columns={"site": id})
        measure.add(truth, PanopticMap(found, classes))
    tally = Tally.load(measure.tally().save(tmp_path / "tally.npz"))
    assert isinstance(tally, PanopticTally)
    same(tally.all(), measure.tally().all())
    assert tally.scores().tolist() == [1, 0.5]
    assert tally.units.columns["site"] == ["good", "bad"]
    details = json.loads(json.dumps(tally.details()))
    assert details["classes"]["rows"] == [
        ["cat", "thing", 0.6667, 1, 0.6667, 1, 0, 1],
        ["sky", "stuff", 1, 1, 1, 2, 0, 0],
    ]
