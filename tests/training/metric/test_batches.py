"""An epoch's order with the pictures of a class together: the same pictures, in groups, spread evenly."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from manylens.training.metric.batches import grouped


def drawn(*counts: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of pictures in an order at random, and the class of each."""
    labels = np.repeat(np.arange(len(counts)), counts)
    order = np.random.default_rng(seed).permutation(len(labels))
    return order, labels


def test_all_are_there_as_often_as_they_were_drawn():
    order, labels = drawn(13, 1, 7, 4)
    order = np.concatenate([order, order[:5]])  # some twice
    found = grouped(order, labels[order], 4, seed=0, epoch=0)
    assert Counter(found.tolist()) == Counter(order.tolist())


def test_one_at_a_time_is_as_drawn():
    order, labels = drawn(5, 5)
    assert (grouped(order, labels[order], 1, seed=0, epoch=0) == order).all()


def test_each_step_has_so_many_of_each_class_that_it_has():
    order, labels = drawn(*[16] * 6)
    found = labels[grouped(order, labels[order], 4, seed=3, epoch=2)]
    for group in found.reshape(-1, 4):
        assert len(set(group)) == 1
    for round_of_groups in found.reshape(-1, 6 * 4):
        assert set(Counter(round_of_groups.tolist()).values()) == {4}  # none comes twice before all came once
    assert len({tuple(one) for one in found[::4].reshape(-1, 6)}) > 1  # not always beside the same


def test_a_large_class_is_spread_over_the_epoch():
    order, labels = drawn(96, 16, 16)
    found = labels[grouped(order, labels[order], 4, seed=0, epoch=0)]
    shares = [(part == 0).mean() for part in np.split(found, 4)]
    assert shares == pytest.approx([0.75] * 4, abs=0.13)


def test_it_is_a_function_of_seed_and_epoch():
    order, labels = drawn(*[12] * 5)
    one = grouped(order, labels[order], 4, seed=0, epoch=1)
    assert (one == grouped(order, labels[order], 4, seed=0, epoch=1)).all()
    assert (one != grouped(order, labels[order], 4, seed=0, epoch=2)).any()
    assert (one != grouped(order, labels[order], 4, seed=1, epoch=1)).any()
    other = grouped(*(lambda again: (again, labels[again]))(drawn(*[12] * 5, seed=9)[0]), 4, seed=0, epoch=1)
    assert {frozenset(part) for part in one.reshape(-1, 4)} != {frozenset(part) for part in other.reshape(-1, 4)}
