import numpy as np
import pytest

from manylens.data.problems import DataError
from manylens.evaluation.intervals import Estimate
from manylens.evaluation.slices import Gap, groups_of, slice_by
from tests.evaluation.test_intervals import tally

RNG = np.random.default_rng(0)


def groups(values: list) -> dict[str, list[int]]:
    members, _ = groups_of(tally([0.5] * len(values), column=values), "column")
    return {name: np.flatnonzero(inside).tolist() for name, inside in members.items()}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["b", "a", "b"], {"a": [1], "b": [0, 2]}),
        (["b", None, ""], {"b": [0]}),
        ([True, False, True], {"False": [1], "True": [0, 2]}),
        ([10, 9, 9], {"9": [1, 2], "10": [0]}),
        ([["p"], ["p", "q"], []], {"p": [0, 1], "q": [1]}),
        (["large", "small", "medium"], {"small": [1], "medium": [2], "large": [0]}),
        ([float("nan"), 1.5], {"1.5": [1]}),
        ([np.float32("nan"), float("inf"), 1.5], {"1.5": [2]}),
    ],
)
def test_groups_of_a_column(values: list, expected: dict[str, list[int]]) -> None:
    assert groups(values) == expected
    assert list(groups(values)) == list(expected)


def test_a_scale_is_cut_at_its_quartiles() -> None:
    found = groups(list(range(101)))
    assert list(found) == ["0 to 25", "25 to 50", "50 to 75", "75 to 100"]
    assert [len(inside) for inside in found.values()] == [25, 25, 25, 26]


def test_quartiles_of_large_numbers_keep_apart() -> None:
    found = groups([20250100 + day for day in range(1, 21)])
    assert [len(inside) for inside in found.values()] == [5, 5, 5, 5]
    assert next(iter(found)).startswith("20250101 to ")


@pytest.mark.parametrize("column", [[None, None], ["", ""]])
def test_a_column_without_values(column: list) -> None:
    with pytest.raises(DataError, match="no object has a value in this column"):
        slice_by(tally([0.1, 0.2], site=column), "site")


def test_an_unknown_column_lists_those_there_are() -> None:
    with pytest.raises(DataError, match="sight: no such column to slice by; choose one of: site"):
        slice_by(tally([0.1], site=["a"]), "sight")


def test_every_group_has_the_figures_of_its_units() -> None:
    found = slice_by(tally([0.2, 0.4, 0.9, 0.5], site=["a", "a", "b", None]), "site")
    assert {group.name: group.figures["iou"].value for group in found.groups} == pytest.approx({"a": 0.3, "b": 0.9})
    assert [(group.units, group.clusters) for group in found.groups] == [(2, 2), (1, 1)]
    assert found.unknown == 1


def test_groups_of_few_pictures_are_shown_but_not_judged() -> None:
    values = [0.9] * 30 + [0.1] * 300
    clusters = [f"i{i}" for i in range(30)] + ["one picture"] * 300
    found = slice_by(tally(values, clusters, site=["a"] * 30 + ["b"] * 300), "site", resamples=50)
    assert [group.name for group in found.too_small] == ["b"]
    assert found.gaps == {}


def test_a_true_gap_is_found() -> None:
    values = [*RNG.normal(0.8, 0.1, 60), *RNG.normal(0.6, 0.1, 60)]
    gap = slice_by(tally(values, site=["a"] * 60 + ["b"] * 60), "site", resamples=400).gaps["iou"]
    assert (gap.best, gap.worst, gap.real) == ("a", "b", True)
    assert gap.gap.low < 0.2 < gap.gap.high
    assert gap.ratio == pytest.approx(0.75, abs=0.05)


def test_a_gap_of_many_groups_without_a_cause_is_not_called_real() -> None:
    real = 0
    for seed in range(20):
        values = np.random.default_rng(seed).normal(0.7, 0.1, 200)
        sites = [f"s{i % 8}" for i in range(200)]
        found = slice_by(tally(list(values), site=sites), "site", resamples=100, seed=seed)
        real += found.gaps["iou"].real
    assert real <= 4  # 1 is expected; the interval of best less worst alone calls nearly all of them real


def test_where_pictures_lie_in_one_group_whole_they_are_dealt_out_whole() -> None:
    picture = np.repeat(np.random.default_rng(3).normal(0.7, 0.1, 40), 20)
    clusters = [f"i{i // 20}" for i in range(800)]
    sites = ["a" if i // 20 < 20 else "b" for i in range(800)]
    found = slice_by(tally(list(picture), clusters, site=sites), "site", resamples=100)
    singly = slice_by(tally(list(picture), site=sites), "site", resamples=100)
    assert found.gaps["iou"].p > 4 * singly.gaps["iou"].p  # 800 objects are no 800 witnesses


def test_objects_of_a_picture_are_no_witnesses_each_where_some_pictures_hold_both_groups() -> None:
    real = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        image = np.repeat(np.arange(80), 6)
        values = rng.normal(0.7, 0.1, 80)[image] + rng.normal(0, 0.02, 480)
        site = rng.permutation(np.arange(80) % 4)[image]
        site[image < 4] = rng.integers(0, 4, 24)
        one = tally(list(values), [f"i{i}" for i in image], site=[f"s{i}" for i in site])
        real += slice_by(one, "site", resamples=200, seed=seed, least=5).gaps["iou"].real
    assert real <= 7  # 2 are expected; objects dealt out one by one call 3 of 4 real


def test_a_true_gap_within_pictures_is_found() -> None:
    picture = np.repeat(np.random.default_rng(5).normal(0.6, 0.2, 60), 2)
    values = picture + np.tile([0.05, 0.0], 60) + np.random.default_rng(6).normal(0, 0.05, 120)
    one = tally(list(values), [f"i{i // 2}" for i in range(120)], kind=["a", "b"] * 60)
    gap = slice_by(one, "kind", resamples=400).gaps["iou"]
    assert (gap.best, gap.real) == ("a", True)
    assert np.isnan(slice_by(one, "kind", resamples=0).gaps["iou"].p)


def test_less_is_better_turns_best_and_worst() -> None:
    one = tally([1.0] * 20 + [3.0] * 20, site=["a"] * 20 + ["b"] * 20).like(errors=["iou"])
    gap = slice_by(one, "site", resamples=50).gaps["iou"]
    assert (gap.best, gap.worst, gap.gap.value) == ("a", "b", 2)
    assert gap.gap.low == gap.gap.high == 2
    assert gap.ratio == pytest.approx(1 / 3)


def test_no_resamples_no_intervals() -> None:
    found = slice_by(tally([0.1, 0.2] * 20, site=["a", "b"] * 20), "site", resamples=0)
    assert str(found.groups[0].figures["iou"]) == "0.100"
    assert found.to_json()["groups"][0]["figures"]["iou"] == {
        "value": pytest.approx(0.1),
        "low": None,
        "high": None,
    }


@pytest.mark.parametrize(
    ("p", "chance", "verdict"),
    [(0.01, "0.01", "more than chance"), (0.5, "0.5", "may be chance"), (float("nan"), "-", "not told from chance")],
)
def test_a_gap_in_words(p: float, chance: str, verdict: str) -> None:
    gap = Gap("iou", "a", "b", Estimate(0.1), 0.5, p)
    assert (gap.chance, gap.verdict) == (chance, verdict)
