"""Made embeddings: where they lie, how many there are, what is taken out, and what is said where something is amiss."""

import sys
from collections import Counter

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from manylens.errors import EngineError
from manylens.training.balance.names import SYNTHETICS
from manylens.training.balance.synthetic import resample
from manylens.training.errors import TrainError

COUNTS = (60, 20, 9)
ON_SEGMENTS = ("smote", "borderline_smote", "adasyn", "smote_enn", "smote_tomek")
every = pytest.mark.parametrize("kind", SYNTHETICS)


def clouds(counts=COUNTS, width=6, apart=2.0, seed=0, dtype=np.float32):
    """Overlapping clouds, the classes in no order."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    centres = rng.standard_normal((len(counts), width)) * apart
    vectors = centres[labels] + rng.standard_normal((len(labels), width))
    order = rng.permutation(len(labels))
    return vectors[order].astype(dtype), labels[order].astype(np.int64)


def off_segments(point, own, near):
    """How far a point is from all segments from one of these points to one of its so many nearest among them."""
    distances = ((own[:, None] - own[None]) ** 2).sum(-1)
    best = np.inf
    for i, start in enumerate(own):
        for j in np.argsort(distances[i], kind="stable")[1 : near + 1]:
            along = own[j] - start
            t = np.clip((point - start) @ along / (along @ along), 0, 1)
            best = min(best, np.linalg.norm(point - start - t * along))
    return best


@pytest.mark.parametrize("kind", ON_SEGMENTS)
def test_what_is_made_lies_between_neighbours_of_its_class(kind):
    vectors, labels = clouds(dtype=np.float64)
    found = resample(kind, vectors, labels, seed=0, neighbours=3)
    assert found.made.any()
    for point, label in zip(found.vectors[found.made], found.labels[found.made], strict=True):
        assert off_segments(point, vectors[labels == label], 3) < 1e-9
    # And not on what is there: they are new, and differ.
    new = found.vectors[found.made]
    assert len(np.unique(new, axis=0)) == len(new)
    nearest = NearestNeighbors(n_neighbors=1).fit(vectors).kneighbors(new)[0]
    assert np.median(nearest) > 0.05


def test_the_best_of_segments_is_told_from_others():
    """The check above would find a point that is between others."""
    vectors, labels = clouds(dtype=np.float64)
    own = vectors[labels == 1]
    far = ((own[0] - own) ** 2).sum(1).argmax()
    assert off_segments((own[0] + own[far]) / 2, own, 3) > 1e-3


def test_svm_smote_is_on_lines_through_neighbours():
    vectors, labels = clouds(dtype=np.float64)
    found = resample("svm_smote", vectors, labels, seed=0, neighbours=3)
    for point, label in zip(found.vectors[found.made], found.labels[found.made], strict=True):
        own = vectors[labels == label]
        beyond = np.concatenate([[start - (other - start) / 2 for other in own] for start in own])
        both = min(
            off_segments(point, own, 3),
            min(  # from a start, away from a neighbour, by half of their distance at most
                np.linalg.norm(point - start - np.clip((point - start) @ d / (d @ d), 0, 1) * d)
                for k, start in enumerate(own)
                for d in (beyond[k * len(own) : (k + 1) * len(own)] - start)
                if d.any()
            ),
        )
        assert both < 1e-9


@every
def test_classes_are_brought_to_the_largest_and_the_real_ones_stay(kind):
    vectors, labels = clouds()
    kept = vectors.copy()
    found = resample(kind, vectors, labels, seed=1)
    assert (vectors == kept).all()
    counts = np.bincount(found.labels)
    if kind == "adasyn":  # it rounds the number of each example
        assert (np.abs(counts - 60) <= 10).all()
        assert counts[0] == 60
    elif kind in ("smote_enn", "smote_tomek"):
        assert (counts <= 60).all()
        assert (counts > 0).all()
    else:
        assert counts.tolist() == [60, 60, 60]
    real = found.rows[~found.made]
    assert (np.diff(real) > 0).all()
    assert (found.rows[found.made] == -1).all()
    assert (found.vectors[~found.made] == vectors[real]).all()
    assert (found.labels[~found.made] == labels[real]).all()
    if kind not in ("smote_enn", "smote_tomek"):
        assert (real == np.arange(len(vectors))).all()
    assert found.vectors.dtype == np.float32
    assert found.labels.dtype == np.int64


@pytest.mark.parametrize("kind", ["smote_enn", "smote_tomek"])
def test_what_is_taken_out(kind):
    vectors, labels = clouds(width=2, apart=0.5, dtype=np.float64)
    made = resample("smote", vectors, labels, seed=4)
    found = resample(kind, vectors, labels, seed=4)
    distances = ((made.vectors[:, None] - made.vectors[None]) ** 2).sum(-1)
    np.fill_diagonal(distances, np.inf)
    near = np.argsort(distances, axis=1, kind="stable")
    if kind == "smote_enn":
        keep = (made.labels[near[:, :3]] == made.labels[:, None]).all(axis=1)
    else:
        first = near[:, 0]
        keep = ~((made.labels[first] != made.labels) & (first[first] == np.arange(len(first))))
    assert 0 < keep.sum() < len(keep)
    np.testing.assert_array_equal(found.vectors, made.vectors[keep])
    np.testing.assert_array_equal(found.labels, made.labels[keep])
    np.testing.assert_array_equal(found.rows, made.rows[keep])
    assert (found.made == made.made[keep]).all()


def test_a_class_that_cleaning_would_take_keeps_what_it_has():
    rng = np.random.default_rng(0)
    mixed = np.repeat([[0.0, 0.0], [1.0, 1.0]], 3, axis=0) + rng.standard_normal((6, 2)) * 1e-6
    found = resample("smote_enn", mixed, [0, 1, 0, 1, 0, 1], seed=0, classes=["x", "y"])
    assert found.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert found.notes == (
        "class 'x': cleaning would have taken all of it, so it keeps what it has",
        "class 'y': cleaning would have taken all of it, so it keeps what it has",
    )


@every
def test_small_classes_take_fewer_neighbours_and_single_ones_are_copied(kind):
    vectors, labels = clouds((30, 3, 1), apart=3)
    found = resample(kind, vectors, labels, seed=0, classes=["many", "few", "one"])
    assert "class 'few': has 3 examples, so 2 neighbours were taken, not 5" in " | ".join(found.notes)
    assert "class 'one': has one example, which was copied 29 times" in found.notes
    only = vectors[labels == 2]
    copies = found.vectors[found.made & (found.labels == 2)]
    assert len(copies) == 29 or kind in ("smote_enn", "smote_tomek")
    assert (copies == only).all()
    assert (np.bincount(found.labels) > 0).all()


@pytest.mark.parametrize("kind", ["borderline_smote", "adasyn", "svm_smote"])
def test_where_a_kind_makes_too_few_smote_makes_the_rest(kind):
    vectors, labels = clouds((40, 12), apart=50)  # so far apart that none has neighbours of the other
    found = resample(kind, vectors, labels, seed=0)
    assert np.bincount(found.labels).tolist() == [40, 40]
    assert len(found.notes) == 1
    assert "SMOTE the rest" in found.notes[0]


@every
def test_a_seed_decides_and_no_class_hangs_on_another(kind):
    vectors, labels = clouds()
    first, again, other = (resample(kind, vectors, labels, seed=seed) for seed in (0, 0, 1))
    assert (first.vectors == again.vectors).all()
    assert (first.labels == again.labels).all()
    assert first.vectors.shape != other.vectors.shape or (first.vectors != other.vectors).any()


def test_random_numbers_of_two_classes_are_not_the_same():
    """The same cloud twice, as two classes: what is made for them differs."""
    vectors, _ = clouds((8,))
    big = clouds((40,), seed=5)[0]
    moved = vectors + 100
    found = resample("smote", np.concatenate([big, vectors, moved]), [0] * 40 + [1] * 8 + [2] * 8, seed=0)
    one, two = (found.vectors[found.made & (found.labels == label)] for label in (1, 2))
    assert not np.allclose(np.sort(one, axis=0), np.sort(two - 100, axis=0), atol=1e-2)


def test_points_are_spread_along_the_segment():
    """Two examples: all are between them, as uniform as chance has it."""
    vectors = np.array([[0.0, 0.0], [1.0, 0.0], *([x, 5.0] for x in np.linspace(0, 1, 1000))])
    found = resample("smote", vectors, [1, 1] + [0] * 1000, seed=0)
    places = found.vectors[found.made][:, 0]
    assert len(places) == 998
    assert (np.abs(np.quantile(places, [0.1, 0.5, 0.9]) - [0.1, 0.5, 0.9]) < 0.05).all()


@every
def test_nothing_is_made_where_nothing_is_missing(kind):
    vectors, labels = clouds((10, 10), apart=40)
    found = resample(kind, vectors, labels, seed=0)
    assert not found.made.any()
    assert (found.rows == np.arange(20)).all()
    one = resample(kind, vectors[labels == 0], labels[labels == 0], seed=0)
    assert Counter(one.labels.tolist()) == {0: 10}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "smoot"}, "synthetic 'smoot': there is none; did you mean 'smote'?"),
        ({"vectors": np.zeros((4, 2, 2))}, r"embeddings: have the shape \(4, 2, 2\)"),
        ({"vectors": np.zeros((3, 2))}, r"labels \(4,\)"),
        ({"vectors": np.zeros((0, 2)), "labels": np.zeros(0, int)}, "N at least 1"),
        ({"vectors": np.array([[0, 0], [0, 1], [np.nan, 0], [1, 1]])}, "number 2 is not finite"),
        ({"labels": [0, 0, -1, 1]}, "not all numbers of classes"),
        ({"labels": [0.0, 0.0, 1.0, 1.0]}, "not all numbers of classes"),
        ({"neighbours": 0}, "synthetic_neighbours: 0 is out of range"),
    ],
)
def test_mistakes(changes, said):
    asked = {"kind": "smote", "vectors": np.eye(4), "labels": [0, 0, 0, 1], "seed": 0, **changes}
    kind = asked.pop("kind")
    vectors, labels = asked.pop("vectors"), asked.pop("labels")
    with pytest.raises(TrainError, match=said):
        resample(kind, vectors, labels, **asked)


def test_the_library_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "imblearn.over_sampling", None)
    with pytest.raises(EngineError, match=r"imblearn is not installed.*manylens\[train\]"):
        resample("smote", *clouds(), seed=0)
