"""The two classifiers against scikit-learn on the same vectors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from manylens.evaluation.measures import probing
from manylens.evaluation.measures.probing import Probe, voted


def clouds(seed: int, count: int = 120, classes: int = 4, width: int = 12, spread: float = 1.5):
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, classes, count)
    targets[:classes] = np.arange(classes)
    centres = rng.normal(size=(classes, width))
    vectors = (centres[targets] + spread * rng.normal(size=(count, width))) * rng.uniform(0.1, 5, width)
    return vectors.astype(np.float32), targets


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("k", [1, 10, 20, 500])
def test_the_vote_is_that_of_scikit_learn(seed, k):
    vectors, targets = clouds(seed)
    learnt, asked = vectors[:90], vectors[90:]
    oracle = KNeighborsClassifier(
        min(k, 90), metric="cosine", algorithm="brute", weights=lambda distance: np.exp(-distance / 0.07)
    ).fit(learnt, targets[:90])
    assert (voted(learnt, targets[:90], asked, k) == oracle.predict(asked)).all()


def test_nearer_ones_outvote_more_distant_ones():
    """One at cosine 1 weighs exp(1 / 0.07), each of two at cosine 0.8 exp(0.8 / 0.07): 17 times less."""
    learnt = np.array([[1, 0], [0.8, 0.6], [0.8, -0.6]])
    assert voted(learnt, np.array([1, 0, 0]), np.array([[2.0, 0]]), 3).tolist() == [1]
    assert voted(learnt, np.array([1, 0, 0]), np.array([[2.0, 0]]), 3, temperature=10).tolist() == [0]


def test_the_vote_does_not_depend_on_how_many_are_asked_at_once(monkeypatch):
    vectors, targets = clouds(1)
    whole = voted(vectors, targets, vectors, 20)
    monkeypatch.setattr("manylens.models.dense.neighbours._CELLS", 700)
    assert (voted(vectors, targets, vectors, 20) == whole).all()


@pytest.mark.parametrize("penalty", [1.0, 1e-2, 1e-4])
def test_the_probe_is_that_of_scikit_learn(penalty):
    vectors, targets = clouds(7)
    probe = Probe.fitted(vectors, targets, penalty)
    scaled = StandardScaler().fit(vectors.astype(np.float64))
    oracle = LogisticRegression(C=1 / (penalty * len(vectors)), max_iter=5000, tol=1e-10)
    oracle.fit(scaled.transform(vectors.astype(np.float64)), targets)
    most = np.abs(oracle.coef_).max()
    assert probe.weights.T / most == pytest.approx(oracle.coef_ / most, abs=2e-3)
    expected = oracle.predict_proba(scaled.transform(vectors.astype(np.float64)))
    assert probe.probabilities(vectors) == pytest.approx(expected, abs=2e-3)


def test_blocks_of_rows_change_nothing(monkeypatch):
    vectors, targets = clouds(2)
    whole = Probe.fitted(vectors, targets, 0.1).probabilities(vectors)
    monkeypatch.setattr(probing, "_CELLS", 12 * 50)
    assert Probe.fitted(vectors, targets, 0.1).probabilities(vectors) == pytest.approx(whole, abs=1e-6)


def test_a_feature_that_never_changes_is_harmless():
    vectors, targets = clouds(3)
    with_one = np.hstack([vectors, np.full((len(vectors), 1), 7, np.float32)])
    assert Probe.fitted(with_one, targets, 0.1).probabilities(with_one) == pytest.approx(
        Probe.fitted(vectors, targets, 0.1).probabilities(vectors), abs=1e-5
    )


def test_the_penalty_is_the_one_that_held_out_pictures_like_best():
    vectors, targets = clouds(4, count=80, spread=3)
    ids = [f"p{i}" for i in range(80)]
    tried = (100.0, 1.0, 0.1, 1e-6)
    held = probing._held_out(targets, ids, 0)
    losses = []
    for penalty in tried:
        chances = Probe.fitted(vectors[~held], targets[~held], penalty).probabilities(vectors[held])
        losses.append(-np.log(chances[np.arange(held.sum()), targets[held]]).mean())
    chosen = Probe.chosen(vectors, targets, ids, penalties=tried)
    assert chosen.penalty == tried[int(np.argmin(losses))]
    assert chosen.penalty not in (tried[0], tried[-1])
    again = Probe.fitted(vectors, targets, chosen.penalty)
    assert chosen.probabilities(vectors) == pytest.approx(again.probabilities(vectors), abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(0, 99))
def test_a_fifth_of_each_class_is_held_out_whatever_the_order(classes, seed):
    targets, ids = np.array(classes), [f"id {i}" for i in range(len(classes))]
    held = probing._held_out(targets, ids, seed)
    for number in set(classes):
        have = (targets == number).sum()
        assert held[targets == number].sum() == min(-(-have // 5), have - 1)
    order = np.random.default_rng(seed).permutation(len(classes))
    assert (probing._held_out(targets[order], [ids[i] for i in order], seed) == held[order]).all()
