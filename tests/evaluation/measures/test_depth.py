from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from manylens.data.problems import DataError
from manylens.data.records import Record
from manylens.evaluation.measures.depth import DepthMaps, aligned, depth_figures, read_depth, resized
from manylens.tasks.results import Depth
from tests.evaluation.measures import checks

RNG = np.random.default_rng(0)
TRUTH = RNG.uniform(1, 20, (6, 8))


def record(folder: Path, name: str = "a", truth: np.ndarray = TRUTH) -> Record:
    np.save(folder / f"{name}.npy", truth)
    return Record(name, folder / f"{name}.jpg", columns={"depth": f"{name}.npy"})


def test_figures_by_hand() -> None:
    found = depth_figures(np.array([2.0, 4.0, 10.0]), np.array([2.0, 5.0, 5.0]))
    assert found == pytest.approx(
        {
            "AbsRel": (0 + 1 / 5 + 5 / 5) / 3,
            "SqRel": (0 + 1 / 5 + 25 / 5) / 3,
            "RMSE": np.sqrt((0 + 1 + 25) / 3),
            "log RMSE": np.sqrt((np.log(4 / 5) ** 2 + np.log(2) ** 2) / 3),
            "delta<1.25": 1 / 3,  # 5 / 4 is not below 1.25
            "delta<1.25^2": 2 / 3,
            "delta<1.25^3": 2 / 3,
        }
    )


@pytest.mark.parametrize("how", ["depth", "disparity"])
def test_alignment_is_least_squares(how: str) -> None:
    truth, guess = RNG.uniform(1, 9, 50), RNG.normal(size=50)
    target = truth if how == "depth" else 1 / truth
    (slope, shift), *_ = np.linalg.lstsq(np.stack([guess, np.ones(50)], 1), target, rcond=None)
    fitted = slope * guess + shift
    expected = fitted if how == "depth" else 1 / np.maximum(fitted, 1 / 80)
    np.testing.assert_allclose(aligned(guess, truth, how, 80.0), expected)


def test_a_fitted_disparity_below_zero_is_as_far_as_can_be() -> None:
    assert aligned(np.array([3.0, 0, -1]), np.array([1.0, 10, 40]), "disparity", 80.0)[2] == 80


@pytest.mark.parametrize(
    ("align", "scale", "predicted"),
    [
        ("auto", "metric", TRUTH),
        ("auto", "relative", 3 * TRUTH - 7),
        ("disparity", "relative", -2 / TRUTH + 1),
        ("scale", "relative", TRUTH / 9),
        ("none", "relative", TRUTH),
    ],
)
def test_a_perfect_map_is_perfect(tmp_path: Path, align: str, scale: str, predicted: np.ndarray) -> None:
    pair = (record(tmp_path), Depth(map=predicted, scale=scale))
    found = checks.tally_of(DepthMaps(align=align), [pair]).all()
    assert [found[n] for n in ("AbsRel", "SqRel", "RMSE", "log RMSE")] == pytest.approx([0] * 4, abs=1e-6)
    assert [v for n, v in found.items() if n.startswith("delta")] == [1, 1, 1]


def test_inverse_depth_is_aligned_in_disparity(tmp_path: Path) -> None:
    shifted = 3 / TRUTH + 0.5  # larger is nearer, up to scale and shift
    found = checks.tally_of(DepthMaps(), [(record(tmp_path), Depth(shifted, inverse=True))]).all()
    wrong = checks.tally_of(DepthMaps(), [(record(tmp_path), Depth(shifted))]).all()
    assert found["AbsRel"] == pytest.approx(0, abs=1e-9)
    assert wrong["AbsRel"] > 0.1


def test_a_metric_map_is_not_aligned(tmp_path: Path) -> None:
    found = checks.tally_of(DepthMaps(), [(record(tmp_path), Depth(map=2 * TRUTH, scale="metric"))]).all()
    assert found["AbsRel"] == pytest.approx(1)


def test_unknown_and_far_pixels_are_not_judged(tmp_path: Path) -> None:
    truth, guess = TRUTH.copy(), TRUTH.copy()
    truth[0], truth[1], truth[2, 0] = 0, np.nan, 500
    guess[:2], guess[2, 0] = 60, 7
    found = checks.tally_of(DepthMaps(), [(record(tmp_path, truth=truth), Depth(map=guess, scale="metric"))]).all()
    assert found["AbsRel"] == 0


def test_figures_are_means_over_pictures(tmp_path: Path) -> None:
    pairs = [
        (record(tmp_path, "a", np.full((2, 2), 4.0)), Depth(map=np.full((2, 2), 5.0), scale="metric")),
        (record(tmp_path, "b", np.full((9, 9), 2.0)), Depth(map=np.full((3, 3), 4.0), scale="metric")),
    ]
    tally = checks.tally_of(DepthMaps(), pairs)
    assert tally.all()["AbsRel"] == pytest.approx((0.25 + 1) / 2)
    assert tally.lower("log RMSE")
    assert not tally.lower("delta<1.25")
    checks.order_and_batches_do_not_matter(DepthMaps, pairs)
    checks.a_weight_repeats(DepthMaps, pairs, [1, 3])
    checks.survives_a_file(tally, tmp_path)


def test_another_size_is_resized_bilinearly() -> None:
    ramp = np.tile(np.arange(4.0), (2, 1))
    np.testing.assert_allclose(resized(ramp, 2, 8)[0], [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3])
    assert resized(ramp, 2, 4) is ramp


@pytest.mark.parametrize(
    ("name", "stored", "scale", "expected"),
    [
        ("d.png", np.array([[256, 0]], np.uint16), 1 / 256, [[1, 0]]),
        ("d.png", np.array([[1500, 65535]], np.uint16), 1 / 1000, [[1.5, 65.535]]),
        ("d.tif", np.array([[1.5, 2.25]], np.float32), 1 / 256, [[1.5, 2.25]]),
        ("d.npy", np.array([[3, 4]]), 1 / 256, [[3, 4]]),
        ("d.npy", np.array([[[1.5], [2]]]), 1.0, [[1.5, 2]]),
    ],
)
def test_files(tmp_path: Path, name: str, stored: np.ndarray, scale: float, expected: list) -> None:
    path = tmp_path / name
    if name.endswith("npy"):
        np.save(path, stored)
    else:
        PIL.Image.fromarray(stored).save(path)
    np.testing.assert_allclose(read_depth(path, scale), expected)


@pytest.mark.parametrize(
    "name", ["missing.png", "text.png", "text.npy", "empty.npy", "cut.png", "colour.png", "eight.png"]
)
def test_files_that_are_no_depth(tmp_path: Path, name: str) -> None:
    for text in ("text.png", "text.npy"):
        (tmp_path / text).write_text("no")
    (tmp_path / "empty.npy").touch()
    PIL.Image.fromarray(RNG.integers(0, 60000, (50, 50)).astype(np.uint16)).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:2000])
    PIL.Image.new("RGB", (2, 2)).save(tmp_path / "colour.png")
    PIL.Image.new("L", (2, 2)).save(tmp_path / "eight.png")
    with pytest.raises(DataError, match=f"^{name}: "):
        read_depth(tmp_path / name)


@pytest.mark.parametrize(
    ("columns", "predicted", "kind"),
    [
        ({}, Depth(map=TRUTH), "no depth"),
        ({"depth": "gone.npy"}, Depth(map=TRUTH), "unreadable depth"),
        ({"depth": "empty.npy"}, Depth(map=TRUTH), "empty depth"),
        ({"depth": "a.npy"}, Depth(map=np.full((6, 8), np.nan)), "NaN depth"),
        ({"depth": "a.npy"}, None, "missing prediction"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, columns: dict, predicted: Depth | None, kind: str) -> None:
    record(tmp_path)
    np.save(tmp_path / "empty.npy", np.zeros((6, 8)))
    measure = DepthMaps()
    measure.add(Record("a", tmp_path / "a.jpg", columns=columns), predicted)
    assert measure.problems.counts == {kind: 1}
    assert len(measure.tally().units) == 0
