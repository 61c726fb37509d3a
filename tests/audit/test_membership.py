import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu, norm
from sklearn.metrics import roc_auc_score, roc_curve

from manylens import models
from manylens.audit.members import membership, membership_of_splits
from manylens.audit.membership import MembershipTally, audit
from manylens.audit.ranking import Ranking
from manylens.data import Category, Dataset, Record
from manylens.data.problems import DataError
from manylens.evaluation.comparing import compare
from manylens.evaluation.evaluate import evaluate
from manylens.evaluation.intervals import estimates
from manylens.evaluation.slices import slice_by
from manylens.evaluation.tally import RatioTally, Tally, Units
from manylens.media import Image, save_image
from manylens.tasks import Classification, Label
from tests.evaluation.measures.checks import same, survives_a_file
from tests.session.fakes import Fake, row


def tally_of(signal, member, figure="loss", **columns) -> MembershipTally:
    ids = [f"{'member' if one else 'other'}:{i}" for i, one in enumerate(member)]
    return MembershipTally(
        Units("image", ids, ids, columns), np.asarray(member, bool), np.asarray(signal, float), figure
    )


def shifted(shift: float, count: int = 400, seed: int = 0) -> MembershipTally:
    """Members whose signal is higher by a number of standard deviations: the AUC is Phi(shift / sqrt 2)."""
    rng = np.random.default_rng(seed)
    return tally_of(np.concatenate([rng.normal(shift, 1, count), rng.normal(0, 1, count)]), [1] * count + [0] * count)


def weighings(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4, (6, count)).astype(float)


SIGNALS = {
    "spread": np.random.default_rng(1).normal(size=300),
    "many ties": np.random.default_rng(2).integers(0, 5, 300).astype(float),
    "all equal": np.full(300, 0.1 + 0.2),
}


@pytest.mark.parametrize("signal", SIGNALS.values(), ids=list(SIGNALS))
def test_figures_are_those_of_scikit_learn_under_any_weighting(signal) -> None:
    member = np.random.default_rng(3).random(300) < 0.4
    weights = np.random.default_rng(4).random((5, 300)) * 3
    found = tally_of(signal, member).figures(weights)
    for i, weight in enumerate(weights):
        assert found["AUC"][i] == pytest.approx(roc_auc_score(member, signal, sample_weight=weight))
        fpr, tpr, _ = roc_curve(member, signal, sample_weight=weight, drop_intermediate=False)
        for name, rate in (("TPR at 1 % FPR", 0.01), ("TPR at 0.1 % FPR", 0.001)):
            assert found[name][i] == pytest.approx(tpr[fpr <= rate].max())
        assert found["advantage"][i] == pytest.approx((tpr - fpr).max(), abs=1e-12)
        assert found["balanced accuracy"][i] == pytest.approx((1 + (tpr - fpr).max()) / 2)
        mean = np.average(signal[member], weights=weight[member])
        others = np.average(signal[~member], weights=weight[~member])
        assert found["gap"][i] == pytest.approx(mean - others, abs=1e-12)
        told = signal >= mean - 1e-9
        rates = [np.average(told[group], weights=weight[group]) for group in (member, ~member)]
        assert found["accuracy at mean"][i] == pytest.approx((1 + rates[0] - rates[1]) / 2)


@pytest.mark.parametrize("signal", [SIGNALS["spread"], SIGNALS["many ties"]], ids=["spread", "many ties"])
def test_the_rank_test_is_that_of_scipy(signal) -> None:
    positive = np.arange(300) % 3 == 0
    (z,) = Ranking.of(signal, positive, np.ones((1, 300))).z()
    right = mannwhitneyu(signal[positive], signal[~positive], use_continuity=False, method="asymptotic")
    assert 2 * norm.sf(abs(z)) == pytest.approx(right.pvalue)
    assert np.sign(z) == np.sign(right.statistic - 100 * 200 / 2)


def test_a_value_at_the_threshold_is_told_positive() -> None:
    ranking = Ranking.of(np.array([3.0, 2, 1]), np.array([False, True, False]), np.ones((3, 3)))
    assert ranking.advantage_at(np.array([2.0, 2.5, 1])) == pytest.approx([0.5, -0.5, 0])


@pytest.mark.parametrize("value", [0.1, 0.0, -0.7])
def test_members_that_are_all_equal_are_told_at_their_mean(value: float) -> None:
    member = np.arange(60) < 40
    found = tally_of(np.where(member, value, value - 1), member).figures(np.random.default_rng(0).random((200, 60)))
    assert (found["accuracy at mean"] == 1).all()


def test_a_rate_that_is_asked_for_is_never_gone_over() -> None:
    # 100 others allow one false alarm at 1 %; the second highest other lies above the member at 0.5.
    others = np.concatenate([[0.9, 0.6], np.zeros(98)])
    found = tally_of([0.95, 0.7, 0.5, 0.1, *others], [1] * 4 + [0] * 100).all()
    assert found["TPR at 1 % FPR"] == 0.5
    assert found["TPR at 0.1 % FPR"] == 0.25


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans(), st.integers(0, 3)), min_size=2, max_size=30))
@settings(max_examples=60, deadline=None)
def test_a_whole_weight_repeats_a_unit(rows) -> None:
    signal, member, counts = (np.array(column) for column in zip(*rows, strict=True))
    weighed = tally_of(signal, member).figures(counts[np.newaxis].astype(float))
    repeated = tally_of(np.repeat(signal, counts), np.repeat(member, counts))
    same(weighed, repeated.figures(np.ones((1, len(repeated.units)))))


def test_order_and_blocks_do_not_matter() -> None:
    tally, order = shifted(0.5, 60), np.random.default_rng(0).permutation(120)
    turned = tally_of(tally.signal[order], tally.member[order])
    weights = weighings(120)
    together = tally.figures(weights)
    same(together, turned.figures(weights[:, order]))
    for i, weight in enumerate(weights):
        same({name: values[i : i + 1] for name, values in together.items()}, tally.figures(weight[None]))


@pytest.mark.parametrize("gone", ["members", "others", "both"])
def test_without_a_group_nothing_is_defined(gone: str) -> None:
    tally = shifted(1, 10)
    weights = np.where(tally.member, gone == "others", gone == "members").astype(float)
    found = tally.figures(np.stack([weights, weights]))
    assert all(np.isnan(values).all() and values.shape == (2,) for values in found.values())


@pytest.mark.parametrize(("shift", "level"), [(0.0, "none"), (0.3, "weak"), (2.0, "strong"), (-0.5, "unlike groups")])
def test_made_data_is_told_for_what_it_is(shift: float, level: str) -> None:
    found = audit(shifted(shift), resamples=300)
    auc = found.figures["AUC"]
    assert auc.low <= norm.cdf(shift / np.sqrt(2)) <= auc.high
    assert found.level == level
    assert found.figures["gap"].value == pytest.approx(shift, abs=0.2)


def test_a_few_that_are_told_surely_count_though_the_mean_does_not() -> None:
    tally = shifted(0.0, 500)
    signal = tally.signal.copy()
    signal[:75] = 10 + np.arange(75)  # 15 % of the members stand out; the rest are lowered to keep the area
    signal[75:500] -= 0.35
    found = audit(tally_of(signal, tally.member), resamples=200)
    assert found.figures["AUC"].value < 0.55
    assert found.figures["TPR at 1 % FPR"].value >= 0.15
    assert found.level == "strong"


def test_no_evidence_where_there_is_none_in_nearly_all_of_many_audits() -> None:
    levels = [audit(shifted(0.0, 120, seed), resamples=100).level for seed in range(40)]
    assert sum(level in ("weak", "strong") for level in levels) <= 4


def test_too_few_are_said_to_be() -> None:
    found = audit(shifted(3, 12), resamples=50)
    assert found.level == "too few"
    assert "12 members and 12 others" in found.verdict
    assert [note for note in found.notes if "needs 100 others" in note]


def test_the_most_exposed_come_first() -> None:
    tally = tally_of([5, 1, 3, 4, 2, 1], [1, 1, 1, 0, 0, 0])
    assert [one.id for one in tally.exposed()] == ["0", "2", "1"]
    assert [one.alarms for one in tally.exposed()] == pytest.approx([0, 1 / 3, 1])  # 1 is also what an other has
    assert np.isnan(tally.scores()[3:]).all()


def test_slices_and_comparisons_work_on_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    site = np.where(np.arange(400) % 2, "a", "b").tolist()
    member = np.arange(400) < 200
    leaking = rng.normal(size=400) + member * np.where(np.arange(400) % 2, 2.0, 0.0)
    tally = tally_of(leaking, member, site=site)
    sliced = slice_by(tally, "site", resamples=100)
    values = {group.name: group.figures["AUC"].value for group in sliced.groups}
    assert values["a"] > 0.85
    assert values["b"] < 0.6
    assert sliced.gaps["AUC"].worst == "a"  # the less is told, the better
    private = tally_of(rng.normal(size=400), member, site=site)
    assert compare(tally, private, resamples=100).differences["AUC"].better == "b"
    survives_a_file(tally, tmp_path)


def test_a_saved_tally_loads_where_nothing_was_imported(tmp_path: Path) -> None:
    import subprocess
    import sys

    shifted(0, 5).save(tmp_path / "t.npz")
    code = f"from manylens.evaluation.tally import Tally; print(Tally.load({str(tmp_path / 't.npz')!r}).measure)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "membership", done.stderr


def test_the_interval_knows_of_both_groups() -> None:
    rng = np.random.default_rng(0)
    signal = np.concatenate([rng.normal(size=1000), rng.normal(size=30)])
    found = estimates(tally_of(signal, np.arange(1030) < 1000), resamples=400)["AUC"]
    right = np.sqrt(1 / (12 * 30) + 1 / (12 * 1000))
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(right, rel=0.2)


# ---------------------------------------------------------------------- where groups come from


def numbers(tmp_path: Path, name: str, column: str, values, ids: bool = True) -> Path:
    rows = [f"{name}{i},{value}" if ids else f"{value}" for i, value in enumerate(values)]
    path = tmp_path / f"{name}.csv"
    path.write_text("\n".join([f"id,{column}" if ids else column, *rows]) + "\n")
    return path


def test_losses_from_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    one = numbers(tmp_path, "train", "loss", rng.exponential(1, 200))
    other = numbers(tmp_path, "val", "loss", rng.exponential(2, 200), ids=False)
    found = membership(one, other, resamples=100)
    assert found.figures["AUC"].value == pytest.approx(2 / 3, abs=0.05)  # of two exponentials: 2 / (2 + 1)
    assert found.figures["gap"].value == pytest.approx(1, abs=0.4)
    assert (found.members, found.others) == ("train.csv", "val.csv")
    assert found.tally.figure == "loss"


def test_what_is_no_number_is_left_out_and_named(tmp_path: Path) -> None:
    one = numbers(tmp_path, "train", "score", [0.5, "nan", "", "x", "inf", 0.7])
    found = membership(one, {"a": 0.1, "b": 0.2}, resamples=0)
    assert len(found.tally.units) == 4
    assert [problem.id for problem in found.problems] == ["train1", "train2", "train3", "train4"]
    assert found.problems.counts == {"NaN score": 4}
    with pytest.raises(DataError, match="train1: its score is not a number"):
        membership(one, {"a": 0.1}, strict=True)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "holds no row"),
        ("id,confidence\na,1\n", "has no column loss or score"),
        ("id,loss\na,1\na,2\n", "1 ids occur twice"),
        ("id,loss\na,nan\n", "no unit with a number"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "x.csv").write_text(content)
    with pytest.raises(DataError, match=said):
        membership(tmp_path / "x.csv", {"a": 0.5}, figure="loss")


def test_groups_that_share_no_figure(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no shared figure"):
        membership(numbers(tmp_path, "a", "loss", [1]), numbers(tmp_path, "b", "score", [1]))
    units = Units("image", ["a"], ["a"])
    one, other = (RatioTally.of_values(units, {name: [0.5]}) for name in ("IoU", "CER"))
    with pytest.raises(DataError, match="ratios has IoU score of images; ratios has CER score of images"):
        membership(one, other)
    with pytest.raises(DataError, match="does not exist"):
        membership(tmp_path / "nothing", one)


def test_a_tally_without_scores_is_refused() -> None:
    class Mute(Tally):
        main = "x"

        def figures(self, weights):
            return {"x": weights.sum(axis=1)}

    with pytest.raises(DataError, match="has no score for each image"):
        membership(Mute(Units("image", ["a"], ["a"])), {"a": 1.0})


class Parrot(Fake):
    """Is sure of what it saw, and guesses otherwise: its training pictures have an even first pixel."""

    def _answer(self, asked, ctx):
        seed = int(asked.image.array[0, 0, 0])
        sure = 0.95 if seed % 2 == 0 else float(np.random.default_rng(asked.image.array.ravel()).uniform(0.2, 0.8))
        truth = "bright" if asked.image.array.mean() > 127 else "dark"
        other = {"bright": "dark", "dark": "bright"}[truth]
        return Classification(tuple(sorted((Label(truth, sure), Label(other, 1 - sure)), key=lambda one: -one.score)))


@pytest.fixture
def session(make_session, monkeypatch):
    made = make_session(row("a", tasks="classify = ['names', 'closed']"))
    monkeypatch.setitem(models.FAMILIES, "fake", "tests.audit.test_membership:Parrot")
    return made


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    rng = np.random.default_rng(0)
    records = []
    for number in range(80):
        pixels = rng.integers(150 if number % 2 else 20, 220 if number % 2 else 100, (8, 8, 3)).astype(np.uint8)
        pixels[0, 0, 0] = 100 + (number >= 40)
        save_image(Image.of(pixels), tmp_path / f"{number}.png")
        label, split = ("bright" if number % 2 else "dark"), ("train" if number < 40 else "val")
        records.append(Record(str(number), tmp_path / f"{number}.png", 8, 8, label=label, split=split))
    return Dataset.of(records, [Category(1, "bright"), Category(2, "dark")], name="lamps")


def test_two_splits_measured_here_and_from_reports(session, data: Dataset, tmp_path: Path) -> None:
    here = membership_of_splits(data, task="classify", session=session, resamples=100)
    assert here.level == "strong"
    assert here.figures["AUC"].value == 1  # surer of every member than of any other
    assert (here.members, here.others, here.model) == ("lamps train", "lamps val", "manylens/a")
    for split in ("train", "val"):
        evaluate(data, task="classify", split=split, session=session, out=tmp_path / split, resamples=0)
    saved = membership(tmp_path / "train", tmp_path / "val", resamples=100)
    assert saved.to_json() == here.to_json()
    with pytest.raises(DataError, match="are the same data"):
        membership(tmp_path / "train", tmp_path / "train")
    with pytest.raises(DataError, match="both groups are this split"):
        membership_of_splits(data, task="classify", session=session, other_split="train")


def test_what_stands_in_both_groups_of_one_data_set_is_left_out(session, data: Dataset, tmp_path: Path) -> None:
    parts = {"train": [str(i) for i in range(45)], "val": [str(i) for i in range(40, 80)]}
    for name, ids in parts.items():
        evaluate(data.select(ids=ids), task="classify", session=session, out=tmp_path / name, resamples=0)
    found = membership(tmp_path / "train", tmp_path / "val", resamples=0)
    assert found.problems.counts == {"in both groups": 10}
    assert (int(found.tally.member.sum()), len(found.tally.units)) == (40, 75)


def test_ids_of_two_data_sets_are_not_taken_for_one() -> None:
    found = membership({"1": 0.9, "2": 0.8}, {"1": 0.1, "3": 0.2}, resamples=0)
    assert len(found.tally.units) == 4
    assert any("1 stands in both groups: taken for different pictures" in note for note in found.notes)


def test_the_report(tmp_path: Path) -> None:
    found = audit(shifted(1.0, 150), model="manylens/a", resamples=50)
    found.save(tmp_path)
    body = json.loads((tmp_path / "membership.json").read_text())
    assert body["level"] == "strong"
    assert len(body["exposed"]) == 12
    assert any("does not prove privacy" in note for note in body["notes"])
    low = body["details"]["curve at few false alarms"]["lines"]["attack"]
    assert low["x"][0] == pytest.approx(np.log10(1 / 150), abs=1e-5)
    assert low["x"][-1] == 0
    assert low["y"] == sorted(low["y"])
    page = (tmp_path / "membership.html").read_text()
    assert "Strong evidence that members can be told" in page
    assert page.count("<svg") == 1 + 2
    assert Tally.load(tmp_path / "tally.npz").all() == found.tally.all()
