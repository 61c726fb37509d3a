"""Figures of a search within one set, held to values by hand, to loops, and to the measure of evaluation."""

from __future__ import annotations

import numpy as np
import pytest

from manylens.evaluation.measures.retrieval import ranks
from manylens.training.metric import figures


def at(*degrees: float) -> np.ndarray:
    turns = np.deg2rad(degrees)
    return np.stack([np.cos(turns), np.sin(turns)], axis=1)


def test_by_hand():
    found = figures.retrieval(at(0, 10, 50, 25, 95), np.array([0, 0, 0, 1, 1]))
    # Of the class of three: right, wrong; right, wrong; wrong, right. Of the class of two: wrong; wrong.
    assert found["map_at_r"] == pytest.approx((1 / 2 + 1 / 2 + (1 / 2) / 2 + 0 + 0) / 5)
    assert found["recall_at_1"] == pytest.approx(2 / 5)


def looped(vectors: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
    precisions, firsts = [], []
    for query in range(len(vectors)):
        others = [one for one in range(len(vectors)) if one != query]
        count = sum(targets[one] == targets[query] for one in others)
        if not count:
            continue
        others.sort(key=lambda one: -float(vectors[query] @ vectors[one]))
        right = [targets[one] == targets[query] for one in others]
        precisions.append(sum(sum(right[: i + 1]) / (i + 1) for i in range(count) if right[i]) / count)
        firsts.append(right[0])
    return float(np.mean(precisions)), float(np.mean(firsts))


@pytest.mark.parametrize("cells", [1, 50, 1 << 24])
def test_as_a_loop_in_blocks_of_any_size(cells, monkeypatch):
    monkeypatch.setattr(figures, "_CELLS", cells)
    random = np.random.default_rng(0)
    vectors, targets = random.normal(size=(40, 6)), random.integers(0, 7, 40)
    targets[3] = 9  # alone: found by none, asks for none
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = figures.retrieval(vectors * random.uniform(0.1, 9, (40, 1)), targets)
    expected = looped(vectors, targets)
    assert (found["map_at_r"], found["recall_at_1"]) == pytest.approx(expected)
    rank, _ = ranks(vectors.astype(np.float32), vectors.astype(np.float32), targets, targets, itself=True)
    assert found["recall_at_1"] == pytest.approx(np.mean(rank[~np.isnan(rank)] <= 1))


def test_the_best_is_1_and_equal_vectors_find_nothing():
    targets = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2])
    apart = figures.retrieval(np.eye(3)[targets], targets)
    assert apart["map_at_r"] == apart["recall_at_1"] == 1
    same = figures.retrieval(np.ones((9, 3)), targets)
    assert same["map_at_r"] == same["recall_at_1"] == 0


def test_the_order_of_the_pictures_changes_nothing():
    random = np.random.default_rng(1)
    vectors, targets, order = random.normal(size=(30, 4)), random.integers(0, 5, 30), random.permutation(30)
    assert figures.retrieval(vectors[order], targets[order]) == pytest.approx(figures.retrieval(vectors, targets))
