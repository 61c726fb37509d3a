"""Splits: shares met, strata alike, groups whole, the order of rows of no matter."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manylens.data import Annotation, DataError, Dataset
from manylens.data.splits import assigned
from tests.data.helpers import record, records

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
        ({"stratify": "captions"}, "61 different values among 60 records"),
        ({"stratify": "empty"}, "'empty': no record has a value there"),
        ({"stratify": "id"}, "60 different values among 60 records"),
    ],
)
def test_columns_that_sort_nothing(options, said):
    held = [replace(one, columns={**one.columns, "empty": ""}) for one in records(60)]
    with pytest.raises(DataError, match=said):
        Dataset.of(held).split({"a": 0.5, "b": 0.5}, **options)


def test_annotations_without_categories_sort_nothing():
    held = [replace(one, annotations=(Annotation(f"a{i}"),)) for i, one in enumerate(records(8))]
    with pytest.raises(DataError, match="stratify 'annotations': no annotation has a category"):
        Dataset.of(held).split({"a": 0.5, "b": 0.5}, stratify="annotations")


def test_categories_of_each_record_are_those_that_are_judged():
    def of(id, *names, ignore=()):
        found = [Annotation(f"{id}{i}", name, ignore=name in ignore) for i, name in enumerate(names)]
        return replace(record(0), id=id, annotations=tuple(found))

    ds = Dataset.of([of("p", "cat", "dog", "cat"), of("q"), of("r", "dog", "", "cow", ignore=["dog"])])
    assert ds.categories_of() == [{"cat", "dog"}, frozenset(), {"cow"}]
    assert ds.select(ids=["r"]).categories_of() == [{"cow"}]


def test_pictures_split_by_the_categories_of_their_instances():
    rng = np.random.default_rng(1)
    names = ["common", "often", "seldom", "rare"]
    pictures = []
    for i in range(400):
        held = [name for name, share in zip(names, [0.9, 0.4, 0.1, 0.0125], strict=True) if rng.random() < share]
        found = tuple(Annotation(f"{i}-{k}", name) for k, name in enumerate(held * 2))
        pictures.append(replace(record(i), annotations=found, columns={"scene": f"s{i // 2}"}))
    ds = Dataset.of(pictures)
    made = ds.split({"train": 0.75, "val": 0.25}, stratify="annotations")
    held = Counter(name for one in made for name in {a.category for a in one.annotations})
    in_val = Counter(name for one in made.select(split="val") for name in {a.category for a in one.annotations})
    for name, count in held.items():
        assert abs(in_val[name] - count / 4) < 2, name
    assert abs(made.splits["val"] - 100) <= 2
    grouped = ds.split({"train": 0.75, "val": 0.25}, stratify="annotations", group="scene")
    of = {}
    for one in grouped:
        of.setdefault(one.columns["scene"], set()).add(one.split)
    assert all(len(splits) == 1 for splits in of.values())
    in_val = Counter(name for one in grouped.select(split="val") for name in {a.category for a in one.annotations})
    for name, count in held.items():
        assert abs(in_val[name] - count / 4) < 4, name


sets = st.lists(st.sets(st.integers(0, 5)), min_size=1, max_size=80)


@given(shares, sets, st.integers(0, 5), st.randoms())
@settings(max_examples=60)
def test_classes_of_records_are_dealt_out_whatever_their_order(fractions, held, seed, random):
    rows = [(f"i{i}", classes, i // 3) for i, classes in enumerate(held)]

    def split(rows, **options):
        ids, strata, groups = zip(*rows, strict=True)
        groups = groups if options else None
        return dict(zip(ids, assigned(ids, fractions, strata=strata, groups=groups, seed=seed).tolist(), strict=True))

    shuffled = [(id, sorted(classes, key=lambda one: random.random()), group) for id, classes, group in rows]
    random.shuffle(shuffled)
    assert split(shuffled) == split(rows)
    grouped = split(rows, groups=True)
    assert grouped == split(shuffled, groups=True)
    assert all(len({grouped[id] for id, _, group in rows if group == one}) == 1 for one in range(len(rows) // 3))
    assert set(grouped.values()) <= set(range(len(fractions)))


@given(shares, names, st.integers(0, 5))
@settings(max_examples=60)
def test_of_one_class_each_every_class_meets_its_share(fractions, classes, seed):
    ids = [f"i{i}" for i in range(len(classes))]
    codes = assigned(ids, fractions, strata=[[] if one is None else [one] for one in classes], seed=seed)
    counts = Counter(zip(classes, codes.tolist(), strict=True))
    for name, size in Counter(classes).items():
        for number, share in enumerate(fractions.values()):
            assert abs(counts[name, number] - share * size) <= 1 + 1e-6


def test_iterative_stratification_beats_chance_where_classes_overlap():
    def off(codes):
        return max(abs(np.mean(codes[[k in one for one in held]] == 0) - 0.8) for k in range(12))

    rng = np.random.default_rng(0)
    held = [set(np.flatnonzero(rng.random(12) < 0.5 ** np.arange(1, 13) * 3).tolist()) for _ in range(1500)]
    held[:12] = [{k} for k in range(12)]
    ids = [str(i) for i in range(len(held))]
    found = assigned(ids, {"train": 0.8, "val": 0.2}, strata=held)
    by_chance = assigned(ids, {"train": 0.8, "val": 0.2})
    sizes = [sum(k in one for one in held) for k in range(12)]
    for k, size in enumerate(sizes):
        got = np.sum(found[[k in one for one in held]] == 1)
        assert abs(got - 0.2 * size) <= max(1.5, 0.01 * size), k
    assert abs(np.mean(found == 0) - 0.8) < 0.005
    assert off(found) < off(by_chance)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("fractions", SHARES[:3])
def test_many_small_classes_do_not_all_go_to_the_largest_split(fractions, size):
    held = [[f"c{i // size}"] for i in range(300)]
    codes = assigned([f"i{i}" for i in range(300)], fractions, strata=held)
    assert np.abs(np.bincount(codes, minlength=len(fractions)) - 300 * np.array([*fractions.values()])).max() <= 1


def test_the_only_record_of_a_class_goes_to_the_largest_split_and_the_others_make_up_for_it():
    held = [[f"c{max(0, i - 90)}"] for i in range(100)]  # 91 of one class, nine of one record each
    held[0] = []
    codes = assigned([f"i{i}" for i in range(100)], {"val": 0.25, "train": 0.75}, strata=held)
    assert codes[91:].tolist() == [1] * 9
    assert np.bincount(codes[1:91]).tolist() == [23, 67]  # 22.5 of them were to go to val


def test_a_split_that_is_owed_much_gets_no_more_of_a_class_than_its_share():
    held = [[f"c{i}"] for i in range(10)] + [["x"]] * 3  # the first ten go to train, so test is owed three of them
    codes = assigned([f"i{i}" for i in range(13)], {"train": 0.6, "test": 0.3, "val": 0.1}, strata=held)
    assert sorted(codes[10:].tolist()) == [0, 1, 2]


def test_a_split_by_classes_is_for_ever():
    held = [["a"], ["a", "b"], [], ["b"], ["c", "a"], ["a"], ["b", "c"], [], ["a"], ["c"], ["a"], ["b"]]
    codes = assigned([f"i{i}" for i in range(12)], {"a": 0.5, "b": 0.5}, strata=held)
    # Written down once: a later version must not move records between training and testing.
    assert "".join(map(str, codes)) == "100110010011"
