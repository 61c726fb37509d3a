from __future__ import annotations

import numpy as np
import pytest

from manylens.training.errors import TrainError
from manylens.training.selfsupervised import neighbours

RANDOM = np.random.default_rng(0)
VECTORS = RANDOM.normal(size=(60, 8)) + np.repeat(np.eye(3, 8) * 1.5, 20, axis=0)
TARGETS = np.repeat(np.arange(3), 20)
ORDER = RANDOM.permutation(60)


def by_hand(vectors: np.ndarray, targets: np.ndarray, asked: np.ndarray, k: int, without: int | None = None) -> int:
    """The vote of Wu et al. 2018 for one picture, in plain loops."""
    cosines = [
        float(one @ asked / np.linalg.norm(one) / np.linalg.norm(asked)) if i != without else -9.0
        for i, one in enumerate(vectors)
    ]
    votes = {}
    for i in sorted(range(len(vectors)), key=lambda i: -cosines[i])[:k]:
        votes[targets[i]] = votes.get(targets[i], 0.0) + np.exp(cosines[i] / 0.07)
    return max(votes, key=lambda name: votes[name])


@pytest.mark.parametrize("k", [1, 5, 20, 500])
def test_the_vote_is_weighted_by_likeness(k):
    learnt, asked = ORDER[:40], ORDER[40:]
    expected = np.mean([by_hand(VECTORS[learnt], TARGETS[learnt], VECTORS[i], min(k, 40)) == TARGETS[i] for i in asked])
    found = neighbours.accuracy(VECTORS[learnt], TARGETS[learnt], VECTORS[asked], TARGETS[asked], k)
    assert found == pytest.approx(expected)
    assert 0.4 < found < 1


@pytest.mark.parametrize("k", [1, 5, 20, 500])
def test_within_a_set_no_picture_votes_for_itself(k, monkeypatch):
    expected = np.mean([by_hand(VECTORS, TARGETS, VECTORS[i], min(k, 59), without=i) == TARGETS[i] for i in range(60)])
    assert neighbours.own_accuracy(VECTORS, TARGETS, k) == pytest.approx(expected)
    monkeypatch.setattr(neighbours, "_CELLS", 60 * 7)  # in parts
    assert neighbours.own_accuracy(VECTORS, TARGETS, k) == pytest.approx(expected)


def test_vectors_that_tell_nothing_score_nothing():
    """With k = 1 and itself allowed every picture would be right."""
    assert neighbours.own_accuracy(RANDOM.normal(size=(300, 16)), RANDOM.integers(0, 4, 300), 1) < 0.4


def test_one_picture_is_too_few():
    with pytest.raises(TrainError, match="fewer than two"):
        neighbours.own_accuracy(VECTORS[:1], TARGETS[:1])
