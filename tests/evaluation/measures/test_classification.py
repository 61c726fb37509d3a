import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from manylens import tasks
from manylens.data.problems import DataError, Problems
from manylens.data.records import Category, Record
from manylens.evaluation.intervals import estimates
from manylens.evaluation.measures.classification import Classification, ClassificationTally
from manylens.evaluation.tally import Tally
from manylens.tasks import Label


def record(label, id="a", **columns):
    return Record(id, Path(f"{id}.png"), label=label, columns=columns)


def said(**scores):
    """Labels of a prediction, the best first."""
    best_first = sorted(scores.items(), key=lambda item: -item[1])
    return tasks.Classification(labels=tuple(Label(name, score) for name, score in best_first))


def judge(classes, *pairs, strict=False):
    measure = Classification([Category(i, name) for i, name in enumerate(classes)], Problems(strict))
    for i, (label, prediction) in enumerate(pairs):
        measure.add(record(label, str(i)), prediction)
    return measure


def chances(rng, count, classes, digits=9):
    """True classes, and probabilities float64 ``(count, classes)`` that a float32 can hold."""
    true = rng.integers(0, classes, count)
    heights = np.exp(rng.normal(size=(count, classes)) + 1.5 * np.eye(classes)[true])
    return true, np.round(heights / heights.sum(axis=1, keepdims=True), digits).astype(np.float32).astype(float)


def tally_of(true, scores):
    names = [f"c{i}" for i in range(scores.shape[1])]
    pairs = [
        (names[one], said(**dict(zip(names, row.tolist(), strict=True)))) for one, row in zip(true, scores, strict=True)
    ]
    return judge(names, *pairs).tally()


def first_labels(true, scores):
    """The first label of each row; of several with one score the first that is not the truth."""
    order = np.arange(scores.shape[1])
    return np.array([np.lexsort((order, order == one, -row))[0] for one, row in zip(true, scores, strict=True)])


def expected_within(true, scores, count):
    """Chance of the truth to be within the first, by trying every order of the labels of one score."""
    shares = []
    for one, row in zip(true, scores, strict=True):
        orders = list(itertools.permutations(range(len(row))))
        shares.append(np.mean([one in sorted(order, key=lambda c: -row[c])[:count] for order in orders]))
    return np.array(shares)


def same(figures, expected):
    assert figures.keys() >= expected.keys()
    for name, value in expected.items():
        assert figures[name] == pytest.approx(value, abs=1e-9, nan_ok=True), name


@pytest.mark.parametrize("digits", [9, 1])  # few digits: many ties
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_it_is_what_scikit_learn_gives_under_any_weights(classes, digits):
    rng = np.random.default_rng(classes)
    true, scores = chances(rng, 120, classes, digits)
    weights = np.stack([np.ones(120), rng.integers(0, 4, 120), rng.random(120)])
    figures = tally_of(true, scores).figures(weights)
    guess, names = first_labels(true, scores), [f"c{i}" for i in range(classes)]
    for i, weight in enumerate(weights):
        told = {"sample_weight": weight}
        ranks = [metrics.roc_auc_score(true == one, scores[:, one], **told) for one in range(classes)]
        expected = {
            "accuracy": metrics.accuracy_score(true, guess, **told),
            "balanced accuracy": metrics.balanced_accuracy_score(true, guess, **told),
            "macro F1": metrics.f1_score(true, guess, average="macro", **told),
            "AUROC": ranks[1] if classes == 2 else np.mean(ranks),
        }
        if digits == 1:  # scikit-learn breaks ties by number, see the test of ties
            expected.pop("accuracy")
        if classes > 5 and digits > 1:
            expected["top-5"] = metrics.top_k_accuracy_score(true, scores, k=5, **told)
        each = metrics.precision_recall_fscore_support(true, guess, labels=range(classes), zero_division=np.nan, **told)
        for figure, values in zip(("precision", "recall", "f1"), each, strict=False):
            expected |= {f"{figure}/{name}": values[j] for j, name in enumerate(names)}
        same({name: values[i] for name, values in figures.items()}, expected)


def test_the_calibration_error_is_that_of_torchmetrics():
    import torch
    from torchmetrics.functional.classification import multiclass_calibration_error

    true, scores = chances(np.random.default_rng(0), 200, 4)
    expected = multiclass_calibration_error(torch.tensor(scores), torch.tensor(true), 4, n_bins=15)
    assert tally_of(true, scores).all()["ECE"] == pytest.approx(expected.item(), abs=1e-7)


def test_the_interval_of_the_calibration_error_holds_it():
    for seed in range(10):  # drawn twice, a picture looks more certain than it was: unmoved, 2 in 10 lie below
        rng = np.random.default_rng(seed)
        scores = rng.dirichlet(np.ones(10) * 0.3, 500)
        true = np.array([rng.choice(10, p=row) for row in scores])
        found = estimates(tally_of(true, scores), resamples=200)["ECE"]
        assert found.low < found.value < found.high
        assert (found.high - found.value) / (found.value - found.low) == pytest.approx(1, rel=0.5)


def test_the_confusion_matrix_and_the_curve_are_in_the_details():
    true, scores = chances(np.random.default_rng(1), 60, 3)
    details = json.loads(json.dumps(tally_of(true, scores).details()))
    expected = metrics.confusion_matrix(true, scores.argmax(axis=1))
    assert details["confusion"]["values"] == expected.tolist()
    assert details["calibration"]["diagonal"] is True
    assert details["confusions"]["rows"][0][2] == (expected - np.diag(np.diag(expected))).max()
    first = details["classes"]["rows"][0]
    assert first[:2] == ["c0", int((true == 0).sum())]
    assert first[5] == pytest.approx(metrics.roc_auc_score(true == 0, scores[:, 0]), abs=1e-4)


@pytest.mark.parametrize("classes", [2, 6])
def test_equal_scores_count_as_if_they_stood_in_a_random_order(classes):
    rng = np.random.default_rng(classes)
    true, scores = chances(rng, 20, classes, digits=1)
    scores[:3] = 0.1  # says nothing at all
    weights = np.stack([np.ones(20), rng.integers(0, 4, 20), rng.random(20)])
    figures = tally_of(true, scores).figures(weights)
    for name, count in (("accuracy", 1), ("top-5", 5)):
        found = expected_within(true, scores, count)
        assert figures[name] == pytest.approx([np.average(found, weights=one) for one in weights])


CASES = {
    "all tie": (
        [("cat", said(cat=0.5, dog=0.5)), ("dog", said(cat=0.5, dog=0.5))],
        {"accuracy": 0.5, "top-5": 1, "ECE": 0, "recall/cat": 0, "recall/dog": 0, "precision/cat": 0},
    ),
    "right": (
        [("cat", said(cat=1.0))],
        {"accuracy": 1, "ECE": 0, "recall/cat": 1, "recall/dog": np.nan, "macro F1": 1},
    ),
    "wrong": (
        [("cat", said(dog=0.9, cat=0.1))],
        {"accuracy": 0, "top-5": 1, "ECE": 0.9, "precision/dog": 0, "f1/dog": 0},
    ),
    "nothing": ([("cat", None)], {"accuracy": 0, "top-5": 0, "ECE": 0, "recall/cat": 0, "precision/cat": np.nan}),
    "no labels": ([("cat", said())], {"accuracy": 0, "top-5": 0, "ECE": 0}),
    # Scores of dog: none given (0), 0.4, 0.4, 0.6; dogs are the second and the last: 0.4 ties with one cat.
    "missing scores are 0": (
        [
            ("cat", said(cat=0.9)),
            ("dog", said(cat=0.6, dog=0.4)),
            ("cat", said(cat=0.6, dog=0.4)),
            ("dog", said(dog=0.6)),
        ],
        {"AUROC": (1 + 0.5 + 1 + 1) / 4},
    ),
    "one class only": ([("cat", said(cat=0.9)), ("cat", said(cat=0.8))], {"AUROC": np.nan, "accuracy": 1}),
}


@pytest.mark.parametrize(("pairs", "expected"), CASES.values(), ids=CASES)
def test_hand_worked(pairs, expected):
    same(judge(["cat", "dog"], *pairs).tally().all(), expected)


def test_the_sixth_label_is_not_among_the_top_five():
    names = [f"c{i}" for i in range(7)]
    ranked = said(**{name: 0.2 - i / 100 for i, name in enumerate(names)})
    tally = judge(names, ("c4", ranked), ("c5", ranked)).tally()
    assert tally.all()["top-5"] == 0.5


def test_a_name_that_is_no_category_is_wrong_and_taken_down_once():
    measure = judge(["cat"], ("cat", said(yeti=0.8, cat=0.2)), ("cat", said(yeti=0.7)), ("cat", said(cat=0.7)))
    same(measure.tally().all(), {"accuracy": 1 / 3, "top-5": 2 / 3, "recall/cat": 1 / 3, "precision/cat": 1})
    assert [(one.kind, one.left_out) for one in measure.problems] == [("unknown category", False)]


def test_what_is_wrong_is_taken_down_with_its_id():
    pairs = [("cat", said(cat=float("nan"))), ("", said(cat=1.0)), ("yeti", said(cat=1.0)), ("cat", said(cat=1.5))]
    measure = judge(["cat"], *pairs)
    assert measure.tally().units.ids == ["3"]
    assert {one.kind: one.id for one in measure.problems} == {
        "NaN score": "0",
        "no label": "1",
        "unknown category": "2",
        "score out of range": "3",
    }
    with pytest.raises(DataError):
        judge(["cat"], pairs[0], strict=True)


def test_without_categories_every_name_that_is_met_is_a_class():
    tally = judge([], ("cat", said(dog=0.6, cat=0.4)), ("cow", said(cow=1.0))).tally()
    assert tally.names == ["cat", "dog", "cow"]
    assert tally.all()["accuracy"] == 0.5


def test_it_is_saved_and_read_back_and_says_which_pictures_went_badly(tmp_path):
    measure = Classification([Category(0, "cat"), Category(1, "dog")], columns=["site", "label"])
    for i, (label, scores) in enumerate([("cat", {"cat": 0.75}), ("dog", {"cat": 0.5, "dog": 0.25}), ("dog", {})]):
        measure.add(record(label, str(i), site=i), said(**scores))
    tally = Tally.load(measure.tally().save(tmp_path / "tally.npz"))
    assert isinstance(tally, ClassificationTally)
    same(tally.all(), measure.tally().all())
    assert tally.scores().tolist() == [0.75, -0.5, 0]
    assert tally.units.columns == {"site": [0, 1, 2], "label": ["cat", "dog", "dog"]}
    assert tally.lower("ECE")
    assert not tally.lower("accuracy")


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
def test_properties(seed, classes):
    rng = np.random.default_rng(seed)
    true, scores = chances(rng, 12, classes, digits=1)
    scores[rng.random(scores.shape) < 0.3] = 0
    tally = tally_of(true, scores)
    order, weights = rng.permutation(12), rng.integers(0, 3, 12)
    same(tally_of(true[order], scores[order]).all(), tally.all())
    weighted = {name: float(value[0]) for name, value in tally.figures(weights[None].astype(float)).items()}
    same(weighted, tally_of(np.repeat(true, weights), np.repeat(scores, weights, axis=0)).all())
    perfect = tally_of(true, np.eye(classes)[true]).all()
    assert {value for name, value in perfect.items() if name != "ECE" and not np.isnan(value)} == {1}
    assert perfect["ECE"] == 0
    nothing = tally_of(true, np.zeros_like(scores)).all()
    assert nothing["accuracy"] == pytest.approx(1 / classes)  # all tie: as often as chance has it
