"""Ensembles end to end: what votes and with what weight, what is held out, what resuming trains, what is refused."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from manylens.data import Dataset, Record
from manylens.errors import UserError
from manylens.media import Image
from manylens.models.adapted import bundle
from manylens.models.adapted.ensemble import Member
from manylens.models.adapted.heads import readout
from manylens.models.adapted.heads.vector import Standardised
from manylens.models.adapted.picture import square
from manylens.tasks import ClassifyRequest, SegmentRequest
from manylens.training.ensemble.jury import _right, fitted
from manylens.training.ensembling import Ensembled, ensemble
from manylens.training.errors import TrainError
from manylens.training.loop import running
from manylens.training.loop.fit import Fit
from manylens.training.recipes.classify import Classify
from manylens.training.run import Job
from tests.training.dense import made_up

SMALL = {"loop.epochs": 4, "loop.batch_size": 8, "optimiser.lr": 0.01, "ensemble.members": 3}
CLASSES = ("lying", "slanted", "standing")


def job(data, tiny_vit, session, kind, task="classify", **changes) -> Job:
    given = {**SMALL, "ensemble.kind": kind, **{key.replace("__", "."): value for key, value in changes.items()}}
    return Job.of(data, task=task, model=str(tiny_vit), session=session, set=given)


def run(data, tiny_vit, session, out, kind, resume=False, **changes) -> Ensembled:
    asked = job(data, tiny_vit, session, kind, **changes)
    made = asked.run(out, resume) if kind else ensemble(asked, out, resume)
    assert isinstance(made, Ensembled)
    return made


def scores(session, path, model) -> np.ndarray:
    found = {one.name: one.score for one in session.run(ClassifyRequest.of(image=path), model=str(model)).labels}
    return np.array([found[name] for name in CLASSES])


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All that the model in a folder is made of, by member and name."""
    found = {}
    for path in sorted(folder.rglob("model.safetensors")):
        for name, one in load_file(path).items():
            found[f"{path.parent.relative_to(folder)} {name}"] = one
    return found


def paths(stripes: Path) -> dict[str, tuple[Path, str]]:
    """File and class of each picture by its id."""
    return {one.id: (one.path, one.label) for one in Dataset.read(stripes).records()}


class Killed(BaseException):
    """Stands for a signal: no ``except Exception`` catches it."""


VOTES = {
    "folds": {},
    "vote": {"transfer__mode": "partial", "imbalance__loss": "post_hoc"},
    "snapshots": {"transfer__mode": "lora", "transfer__lora": {"rank": 2}},
}


@pytest.mark.parametrize("kind", VOTES)
def test_the_model_is_the_weighted_vote_of_its_members(kind, stripes, tiny_vit, session, tmp_path):
    made = run(stripes, tiny_vit, session, tmp_path / "run", kind, **VOTES[kind])
    config = json.loads((made.model / "config.json").read_text())
    rows = config["details"]["members"]
    assert config["architectures"] == ["AdaptedEnsemble"]
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    assert {row["name"]: row["share"] for row in rows} == {one["name"]: one["share"] for one in made.members}
    for path, _ in list(paths(stripes).values())[::12]:
        each = [scores(session, path, made.model / "members" / row["name"]) for row in rows]
        assert max(np.ptp(column) for column in np.array(each).T) > 1e-4
        expected = sum(row["share"] * one for row, one in zip(rows, each, strict=True))
        for name in (made.folder, made.model):
            np.testing.assert_allclose(scores(session, path, name), expected, atol=1e-5)
    record = json.loads((made.folder / "run.json").read_text())
    assert record["state"] == "done"
    assert record["figures"] == made.figures
    assert record["base"]["weights"]
    assert record["members"] == made.members
    card = (made.model / "README.md").read_text()
    assert f"An ensemble by `{kind}`" in card
    assert all(f"| {row['name']} | {row['share']:.3f} |" in card for row in rows)
    assert all(f"| {name} | {value:.4g} |" in card for name, value in made.figures.items())
    assert "number 0" not in card


def test_no_member_of_folds_sees_what_it_holds_out(stripes, tiny_vit, session, tmp_path, monkeypatch):
    shown, measured = defaultdict(set), []
    step, measure = Fit.training_step, Standardised.measure

    def stepped(self, given, number):
        folder = Path(self.trainer.default_root_dir).name
        shown[folder] |= set(self._source.ids(given[1].draws))
        return step(self, given, number)

    def validated(self, given, number):
        raise AssertionError("a fold has no validation that could choose an epoch")

    monkeypatch.setattr(Fit, "training_step", stepped)
    monkeypatch.setattr(Fit, "validation_step", validated)
    monkeypatch.setattr(Standardised, "measure", lambda self, rows: measured.append(len(rows)) or measure(self, rows))
    run(stripes, tiny_vit, session, tmp_path / "run", "folds")
    held = json.loads((tmp_path / "run" / "folds.json").read_text())
    known = paths(stripes)
    assert held.keys() == known.keys()
    for number in (1, 2, 3):
        mine = {id for id, fold in held.items() if fold == number}
        assert set(Counter(known[id][1] for id in mine).values()) <= {5, 6}  # 16 of each class
        assert shown[f"fold-{number}"] == known.keys() - mine
        assert measured[number - 1] == len(known) - len(mine)
        record = json.loads((tmp_path / "run" / "members" / f"fold-{number}" / "run.json").read_text())
        assert record["data"]["fold"] == number
        assert record["data"]["records"] == len(known) - len(mine)


def test_the_figures_of_folds_are_of_what_was_held_out(stripes, tiny_vit, session, tmp_path):
    made = run(stripes, tiny_vit, session, tmp_path / "run", "folds", transfer__mode="partial")
    held = json.loads((tmp_path / "run" / "folds.json").read_text())
    right, likely = defaultdict(list), defaultdict(list)
    for id, (path, label) in paths(stripes).items():
        found = scores(session, path, tmp_path / "run" / "members" / f"fold-{held[id]}")
        right[held[id]].append(CLASSES[found.argmax()] == label)
        likely[held[id]].append(np.log(found[CLASSES.index(label)]))
    assert made.figures["accuracy"] == pytest.approx(np.concatenate([*right.values()]).mean(), abs=1e-6)
    assert made.figures["loss"] == pytest.approx(-np.concatenate([*likely.values()]).mean(), abs=1e-4)
    weights = np.array([np.exp(np.mean(likely[number])) for number in (1, 2, 3)])
    assert [one["share"] for one in made.members] == pytest.approx(weights / weights.sum(), abs=1e-4)
    for number, one in enumerate(made.members, 1):
        assert one["figures"]["accuracy"] == pytest.approx(np.mean(right[number]), abs=1e-6)
    assert any("held out" in note for note in made.notes)


def test_the_jury_judges_a_member_as_its_training_did(stripes, tiny_vit, session, tmp_path):
    """With what the loss adds to the answer, which the saved head has in its numbers and must not get twice."""
    for mode in ("frozen", "lora"):
        changes = {"transfer__mode": mode, "imbalance__loss": "post_hoc", "regularise__cutmix": 0.5}
        made = run(stripes, tiny_vit, session, tmp_path / mode, "vote", **changes)
        for one in made.members:
            record = json.loads((tmp_path / mode / "members" / one["name"] / "run.json").read_text())
            assert one["figures"] == pytest.approx(record["figures"], abs=1e-4)


def test_the_figures_of_a_vote_are_of_pictures_that_no_share_was_fitted_on(
    stripes, tiny_vit, session, tmp_path, monkeypatch
):
    from manylens.training.ensemble import joining

    def told(rights, owners, parts):
        """The member that the number of a part names has all of the vote there; the whole model is the first one."""
        told.parts = parts
        return np.eye(3)[0], [np.eye(3)[part % 3] for part in range(int(parts.max()) + 1)]

    monkeypatch.setattr(joining, "fitted", told)
    made = run(stripes, tiny_vit, session, tmp_path / "run", "vote", head__kind="mlp")
    val = job(stripes, tiny_vit, session, "vote").dataset.select(split="val")
    right = []
    for record, part in zip(val.records(), told.parts, strict=True):
        found = scores(session, record.path, tmp_path / "run" / "members" / f"seed-{part % 3}")
        right.append(CLASSES[found.argmax()] == record.label)
    assert len(set(told.parts.tolist())) == 5
    assert made.figures["accuracy"] == pytest.approx(np.mean(right), abs=1e-6)
    assert [one["share"] for one in made.members] == [1, 0, 0]
    assert [path.name for path in (made.model / "members").iterdir()] == ["seed-0"]
    assert sum("left out" in note for note in made.notes) == 2


RESUMED = {
    "folds": ({}, 2, ["fold-2", "fold-3"]),
    "greedy-soup": ({"regularise__dropout": 0.2}, 2, ["seed-1", "seed-2"]),
    "snapshots": ({"loop__epochs": 6}, 0.5, ["cycles"]),
}


@pytest.mark.parametrize("kind", RESUMED)
def test_resuming_trains_only_what_is_not_done(kind, stripes, tiny_vit, session, tmp_path, monkeypatch):
    changes, killed, left = RESUMED[kind]
    fit, loss, trained, steps = running.fit, Classify.loss, [], []

    def counted(recipe, config, folder, **more):
        trained.append(folder.name)
        return fit(recipe, config, folder, **more)

    monkeypatch.setattr(running, "fit", counted)
    monkeypatch.setattr(Classify, "loss", lambda self, *given: steps.append(1) or loss(self, *given))
    whole = run(stripes, tiny_vit, session, tmp_path / "whole", kind, **changes)
    assert len(trained) == (1 if kind == "snapshots" else 3)
    last = int(len(steps) * (killed / 3 if killed > 1 else killed)) - 3
    trained.clear()
    steps.clear()

    def dies(self, *given):
        steps.append(1)
        if len(steps) > last:
            raise Killed
        return loss(self, *given)

    monkeypatch.setattr(Classify, "loss", dies)
    with pytest.raises(Killed):
        run(stripes, tiny_vit, session, tmp_path / "part", kind, **changes)
    monkeypatch.setattr(Classify, "loss", loss)
    assert json.loads((tmp_path / "part" / "run.json").read_text())["state"] == "stopped"
    trained.clear()
    with pytest.raises(TrainError, match="a run is there already"):
        run(stripes, tiny_vit, session, tmp_path / "part", kind, **changes)
    again = run(stripes, tiny_vit, session, tmp_path / "part", kind, resume=True, **changes)
    assert trained == left
    first, second = tensors(whole.model), tensors(again.model)
    assert first
    assert first.keys() == second.keys()
    for key, one in first.items():
        torch.testing.assert_close(second[key], one, rtol=0, atol=1e-5)
    assert again.figures == pytest.approx(whole.figures, abs=1e-5)
    for one, other in zip(whole.members, again.members, strict=True):
        assert one["share"] == pytest.approx(other["share"], abs=1e-5)
        assert one["figures"] == pytest.approx(other["figures"], abs=1e-5)

    trained.clear()
    run(stripes, tiny_vit, session, tmp_path / "part", kind, resume=True, **changes)
    assert trained == []
    with pytest.raises(TrainError, match=r"another config: ensemble\.members is 2, was 3"):
        run(stripes, tiny_vit, session, tmp_path / "part", kind, resume=True, **{**changes, "ensemble__members": 2})


def test_all_of_a_soup_begin_with_the_same_weights_and_go_other_ways(stripes, tiny_vit, session, tmp_path, monkeypatch):
    loss = Classify.loss
    starts = {}

    def first(self, batch, step):
        key = self.config.ensemble.members, self.config.seed
        if key not in starts:
            state = {name: one.detach().clone() for name, one in self.network.state_dict().items()}
            starts[key] = state, batch["target"]
        return loss(self, batch, step)

    monkeypatch.setattr(Classify, "loss", first)
    lora = {"transfer__mode": "lora", "loop__epochs": 1}
    run(stripes, tiny_vit, session, tmp_path / "soup", "soup", **lora)
    run(stripes, tiny_vit, session, tmp_path / "vote", "vote", **lora, ensemble__members=2)
    one, two, three = (starts[3, seed] for seed in (0, 1, 2))
    assert any("lora_A" in name for name in one[0])
    for other in (two, three):
        assert all(torch.equal(other[0][name], value) for name, value in one[0].items())
        assert not torch.equal(one[1], other[1])
    voters = [starts[2, seed][0] for seed in (0, 1)]
    assert not all(torch.equal(voters[0][name], value) for name, value in voters[1].items())
    saved = tensors(tmp_path / "soup" / "members" / "seed-0" / "model")
    other = tensors(tmp_path / "soup" / "members" / "seed-1" / "model")
    assert not all(torch.equal(other[name], value) for name, value in saved.items())


SOUPS = {"soup": {}, "greedy-soup": {"transfer__mode": "lora", "imbalance__loss": "post_hoc"}}


@pytest.mark.parametrize("kind", SOUPS)
def test_a_soup_is_the_mean_of_weights(kind, stripes, tiny_vit, session, tmp_path):
    changes = {"head__kind": "mlp", "loop__monitor": "loss", **SOUPS[kind]}
    made = run(stripes, tiny_vit, session, tmp_path / "run", kind, **changes)
    saved = load_file(made.model / "model.safetensors")
    each = [
        load_file(tmp_path / "run" / "members" / one["name"] / "model" / "model.safetensors") for one in made.members
    ]
    shares = [one["share"] for one in made.members]
    assert sum(shares) == pytest.approx(1)
    for name, value in saved.items():
        mean = sum(share * state[name].double().numpy() for share, state in zip(shares, each, strict=True))
        np.testing.assert_allclose(value.numpy(), mean, atol=1e-6)
    assert ("encoder." in "".join(saved)) == (kind == "greedy-soup")
    config = json.loads((made.model / "config.json").read_text())
    assert config["architectures"] == ["AdaptedClassifier"]  # one model, as fast as any
    val = job(stripes, tiny_vit, session, kind).dataset.select(split="val")
    right = [CLASSES[scores(session, one.path, made.folder).argmax()] == one.label for one in val.records()]
    assert made.figures["accuracy"] == pytest.approx(np.mean(right), abs=1e-6)
    if kind == "greedy-soup":
        assert made.figures["loss"] <= min(one["figures"]["loss"] for one in made.members) + 1e-6


def test_what_one_ingredient_left_as_it_was_is_the_base_models(stripes, tiny_vit, session, tmp_path):
    changes = {"transfer__mode": "partial", "transfer__train_blocks": 1, "ensemble__members": 2}
    run(stripes, tiny_vit, session, tmp_path / "run", "soup", **changes)
    places = [tmp_path / "run" / "members" / f"seed-{seed}" / "model" / "model.safetensors" for seed in (0, 1)]
    each = [load_file(place) for place in places]
    save_file({name: one for name, one in each[0].items() if name.startswith("head.")}, places[0], {"format": "pt"})
    made = run(stripes, tiny_vit, session, tmp_path / "run", "soup", resume=True, **changes)
    saved = load_file(made.model / "model.safetensors")
    assert saved.keys() == each[1].keys()
    with session.module(str(tiny_vit)) as opened:
        state = opened.module.state_dict()
    for name, value in saved.items():
        first = state[name.removeprefix("encoder.")] if name.startswith("encoder.") else each[0][name]
        torch.testing.assert_close(value, (first + each[1][name]) / 2)


@pytest.mark.parametrize("figure", ["loss", "accuracy"])
def test_a_greedy_soup_leaves_a_spoiled_ingredient_out(figure, stripes, tiny_vit, session, tmp_path, monkeypatch):
    save = Classify.save

    def spoiled(self, folder):
        if self.config.seed == 0:
            with torch.no_grad():
                self.head.classes.weight.neg_().mul_(5)
        save(self, folder)

    monkeypatch.setattr(Classify, "save", spoiled)
    changes = {"loop__monitor": figure, "loop__epochs": 10}
    made = run(stripes, tiny_vit, session, tmp_path / "greedy", "greedy-soup", **changes)
    own = [one["figures"][figure] for one in made.members]
    best = min(own) if figure == "loss" else max(own)
    assert made.members[0]["share"] == 0
    assert (made.figures[figure] <= best + 1e-6) if figure == "loss" else (made.figures[figure] >= best - 1e-6)
    plain = run(stripes, tiny_vit, session, tmp_path / "plain", "soup", **changes)
    assert [one["share"] for one in plain.members] == pytest.approx([1 / 3] * 3)
    assert plain.figures["loss"] > made.figures["loss"]


def test_snapshots_are_the_ends_of_the_cycles_of_one_training(stripes, tiny_vit, session, tmp_path, monkeypatch):
    states, rates = [], []
    step = Fit.optimizer_step

    def stepped(self, epoch, batch_idx, optimizer, *more, **others):
        rates.append(optimizer.param_groups[0]["lr"])
        step(self, epoch, batch_idx, optimizer, *more, **others)
        states.append(self.network.head.classes.weight.detach().clone())

    monkeypatch.setattr(Fit, "optimizer_step", stepped)
    changes = {"loop__epochs": 6, "schedule__warmup": 0.5}
    made = run(stripes, tiny_vit, session, tmp_path / "run", "snapshots", **changes)
    ends = [number for number in range(len(rates) - 1) if rates[number + 1] > rates[number]] + [len(rates) - 1]
    assert len(rates) == 6 * 4  # 38 pictures, 8 at a time
    assert ends == [7, 15, 23]
    for number, end in enumerate(ends, 1):
        assert rates[end] < 0.05 * max(rates)
        saved = load_file(tmp_path / "run" / "members" / f"cycle-{number}" / "model.safetensors")
        assert torch.equal(saved["head.classes.weight"], states[end])
    assert made.epochs == 6
    assert [one["name"] for one in made.members] == ["cycle-1", "cycle-2", "cycle-3"]


def test_without_validation_all_count_alike_and_there_are_no_figures(stripes, tiny_vit, session, tmp_path):
    for kind in ("vote", "soup"):
        made = run(stripes, tiny_vit, session, tmp_path / kind, kind, data__holdout=0, loop__epochs=1)
        assert made.figures == {}
        assert [one["share"] for one in made.members] == pytest.approx([1 / 3] * 3)
        assert any("no validation split" in note for note in made.notes)
        assert scores(session, next(iter(paths(stripes).values()))[0], made.folder).sum() == pytest.approx(1)


@pytest.fixture(scope="module")
def discs(tmp_path_factory) -> Dataset:
    """Pictures of discs and bars, with masks."""
    found = made_up.records(12, tmp_path_factory.mktemp("discs"), side=28)
    return Dataset.of(found, categories=made_up.CATEGORIES, name="discs")


@pytest.mark.parametrize("kind", ["folds", "vote"])
def test_segmenters_vote_on_pixels(kind, discs, tiny_vit, session, tmp_path):
    changes = {"task": "segment", "data__check": False, "loop__batch_size": 4}
    made = run(discs, tiny_vit, session, tmp_path / "run", kind, **changes)
    rows = json.loads((made.model / "config.json").read_text())["details"]["members"]
    assert len(rows) == 3
    assert {"miou", "pixel_accuracy", "loss"} <= made.figures.keys()
    record = next(iter(discs.records()))
    image = Image.of(record.path)
    pixels = torch.from_numpy(square(image.array, 28).copy()).permute(2, 0, 1)[None].float() / 255
    mean = 0.0
    for row in rows:
        one = Member.of(made.model / "members" / row["name"], row["name"], row["share"])
        with session.module(str(tiny_vit)) as opened, torch.no_grad():
            logits = bundle.assemble(one.spec, opened, one.files, one.name)(pixels)["logits"]
        mean = mean + row["share"] * logits.softmax(dim=1).numpy()
    classes, _ = readout.class_map(np.log(mean[0]), image.size)
    ground = one.spec.details["ground"]
    answer = session.run(SegmentRequest.of(image=image, mode="semantic"), model=str(made.folder))
    said = np.full(classes.shape, ground)
    for mask, number in zip(answer.mask, answer.class_id, strict=True):
        said[mask] = number
    assert (said == classes).mean() > 0.999
    for one in made.members:
        folder = tmp_path / "run" / "members" / one["name"]
        record = json.loads((folder / "run.json").read_text())
        if kind == "vote":
            assert one["figures"] == pytest.approx(record["figures"], abs=1e-3)


def test_how_likely_a_segmenter_finds_what_is_right_is_asked_of_pixels():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 3, 4, 4), torch.randint(-1, 3, (2, 8, 8))
    labels[1] = -1  # not judged
    rows = _right({"labels": labels}, logits)
    likely = torch.nn.functional.interpolate(logits, size=(8, 8), mode="bilinear").softmax(dim=1)
    expected = [likely[0, labels[0, y, x], y, x] for y in range(8) for x in range(8) if labels[0, y, x] >= 0]
    torch.testing.assert_close(rows[0], torch.stack(expected))
    assert len(rows[1]) == 0
    many = _right({"labels": torch.zeros(1, 64, 64, dtype=torch.int64)}, logits[:1])
    assert 256 <= len(many[0]) < 512


def test_few_pictures_fit_little_and_many_fit_much():
    random = np.random.default_rng(0)
    for count, least, most in ((6, 0.34, 0.6), (2000, 0.95, 1.0)):
        rights = np.stack([random.uniform(0.6, 0.9, count), *random.uniform(0.2, 0.5, (2, count))])
        shares, of_parts = fitted(rights, np.arange(count), np.arange(count) % 5)
        assert shares.sum() == pytest.approx(1)
        assert least < shares[0] < most
        assert len(of_parts) == 5


def test_shares_of_a_part_know_nothing_of_it():
    """Of the last part the worst model tells everything; its shares there must be those of the other parts."""
    rights = np.full((2, 500), 0.4)
    rights[0, :400], rights[1, 400:] = 0.9, 1.0
    parts = np.arange(500) // 100
    shares, of_parts = fitted(rights, np.arange(500), parts)
    assert of_parts[4][0] > 0.9
    assert shares[0] < of_parts[4][0]


def test_shares_that_are_no_better_than_equal_ones_are_equal():
    """Each is right in two and a half of five parts: what four parts say of them is wrong of the fifth."""
    numbers = np.arange(200)
    parts = numbers % 5
    first = (parts < 2) | ((parts == 2) & (numbers < 100))
    rights = np.where(np.stack([first, ~first]), 0.9, 0.1)
    shares, of_parts = fitted(rights, numbers, parts)
    alone, _ = fitted(rights[:, :1], np.zeros(1, np.int64), np.zeros(1, np.int64))
    assert shares.tolist() == [0.5, 0.5] == of_parts[0].tolist() == alone.tolist()


BAD = [
    ("folds", {"ensemble__members": 1}, r"'ensemble\.members': 1 does not fit"),
    ("fold", {}, r"'ensemble\.kind': 'fold' does not fit"),
    ("", {}, "none is named"),
    ("folds", {"ensemble__members": 17}, "class 'lying': has 16 examples, fewer than 17 folds"),
    ("folds", {"loop__patience": 3}, r"loop\.patience 3"),
    ("folds", {"schedule__kind": "plateau"}, "no validation to go by"),
    ("snapshots", {"regularise__ema": 0.9}, r"regularise\.ema"),
    ("snapshots", {"ensemble__members": 30}, "30: do not fit in 16 steps"),
    ("greedy-soup", {"data__holdout": 0}, "no validation split to choose by"),
    ("vote", {"loop__devices": 2}, "trained by one process"),
    (
        "vote",
        {"task": "segment", "recipe": "promptable", "data__check": False},
        "there is none of what the recipe 'promptable' trains",
    ),
    (
        "folds",
        {"task": "segment", "recipe": "masks", "options": {"kind": "panoptic"}, "data__check": False},
        r"fused instance by instance, which options\.kind 'panoptic' does not find; set it to instance, or take soup",
    ),
    ("vote", {"task": "embed", "recipe": "mae"}, "there is none of what the recipe 'mae' trains"),
]


@pytest.mark.parametrize(("kind", "changes", "says"), BAD)
def test_what_a_user_can_get_wrong_is_named(kind, changes, says, stripes, tiny_vit, session, tmp_path):
    with pytest.raises(UserError, match=says):
        run(stripes, tiny_vit, session, tmp_path / "run", kind, **changes)
    assert not (tmp_path / "run" / "model").exists()


def grouped(stripes: Path, group) -> Dataset:
    found = []
    for number, (id, (path, label)) in enumerate(sorted(paths(stripes).items())):
        found.append(Record(id, path, label=label, columns={"patient": group(number, label)}))
    return Dataset.of(found, name="grouped")


def test_folds_keep_groups_in_one_piece(stripes, tiny_vit, session, tmp_path):
    data = grouped(stripes, lambda number, label: f"p{number % 8}")
    run(data, tiny_vit, session, tmp_path / "run", "folds", data__group="patient", loop__epochs=1)
    held = json.loads((tmp_path / "run" / "folds.json").read_text())
    folds = defaultdict(set)
    for one in data.records():
        folds[one.columns["patient"]].add(held[one.id])
    assert len(folds) == 8
    assert all(len(one) == 1 for one in folds.values())


@pytest.mark.parametrize(
    ("group", "says"),
    [
        (lambda number, label: label, "class 'lying': has 1 different patient, fewer than 3 folds"),
        (lambda number, label: f"{label} {number % 2}", "class 'lying': has 2 different patient, fewer than 3 folds"),
    ],
)
def test_a_class_of_fewer_groups_than_folds_is_named(group, says, stripes, tiny_vit, session, tmp_path):
    with pytest.raises(TrainError, match=says):
        run(grouped(stripes, group), tiny_vit, session, tmp_path / "run", "folds", data__group="patient")


def test_a_class_that_one_fold_holds_all_of_is_named(stripes, tiny_vit, session, tmp_path):
    """Stratified by another column, and grouped so that it cannot be else."""
    data = grouped(stripes, lambda number, label: None)
    folds = job(data, tiny_vit, session, "folds")
    from manylens.training.ensemble import members

    with pytest.MonkeyPatch.context() as patch:
        labels = folds.dataset.values("label")
        numbers = np.array([1 if label == "slanted" else number % 3 for number, label in enumerate(labels)])
        patch.setattr(members, "fold_numbers", lambda ids, *given, **more: numbers)
        with pytest.raises(TrainError, match="class 'slanted': all of its examples fall into one fold"):
            ensemble(folds, tmp_path / "run")
