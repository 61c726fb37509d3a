import json
from pathlib import Path

import numpy as np
import pytest

from manylens import tasks
from manylens.audit.fairness import Fairness, fairness, sam_table
from manylens.audit.parity import parity, rates
from manylens.cli import main
from manylens.data.problems import DataError, Problems
from manylens.data.records import Category, Record
from manylens.errors import UnsupportedError
from manylens.evaluation.measures.classification import Classification, ClassificationTally
from manylens.evaluation.measures.promptable import clicks_tally
from manylens.evaluation.results import DataUsed, Evaluation, ModelUsed
from manylens.evaluation.slices import groups_of, slice_by
from manylens.evaluation.tally import Tally, Units

NAMES = ("cat", "dog", "bird")


def classified(rows: list[tuple[str, str, object]]) -> ClassificationTally:
    """Rows are the truth, the first label, and the value of the column ``site``."""
    measure = Classification([Category(i, name) for i, name in enumerate(NAMES)], columns=["site"])
    for i, (truth, guess, site) in enumerate(rows):
        record = Record(f"p{i}", Path("x.jpg"), label=truth, columns={"site": site})
        measure.add(record, tasks.Classification(labels=(tasks.Label(guess, 0.9),)))
    return measure.tally()


def simulated(accuracy: dict[str, float], count: int = 200, seed: int = 0) -> ClassificationTally:
    """Exactly the given accuracy in each group."""
    rows = []
    for site, share in accuracy.items():
        right = np.random.default_rng(seed).permutation(np.arange(count) < round(share * count))
        truth = np.random.default_rng(seed + 1).permutation(np.arange(count) % 2)
        rows += [(NAMES[t], NAMES[t if r else 1 - t], site) for t, r in zip(truth, right, strict=True)]
    return classified(rows)


def clicked(means: dict[str, tuple[float, float, float]], count: int = 60) -> Tally:
    """IoU after three clicks of objects, two a picture, about the given means of each group."""
    rng = np.random.default_rng(0)
    ious = np.concatenate([np.clip(rng.normal(mean, 0.05, (count, 3)), 0, 1) for mean in means.values()])
    total = count * len(means)
    columns = {"skin tone": np.repeat(list(means), count).tolist(), "age": ["young", "old"] * (total // 2)}
    units = Units("object", [f"o{i}" for i in range(total)], [f"p{i // 2}" for i in range(total)], columns)
    return clicks_tally(units, ious, ious[:, 0])


def saved(tally: Tally, folder: Path) -> Path:
    Evaluation(
        task="classify",
        measure=tally.measure,
        model=ModelUsed("model"),
        data=DataUsed("made", "", len(tally.units), len(tally.units), 0),
        options={},
        figures={},
        details={},
        slices=[slice_by(tally, "site", resamples=10)] if "site" in tally.units.columns else [],
        problems=Problems(),
        worst=[],
        seconds=0.0,
        machine={},
        tally=tally,
    ).save(folder)
    return folder


def test_a_known_gap_is_found() -> None:
    found = fairness(simulated({"a": 0.9, "b": 0.6}), "site", resamples=300)
    gap = found.sliced.gaps["accuracy"]
    assert (gap.best, gap.worst, gap.real) == ("a", "b", True)
    assert gap.gap.value == pytest.approx(0.3)
    assert 0.2 < gap.gap.low < 0.3 < gap.gap.high < 0.4
    assert gap.ratio == pytest.approx(0.6 / 0.9)
    assert "more than chance" in found.verdict


def test_where_there_is_no_gap_none_is_found() -> None:
    found = fairness(simulated({"a": 0.8, "b": 0.79}), "site", resamples=300)
    gap = found.sliced.gaps["accuracy"]
    assert gap.gap.low <= 0 < gap.gap.high
    assert not gap.real
    assert "may be chance" in found.verdict


def test_groups_too_small_are_shown_and_not_judged() -> None:
    tally = classified([("cat", "cat", "a")] * 30 + [("dog", "dog", "b")] * 30 + [("cat", "dog", "c")] * 5)
    found = fairness(tally, "site", resamples=20)
    assert [group.name for group in found.sliced.too_small] == ["c"]
    assert found.sliced.gaps["accuracy"].worst != "c"
    assert set(found.classes[0].by_group) == {"a", "b"}
    assert found.to_json()["too_small"] == ["c"]
    assert found.verdict.endswith("; not judged: c (5 pictures, 0.000)")
    assert [(one["group"], one["pictures"], one["value"]) for one in found.to_json()["not_judged"]] == [("c", 5, 0.0)]
    alone = fairness(tally, "site", resamples=20, least=50)
    assert not alone.classes
    assert "nothing can be said of accuracy: 0 of 3 groups can be judged" in alone.verdict


def test_errors_that_rest_on_few_positives_are_not_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """40 pictures of b, but 3 cats only, of which 2 are missed: no group of few pictures, but of few positives."""
    a = [("cat", "cat", "a")] * 30 + [("dog", "dog", "a")] * 30
    b = [("cat", "cat", "b")] + [("cat", "dog", "b")] * 2 + [("dog", "dog", "b")] * 37
    tally = classified(a + b)
    (one,) = fairness(tally, "site", positive="cat", resamples=20).classes
    assert one.few == {"b": "3 positives"}
    assert one.measures["equal_opportunity_difference"] == pytest.approx(2 / 3)
    assert {name for name, value in one.trusted.items() if np.isnan(value)} == {
        name for name in one.measures if "parity" not in name
    }
    assert one.rates is not None
    assert set(one.rates.gaps) == {"selection rate", "false positive rate"}
    assert one.to_json()["too_few"] == {"b": "3 positives"}
    every = fairness(tally, "site", resamples=20, least=3).classes
    assert not any(one.few for one in every)
    _, out, _ = run(str(saved(tally, tmp_path)), "--column", "site", "--resamples", "20", capsys=capsys)
    assert "b: 3 positives" in out


def test_parity_by_hand() -> None:
    """Group a: half of all cats and half of all dogs are called cats; b: all right."""
    a = [("cat", "cat"), ("cat", "dog"), ("dog", "cat"), ("dog", "dog")]
    b = [("cat", "cat"), ("cat", "cat"), ("dog", "dog"), ("dog", "dog")]
    tally = classified([(*row, "a") for row in a] + [(*row, "b") for row in b])
    found = parity(tally, groups_of(tally, "site")[0], "cat")
    assert found.measures == {
        "demographic_parity_difference": 0,
        "demographic_parity_ratio": 1,
        "equalized_odds_difference": 0.5,
        "equalized_odds_ratio": 0,
        "equal_opportunity_difference": 0.5,
    }
    assert found.by_group["a"] == dict.fromkeys(("selection rate", "true positive rate", "false positive rate"), 0.5)
    assert found.pictures == 4


def test_fairlearn_and_our_gaps_agree() -> None:
    rng = np.random.default_rng(3)
    rows = [(str(rng.choice(NAMES)), str(rng.choice(NAMES)), str(rng.choice(["a", "b", "c"]))) for _ in range(300)]
    tally = classified(rows)
    members = groups_of(tally, "site")[0]
    found = parity(tally, members, "dog").measures
    gaps = rates(tally, "site", members, "dog", resamples=50, least=2).gaps
    assert found["demographic_parity_difference"] == pytest.approx(gaps["selection rate"].gap.value)
    assert found["demographic_parity_ratio"] == pytest.approx(gaps["selection rate"].ratio)
    assert found["equal_opportunity_difference"] == pytest.approx(gaps["true positive rate"].gap.value)
    assert found["equalized_odds_difference"] == pytest.approx(
        max(gaps["true positive rate"].gap.value, gaps["false positive rate"].gap.value)
    )
    assert found["demographic_parity_difference"] > 0


@pytest.mark.parametrize(
    ("others", "known"),
    [
        ([("dog", "dog")] * 3, {"demographic_parity_difference", "demographic_parity_ratio"}),  # no cat in b
        (
            [("cat", "cat")] * 3,  # no other in b
            {"demographic_parity_difference", "demographic_parity_ratio", "equal_opportunity_difference"},
        ),
    ],
)
def test_what_a_group_cannot_show_is_not_said(others: list, known: set[str]) -> None:
    rows = [("cat", "cat", "a"), ("dog", "cat", "a")] + [(*row, "b") for row in others]
    tally = classified(rows)
    found = parity(tally, groups_of(tally, "site")[0], "cat").measures
    assert {name for name, value in found.items() if not np.isnan(value)} == known


def test_a_picture_may_be_in_several_groups() -> None:
    rows: list = [("cat", "cat", ["a", "b"]), ("cat", "dog", ["b"]), ("dog", "dog", ["a"]), ("dog", "dog", ["b"])]
    tally = classified(rows)
    found = parity(tally, groups_of(tally, "site")[0], "cat")
    assert {name: table["true positive rate"] for name, table in found.by_group.items()} == {"a": 1, "b": 0.5}


def test_all_classes_the_least_equal_first_or_the_one_named() -> None:
    fair = [(name, name, site) for name in NAMES for site in "ab"] * 20
    unfair = [("bird", "dog", "a")] * 20
    every = fairness(classified(fair + unfair), "site", resamples=20).classes
    assert [one.positive for one in every] == ["bird", "dog", "cat"]
    assert every[0].measures["equalized_odds_difference"] == 0.5
    tally = simulated({"a": 0.9, "b": 0.6})
    (one,) = fairness(tally, "site", positive="dog", resamples=20).classes
    assert one.positive == "dog"
    assert one.rates is not None
    assert one.rates.gaps["true positive rate"].gap.low > 0


@pytest.mark.parametrize(
    ("column", "positive", "error", "message"),
    [
        ("hospital", None, DataError, "hospital: no such column in this evaluation .*--slice hospital"),
        ("site", "cow", DataError, "cow: is no class of this evaluation; choose one of: cat, dog, bird"),
    ],
)
def test_mistakes(column: str, positive: str | None, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fairness(simulated({"a": 0.9, "b": 0.6}, 30), column, positive=positive, resamples=0)


def test_only_a_classifier_has_a_positive_class() -> None:
    with pytest.raises(UnsupportedError, match="positive 'cat': needs a classifier"):
        fairness(clicked({"1": (0.5, 0.6, 0.7)}), "age", positive="cat")


def test_a_slice_that_the_evaluation_took_by_annotation_is_used(tmp_path: Path) -> None:
    tally = simulated({"a": 0.9, "b": 0.6}, 30)
    folder = saved(tally, tmp_path)
    bare = tally.like(units=Units("image", tally.units.ids, tally.units.clusters))
    bare.save(folder / "tally.npz")
    found = fairness(folder, "site")
    assert isinstance(found, Fairness)
    assert found.sliced.gaps["accuracy"].worst == "b"


def test_the_table_of_segment_anything() -> None:
    tally = clicked({"1": (0.5, 0.7, 0.9), "2": (0.6, 0.7, 0.9)})
    table = sam_table(tally, ["skin tone", "age"], resamples=300)
    lines = table.text().splitlines()
    assert lines[0].split() == ["1", "point", "3", "points"]
    assert [line.split()[0] for line in lines[1:]] == ["skin", "1", "2", "age", "old", "young"]
    rows = {row["group"]: row for row in table.to_json()}
    ious = np.asarray(tally.numerators)[:60, list(tally.names).index("IoU@1")]  # type: ignore[attr-defined]
    one = rows["1"]["1 point"]
    assert one["value"] == pytest.approx(ious.mean())
    standard = 1.96 * np.std(ious.reshape(30, 2).mean(axis=1)) / np.sqrt(30)  # of the mean over pictures
    assert one["half_width"] == pytest.approx(standard, rel=0.15)
    assert f"{100 * one['value']:.1f} ± {100 * one['half_width']:.1f}" in lines[2]
    assert rows["2"]["3 points"]["value"] == pytest.approx(0.9, abs=0.02)


def test_the_table_needs_three_clicks() -> None:
    with pytest.raises(DataError, match="classification of accuracy: has no IoU@1 and IoU@3"):
        sam_table(simulated({"a": 1.0}, 30), ["site"])


def run(*words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main(["audit", "fairness", *words])
    out, err = capsys.readouterr()
    return int(left.value.code or 0), out, err


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(saved(simulated({"a": 0.9, "b": 0.6}), tmp_path / "report"))
    file = tmp_path / "audit.json"
    asked = [folder, "--column", "site", "--positive", "dog", "--resamples", "50"]
    code, out, _ = run(*asked, "-o", str(file), capsys=capsys)
    assert code == 0
    assert "site: accuracy is worst for b, best for a; gap 0.300" in out
    assert "equalized odds difference" in out
    assert "±" not in out
    body = json.loads(file.read_text())
    assert body["fairness"][0]["gaps"]["accuracy"]["real"] is True
    assert body["fairness"][0]["classes"][0]["positive"] == "dog"
    assert json.loads(run(*asked, "--json", capsys=capsys)[1]) == body


def test_the_command_shows_points_where_there_are_clicks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(saved(clicked({"1": (0.5, 0.7, 0.9), "2": (0.6, 0.7, 0.9)}), tmp_path))
    code, out, _ = run(folder, "--column", "skin tone", "--column", "age", "--resamples", "50", capsys=capsys)
    assert code == 0
    assert "1 point      3 points" in out
    assert "±" in out


@pytest.mark.parametrize("words", [["gone"], ["."]])
def test_no_report(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(str(tmp_path / words[0]), "--column", "site", capsys=capsys)
    assert code == 2
    assert err.count("\n") == 1
    assert err.startswith("error: ")
