from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import maximum_mean_discrepancy

from manylens.data.problems import DataError
from manylens.data.records import Record
from manylens.evaluation.comparing import compare
from manylens.evaluation.intervals import estimates
from manylens.evaluation.measures.generation import Generation, Made, factor, load_features
from manylens.evaluation.slices import slice_by
from tests.evaluation.measures import checks

RNG = np.random.default_rng(0)
MADE = (RNG.normal(size=(60, 5)) @ RNG.normal(size=(5, 5)) + 0.5).astype(np.float32)
REAL = RNG.normal(size=(60, 5)).astype(np.float32)
WORDS = RNG.normal(size=(60, 3))
SEEN = WORDS + RNG.normal(size=(60, 3))


def pairs(count: int = 60, real: bool = True) -> list:
    return [
        (Record(f"p{i}", Path("x")), Made(MADE[i], REAL[i] if real else None, SEEN[i], WORDS[i])) for i in range(count)
    ]


def fid(a: np.ndarray, b: np.ndarray) -> float:
    moments = [
        (torch.tensor(x, dtype=torch.float64).mean(0), torch.cov(torch.tensor(x.T, dtype=torch.float64)))
        for x in (a, b)
    ]
    return float(_compute_fid(*moments[0], *moments[1]))


def kid(a: np.ndarray, b: np.ndarray, *, paired: bool = False) -> float:
    """The definition, pair by pair; rows that belong together are not held against each other."""
    kernel = lambda x, y: (float(x @ y) / len(x) + 1) ** 3  # noqa: E731
    a, b = a.astype(float), b.astype(float)
    within = [np.mean([kernel(x, y) for i, x in enumerate(s) for j, y in enumerate(s) if i != j]) for s in (a, b)]
    between = [kernel(x, y) for i, x in enumerate(a) for j, y in enumerate(b) if not (paired and i == j)]
    return within[0] + within[1] - 2 * np.mean(between)


@pytest.mark.parametrize("paired", [True, False])
def test_against_other_implementations(paired: bool) -> None:
    reference = REAL[:40]
    measure = Generation() if paired else Generation(reference=reference)
    found = checks.tally_of(measure, pairs(30, real=paired)).all()
    real = REAL[:30] if paired else reference
    assert found["FID"] == pytest.approx(fid(MADE[:30], real), rel=1e-5)
    assert found["KID x1000"] == pytest.approx(1000 * kid(MADE[:30], real, paired=paired), rel=1e-5)
    cosine = torch.nn.functional.cosine_similarity(torch.tensor(SEEN[:30]), torch.tensor(WORDS[:30]))
    assert found["CLIP score"] == pytest.approx(float((100 * cosine.clamp(min=0)).mean()))


@pytest.mark.parametrize("count", [3, 5])
def test_fewer_pictures_than_features(count: int) -> None:
    found = checks.tally_of(Generation(), pairs(count)).all()
    assert found["FID"] == pytest.approx(fid(MADE[:count], REAL[:count]), rel=1e-4)


@pytest.mark.parametrize("matrix", [np.zeros((3, 3)), np.diag([2.0, 0, 1]), np.cov(REAL[:4].T), np.cov(REAL.T)])
def test_a_factor_of_any_covariance(matrix: np.ndarray) -> None:
    half = factor(matrix)
    np.testing.assert_allclose(half @ half.T, matrix, atol=1e-7)


def test_kid_is_that_of_torchmetrics_at_equal_counts() -> None:
    found = checks.tally_of(Generation(reference=REAL), pairs(real=False)).all()
    a, b = (torch.tensor(x, dtype=torch.float64) for x in (REAL, MADE))
    k = [(x @ y.T / 5 + 1) ** 3 for x, y in ((a, a), (a, b), (b, b))]
    assert found["KID x1000"] == pytest.approx(1000 * float(maximum_mean_discrepancy(*k)), rel=1e-5)


@pytest.mark.parametrize("reference", [None, REAL[:40]])
def test_what_holds_of_every_tally(
    tmp_path: Path, reference: np.ndarray | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = lambda: Generation(reference=reference)  # noqa: E731
    few = pairs(20, real=reference is None)
    whole = checks.tally_of(make(), few)
    checks.order_and_batches_do_not_matter(make, few)
    checks.a_weight_repeats(make, few, [2, 0, 1, 3] * 5)
    checks.survives_a_file(whole, tmp_path)
    before = whole.all()
    monkeypatch.setattr("manylens.evaluation.measures.generation._BLOCK", 7)
    assert whole.all() == pytest.approx(before)


def test_the_same_pictures_are_at_distance_zero() -> None:
    same = [(record, Made(made.real, made.real)) for record, made in pairs()]
    found = checks.tally_of(Generation(), same).all()
    assert (found["FID"], found["KID x1000"]) == pytest.approx((0, 0), abs=1e-4)
    assert set(found) == {"FID", "KID x1000"}


def test_kid_of_few_pictures_is_that_of_many_even_where_each_has_its_own_real_one() -> None:
    rng = np.random.default_rng(1)
    real = rng.normal(size=(4000, 4))
    made = 0.9 * real + rng.normal(0.2, 0.6, (4000, 4))
    rows = [(Record(str(i), Path("x")), Made(*one)) for i, one in enumerate(zip(made, real, strict=True))]
    few = [checks.tally_of(Generation(), rows[start : start + 20]).all()["KID x1000"] for start in range(0, 4000, 20)]
    spread = np.std(few) / np.sqrt(len(few))
    assert np.mean(few) == pytest.approx(checks.tally_of(Generation(), rows).all()["KID x1000"], abs=3 * spread)


def test_the_interval_lies_about_the_figure() -> None:
    """Resamples see less variety than the pictures have, so their FID is too high: unmoved, they would miss it."""
    wide = RNG.normal(size=(2, 60, 20)).astype(np.float32)
    tally = checks.tally_of(Generation(), [(Record(str(i), Path("x")), Made(*wide[:, i])) for i in range(60)])
    drawn = np.random.default_rng(0).multinomial(60, np.full(60, 1 / 60), 50).astype(float)
    one = estimates(tally, resamples=50)["FID"]
    assert one.value < tally.figures(drawn)["FID"].min()
    assert one.low < one.value < one.high


def test_slices_and_comparisons_lie_about_their_figures_too() -> None:
    wide = RNG.normal(size=(3, 80, 10)).astype(np.float32)
    records = [Record(str(i), Path("x"), columns={"site": "ab"[i % 2]}) for i in range(80)]
    a, b = (
        checks.tally_of(
            Generation(columns=["site"]), [(r, Made(wide[k, i], wide[0, i])) for i, r in enumerate(records)]
        )
        for k in (1, 2)
    )
    found = slice_by(a, "site", resamples=50)
    for one in [group.figures["FID"] for group in found.groups] + [found.gaps["FID"].gap]:
        assert one.low <= one.value <= one.high
    difference = compare(a, b, resamples=50).differences["FID"].difference
    assert difference.low <= difference.value <= difference.high


def test_too_few_pictures_are_said_to_be() -> None:
    assert checks.tally_of(Generation(), pairs(50)).details() == {}
    note = checks.tally_of(Generation(), pairs(9)).details()["few pictures"]
    assert "9 pictures for 5 features" in note["rows"][0][0]


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        (None, "missing prediction"),
        (Made(MADE[0]), "no real picture"),
        (Made(MADE[0][:3], REAL[0]), "another space"),
        (Made(MADE[0] * np.nan, REAL[0]), "NaN features"),
    ],
)
def test_what_is_wrong_is_said(made: Made | None, kind: str) -> None:
    measure = Generation()
    measure.add(Record("p", Path("x")), made)
    assert measure.problems.counts == {kind: 1}
    assert np.isnan(measure.tally().all()["FID"])


def test_saved_features(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", REAL.astype(float))
    np.testing.assert_array_equal(load_features(tmp_path / "f.npy"), REAL)
    np.save(tmp_path / "nan.npy", REAL * np.nan)
    np.save(tmp_path / "flat.npy", REAL[0])
    np.save(tmp_path / "none.npy", REAL[:0])
    (tmp_path / "text.npy").write_text("no")
    for name in ("nan.npy", "flat.npy", "none.npy", "text.npy", "gone.npy"):
        with pytest.raises(DataError, match=name):
            load_features(tmp_path / name)
