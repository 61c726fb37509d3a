import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manylens.data.problems import DataError
from manylens.evaluation.intervals import Draws, Estimate, about, estimates, interval, narrowed, widened
from manylens.evaluation.tally import RatioTally, Tally, Units


def tally(values: list[float], clusters: list[str] | None = None, **columns: list) -> RatioTally:
    ids = [f"u{i}" for i in range(len(values))]
    return RatioTally.of_values(Units("object", ids, clusters or ids, columns), {"iou": values})


def test_the_interval_of_a_mean_is_that_of_the_central_limit_theorem() -> None:
    values = np.random.default_rng(1).normal(0.6, 0.1, 400)
    found = estimates(tally(list(values)), resamples=4000)["iou"]
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=half * 0.1)


def test_units_of_one_cluster_are_drawn_together() -> None:
    values = np.repeat(np.random.default_rng(2).normal(0.6, 0.1, 40), 25)
    clusters = [f"image{i // 25}" for i in range(1000)]
    wide = estimates(tally(list(values), clusters))["iou"]
    narrow = estimates(tally(list(values)))["iou"]
    assert (wide.high - wide.low) / (narrow.high - narrow.low) == pytest.approx(5, rel=0.15)  # sqrt(25)


def test_the_same_seed_draws_the_same_whatever_the_order_or_block() -> None:
    names = [f"c{i}" for i in range(50)]
    one = np.concatenate(list(Draws(names, 200, seed=3).counts()))
    other = np.concatenate(list(Draws(names[::-1], 200, seed=3).counts(width=1_000_000)))
    assert np.array_equal(one, other)
    assert not np.array_equal(one, np.concatenate(list(Draws(names, 200, seed=4).counts())))
    assert (one.sum(axis=1) == 50).all()


def test_permuted_units_change_nothing() -> None:
    values = list(np.random.default_rng(5).random(30))
    ids = [f"u{i}" for i in range(30)]
    order = np.random.default_rng(6).permutation(30)
    straight = RatioTally.of_values(Units("image", ids, ids), {"iou": values})
    mixed_ids = [ids[i] for i in order]
    mixed = RatioTally.of_values(Units("image", mixed_ids, mixed_ids), {"iou": [values[i] for i in order]})
    one, other = estimates(straight)["iou"], estimates(mixed)["iou"]
    assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.5], "0.500"),
        ([1.0, 1.0, 1.0], "1.000 [1.000, 1.000]"),
        ([math.nan, math.nan], "not defined"),
    ],
)
def test_an_estimate_says_what_it_knows(values: list[float], expected: str) -> None:
    assert str(estimates(tally(values))["iou"]) == expected


def test_a_base_of_zero_leaves_units_out_of_the_draw() -> None:
    found = estimates(tally([0.0, 1.0, 1.0, 1.0]), base=np.array([0.0, 1, 1, 1]))["iou"]
    assert (found.value, found.low, found.high) == (1, 1, 1)


def test_a_tally_may_cap_its_resamples() -> None:
    class Costly(RatioTally):
        resamples = 7
        calls = 0

        def figures(self, weights: np.ndarray) -> dict[str, np.ndarray]:
            Costly.calls += len(weights)
            return super().figures(weights)

    one = tally([0.1, 0.2, 0.3])
    estimates(Costly(one.units, one.names, one.numerators, one.denominators))
    assert Costly.calls == 1 + 7


def test_undefined_resamples_give_no_interval() -> None:
    assert all(map(math.isnan, interval(np.array([1.0, 1.0, 1.0, math.nan]))))
    assert interval(np.array([1.0] * 99 + [math.nan])) == (1, 1)


@pytest.mark.parametrize(("pictures", "said"), [(1, False), (3, False), (5, True)])
def test_a_class_of_three_pictures_has_no_interval(pictures: int, said: bool) -> None:
    values = [0.7 + 0.01 * i if i < pictures else math.nan for i in range(100)]
    found = estimates(tally(values))["iou"]
    assert found.value == pytest.approx(np.nanmean(values))
    assert math.isnan(found.low) is not said


def test_a_moved_interval_stays_in_what_the_figure_can_be_and_its_difference_need_not() -> None:
    from manylens.evaluation.measures.detection_tally import DetectionTally

    one = DetectionTally(Units("image", [], []))
    values = np.array([0.0, 0.1, 0.2])
    assert about(one, "AP/cat", 0.05, values).tolist() == pytest.approx([0, 0.05, 0.15])
    assert about(one, "AP", 0.05, values, difference=True).tolist() == pytest.approx([-0.05, 0.05, 0.15])
    assert about(one, "AR100", 0.05, values).tolist() == values.tolist()


@pytest.mark.parametrize("count", [5, 10, 30])
def test_the_interval_of_few_pictures_is_as_wide_as_students(count: int) -> None:
    from scipy.stats import t

    values = np.random.default_rng(4).normal(0, 1, count)
    found = estimates(tally(list(values)), resamples=20000)["iou"]
    half = t.ppf(0.975, count - 1) * values.std(ddof=1) / math.sqrt(count)
    # the percentiles of five numbers end at the least and the largest of these
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.25 if count == 5 else 0.08)


def test_the_correction_for_few_pictures_can_be_undone() -> None:
    assert narrowed(widened(0.025, 7), 7) == pytest.approx(0.025)
    assert widened(0.025, 100_000) == pytest.approx(0.025, rel=1e-3)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.data())
def test_an_integer_weight_is_that_unit_so_many_times(values: list[float], data: st.DataObject) -> None:
    times = data.draw(st.lists(st.integers(0, 3), min_size=len(values), max_size=len(values)))
    repeated = [value for value, count in zip(values, times, strict=True) for _ in range(count)]
    weighted = tally(values).figures(np.array([times], float))["iou"][0]
    assert weighted == pytest.approx(np.mean(repeated) if repeated else math.nan, nan_ok=True)


def test_a_tally_is_the_same_after_it_was_saved(tmp_path: Path) -> None:
    one = tally([0.5, math.nan, 0.7], ["a", "a", "b"], site=["x", None, "y"], tags=[["p"], [], ["p", "q"]])
    other = Tally.load(one.save(tmp_path / "tally.npz"))
    assert isinstance(other, RatioTally)
    assert (other.all(), list(other.units.ids), list(other.units.clusters)) == (
        one.all(),
        list(one.units.ids),
        list(one.units.clusters),
    )
    assert other.units.columns == {"site": ["x", None, "y"], "tags": [["p"], [], ["p", "q"]]}
    assert np.array_equal(other.scores(), one.scores(), equal_nan=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 cut"])
def test_a_file_that_is_no_tally(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tally.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"tally\.npz: not a tally"):
        Tally.load(path)


def test_estimates_as_json() -> None:
    assert Estimate(0.5, math.nan, math.nan).to_json() == {"value": 0.5, "low": None, "high": None}
    back = Estimate.from_json({"value": 0.0, "low": 0.0, "high": None})
    assert (back.value, back.low, math.isnan(back.high)) == (0, 0, True)
