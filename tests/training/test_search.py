"""Ablation, search, and what is found before a training."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from manylens.errors import ManylensError
from manylens.training.ablate import ALL, BASELINE, Ablation, ablate, variants
from manylens.training.errors import TrainError
from manylens.training.finding import find_batch_size, find_rate
from manylens.training.run import Job
from manylens.training.search import search

SMALL = {"loop.epochs": 3, "loop.batch_size": 8}


@pytest.fixture
def job(stripes, tiny_vit, session):
    return Job.of(stripes, task="classify", model=str(tiny_vit), set=SMALL, session=session)


def test_variants_are_nothing_each_and_all():
    found = variants(["weighted_loss", "smote"])
    assert list(found) == [BASELINE, "weighted_loss", "smote", ALL]
    assert found[ALL] == {"imbalance.loss": "weighted", "imbalance.synthetic": "smote"}
    assert ALL not in variants(["weighted_loss", "focal"])  # two losses cannot be had at once
    with pytest.raises(TrainError, match="did you mean 'weighted_loss'"):
        variants(["weighted_los"])


def test_the_difference_is_paired_by_seed():
    """The seeds differ widely, the gain hardly: an interval of unpaired means would hold zero."""
    base = np.array([0.2, 0.5, 0.8])
    made = Ablation((0, 1, 2), {BASELINE: {"a": base}, "x": {"a": base + np.array([0.09, 0.10, 0.11])}})
    (_, first, none), (_, _, gain) = made.rows("a")
    assert none == ""
    assert first.startswith("0.500 [-0.2")
    assert gain == "+0.100 [+0.075, +0.125]"  # 4.303 * 0.01 / sqrt(3)


def test_an_ablation_trains_each_variant_and_goes_on(job, tmp_path, monkeypatch):
    made = ablate(job, ["weighted_loss", "sampling"], tmp_path, seeds=2)
    assert set(made.figures) == {BASELINE, "weighted_loss", "sampling", ALL}
    assert all(len(values["balanced_accuracy"]) == 2 for values in made.figures.values())
    assert json.loads((tmp_path / "ablation.json").read_text())["seeds"] == [0, 1]
    config = (tmp_path / "sampling" / "seed-1" / "config.yaml").read_text()
    assert "sampling: balanced" in config
    monkeypatch.setattr(Job, "train", lambda *words, **named: pytest.fail("trained again"))
    again = ablate(job, ["weighted_loss", "sampling"], tmp_path, seeds=2)
    assert again.to_json() == made.to_json()
    with pytest.raises(TrainError, match=r"seed-0: .* another config: loop\.epochs is 2, was 3; give what was given"):
        ablate(job.changed({"loop.epochs": 2}), ["weighted_loss", "sampling"], tmp_path, seeds=2)
    other = dataclasses.replace(job, used={**job.used, "hash": "0" * 40})
    with pytest.raises(TrainError, match="the data's hash is 000000000000, was"):
        ablate(other, ["weighted_loss"], tmp_path, seeds=1)


def test_an_ablation_grows(job, tmp_path, monkeypatch):
    """More switches and seeds use what is done; all of them together is another thing with another switch."""
    job = job.changed({"loop.epochs": 1})
    ablate(job, ["sampling", "mixup"], tmp_path, seeds=1)
    trained: list[str] = []

    def train(self, folder, **named):
        trained.append(str(folder.relative_to(tmp_path)))
        return whole(self, folder, **named)

    whole = Job.train
    monkeypatch.setattr(Job, "train", train)
    ablate(job, ["mixup", "sampling"], tmp_path, seeds=1)
    assert not trained
    ablate(job, ["sampling", "mixup", "ema"], tmp_path, seeds=1)
    assert trained == ["ema/seed-0", "ema+mixup+sampling/seed-0"]
    trained.clear()
    ablate(job, ["sampling"], tmp_path, seeds=2)
    assert trained == ["baseline/seed-1", "sampling/seed-1"]


def test_an_interval_of_a_share_stays_within_it():
    values = np.array([0.75, 1.0])
    made = Ablation((0, 1), {BASELINE: {"accuracy": values, "loss": values}, "x": {"accuracy": 1 - values}})
    assert made.rows("accuracy")[0][1] == "0.875 [0.000, 1.000]"
    assert made.rows("accuracy")[1][1:] == ("0.125 [0.000, 1.000]", "-0.750 [-3.927, +2.427]")
    assert Ablation((0, 1), {BASELINE: {"loss": values}}).rows("loss")[0][1] == "0.875 [-0.713, 2.463]"


def test_what_changes_nothing_is_said():
    one, other = {"accuracy": np.array([0.5, 0.6])}, {"accuracy": np.array([0.5, 0.7])}
    figures = {BASELINE: one, "smote": one, "weighted_loss": one, "dropout": one, "mixup": other, ALL: other}
    why = "the classes are as frequent as each other"
    assert Ablation((0, 1), figures, alike=True).notes == [
        f"smote, weighted_loss: change nothing here: {why}",
        "dropout: changes nothing here: every figure is the baseline's",
    ]
    assert Ablation((0, 1), figures).notes == [
        "smote, weighted_loss, dropout: change nothing here: every figure is the baseline's"
    ]
    both = {BASELINE: one, "smote": one, "weighted_loss": one, ALL: one}
    assert Ablation((0, 1), both, alike=True).notes == [f"smote, weighted_loss, {ALL}: change nothing here: {why}"]
    assert not Ablation((0, 1), {BASELINE: one, "mixup": other}, alike=True).notes


def test_classes_alike_have_nothing_to_even_out(stripes, tiny_vit, session, tmp_path):
    few = {**SMALL, "loop.epochs": 1, "data.holdout": 0.25}  # 12 of each class are left
    job = Job.of(stripes, task="classify", model=str(tiny_vit), set=few, session=session)
    made = ablate(job, ["weighted_loss", "smote"], tmp_path / "out", seeds=1)
    assert made.notes == [
        f"weighted_loss, smote, {ALL}: change nothing here: the classes are as frequent as each other"
    ]
    assert json.loads((tmp_path / "out" / "ablation.json").read_text())["notes"] == made.notes


def test_a_search_finds_what_learns_and_goes_on(job, tmp_path):
    space = {"optimiser.lr": {"low": 1e-9, "high": 0.1, "log": True}, "head.kind": ["linear", "mlp"]}
    first = search(job.changed({"search": {"space": space, "trials": 3, "figure": "loss"}}), tmp_path)
    assert len(first.trials) == 3
    made = search(job.changed({"search": {"space": space, "trials": 6, "figure": "loss"}}), tmp_path)
    assert len(made.trials) == 6
    assert [row["value"] for row in made.trials[:3]] == [row["value"] for row in first.trials]
    whole = [row for row in made.trials if row["state"] == "complete"]
    assert made.figure[1] == min(row["value"] for row in whole)
    assert (made.folder / "model" / "config.json").exists()
    cards = [path.parent.parent for path in tmp_path.glob("trial-*/model/README.md")]
    assert made.folder in cards
    assert set(cards) <= {made.folder, first.folder}  # of each best one
    assert f"kind: {made.best['head.kind']}" in made.config.read_text()


@pytest.fixture
def searched(job, tmp_path):
    """A search of one trial, and its folder."""
    mine = job.changed({"loop.epochs": 1, "search": {"space": {"head.kind": ["linear", "mlp"]}, "trials": 1}})
    search(mine, tmp_path / "search")
    return mine, tmp_path / "search"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"loop.epochs": 2}, r"search: a search is there.* another config: loop\.epochs is 2, was 1; give what"),
        ({"search.space": {"head.kind": ["linear"]}}, r"search\.space\.head\.kind is \['linear'\], was"),
        ({"search.figure": "loss"}, r"search\.figure is 'loss', was None"),
    ],
)
def test_a_search_of_something_else_is_refused(searched, changes, says):
    job, folder = searched
    with pytest.raises(TrainError, match=says):
        search(job.changed(changes), folder)


def test_a_search_of_other_data_is_refused_and_of_the_same_elsewhere_is_not(searched):
    job, folder = searched
    moved = job.changed({"data.source": "elsewhere"})
    assert len(search(moved, folder).trials) == 1
    other = dataclasses.replace(job, used={**job.used, "hash": "0" * 40})
    with pytest.raises(TrainError, match="the data's hash is 000000000000, was"):
        search(other, folder)
    (folder / "search.yaml").unlink()
    with pytest.raises(TrainError, match="does not say what it is of"):
        search(job, folder)


def test_a_card_is_written_only_where_it_is_wanted(job, tmp_path):
    made = {"loop.epochs": 1, "record.card": False, "search": {"space": {"head.kind": ["linear"]}, "trials": 1}}
    assert not (search(job.changed(made), tmp_path / "x").folder / "model" / "README.md").exists()


def test_an_error_in_a_trial_is_told_once(job, tmp_path, monkeypatch, capfd, recwarn):
    def broken(*words, **named):
        raise ManylensError("the trial is broken", "mend it")

    monkeypatch.setattr(Job, "train", broken)
    space = {"head.options.features": [["block.3"], ["block.2"]], "loop.epochs": {"low": 1, "high": 8, "step": 4}}
    with pytest.raises(ManylensError, match="the trial is broken"):
        search(job.changed({"head.kind": "mlp", "search": {"space": space}}), tmp_path / "x")
    assert capfd.readouterr() == ("", "")
    assert not [one for one in recwarn if "optuna" in one.filename]


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({}, "has no search.space"),
        ({"space": {"optimiser.rl": [1]}}, r"did you mean optimiser\.lr"),
        ({"space": {"optimiser.lr": 3}}, "is no space"),
        ({"space": {}, "trails": 3}, r"search\.trails"),
        ({"space": {}}, r"search\.space: holds nothing"),
        ({"space": {"optimiser.lr": []}}, r"search\.space 'optimiser\.lr': there is no value to choose; give"),
        ({"space": {"optimiser.lr": {"low": 0.5, "high": 0.1}}}, r"search\.space 'optimiser\.lr': low 0\.5 is above"),
        ({"space": {"optimiser.lr": {"low": 0, "high": 1, "log": True}}}, r"'optimiser\.lr': low 0 is on no log scale"),
        ({"space": {"loop.epochs": {"low": 1, "high": 5, "step": 0}}}, r"'loop\.epochs': step 0 is not above 0"),
        ({"space": {"loop.epochs": {"low": 1, "high": 5, "step": 0.5}}}, r"'loop\.epochs': step 0\.5 is not whole"),
        ({"space": {"loop.epochs": {"low": 1, "high": 5, "step": 2, "log": True}}}, "a log scale has no steps"),
        ({"space": {"loop.epochs": {"low": "few", "high": 5}}}, "low and high are to be numbers"),
        ({"space": {"loop.epochs": {"low": 0, "high": 5}}}, r"search\.space 'loop\.epochs': 0 does not fit"),
        ({"space": {"transfer.mode": ["frozen", "frosen"]}}, r"search\.space 'transfer\.mode': 'frosen' does not fit"),
    ],
)
def test_a_space_that_is_wrong_is_named(job, section, says, tmp_path):
    with pytest.raises(TrainError, match=says):
        search(job.changed({"search": section}), tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_rate_that_yaml_takes_for_text_is_a_number(job, tmp_path):
    space = {"optimiser.lr": {"low": "1e-3", "high": "1e-2", "log": True}}
    made = search(job.changed({"loop.epochs": 1, "search": {"space": space, "trials": 1}}), tmp_path / "x")
    assert 1e-3 <= made.best["optimiser.lr"] <= 1e-2


def test_the_rate_is_where_the_loss_falls(job):
    found = find_rate(job, steps=60)
    assert 1e-5 < found.suggestion < 1
    at = found.rates.index(found.suggestion)
    assert found.losses[at - 3] > found.losses[at + 3]


def test_a_batch_size_is_found_within_the_budget(job):
    found = find_batch_size(job, budget=1 << 40, most=16)
    sizes = [size for size, _, _ in found.rows]
    assert sizes == [1, 2, 4, 8, 16][: len(sizes)]
    assert found.suggestion in sizes
    with pytest.raises(TrainError, match="not even one"):
        find_batch_size(job, budget=1)


def test_no_batch_holds_more_than_there_is(job):
    found = find_batch_size(job, budget=1 << 40)
    assert max(size for size, _, _ in found.rows) <= 38 == job.dataset.splits["train"]
    assert found.steps == 38 // found.suggestion  # an odd rest is left out, as in training
    assert found.to_json()["steps"] == found.steps
    assert find_batch_size(job.changed({"optimiser.accumulate": 100}), budget=1 << 40).steps == 1
