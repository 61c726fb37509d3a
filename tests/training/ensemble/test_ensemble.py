"""Ensembles: folds, snapshots, soups and votes, held to loops and to laws."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from manylens.data import DataError, Dataset, Record
from manylens.errors import UserError
from manylens.training.ensemble import (
    cyclic_share,
    fitted_weights,
    fold,
    fold_numbers,
    greedy_soup,
    majority,
    snapshot_steps,
    soup,
    vote,
)
from manylens.training.errors import TrainError


@given(st.integers(2, 6), st.lists(st.sampled_from("abc"), min_size=6, max_size=60), st.integers(0, 9))
def test_each_class_is_spread_evenly_over_folds(folds, classes, seed):
    ids = [f"i{i}" for i in range(len(classes))]
    found = fold_numbers(ids, folds, strata=classes, seed=seed)
    for name, count in Counter(classes).items():
        sizes = np.bincount(found[np.array(classes) == name], minlength=folds)
        assert sizes.max() - sizes.min() <= 1
        assert sizes.sum() == count
    sizes = np.bincount(found, minlength=folds)
    assert sizes.max() - sizes.min() <= 1


def test_groups_are_never_parted():
    groups = [str(i // 4) for i in range(60)]
    found = fold_numbers([str(i) for i in range(60)], 5, groups=groups)
    assert all(len(set(found[4 * i : 4 * i + 4])) == 1 for i in range(15))
    assert np.bincount(found).tolist() == [12] * 5


def data(count: int = 20) -> Dataset:
    return Dataset.of(
        Record(
            f"i{i}",
            Path(f"{i}.png"),
            split="test" if i % 5 == 0 else "train",
            label="ab"[i % 2],
            columns={"who": i // 4},
        )
        for i in range(count)
    )


@pytest.mark.parametrize(
    "options", [{}, {"stratify": "label"}, {"group": "who"}, {"stratify": "label", "group": "who"}]
)
def test_each_record_is_held_out_once(options):
    whole = data().select(split="train")
    seen = []
    for number in range(4):
        learned, held = fold(whole, number, 4, seed=3, **options)
        assert sorted(learned.values("id") + held.values("id")) == sorted(whole.values("id"))
        if "group" in options:
            assert not set(learned.values("who")) & set(held.values("who"))
        seen += held.values("id")
    assert sorted(seen) == sorted(whole.values("id"))


BAD_FOLDS = [
    (lambda: fold_numbers(["a", "b"], 1), TrainError, "too few"),
    (lambda: fold_numbers(["a", "b"], 3), TrainError, "only 2 records; give at most 2"),
    (lambda: fold_numbers(["a", "b", "c"], 3, groups=["x", "x", None]), TrainError, "only 2 groups"),
    (lambda: fold(data(), 4, 4), TrainError, "name one of 0 to 3"),
    (lambda: fold(data(), 0, 4, stratify="nothing"), DataError, "nothing"),
]


@pytest.mark.parametrize(("call", "error", "words"), BAD_FOLDS)
def test_folds_that_cannot_be(call, error, words):
    with pytest.raises(error, match=words):
        call()


@given(st.integers(1, 60), st.integers(1, 9))
def test_the_rate_of_snapshots_is_the_papers(total, cycles):
    if cycles > total:
        with pytest.raises(TrainError, match="do not fit"):
            snapshot_steps(total, cycles)
        return
    ends = snapshot_steps(total, cycles)
    assert len(ends) == cycles
    assert ends[-1] == total - 1
    lengths = np.diff([-1, *ends])
    assert lengths.max() - lengths.min() <= 1
    found = [cyclic_share(step, total, cycles) for step in range(total)]
    start = 0
    for end, length in zip(ends, lengths, strict=True):
        for i in range(length):
            assert found[start + i] == pytest.approx((math.cos(math.pi * i / length) + 1) / 2)
        start = end + 1
    assert cyclic_share(total - 1, total, cycles, floor=0.2) == pytest.approx(0.2 + 0.8 * found[-1])


def state(seed: int, dtype=torch.float32) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    made = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    made(torch.randn(5, 3))
    return {
        name: value.to(dtype) if value.is_floating_point() else value + seed
        for name, value in made.state_dict().items()
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_a_soup_of_equal_states_is_that_state(dtype, count):
    one = state(1, dtype)
    for made in (soup([one] * count), soup([one] * count, [0.1, 0.7, 0.2, 3, 0.3, 1, 1][:count])):
        assert made.keys() == one.keys()
        assert all((made[name] == one[name]).all() for name in one)
        assert all(made[name].dtype == one[name].dtype for name in one)
        assert all(made[name].data_ptr() != one[name].data_ptr() for name in one)
    found = greedy_soup([one] * count, lambda state: 0.5)
    assert all((found.state[name] == one[name]).all() for name in one)


def test_a_soup_is_numpys_mean():
    states = [state(seed) for seed in range(4)]
    for weights in (None, [1.0, 2.0, 0.0, 0.5]):
        made = soup(iter(states), weights)
        for name, value in made.items():
            if value.is_floating_point():
                wanted = np.average([one[name].double().numpy() for one in states], axis=0, weights=weights)
                assert value.numpy() == pytest.approx(wanted, abs=1e-6)
    assert int(made["1.num_batches_tracked"]) == 1  # the first's


BAD_SOUPS = [
    ([], None, "there is nothing in it"),
    ([state(0), {"x": torch.zeros(1)}], None, "state 1 and the first differ in"),
    ([state(0), {**state(1), "0.weight": torch.zeros(3, 3)}], None, r"'0.weight' of state 1 is \(3, 3\), not \(4, 3\)"),
    ([state(0), state(1)], [1, -1], "weight 1 is -1"),
    ([state(0), state(1)], [0, 0], "there is nothing in it"),
]


@pytest.mark.parametrize(("states", "weights", "words"), BAD_SOUPS)
def test_soups_that_cannot_be(states, weights, words):
    with pytest.raises(TrainError, match=words):
        soup(states, weights)
    if weights is None:
        with pytest.raises(TrainError, match=words):
            greedy_soup(states, lambda state: 0.0)


@given(st.integers(0, 500), st.integers(1, 7), st.sampled_from(["max", "min"]))
@settings(max_examples=60, deadline=None)
def test_a_greedy_soup_is_never_worse_than_its_best(seed, count, mode):
    random = np.random.default_rng(seed)
    states = [{"w": torch.from_numpy(random.normal(size=3))} for _ in range(count)]
    aim = random.normal(size=3)

    def judge(state):
        apart = float(np.abs(state["w"].numpy() - aim).sum())
        return apart if mode == "min" else -apart

    found = greedy_soup(states, judge, mode=mode)
    figures = [judge(one) for one in states]
    best = min(figures) if mode == "min" else max(figures)
    assert found.figures == pytest.approx(figures)
    assert found.figure <= best if mode == "min" else found.figure >= best
    assert judge(found.state) == pytest.approx(found.figure)
    assert found.state["w"].numpy() == pytest.approx(np.mean([states[i]["w"].numpy() for i in found.chosen], axis=0))
    assert figures[found.chosen[0]] == best
    # By hand: one after another, the best first.
    order = sorted(range(count), key=lambda i: (figures[i] if mode == "min" else -figures[i], i))
    kept, reached = [order[0]], best
    for i in order[1:]:
        figure = judge({"w": torch.from_numpy(np.mean([states[j]["w"].numpy() for j in [*kept, i]], axis=0))})
        if (figure <= reached) if mode == "min" else (figure >= reached):
            kept, reached = [*kept, i], figure
    assert list(found.chosen) == kept


def test_a_figure_that_is_no_number_is_an_error():
    with pytest.raises(TrainError, match="figure of ingredient 0 is no number"):
        greedy_soup([state(0)], lambda state: math.nan)


def simplex(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet([0.7] * shape[-1], shape[:-1])


@given(st.integers(0, 500), st.sampled_from([None, [1, 2, 3], [0, 0, 1]]))
def test_votes_by_a_loop(seed, weights):
    given = simplex(seed, 3, 8, 4)
    shares = np.array(weights or [1, 1, 1]) / sum(weights or [1, 1, 1])
    mean, product, counts = (np.zeros((8, 4)) for _ in range(3))
    for model in range(3):
        for i in range(8):
            mean[i] += shares[model] * given[model, i]
            product[i] += shares[model] * np.log(given[model, i])
            counts[i, given[model, i].argmax()] += shares[model]
    product = np.exp(product)
    assert vote(given, weights) == pytest.approx(mean)
    assert vote(given, weights, how="geometric") == pytest.approx(product / product.sum(axis=1, keepdims=True))
    assert vote(given, weights, how="majority") == pytest.approx(counts)
    for how in ("mean", "geometric"):
        assert vote([given[0]] * 3, weights, how=how) == pytest.approx(given[0])
    labels = given.argmax(axis=-1)
    assert majority(labels, weights).tolist() == counts.argmax(axis=1).tolist()


def test_who_does_not_vote_does_not_count():
    labels = np.array([[0, -1, 2], [1, -1, 2], [1, -1, -1]])
    assert majority(labels).tolist() == [1, -1, 2]
    assert majority(labels, [3, 1, 1]).tolist() == [0, -1, 2]


@given(st.integers(0, 300))
@settings(max_examples=25, deadline=None)
def test_fitted_weights_are_the_most_likely(seed):
    from scipy.optimize import minimize

    given, labels = simplex(seed, 3, 30, 4), np.random.default_rng(seed).integers(0, 4, 30)
    right = given[:, np.arange(30), labels]

    def loss(weights):
        return -np.log(weights @ right).mean()

    found = fitted_weights(given, labels, rounds=3000)
    assert found.sum() == pytest.approx(1)
    best = minimize(
        loss,
        np.full(3, 1 / 3),
        bounds=[(0, 1)] * 3,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        method="SLSQP",
    )
    assert loss(found) <= best.fun + 1e-4
    losses = [loss(fitted_weights(given, labels, rounds=rounds)) for rounds in (0, 1, 2, 10)]
    assert losses == sorted(losses, reverse=True)


def test_a_model_that_is_right_gets_the_votes():
    labels = np.arange(20) % 4
    right, wrong = np.full((20, 4), 0.05), simplex(1, 20, 4)
    right[np.arange(20), labels] = 0.85
    assert fitted_weights([wrong, right], labels)[1] > 0.8


BAD_VOTES = [
    lambda: vote(np.zeros((0, 3, 2))),
    lambda: vote(simplex(0, 2, 3, 2), [1]),
    lambda: vote(simplex(0, 2, 3, 2), [1, -1]),
    lambda: vote(simplex(0, 2, 3, 2), [0, 0]),
    lambda: vote(simplex(0, 2, 3, 2), [1, math.nan]),
    lambda: fitted_weights(simplex(0, 2, 3, 2)[:, :0], np.zeros(0, int)),
]


@pytest.mark.parametrize("call", BAD_VOTES)
def test_votes_that_cannot_be(call):
    with pytest.raises(UserError, match=r"^ensemble: "):
        call()
