"""From a folder of pictures to a model's folder, through the true loop."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from manylens.models.base import Trainable
from manylens.tasks import EmbedRequest
from manylens.training.config import TransferSection
from manylens.training.errors import TrainError
from manylens.training.recipes import RECIPES, Known
from manylens.training.recipes.base import Draw
from manylens.training.run import train
from manylens.training.selfsupervised import folders, towers
from manylens.training.selfsupervised.recipe import Judges, freeze
from tests.training.selfsupervised.made_up import network, opened

HEAD = {"options.prototypes": 32, "options.hidden": 32, "options.bottleneck": 16, "options.momentum": 0.5}
CROPS = {"augment.options": {"local_side": 14, "locals": 2, "local_scale": [0.2, 0.5]}}
SMALL = {"loop.epochs": 2, "loop.batch_size": 8, "data.check": False, **CROPS}
MASKED = {"options.width": 16, "options.depth": 1, "options.heads": 2}
OWN = {"dino": HEAD, "mae": MASKED, "distil": {"options.anchors": 8}}


@pytest.fixture(autouse=True)
def known(monkeypatch):
    for name, cls in (("dino", "DinoRecipe"), ("mae", "MaeRecipe"), ("distil", "DistilRecipe")):
        monkeypatch.setitem(RECIPES, name, Known("embed", f"{name}:{cls}", "without labels"))


@pytest.fixture
def unlabelled(stripes, tmp_path):
    """The same pictures in one folder, without classes."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, file in enumerate(sorted(stripes.rglob("*.png"))[::2]):
        shutil.copy(file, folder / f"{number}.png")
    return folder


def run(data, model, session, out, recipe, resume=False, **changes):
    given = {**SMALL, **OWN[recipe], "recipe": recipe, **changes}
    if recipe == "distil":
        given.setdefault("options.teacher", str(model))
    lines: list[str] = []
    told = {"set": given, "session": session, "resume": resume, "say": lines.append}
    return train(data, task="embed", model=str(model), out=out, **told), lines


@pytest.mark.parametrize("recipe", OWN)
def test_a_run_ends_in_a_model_that_embeds(stripes, tiny_vit, session, tmp_path, recipe):
    made, lines = run(stripes, tiny_vit, session, tmp_path / "run", recipe)
    assert 0 <= made.figures["knn"] <= 1
    assert sum("before training: k-NN accuracy" in line for line in lines) == 1
    assert made.figures["rank"] > 0
    assert ("entropy" in made.figures) == (recipe == "dino")  # of votes for prototypes
    assert [row["epoch"] for row in made.history] == [0, 1]
    assert all(np.isfinite(row["train/loss"]) for row in made.history)
    config = json.loads((made.model / "config.json").read_text())
    assert config["model_type"] == "dinov2"
    picture = next((stripes / "lying").iterdir())
    before, after = (
        session.run(EmbedRequest.of(image=picture), model=str(one)).vector for one in (tiny_vit, made.model)
    )
    assert np.linalg.norm(after) == pytest.approx(1, abs=1e-4)
    assert not np.allclose(before, after, atol=1e-3)


@pytest.mark.parametrize(("recipe", "more"), [("dino", {"options.ibot": 1.0}), ("mae", {}), ("distil", {})])
def test_a_new_network_learns_from_pictures_without_labels(unlabelled, tiny_vit, session, tmp_path, recipe, more):
    scratch = {"options.scratch": {"size": "vit-tiny", "depth": 1, "side": 28, "patch": 7}}
    made, _ = run(unlabelled, tiny_vit, session, tmp_path / "run", recipe, **scratch, **more)
    assert "knn" not in made.figures
    assert json.loads((made.model / "config.json").read_text())["hidden_size"] == 192
    vector = session.run(EmbedRequest.of(image=unlabelled / "0.png"), model=str(made.model)).vector
    assert vector.shape == (192,)


@pytest.mark.parametrize("recipe", OWN)
def test_a_run_that_was_stopped_ends_as_one_that_was_not(stripes, tiny_vit, session, tmp_path, recipe, monkeypatch):
    """The teacher, the centres, the queue: all of them go on from where they stood."""
    from safetensors.torch import load_file

    from manylens.training.loop.fit import Fit

    more = {"options.koleo": 0.1, "options.ibot": 1.0} if recipe == "dino" else {}
    whole, _ = run(stripes, tiny_vit, session, tmp_path / "whole", recipe, **{"loop.epochs": 3}, **more)
    begin = Fit.on_train_epoch_start

    def stops(self):
        if self.current_epoch == 1:
            raise KeyboardInterrupt
        begin(self)

    with monkeypatch.context() as patched:
        patched.setattr(Fit, "on_train_epoch_start", stops)
        with pytest.raises(BaseException):  # noqa: B017 - the loop may end in its own way
            run(stripes, tiny_vit, session, tmp_path / "parts", recipe, **{"loop.epochs": 3}, **more)
    parts, _ = run(stripes, tiny_vit, session, tmp_path / "parts", recipe, resume=True, **{"loop.epochs": 3}, **more)
    assert [row["train/loss"] for row in parts.history] == pytest.approx(
        [row["train/loss"] for row in whole.history], abs=1e-5
    )
    one, other = (load_file(made.model / "model.safetensors") for made in (whole, parts))
    assert all(torch.allclose(one[name], other[name], atol=1e-5) for name in one)


def test_a_collapse_is_said_once(unlabelled, tiny_vit, session, tmp_path):
    options = {"options.centring": "none", "options.koleo": 0, "optimiser.lr": 0.01, "loop.epochs": 12}
    made, lines = run(unlabelled, tiny_vit, session, tmp_path / "run", "dino", **options)
    assert sum("collapsed" in line for line in lines) == 1
    assert len(made.history) == 12


def test_a_student_is_not_blamed_for_what_its_teacher_says(unlabelled, tiny_vit, session, tmp_path):
    """Vectors that are near each other are what it shall learn where the teacher's are."""
    with session.module(str(tiny_vit)) as trainable:
        for one in trainable.module.parameters():
            torch.nn.init.zeros_(one)
        flat = folders.save(trainable, tmp_path / "flat", 28)
    _, lines = run(unlabelled, flat, session, tmp_path / "run", "distil")
    assert not [line for line in lines if "collapsed" in line]


def test_views_depend_on_picture_epoch_and_seed_alone(stripes, tiny_vit, session, tmp_path, monkeypatch):
    """Not on the batch, so that two processes show what one does."""
    from manylens.training.recipes.dino import DinoRecipe

    seen = []
    monkeypatch.setattr(DinoRecipe, "train_source", lambda self: seen.append(self._source) or self._source)
    run(stripes, tiny_vit, session, tmp_path / "run", "dino", **{"options.ibot": 1.0, "loop.epochs": 1})
    source = seen[0]
    draws = [Draw(3, 1, 0), Draw(5, 1, 0), Draw(3, 2, 0), Draw(3, 1, 1)]
    together, alone = source.__getitems__(draws), source.__getitems__(draws[1:2])
    for name, each in (("large", 2), ("small", 2), ("masks", 2)):
        rows = together[name].unflatten(0, (each, 4))
        assert torch.allclose(rows[:, 1].float(), alone[name].float(), atol=1e-6), name
        if name != "masks":
            assert not torch.allclose(rows[:, 0], rows[:, 2], atol=0.01)
            assert not torch.allclose(rows[:, 0], rows[:, 3], atol=0.01)
    assert source.ids(draws[:1]) == [source._ids[3]]


@pytest.mark.parametrize(
    ("section", "learns"),
    [
        (TransferSection(), {-1, 0, 1}),
        (TransferSection(mode="full"), {-1, 0, 1}),
        (TransferSection(mode="partial", train_blocks=1), {1}),
        (TransferSection(mode="gradual"), {-1, 0, 1}),
    ],
)
def test_what_learns_is_what_the_config_says(section, learns):
    tower = towers.Vit(network())
    epochs = freeze(tower, section)
    assert {tower.block_of(name) for name, one in tower.named_parameters() if one.requires_grad} == learns
    if section.mode == "gradual":
        found = {tower.block_of(name): epochs[id(one)] for name, one in tower.named_parameters()}
        assert found == {1: 1, 0: 2, -1: 3}
    else:
        assert epochs == {}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"options.koloe": 0.1}, r"did you mean options\.koleo"),
        ({"options.scratch": {"sise": "vit-tiny"}}, r"did you mean options\.scratch\.size"),
        ({"augment.options": {"locls": 2}}, r"did you mean augment\.options\.locals"),
        ({"transfer.mode": "lora"}, "transfer.mode 'lora'"),
        ({"transfer.mode": "partial", "transfer.train_blocks": 9}, "9 of 4 blocks"),
        ({"recipe": "distil", "options.teacher": ""}, "options.teacher: is missing"),
    ],
)
def test_what_does_not_fit_is_said(stripes, tiny_vit, session, tmp_path, changes, says):
    recipe = changes.pop("recipe", "dino")
    with pytest.raises(TrainError, match=says):
        run(stripes, tiny_vit, session, tmp_path / "run", recipe, **changes)


def test_classes_of_one_split_vote_within_it(stripes):
    from manylens.data import Dataset

    data = Dataset.read(stripes).split({"train": 0.5, "val": 0.5}, stratify="label")
    train_split, val = data.select(split="train"), data.select(split="val")
    both = Judges.of(train_split, val, 28, 10, 0)
    assert len(both) == 10 + len(val)
    assert len(Judges.of(train_split, None, 28, 1000, 0)) == len(train_split)
    vectors = np.eye(3)[both._labels].repeat(2, axis=1)
    numbers = np.arange(len(both))
    assert both.accuracy(numbers, vectors) == 1
    assert np.bincount(both._labels[:10]).tolist() in ([4, 3, 3], [3, 4, 3], [3, 3, 4])
    only = Judges.of(train_split, None, 28, 1000, 0)
    assert only.accuracy(np.arange(len(only)), np.eye(3)[only._labels]) == 1


def test_a_model_that_prepares_pictures_otherwise_is_refused():
    from manylens.errors import UnsupportedError
    from manylens.training.selfsupervised.recipe import _tower

    model = network()
    given: Trainable = opened(model, lambda pixels: {"vector": towers.Vit(model)(pixels).vector}, mean=())
    with pytest.raises(UnsupportedError, match="mine: prepares pictures"):
        _tower(given, "mine")
