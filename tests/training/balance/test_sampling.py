"""Draws: the number of times each picture and class is shown, its mean, and that nothing but seed and epoch decides."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manylens.training.balance.names import SAMPLINGS
from manylens.training.balance.sampling import NOTHING, draw, expected, shares
from manylens.training.errors import TrainError

LONG_TAIL = ["a"] * 50 + ["b"] * 10 + ["c"] * 3 + ["d"]
HELD = [{"sky", "cat"}] * 6 + [{"sky"}] * 10 + [{"cat", "dog"}] * 2 + [set()] * 4 + [{"dog"}] + [{"sky", "owl"}]

labels = st.lists(st.integers(0, 4), min_size=1, max_size=60)
sets = st.lists(st.frozensets(st.integers(0, 4)), min_size=1, max_size=60).filter(any)
kinds = st.sampled_from(SAMPLINGS)
sizes = st.none() | st.integers(1, 150)


@given(kinds, labels | sets, sizes, st.integers(0, 2**31), st.integers(0, 1000))
@settings(max_examples=200)
def test_a_picture_is_shown_as_often_as_is_owed_to_it_within_one(kind, labels, size, seed, epoch):
    owed = expected(kind, labels, size=size)
    shown = draw(kind, labels, seed=seed, epoch=epoch, size=size)
    assert shown.dtype == np.int64
    assert len(shown) == round(owed.sum())
    assert size in (None, len(shown))
    counts = np.bincount(shown, minlength=len(labels))
    assert len(counts) == len(labels)
    assert (np.abs(counts - owed) < 1).all()
    assert (draw(kind, labels, seed=seed, epoch=epoch, size=size) == shown).all()


@given(kinds, labels, sizes, st.integers(0, 2**31))
@settings(max_examples=200)
def test_so_is_a_class(kind, labels, size, seed):
    shown = draw(kind, labels, seed=seed, epoch=0, size=size)
    counts = Counter(labels[i] for i in shown)
    for name, share in shares(kind, labels, size=size).items():
        assert abs(counts[name] - share * len(shown)) < 1 + 1e-6


@pytest.mark.parametrize("labels", [LONG_TAIL, HELD], ids=["labels", "sets"])
@pytest.mark.parametrize("size", [None, 37])
@pytest.mark.parametrize("kind", SAMPLINGS)
def test_in_the_mean_over_epochs_it_is_what_is_owed(kind, labels, size):
    epochs = 600
    found = np.zeros(len(labels))
    for epoch in range(epochs):
        np.add.at(found, draw(kind, labels, seed=3, epoch=epoch, size=size), 1)
    owed = expected(kind, labels, size=size)
    part = owed - np.floor(owed)
    # Each count is one of two neighbouring integers, so this is its exact spread; five of them are never exceeded.
    assert (np.abs(found / epochs - owed) <= 5 * np.sqrt(part * (1 - part) / epochs) + 1e-9).all()
    of_classes = Counter()
    for i, count in enumerate(found):
        for name in (labels[i] or {NOTHING}) if isinstance(labels[i], set) else [labels[i]]:
            of_classes[name] += count / found.sum()
    for name, share in shares(kind, labels, size=size).items():
        assert of_classes[name] == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize(
    ("kind", "counts"),
    [
        ("shuffle", {"a": 50, "b": 10, "c": 3, "d": 1}),
        ("balanced", {"a": 16, "b": 16, "c": 16, "d": 16}),
        ("oversample", {"a": 50, "b": 50, "c": 50, "d": 50}),
        ("undersample", {"a": 1, "b": 1, "c": 1, "d": 1}),
    ],
)
def test_numbers_of_each_class(kind, counts):
    for epoch in range(5):
        shown = draw(kind, LONG_TAIL, seed=0, epoch=epoch)
        assert Counter(LONG_TAIL[i] for i in shown) == counts
        assert kind not in ("shuffle", "undersample") or len(set(shown.tolist())) == len(shown)
        assert kind != "oversample" or set(shown.tolist()) == set(range(64))


def test_the_square_root():
    roots = np.sqrt([50, 10, 3, 1])
    assert list(shares("square_root", LONG_TAIL).values()) == pytest.approx((roots / roots.sum()).tolist())
    assert len(draw("square_root", LONG_TAIL, seed=0, epoch=0)) == 64


@pytest.mark.parametrize("threshold", [0.001, 0.1, 0.5, 1.0, None])
@pytest.mark.parametrize("labels", [LONG_TAIL, HELD], ids=["labels", "sets"])
def test_repeat_factors_as_the_paper_has_them(labels, threshold):
    held = [one if isinstance(one, set) else {one} for one in labels]
    frequency = {c: sum(c in one for one in held) / len(held) for c in set().union(*held)}
    t = sum(frequency.values()) / len(frequency) if threshold is None else threshold
    factors = [max((max(1.0, math.sqrt(t / frequency[c])) for c in one), default=1.0) for one in held]
    found = expected("repeat_factor", labels, threshold=threshold)
    assert found.sum() == pytest.approx(round(sum(factors)))
    np.testing.assert_allclose(found / found.sum(), np.array(factors) / sum(factors))
    assert len(draw("repeat_factor", labels, seed=0, epoch=0, threshold=threshold)) == round(sum(factors))


def test_sets_are_balanced_over_what_pictures_hold():
    """Of each category alike a picture that holds it: one that holds two appears for both."""
    members = {c: [i for i, one in enumerate(HELD) if c in one] for c in ("sky", "cat", "dog", "owl")}
    members[NOTHING] = [i for i, one in enumerate(HELD) if not one]
    owed = np.zeros(len(HELD))
    for found in members.values():
        owed[found] += 1 / len(found)
    np.testing.assert_allclose(expected("balanced", HELD), owed * len(HELD) / len(members))
    share = shares("balanced", HELD)
    assert share[NOTHING] == pytest.approx(1 / 5)
    assert share["owl"] == pytest.approx((1 + 1 / 17) / 5)  # it is in one picture, which is one of 17 with sky, too


def test_sets_by_their_rarest_category():
    most, least = 17, 1  # pictures with sky, and with the owl
    rarest = [8] * 6 + [17] * 10 + [3] * 2 + [4] * 4 + [3] + [1]
    over, under = expected("oversample", HELD), expected("undersample", HELD)
    np.testing.assert_allclose(over / over[-1], least / np.array(rarest))
    assert over[-1] == pytest.approx(most, rel=0.02)
    np.testing.assert_allclose(under / under[-1], least / np.array(rarest))
    assert (under <= 1.2).all()


def test_epochs_and_seeds_differ_and_classes_are_mixed():
    drawn = {tuple(draw("balanced", LONG_TAIL, seed=seed, epoch=epoch)) for seed in range(4) for epoch in range(4)}
    assert len(drawn) == 16
    shown = draw("balanced", ["a"] * 500 + ["b"] * 500, seed=0, epoch=0)
    changes = np.count_nonzero(np.diff(shown < 500))
    assert 430 < changes < 570  # of two classes that are shuffled, neighbours differ half of the time
    assert (np.sort(shown) == np.arange(1000)).all()


def test_labels_of_any_kind_give_the_same_draw():
    plain = [0, 0, 1, 2, 2, 2]
    want = draw("balanced", plain, seed=1, epoch=2).tolist()
    for same in (np.array(plain), torch.tensor(plain), [{one} for one in plain], [(one, one) for one in plain]):
        assert draw("balanced", same, seed=1, epoch=2).tolist() == want
    # Written down once: a run that is resumed by a later version shows what the earlier one would have shown.
    assert draw("repeat_factor", LONG_TAIL[45:], seed=5, epoch=1).tolist() == [
        7,
        14,
        6,
        11,
        16,
        18,
        15,
        0,
        10,
        2,
        4,
        17,
        5,
        1,
        3,
        18,
        8,
        15,
        9,
        12,
        13,
    ]


@pytest.mark.parametrize(
    ("kind", "labels", "options", "said"),
    [
        ("balancd", [0], {}, "sampling 'balancd': there is none; did you mean 'balanced'?"),
        ("repeat_factor", [0], {"treshold": 1}, "'treshold': there is none; did you mean 'threshold'?"),
        (
            "balanced",
            [0],
            {"threshold": 1},
            "option of the sampling 'balanced' 'threshold': there is none; it takes none",
        ),
        ("repeat_factor", [0], {"threshold": 2.0}, "threshold: 2 is out of range"),
        ("shuffle", [], {}, "there is no picture"),
        ("shuffle", [0], {"size": 0}, "an epoch of 0 pictures is none"),
        ("shuffle", np.zeros((2, 2)), {}, "labels have 2 dimensions"),
    ],
)
def test_mistakes(kind, labels, options, said):
    with pytest.raises(TrainError, match=said):
        draw(kind, labels, seed=0, epoch=0, **options)
