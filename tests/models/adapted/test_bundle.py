"""The folder of an adapted model: a row with its base, and what is said where either is not what it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from tests import tiny

import manylens
from manylens import models
from manylens.catalog import Catalog, WeightsStore
from manylens.errors import UserError, WeightsError
from manylens.models import checkpoint
from manylens.models.adapted import bundle, heads
from manylens.models.adapted.backbone import Backbone
from manylens.models.adapted.bundle import Base, Spec
from manylens.runtime.engines import EngineSettings
from manylens.tasks import ClassifyRequest

LABELS = ("cat", "dog", "owl")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.dinov2(tmp_path_factory.mktemp("base"))


@pytest.fixture
def run(base: Path, tmp_path: Path) -> Path:
    """A run's folder with a model of a seeded head."""
    row = Catalog.load().resolve(base)
    files = WeightsStore().ensure(row)
    trainable = models.load(row, files, EngineSettings("torch", threads=1)).trainable()
    backbone = Backbone(trainable, ("vector",))
    torch.manual_seed(1)
    head = heads.build("linear", backbone.widths, len(LABELS), {})
    spec = Spec(
        "AdaptedClassifier",
        Base(str(base), checkpoint.weights_id(row, files), "MIT"),
        28,
        "linear",
        labels=LABELS,
        details={"needs": ["vector"]},
    )
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "run.json").write_text("{}")
    bundle.write(tmp_path / "run" / "model", spec, head.state_dict(), {})
    return tmp_path / "run"


@pytest.fixture
def session(tmp_path: Path) -> manylens.Session:
    return manylens.Session(home=tmp_path / "home", engine="torch")


PICTURE = Path(__file__).parents[3] / "examples" / "cat.jpg"


def test_a_run_is_a_row_with_its_base(run, base):
    row = Catalog.load().resolve(run)
    assert row.id == str(run)
    assert row.family == "adapted-classifier"
    assert row.base is not None
    assert row.base.folder == base
    files = WeightsStore().ensure(row)
    assert {"config.json", "model.safetensors", "base/config.json", "base/model.safetensors"} <= set(files)


def test_both_engines_answer_alike_and_names_choose(run, session, tmp_path):
    first = session.run(ClassifyRequest.of(image=PICTURE), model=str(run))
    other = manylens.Session(home=tmp_path / "home", engine="openvino", precision="f32")
    second = other.run(ClassifyRequest.of(image=PICTURE), model=str(run))
    assert [label.name for label in first.labels] == [label.name for label in second.labels]
    for one, two in zip(first.labels, second.labels, strict=True):
        assert one.score == pytest.approx(two.score, abs=1e-4)
    some = session.run(ClassifyRequest.of(image=PICTURE, names=["Dog", "owl"]), model=str(run))
    assert {label.name for label in some.labels} == {"dog", "owl"}
    assert sum(label.score for label in some.labels) == pytest.approx(1)
    with pytest.raises(UserError, match="was not trained for horse; its classes are cat, dog, owl"):
        session.run(ClassifyRequest.of(image=PICTURE, names=["dog", "horse"]), model=str(run))


def test_the_features_of_a_backbone_are_what_their_names_say(base):
    row = Catalog.load().resolve(base)
    trainable = models.load(row, WeightsStore().ensure(row), EngineSettings("torch", threads=1)).trainable()
    backbone = Backbone(trainable, ("vector", "mean", "dense", "block.0", "block.-1"))
    assert dict(backbone.widths) == dict.fromkeys(backbone.needs, 16)
    pixels = torch.rand(2, 3, 28, 42)
    with torch.no_grad():
        found = backbone(pixels)
        normal = (pixels - torch.tensor(trainable.mean).view(3, 1, 1)) / torch.tensor(trainable.std).view(3, 1, 1)
        states = trainable.module(normal, output_hidden_states=True).hidden_states
    assert found["dense"].shape == (2, 4, 6, 16)
    torch.testing.assert_close(found["mean"], found["dense"].mean(dim=(1, 2)))
    torch.testing.assert_close(found["block.0"], states[1][:, 1:].unflatten(1, (4, 6)))
    torch.testing.assert_close(found["block.-1"], states[2][:, 1:].unflatten(1, (4, 6)))
    with pytest.raises(UserError, match=r"block\.7: the model has 2 blocks"):
        Backbone(trainable, ("block.7",))


def test_another_checkpoint_of_the_same_name_is_refused(run, base, session, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(base, moved)
    config = json.loads((run / "model" / "config.json").read_text())
    config["base"]["id"] = str(moved)
    (run / "model" / "config.json").write_text(json.dumps(config))
    session.run(ClassifyRequest.of(image=PICTURE), model=str(run))  # the same weights elsewhere
    state = transformers.Dinov2Model.from_pretrained(moved)
    state.layernorm.weight.data += 1
    state.save_pretrained(moved)
    fresh = manylens.Session(home=tmp_path / "home", engine="torch")
    with pytest.raises(WeightsError, match="had weights"):
        fresh.run(ClassifyRequest.of(image=PICTURE), model=str(run))


BROKEN = {
    "format": (lambda config: config.update(format=9), "its format is 9"),
    "side": (lambda config: config.pop("side"), "lacks something"),
    "labels": (lambda config: config.update(labels=["cat"]), "size mismatch|shape"),
    "base": (lambda config: config["base"].update(id="/nowhere/at/all"), "no such folder"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_folder_that_is_damaged_is_named(name, run, session):
    breaks, says = BROKEN[name]
    config = json.loads((run / "model" / "config.json").read_text())
    breaks(config)
    (run / "model" / "config.json").write_text(json.dumps(config))
    with pytest.raises((WeightsError, UserError), match=says):
        session.run(ClassifyRequest.of(image=PICTURE), model=str(run))


def test_weights_that_are_damaged_are_named(run, session):
    (run / "model" / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(WeightsError, match=r"model\.safetensors cannot be read"):
        session.run(ClassifyRequest.of(image=PICTURE), model=str(run))
