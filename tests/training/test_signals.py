"""What a training that is told to stop says, and what it leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_training_that_is_told_to_stop_says_how_it_goes_on(number, code, stripes, tiny_vit, tmp_path):
    environment = {**os.environ, "MANYLENS_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1", "MANYLENS_DEBUG": ""}
    words = ["train", "--task", "classify", "--epochs", "100000", "--data", str(stripes), "--model", str(tiny_vit)]
    command = [sys.executable, "-c", "from manylens.cli import main; main()", *words, "-o", str(tmp_path / "run")]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as made:
        assert made.stderr is not None
        try:
            for line in made.stderr:
                if line.startswith("epoch 3 of"):
                    break
            made.send_signal(number)
            rest = made.stderr.read()
            assert made.wait(60) == code
        finally:
            made.kill()
    lines = [line for line in rest.splitlines() if not line.startswith("epoch ")]
    assert any("go on with --resume" in line for line in lines), rest
    assert "Traceback" not in rest
    assert json.loads((tmp_path / "run" / "run.json").read_text())["state"] == "stopped"
    kept = len((tmp_path / "run" / "history.jsonl").read_text().splitlines())
    assert kept >= 3
    assert f"{kept} are kept" in rest
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()
