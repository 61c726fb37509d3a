"""SAM and SAM 2 checkpoints trained on with one's own masks: what comes out is such a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import SamModel

from manylens.tasks import SegmentRequest
from manylens.training.errors import TrainError
from manylens.training.run import train
from tests.models.hub import kit, sam2_tiny
from tests.models.hub.test_sam import CONFIG, PROCESSOR


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("checkpoints")
    return {
        "sam": kit.save(kit.noisy(SamModel(CONFIG)), root / "sam", preprocessor_config=PROCESSOR),
        "sam2": sam2_tiny.save(sam2_tiny.picture_model(), root / "sam2"),
    }


def trained(things: Any, base: Path, session: Any, out: Path, **changes: Any) -> Any:
    given = {
        "recipe": "sam",
        "loop.epochs": 2,
        "loop.batch_size": 4,
        "options.clicks": 1,
        "options.refinements": 1,
        "optimiser.lr": 1e-3,
        **{key.replace("__", "."): value for key, value in changes.items()},
    }
    return train(things, task="segment", model=str(base), out=out, set=given, session=session)


@pytest.mark.parametrize("mode", ["frozen", "full"])
@pytest.mark.parametrize("family", ["sam", "sam2"])
def test_a_checkpoint_is_trained_on_and_stays_one(things, folders, session, tmp_path, picture, family, mode):
    made = trained(things, folders[family], session, tmp_path / "run", loop__epochs=4, transfer__mode=mode)
    assert made.history[-1]["train/loss"] < made.history[0]["train/loss"]
    before, after = (load_file(folder / "model.safetensors") for folder in (folders[family], made.model))
    assert before.keys() == after.keys()
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    expected = {"mask_decoder", "prompt_encoder"} | ({"vision_encoder"} if mode == "full" else set())
    assert expected <= changed <= expected | {"no_memory_embedding"}
    assert not any("positional_embedding" in name and not torch.equal(before[name], after[name]) for name in before)
    found = session.run(SegmentRequest.of(image=picture, points=[(50, 20)]), model=str(tmp_path / "run"))
    other = session.run(SegmentRequest.of(image=picture, points=[(50, 20)]), model=str(folders[family]))
    assert found.mask.shape[1:] == other.mask.shape[1:] == (56, 72)
    assert not np.allclose(found.metadata["low_res"][0], other.metadata["low_res"][0])


def test_the_same_pictures_are_encoded_once(things, folders, session, tmp_path):
    first = trained(things, folders["sam"], session, tmp_path / "first", loop__epochs=1)
    second = trained(things, folders["sam"], session, tmp_path / "second", loop__epochs=1)
    assert any("8 encoded, 0 found" in note for note in first.notes)
    assert any("0 encoded, 8 found" in note for note in second.notes)
    assert first.history[-1]["train/loss"] == pytest.approx(second.history[-1]["train/loss"])


def test_what_is_not_done_is_said(things, folders, session, tmp_path):
    with pytest.raises(TrainError, match="augment"):
        trained(things, folders["sam"], session, tmp_path / "run", augment__policy="flip")
