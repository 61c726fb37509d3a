"""What a training tells TensorBoard, and MLflow where its address is set."""

from __future__ import annotations

import subprocess
import sys

import pytest

from manylens.training.run import train


def run(stripes, tiny_vit, session, out):
    changes = {"loop.epochs": 2, "loop.batch_size": 8, "record.card": False}
    return train(stripes, task="classify", model=str(tiny_vit), out=out, set=changes, session=session)


def test_tensorboard_has_the_figures_of_each_epoch(stripes, tiny_vit, session, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    made = run(stripes, tiny_vit, session, tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run" / "logs"))
    events.Reload()
    assert {"val/accuracy", "train/loss"} <= set(events.Tags()["scalars"])
    told = [one.value for one in events.Scalars("val/accuracy")]
    assert told == pytest.approx([row["val/accuracy"] for row in made.history], abs=1e-5)


def test_mlflow_has_them_where_its_address_is_set(stripes, tiny_vit, session, tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path / 'mlflow'}")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    run(stripes, tiny_vit, session, tmp_path / "run")
    kept = list((tmp_path / "mlflow").rglob("accuracy"))
    assert kept
    assert len(kept[0].read_text().splitlines()) == 2


def test_the_command_line_does_not_import_what_training_needs():
    """``manylens --help`` and ``import manylens`` stay quick."""
    words = "import sys, manylens; manylens.train; from manylens.cli.app import app; app('train'); "
    check = "print([name for name in ('torch', 'lightning', 'optuna', 'kornia', 'peft') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", words + check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
