"""An embedding from pictures with labels: what learns, what it is judged by, and the model that comes of it."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from manylens.errors import UserError
from manylens.evaluation.evaluate import evaluate
from manylens.tasks import ClassifyRequest, EmbedRequest, MatchRequest
from manylens.training import card
from manylens.training.exporting import export
from manylens.training.metric.figures import retrieval
from manylens.training.recipes import find
from manylens.training.recipes.base import Draw
from manylens.training.recipes.metric import Metric
from manylens.training.run import Job, train

SMALL = {"recipe": "metric", "loop.epochs": 4, "loop.batch_size": 8, "head.options": {"width": 8}, "record.card": False}


def run(data, tiny_vit, session, out, **changes):
    resume, say = changes.pop("resume", False), changes.pop("say", None)
    given = {**SMALL, **{key.replace("__", "."): value for key, value in changes.items()}}
    return train(data, task="embed", model=str(tiny_vit), out=out, set=given, session=session, resume=resume, say=say)


def vectors(session, model, paths) -> np.ndarray:
    return np.stack([session.run(EmbedRequest.of(image=path), model=str(model)).vector for path in paths])


@pytest.fixture(scope="module")
def unseen(stripes, tmp_path_factory) -> Path:
    """Two kinds of stripes to learn from; the third to be judged by."""
    root = tmp_path_factory.mktemp("unseen")
    for name in ("lying", "standing", "slanted"):
        for number, path in enumerate(sorted((stripes / name).iterdir())):
            split = "val" if name == "slanted" or number % 4 == 0 else "train"
            (root / split / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, root / split / name)
    return root


@pytest.fixture(scope="module")
def tints(tmp_path_factory) -> Path:
    """Four tints, told apart by less than how bright a picture is, which says nothing."""
    root, random = tmp_path_factory.mktemp("tints"), np.random.default_rng(0)
    for name, tint in {"red": (36, 0, 0), "green": (0, 36, 0), "blue": (0, 0, 36), "grey": (12, 12, 12)}.items():
        for number in range(24):
            path = root / ("val" if number % 2 else "train") / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = random.uniform(20, 220) + np.array(tint) + random.normal(0, 8, (28, 28, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return root


MODES = {
    "frozen": {},
    "partial": {"transfer__train_blocks": 2, "head__kind": "mlp-projection"},
    "gradual": {"transfer__unfreeze_from": 0, "head__options": {"width": 0}},
    "lora": {"transfer__lora": {"rank": 2}},
    "full": {"transfer__layer_decay": 0.5, "options__loss": "arcface"},
}


@pytest.mark.parametrize("mode", MODES)
def test_the_saved_model_embeds_as_the_trained_one(mode, stripes, tiny_vit, session, tmp_path, monkeypatch):
    kept, plain = {}, Metric.save

    def saved(self, folder):
        source = self.val_source()
        self.network.eval()
        with torch.no_grad():
            batch = source.__getitems__([Draw(number, 0, 0) for number in range(4)])
            kept["vectors"] = self.answer(batch)["vector"].numpy()
        kept["paths"] = self._val.paths[:4]
        plain(self, folder)

    monkeypatch.setattr(Metric, "save", saved)
    options = {"transfer__encoder_rate": 1.0, **MODES[mode]}
    run(stripes, tiny_vit, session, tmp_path / "run", transfer__mode=mode, **options)
    found = vectors(session, tmp_path / "run", kept["paths"])
    assert found.shape[1] == (24 if mode == "gradual" else 8)
    np.testing.assert_allclose(found, kept["vectors"], atol=2e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert np.ptp(found, axis=0).max() > 1e-3  # of different pictures
    state = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert any("layer." in name for name in state) == (mode != "frozen")
    assert not any("prox" in name or "helper" in name or "lora" in name for name in state)
    learnt = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert ("network.helper.proxies" in learnt) == (mode == "full")  # those of the network learn, and are resumed


@pytest.mark.parametrize(("loss", "options"), [("supcon", {}), ("proxy_anchor", {"alpha": 8}), ("arcface", {})])
def test_it_learns_to_find_the_same_class(loss, options, tints, tiny_vit, session, tmp_path):
    lines: list[str] = []
    changes = {"loop__epochs": 40, "optimiser__lr": 0.01, "options__loss": loss, "loop__batch_size": 16}
    changes |= {"options__loss_options": options}
    made = run(tints, tiny_vit, session, tmp_path / "run", say=lines.append, **changes)
    (before,) = [line for line in lines if line.startswith("before training: map_at_r ")]
    first = float(before.split("map_at_r ")[1].split(",")[0])
    assert first < 0.6
    assert made.figures["map_at_r"] > first + 0.2
    assert set(made.figures) == {"map_at_r", "recall_at_1", "knn_accuracy"}
    assert made.history[made.best_epoch]["val/map_at_r"] == max(row["val/map_at_r"] for row in made.history)
    assert not any("no better" in line for line in lines)


def test_what_is_said_before_and_after_is_of_the_vectors_that_are_served(stripes, tiny_vit, session, tmp_path):
    """The first line is of the base's own vectors, the figures are those of the run's."""
    lines: list[str] = []
    # The base's own squares are those of the run: 28 pixels, so nothing is cropped or resized.
    job = Job.of(stripes, task="embed", model=str(tiny_vit), set=SMALL, session=session, say=lines.append)
    made = job.train(tmp_path / "run")
    records = list(job.dataset.select(split="val").records())
    targets = np.unique([record.label for record in records], return_inverse=True)[1]
    for model in (tiny_vit, tmp_path / "run"):
        found = retrieval(vectors(session, model, [record.path for record in records]), targets)
        if model == tiny_vit:
            told = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
            assert f"before training: {told}" in lines
        else:
            assert found == pytest.approx(made.figures, abs=1e-6)
    measured = evaluate(
        job.dataset.select(split="val"), task="embed", measure="retrieval", model=str(made.model), session=session
    )
    assert measured.figures["R@1 image to image"].value == pytest.approx(made.figures["recall_at_1"])


def test_classes_of_validation_may_be_unseen(unseen, tiny_vit, session, tmp_path):
    made = run(unseen, tiny_vit, session, tmp_path / "run")
    pictures = sorted((unseen / "val").glob("*/*.png"))
    targets = np.unique([path.parent.name for path in pictures], return_inverse=True)[1]
    assert len(set(targets)) == 3
    assert made.figures == pytest.approx(retrieval(vectors(session, made.model, pictures), targets), abs=1e-6)
    values = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert values["details"]["classes"] == 2
    assert values["labels"] == []


def test_where_nothing_is_won_it_is_said(stripes, tiny_vit, session, tmp_path):
    lines: list[str] = []
    changes = {"loop__epochs": 1, "optimiser__lr": 1e-12, "head__options": {"width": 1}}
    run(stripes, tiny_vit, session, tmp_path / "run", say=lines.append, **changes)
    assert any("find no better than the encoder's own" in line for line in lines)


def test_a_run_compares_and_names_by_example(stripes, tiny_vit, session, tmp_path):
    run(stripes, tiny_vit, session, tmp_path / "run")
    model = str(tmp_path / "run")
    one, other, third = (next((stripes / name).iterdir()) for name in ("lying", "standing", "slanted"))
    first, second = vectors(session, model, [one, other])
    found = session.run(MatchRequest.of(image=one, other=other), model=model)
    assert found.score == pytest.approx(float(first @ second), abs=1e-5)
    like = [{"image": str(path), "name": path.parent.name} for path in (one, other, third)]
    for path in (one, other):
        named = session.run(ClassifyRequest.of(image=path, like=like), model=model)
        assert named.best.name == path.parent.name
    with pytest.raises(UserError, match=r"dense|region"):
        session.run(EmbedRequest.of(image=one, dense=True), model=model)


def test_a_run_goes_on_as_a_base(stripes, tiny_vit, session, tmp_path):
    run(stripes, tiny_vit, session, tmp_path / "first", transfer__mode="full")
    lines: list[str] = []
    made = run(stripes, tmp_path / "first", session, tmp_path / "second", say=lines.append)
    assert made.figures["map_at_r"] > 0
    before = json.loads((tmp_path / "first" / "run.json").read_text())["figures"]
    (line,) = [line for line in lines if line.startswith("before training")]
    assert f"map_at_r {before['map_at_r']:.3f}" in line  # its vectors are those of the first one's head


RESUMED = {
    "frozen": {"augment__policy": "light", "augment__views": 2, "regularise__dropout": 0.2},
    "proxies": {"options__loss": "arcface", "imbalance__sampling": "balanced"},
    "lora": {"transfer__mode": "lora", "options__loss": "proxy_anchor", "regularise__ema": 0.9},
}


class Killed(BaseException):
    """Stands for a signal."""


@pytest.mark.parametrize("name", RESUMED)
def test_resuming_ends_as_if_nothing_had_happened(name, stripes, tiny_vit, session, tmp_path, monkeypatch):
    whole = run(stripes, tiny_vit, session, tmp_path / "whole", **RESUMED[name])
    plain, calls = Metric.loss, []

    def dies(self, batch, step):
        calls.append(step)
        if len(calls) == 11:  # in the middle of the third epoch
            raise Killed
        return plain(self, batch, step)

    monkeypatch.setattr(Metric, "loss", dies)
    with pytest.raises(Killed):
        run(stripes, tiny_vit, session, tmp_path / "part", **RESUMED[name])
    monkeypatch.setattr(Metric, "loss", plain)
    again = run(stripes, tiny_vit, session, tmp_path / "part", resume=True, **RESUMED[name])
    first, second = (load_file(tmp_path / one / "model" / "model.safetensors") for one in ("whole", "part"))
    assert first.keys() == second.keys()
    for key, one in first.items():
        torch.testing.assert_close(second[key], one, rtol=0, atol=1e-5)
    assert whole.figures == pytest.approx(again.figures, abs=1e-5)


@pytest.mark.parametrize(
    ("loss", "options", "groups"), [("supcon", {}, 4), ("arcface", {}, 1), ("arcface", {"per_class": 2}, 2)]
)
def test_a_step_has_so_many_of_a_class(loss, options, groups, stripes, tiny_vit, session, tmp_path, monkeypatch):
    plain, seen = Metric.loss, []

    def counted(self, batch, step):
        seen.append(batch["target"].tolist())
        return plain(self, batch, step)

    monkeypatch.setattr(Metric, "loss", counted)
    changes = {"options__loss": loss, "data__holdout": 0, "loop__epochs": 1}  # 16 of each class
    run(stripes, tiny_vit, session, tmp_path / "run", **changes, **{f"options__{key}": v for key, v in options.items()})
    assert len(seen) == 6
    rounds = [tuple(step[start : start + groups]) for step in seen for start in range(0, 8, groups)]
    assert all(len(set(one)) == 1 for one in rounds)
    if groups == 1:
        assert any(set(Counter(step).values()) - {4, 8} for step in seen)


def test_the_card_says_how_well_it_finds(stripes, tiny_vit, session, tmp_path):
    made = run(stripes, tiny_vit, session, tmp_path / "run", record__card=True)
    text = (made.model / card.CARD).read_text()
    (row,) = [line for line in text.splitlines() if line.startswith("| R@1 image to image")]
    value, trained = row.strip("| ").split(" | ")[1::2]
    assert value == trained == f"{made.figures['recall_at_1']:.3f}"
    assert "manylens embed picture.jpg" in text


@pytest.mark.parametrize("mode", ["frozen", "lora"])
def test_it_embeds_elsewhere_as_here(mode, stripes, tiny_vit, session, tmp_path):
    run(stripes, tiny_vit, session, tmp_path / "run", transfer__mode=mode)
    found = export(tmp_path / "run", out=tmp_path / "out", format="onnx", session=session)
    assert {path.name for path in found.files} == {"model.onnx", "model.onnx.json"}
    facts = json.loads((tmp_path / "out" / "model.onnx.json").read_text())
    assert [one["name"] for one in facts["outputs"]] == ["vector"]
    assert facts["outputs"][0]["shape"] == ["any", 8]


def test_without_a_name_embed_still_learns_without_labels():
    assert find("embed", None)[0] == "dino"
    assert find("embed", "metric") == ("metric", Metric)


def folder(tmp_path: Path, stripes: Path, **counts: int) -> Path:
    for name, count in counts.items():
        (tmp_path / "data" / "train" / name).mkdir(parents=True)
        for path in sorted((stripes / name).iterdir())[:count]:
            shutil.copy(path, tmp_path / "data" / "train" / name)
    return tmp_path / "data"


def test_data_from_which_nothing_can_be_learnt_is_named(stripes, tiny_vit, session, tmp_path):
    cases = {
        "one": ({"lying": 6}, {}, "all pictures are 'lying'"),
        "single": ({"lying": 1, "standing": 1, "slanted": 1}, {"data__holdout": 0}, "every class has one picture"),
    }
    for name, (counts, changes, says) in cases.items():
        with pytest.raises(UserError, match=says) as caught:
            run(folder(tmp_path / name, stripes, **counts), tiny_vit, session, tmp_path / name / "run", **changes)
        assert "--recipe dino" in caught.value.remedy
    bare = tmp_path / "bare"
    bare.mkdir()
    for path in (stripes / "lying").iterdir():
        shutil.copy(path, bare)
    with pytest.raises(UserError, match="no picture has a label") as caught:
        run(bare, tiny_vit, session, tmp_path / "run", data__format="folders")
    assert "--recipe dino" in caught.value.remedy


def test_a_split_in_which_nothing_can_be_found_judges_nothing(stripes, tiny_vit, session, tmp_path):
    data, lines = folder(tmp_path, stripes, lying=6, standing=6), []
    for name in ("lying", "standing"):
        (data / "val" / name).mkdir(parents=True)
        shutil.copy(sorted((stripes / name).iterdir())[9], data / "val" / name)
    made = run(data, tiny_vit, session, tmp_path / "run", say=lines.append)
    assert any("no class has two pictures" in line for line in lines)
    assert not made.figures
    assert made.epochs == 4


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"options__los": "supcon"}, r"did you mean options\.loss\?"),
        ({"options__loss": "supcom"}, "did you mean 'supcon'"),
        ({"options__loss_options": {"scale": 3}}, "options.loss_options of 'supcon' 'scale'"),
        ({"options__per_class": 5}, "a step of 8 pictures has no room for two classes"),
        ({"head__kind": "linear"}, "projection"),
        ({"head__options": {"width": 0}}, "nothing learns on a frozen encoder"),
        ({"head__options": {"width": -3}}, r"head\.options\.width: -3"),
        ({"regularise__mixup": 0.2}, r"regularise\.mixup: says nothing to the recipe 'metric'"),
        ({"imbalance__loss": "focal"}, r"imbalance\.loss: says nothing"),
        ({"loop__monitor": "accuracy"}, "loop.monitor"),
    ],
)
def test_what_a_user_can_get_wrong_is_named(changes, says, stripes, tiny_vit, session, tmp_path):
    with pytest.raises(UserError) as caught:
        run(stripes, tiny_vit, session, tmp_path / "run", **changes)
    told = f"{caught.value} {caught.value.remedy}"
    assert re.search(says, told)
    assert "\n" not in told
