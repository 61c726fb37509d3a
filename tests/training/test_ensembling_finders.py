"""Ensembles of recipes that find objects, end to end: what is served is what was judged, and what is fused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from manylens.data import Dataset
from manylens.evaluation.measure import Regions
from manylens.evaluation.measures.detection import Detection
from manylens.media import to_rle
from manylens.models.adapted.finders import LEAST_BOX, LEAST_MASK
from manylens.models.adapted.fusion import Boxes, Instances, fuse, fuse_boxes
from manylens.tasks import DetectRequest, SegmentRequest
from manylens.training.ensembling import Ensembled, ensemble
from manylens.training.errors import TrainError
from manylens.training.loop import running
from manylens.training.recipes.detect import Detect
from manylens.training.run import Job
from tests.training.dense import made_up

SIDE = 56
SMALL: dict[str, Any] = {
    "loop.epochs": 24,
    "loop.batch_size": 4,
    "optimiser.lr": 0.005,
    "ensemble.members": 3,
    "side": SIDE,
    "data.check": False,
}
RECIPES: dict[str, dict[str, Any]] = {
    "masks": {
        "task": "segment",
        "head__options": {"width": 32, "layers": 1, "queries": 8},
        "options": {"points": 256},
    },
    "detect": {"task": "detect", "head__options": {"width": 24, "depth": 1}},
}


@pytest.fixture(scope="module")
def discs(tmp_path_factory) -> Dataset:
    """Pictures of discs and bars; those of validation are known from training, so that something is found."""
    made = made_up.records(8, tmp_path_factory.mktemp("discs"), side=SIDE)
    again = [replace(one, id=f"{one.id} again", split="val", annotations=renamed(one)) for one in made[:4]]
    return Dataset.of([*made, *again], categories=made_up.CATEGORIES, name="discs")


def renamed(record):
    return tuple(replace(one, id=f"{one.id} again") for one in record.annotations)


def run(data, tiny_vit, session, out, kind, recipe, resume=False, **changes) -> Ensembled:
    keys = {"recipe": recipe, "ensemble__kind": kind, **RECIPES[recipe], **changes}
    given = {**SMALL, **{key.replace("__", "."): value for key, value in keys.items()}}
    task = given.pop("task")
    return ensemble(Job.of(data, task=task, model=str(tiny_vit), session=session, set=given), out, resume)


def answer(session, recipe, record, model, threshold=0.0):
    if recipe == "masks":
        asked: Any = SegmentRequest.of(image=record.path, mode="instance", threshold=threshold)
    else:
        asked = DetectRequest.of(image=record.path, threshold=threshold)
    return session.run(asked, model=str(model))


def least(recipe) -> float:
    return LEAST_MASK if recipe == "masks" else LEAST_BOX


def ap(recipe, rows) -> dict[str, float]:
    """AP of answers to records."""
    measure = Detection(made_up.CATEGORIES, kind="mask" if recipe == "masks" else "box")
    for record, found in rows:
        shapes: Any = {"masks": [to_rle(one) for one in found.mask]} if recipe == "masks" else {"boxes": found.xyxy}
        measure.add(record, Regions(list(found.data.get("class_name", ())), found.confidence, **shapes))
    figures = measure.tally().all()
    return {"map": float(np.nan_to_num(figures["AP"])), "map50": float(np.nan_to_num(figures["AP50"]))}


KINDS = {"vote": {"transfer__mode": "partial"}, "snapshots": {"transfer__mode": "lora", "transfer__lora": {"rank": 2}}}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_one_model_serves_what_its_members_find_and_is_judged_so(recipe, kind, discs, tiny_vit, session, tmp_path):
    made = run(discs, tiny_vit, session, tmp_path / "run", kind, recipe, **KINDS[kind])
    config = json.loads((made.model / "config.json").read_text())
    rows = config["details"]["members"]
    assert config["architectures"] == [{"masks": "AdaptedMasksEnsemble", "detect": "AdaptedDetectorEnsemble"}[recipe]]
    assert [row["share"] for row in rows] == pytest.approx([1 / 3] * 3)
    assert [one["share"] for one in made.members] == pytest.approx([1 / 3] * 3)
    val = [one for one in discs.records() if one.split == "val"]
    for record in val[:2]:
        each = [answer(session, recipe, record, made.model / "members" / row["name"], least(recipe)) for row in rows]
        assert len({len(one) for one in each}) > 1 or not np.allclose(each[0].confidence, each[1].confidence)
        if recipe == "masks":
            found: Any = fuse([Instances(one.mask, one.confidence, one.class_id) for one in each])
        else:
            found = fuse_boxes([Boxes(one.xyxy, one.confidence, one.class_id) for one in each])
        whole = answer(session, recipe, record, made.folder)
        assert len(whole) == min(len(found), 100) > 0
        np.testing.assert_allclose(whole.confidence, found.scores[:100], atol=1e-5)
    # The figures are those of the saved model, which no share was fitted for.
    served = ap(recipe, [(one, answer(session, recipe, one, made.folder)) for one in val])
    assert made.figures == pytest.approx(served, abs=1e-3)
    assert made.figures["map50"] > 0.2
    for one in made.members:
        place = made.model / "members" / one["name"]
        alone = ap(recipe, [(record, answer(session, recipe, record, place, least(recipe))) for record in val])
        assert one["figures"] == pytest.approx(alone, abs=1e-3)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_figures_of_folds_are_of_what_was_held_out(recipe, discs, tiny_vit, session, tmp_path):
    made = run(discs, tiny_vit, session, tmp_path / "run", "folds", recipe, transfer__mode="partial")
    held = json.loads((tmp_path / "run" / "folds.json").read_text())
    assert len(held) == 12
    rows, own = [], {1: [], 2: [], 3: []}
    for record in discs.records():
        place = made.model / "members" / f"fold-{held[record.id]}"
        row = record, answer(session, recipe, record, place, least(recipe))
        rows.append(row)
        own[held[record.id]].append(row)
    assert made.figures == pytest.approx(ap(recipe, rows), abs=1e-3)
    for number, one in enumerate(made.members, 1):
        assert one["share"] == pytest.approx(1 / 3)
        assert one["figures"] == pytest.approx(ap(recipe, own[number]), abs=1e-3)
    assert any("held out" in note for note in made.notes)


@pytest.mark.parametrize("recipe", RECIPES)
def test_members_on_a_frozen_encoder_are_judged_on_kept_features(recipe, discs, tiny_vit, session, tmp_path):
    """As they are in half precision, figures may differ a little from those of the served model."""
    made = run(discs, tiny_vit, session, tmp_path / "run", "vote", recipe, loop__epochs=12)
    for place in (made.model / "members").iterdir():
        assert all(name.startswith("head.") for name in load_file(place / "model.safetensors"))
    for one in made.members:
        record = json.loads((tmp_path / "run" / "members" / one["name"] / "run.json").read_text())
        assert one["figures"] == pytest.approx(record["figures"], abs=1e-6)
    val = [one for one in discs.records() if one.split == "val"]
    served = ap(recipe, [(one, answer(session, recipe, one, made.folder)) for one in val])
    assert made.figures == pytest.approx(served, abs=0.1)


def test_without_validation_there_are_no_figures(discs, tiny_vit, session, tmp_path):
    train = Dataset.of([one for one in discs.records() if one.split == "train"], made_up.CATEGORIES, name="discs")
    made = run(train, tiny_vit, session, tmp_path / "run", "vote", "detect", data__holdout=0, loop__epochs=1)
    assert made.figures == {}
    assert any("no validation split" in note for note in made.notes)
    answer(session, "detect", next(iter(train.records())), made.folder)


class Killed(BaseException):
    """Stands for a signal: no ``except Exception`` catches it."""


def test_resuming_trains_only_what_is_not_done(discs, tiny_vit, session, tmp_path, monkeypatch):
    fit, loss, trained, steps = running.fit, Detect.loss, [], []

    def counted(recipe, config, folder, **more):
        trained.append(folder.name)
        return fit(recipe, config, folder, **more)

    monkeypatch.setattr(running, "fit", counted)
    changes = {"loop__epochs": 4}
    whole = run(discs, tiny_vit, session, tmp_path / "whole", "vote", "detect", **changes)

    def dies(self, *given):
        steps.append(1)
        if len(steps) > 13:  # two steps an epoch
            raise Killed
        return loss(self, *given)

    monkeypatch.setattr(Detect, "loss", dies)
    with pytest.raises(Killed):
        run(discs, tiny_vit, session, tmp_path / "part", "vote", "detect", **changes)
    monkeypatch.setattr(Detect, "loss", loss)
    trained.clear()
    again = run(discs, tiny_vit, session, tmp_path / "part", "vote", "detect", resume=True, **changes)
    assert trained == ["seed-1", "seed-2"]
    for number in range(3):
        one, other = (
            load_file(made.model / "members" / f"seed-{number}" / "model.safetensors") for made in (whole, again)
        )
        for name, value in one.items():
            torch.testing.assert_close(other[name], value, rtol=0, atol=1e-5)
    assert again.figures == pytest.approx(whole.figures, abs=1e-4)


SOUPS = [("soup", "masks", {}), ("greedy-soup", "detect", {}), ("soup", "detect", {"transfer__mode": "partial"})]


@pytest.mark.parametrize(("kind", "recipe", "changes"), SOUPS)
def test_a_soup_is_one_model_of_the_mean_of_weights(kind, recipe, changes, discs, tiny_vit, session, tmp_path):
    made = run(discs, tiny_vit, session, tmp_path / "run", kind, recipe, **changes)
    config = json.loads((made.model / "config.json").read_text())
    assert config["architectures"] == [{"masks": "AdaptedMasks", "detect": "AdaptedDetector"}[recipe]]
    saved = load_file(made.model / "model.safetensors")
    each = [
        load_file(tmp_path / "run" / "members" / one["name"] / "model" / "model.safetensors") for one in made.members
    ]
    for name, value in saved.items():
        mean = sum(one["share"] * state[name].double() for one, state in zip(made.members, each, strict=True))
        torch.testing.assert_close(value.double(), mean, rtol=0, atol=1e-6)
    if kind == "greedy-soup":
        assert made.figures["map"] >= max(one["figures"]["map"] for one in made.members)
    val = [one for one in discs.records() if one.split == "val"]
    served = ap(recipe, [(one, answer(session, recipe, one, made.folder, least(recipe))) for one in val])
    assert made.figures == pytest.approx(served, abs=1e-3 if changes else 0.1)


def test_a_soup_of_regions_that_are_no_instances(discs, tiny_vit, session, tmp_path):
    options = {"kind": "panoptic", "points": 64}
    made = run(discs, tiny_vit, session, tmp_path / "run", "soup", "masks", options=options, loop__epochs=1)
    assert set(made.figures) == {"pq", "sq", "rq"}
    with pytest.raises(TrainError, match="set it to instance, or take soup"):
        run(discs, tiny_vit, session, tmp_path / "other", "snapshots", "masks", options=options)
    assert not Path(tmp_path / "other").exists()
