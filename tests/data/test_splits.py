"""Splits: shares met, strata alike, groups whole, the order of rows of no matter."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manylens.data import DataError, Dataset
from manylens.data.splits import assigned
from tests.data.helpers import records

SHARES = [{"a": 1.0}, {"a": 0.8, "b": 0.2}, {"a": 0.7, "b": 0.15, "c": 0.15}, {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4}]
shares = st.sampled_from(SHARES)
names = st.lists(st.integers(0, 6).map(str) | st.none(), min_size=1, max_size=120)


@given(shares, names, st.integers(0, 5))
def test_every_stratum_and_the_whole_meet_their_shares(fractions, strata, seed):
    ids = [f"i{i}" for i in range(len(strata))]
    codes = assigned(ids, fractions, strata=strata, seed=seed)
    counts = Counter(zip(strata, codes.tolist(), strict=True))
    for stratum, size in Counter(strata).items():
        for number, share in enumerate(fractions.values()):
            assert abs(counts[stratum, number] - share * size) < 1 + 1e-9
    whole = Counter(assigned(ids, fractions, seed=seed).tolist())
    for number, share in enumerate(fractions.values()):
        assert abs(whole[number] - share * len(ids)) < 1 + 1e-9


def test_rounding_of_many_small_strata_evens_out():
    strata = [str(i // 3) for i in range(900)]  # 300 strata of three
    codes = assigned([str(i) for i in range(900)], {"a": 0.8, "b": 0.1, "c": 0.1}, strata=strata)
    assert np.abs(np.bincount(codes) - [720, 90, 90]).max() <= 1


@given(shares, names, st.lists(st.integers(0, 3), min_size=120, max_size=120), st.integers(0, 5), st.randoms())
@settings(max_examples=60)
def test_order_does_not_matter_and_groups_stay_whole(fractions, groups, classes, seed, random):
    rows = [(f"i{i}", group, str(classes[i])) for i, group in enumerate(groups)]

    def split(rows, **options):
        ids, groups, strata = zip(*rows, strict=True)
        picked = {
            "plain": {},
            "strata": {"strata": strata},
            "groups": {"groups": groups},
            "both": {"strata": strata, "groups": groups},
        }
        return {
            how: dict(zip(ids, assigned(ids, fractions, seed=seed, **kw), strict=True)) for how, kw in picked.items()
        }

    found = split(rows)
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert split(shuffled) == found
    for how in ("groups", "both"):
        of = {}
        for id, group, _ in rows:
            of.setdefault(id if group is None else ("group", group), set()).add(found[how][id])
        assert all(len(codes) == 1 for codes in of.values())


def test_groups_come_as_near_to_the_shares_as_they_can():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(200), rng.integers(1, 12, 200)).astype(str)
    strata = rng.choice(["x", "y", "rare"], len(groups), p=[0.6, 0.35, 0.05])
    ids = [str(i) for i in range(len(groups))]
    codes = assigned(ids, {"train": 0.8, "val": 0.2}, strata=strata.tolist(), groups=groups.tolist())
    for stratum in ("x", "y", "rare"):
        assert np.mean(codes[strata == stratum] == 0) == pytest.approx(0.8, abs=0.03)
    alone = assigned(ids, {"train": 0.8, "val": 0.2}, groups=groups.tolist())
    assert np.mean(alone == 0) == pytest.approx(0.8, abs=0.002)


def test_a_group_is_never_taken_for_a_record_that_has_its_name():
    codes = assigned([str(i) for i in range(100)], {"a": 0.5, "b": 0.5}, groups=["1"] * 50 + [None] * 50)
    assert len(set(codes[:50].tolist())) == 1
    assert np.bincount(codes).tolist() == [50, 50]


def test_another_seed_is_another_split_and_a_seed_is_for_ever():
    ids = [f"i{i}" for i in range(12)]
    assert assigned(ids, {"a": 0.5, "b": 0.5}, seed=1).tolist() != assigned(ids, {"a": 0.5, "b": 0.5}, seed=2).tolist()
    # Written down once: a later version must not move records between training and testing.
    assert "".join(map(str, assigned(ids, {"a": 0.5, "b": 0.5}, seed=0))) == "111001010001"


@pytest.mark.parametrize(
    "wrong", [{}, {"a": 0.5}, {"a": 0.8, "b": 0.4}, {"a": 1.2, "b": -0.2}, {"": 1.0}, {"a": float("nan")}]
)
def test_shares_that_are_none(wrong):
    with pytest.raises(DataError, match="split"):
        assigned(["1", "2"], wrong)


def test_a_data_set_splits_as_a_view():
    ds = Dataset.of(records(60))
    made = ds.split({"train": 0.5, "test": 0.5}, stratify="site", group="age", seed=3)
    assert made.splits == {"train": 30, "test": 30}
    assert ds.splits == {"val": 15, "train": 45}
    test = made.select(split="test")
    assert {one.split for one in test} == {"test"} == set(test.values("split"))
    assert test.select(where={"split": "test", "site": "s0"}).splits == {"test": 10}
    assert [replace(one, split="") for one in made] == [replace(one, split="") for one in ds]
    part = ds.select(split="val").split({"x": 1.0})
    assert part.splits == {"x": 15}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"stratify": "nope"}, "column 'nope': there is none; the columns are id, split"),
        ({"group": "nope"}, "column 'nope': there is none"),
        ({"stratify": "captions"}, "no record has one value"),
        ({"stratify": "id"}, "60 different values among 60 records"),
    ],
)
def test_columns_that_sort_nothing(options, said):
    with pytest.raises(DataError, match=said):
        Dataset.of(records(60)).split({"a": 0.5, "b": 0.5}, **options)
