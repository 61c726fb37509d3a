import math

import numpy as np
import pytest

from manylens.data.problems import DataError
from manylens.evaluation.comparing import compare
from manylens.evaluation.tally import RatioTally, Units
from tests.evaluation.test_intervals import tally

RNG = np.random.default_rng(0)
HARD = RNG.random(100)


def test_a_small_even_gain_is_real_though_the_intervals_overlap() -> None:
    found = compare(tally(list(HARD)), tally(list(HARD + 0.02 + RNG.normal(0, 0.01, 100))))
    main = found.differences["iou"]
    assert (main.real, main.better) == (True, "b")
    assert main.difference.low > 0.01
    assert "real, b is better" in found.verdict


def test_noise_is_not_real() -> None:
    real = 0
    for seed in range(40):
        noise = np.random.default_rng(seed).normal(0, 0.05, (2, 100))
        real += compare(tally(list(HARD + noise[0])), tally(list(HARD + noise[1])), seed=seed).differences["iou"].real
    assert real <= 6


def test_the_other_way_round_is_the_other_sign() -> None:
    a, b = tally(list(HARD)), tally(list(HARD**2))
    one, other = compare(a, b).differences["iou"], compare(b, a).differences["iou"]
    assert one.difference.value == -other.difference.value
    assert (one.difference.low, one.difference.high) == pytest.approx((-other.difference.high, -other.difference.low))
    assert (one.better, other.better) == ("a", "b")


def test_units_are_matched_by_id_and_not_by_place() -> None:
    order = RNG.permutation(100)
    ids = [f"u{i}" for i in range(100)]
    mixed = Units("object", [ids[i] for i in order], [ids[i] for i in order])
    other = RatioTally.of_values(mixed, {"iou": [HARD[i] for i in order]})
    main = compare(tally(list(HARD)), other).differences["iou"]
    assert (main.difference.low, main.difference.high) == pytest.approx((0, 0), abs=1e-12)
    assert not main.real


def test_only_shared_units_count() -> None:
    found = compare(tally([0.1, 0.2, 0.3]), tally([0.1, 0.2, 0.3, 0.9, 0.9]))
    assert (found.units, found.only_a, found.only_b) == (3, 0, 2)
    assert found.differences["iou"].difference.value == pytest.approx(0)


def test_less_is_better() -> None:
    a, b = (tally(list(HARD + shift)).like(errors=["iou"]) for shift in (0.5, 0.0))
    assert compare(a, b).differences["iou"].better == "b"


def test_per_class_figures_are_corrected_for_their_number() -> None:
    ids = [f"u{i}" for i in range(60)]
    noise = np.random.default_rng(9).normal(0, 1, (2, 60, 40))
    names = {f"iou/c{i}": i for i in range(40)}
    a, b = (
        RatioTally.of_values(Units("image", ids, ids), {name: noise[side, :, i] for name, i in names.items()})
        for side in (0, 1)
    )
    found = compare(a, b, resamples=500)
    assert sum(one.real for one in found.differences.values()) == 0
    assert sum(not one.difference.low <= 0 <= one.difference.high for one in found.differences.values()) > 0


def test_one_class_of_many_can_be_told_to_be_better() -> None:
    ids, rng = [f"u{i}" for i in range(100)], np.random.default_rng(2)
    a, b = rng.normal(0.7, 0.1, (2, 100, 80))
    b[:, 7] += 0.2
    sides = (
        RatioTally.of_values(Units("image", ids, ids), {f"iou/c{i}": side[:, i] for i in range(80)}) for side in (a, b)
    )
    found = compare(*sides).differences
    assert [name for name, one in found.items() if one.real] == ["iou/c7"]


def test_a_class_of_one_picture_is_not_told_to_be_better() -> None:
    found = compare(tally([0.0] + [math.nan] * 49), tally([1.0] + [math.nan] * 49)).differences["iou"]
    assert math.isnan(found.p)
    assert not found.real


def test_two_pictures_prove_nothing_though_they_agree() -> None:
    found = compare(tally([0.1, 0.9]), tally([0.15, 0.95])).differences["iou"]
    assert 0.05 < found.p < 1
    assert not found.real


def test_units_of_one_id_in_different_pictures_are_not_the_same() -> None:
    a = tally([0.1, 0.2, 0.3], ["x", "y", "z"])
    b = tally([0.9, 0.2, 0.3], ["elsewhere", "y", "z"])
    found = compare(a, b)
    assert (found.units, found.only_a, found.only_b) == (2, 1, 1)
    assert found.differences["iou"].difference.value == pytest.approx(0)


def test_p_is_even_where_nothing_differs_even_of_ten_pictures() -> None:
    p = []
    for seed in range(200):
        a, b = np.random.default_rng(seed).normal(0.7, 0.1, (2, 10))
        p.append(compare(tally(list(a)), tally(list(b)), resamples=500, seed=seed).differences["iou"].p)
    assert np.mean(np.array(p) < 0.05) <= 0.09  # 0.05 is right; uncorrected it is 0.12


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (RatioTally.of_values(Units("object", ["z"], ["z"]), {"iou": [0.5]}), "share no object"),
        (RatioTally.of_values(Units("image", ["u0"], ["u0"]), {"iou": [0.5]}), "cannot be compared"),
        (RatioTally.of_values(Units("object", ["u0"], ["u0"]), {"accuracy": [0.5]}), "cannot be compared"),
    ],
)
def test_what_cannot_be_compared(other: RatioTally, words: str) -> None:
    with pytest.raises(DataError, match=words):
        compare(tally([0.1]), other)


def test_one_picture_says_nothing() -> None:
    said = compare(tally([0.1]), tally([0.9])).verdict
    assert "too few pictures" in said
    assert "nan" not in said
