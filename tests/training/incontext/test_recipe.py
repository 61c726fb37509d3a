"""From pictures with masks to a SegGPT checkpoint that takes examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco
from safetensors.torch import load_file

from manylens.errors import UnsupportedError
from manylens.tasks import SegmentRequest
from manylens.training.errors import TrainError
from manylens.training.run import train


def trained(things: Any, base: Path, session: Any, out: Path, **changes: Any) -> Any:
    given = {
        "recipe": "incontext",
        "loop.epochs": 2,
        "loop.batch_size": 3,
        "optimiser.lr": 2e-3,
        **{key.replace("__", "."): value for key, value in changes.items()},
    }
    return train(things, task="segment", model=str(base), out=out, set=given, session=session)


def test_the_loss_falls_and_the_run_takes_examples(things, tiny_seggpt, session, tmp_path):
    made = trained(things, tiny_seggpt, session, tmp_path / "run", loop__epochs=25, transfer__mode="full")
    losses = [row["train/loss"] for row in made.history]
    assert np.mean(losses[-3:]) < 0.7 * np.mean(losses[:3])
    assert made.history[-1]["val/loss"] < 0.8 * made.history[0]["val/loss"]
    records = list(things)
    shown, asked = records[0], records[6]
    mask = coco.decode(shown.annotations[0].mask).astype(bool)
    like = [{"image": shown.path, "mask": mask, "name": "disc"}]
    found = session.run(SegmentRequest.of(image=asked.path, like=like), model=str(tmp_path / "run"))
    assert found.mask.shape[1:] == mask.shape
    before, after = (load_file(folder / "model.safetensors") for folder in (tiny_seggpt, made.model))
    assert before.keys() == after.keys()


@pytest.mark.parametrize(("mode", "expected"), [("frozen", {"decoder"}), ("full", {"decoder", "model"})])
def test_what_learns_is_what_the_config_says(things, tiny_seggpt, session, tmp_path, mode, expected):
    made = trained(things, tiny_seggpt, session, tmp_path / "run", transfer__mode=mode)
    before, after = (load_file(folder / "model.safetensors") for folder in (tiny_seggpt, made.model))
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == expected


def test_instances_train_too(things, tiny_seggpt, session, tmp_path):
    made = trained(things, tiny_seggpt, session, tmp_path / "run", options__kind="instance", augment__policy="light")
    assert np.isfinite(made.figures["loss"])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"options__kind": "panoptic"}, "options.kind"),
        ({"options__share": 2}, "options.share"),
        ({"options__scale": [2, 1]}, "options.scale"),
        ({"options__most": 40}, "options.most"),
        ({"options__haf": 0.5}, "half"),
    ],
)
def test_options_that_do_not_fit_are_named(things, tiny_seggpt, session, tmp_path, change, says):
    with pytest.raises(TrainError, match=says):
        trained(things, tiny_seggpt, session, tmp_path / "run", **change)


def test_a_model_that_does_not_paint_is_refused(things, tiny_vit, session, tmp_path):
    with pytest.raises(UnsupportedError, match="paint"):
        trained(things, tiny_vit, session, tmp_path / "run")
