"""Two processes end where one does that shows as much in a step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

COMMON = ["--task", "classify", "--epochs", "3", "--batch-size", "8"]
MODES = {
    "frozen": ["--set", "head.kind=mlp", "--set", "head.options.hidden=16"],
    "full": ["--transfer", "full", "--set", "augment.policy=light"],
}


def train(words: list[str], home: Path, processes: int) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "MANYLENS_HOME": str(home), "OMP_NUM_THREADS": "1", "MANYLENS_DEBUG": ""}
    command = [sys.executable, "-c", "from manylens.cli import main; main()", "train", *words]
    if processes > 1:
        script = home / "train.py"
        script.write_text("from manylens.cli import main\nmain()\n")
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--standalone"]
        command = [*launcher, str(script), "train", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.mark.parametrize("mode", MODES)
def test_two_processes_end_where_one_does(mode, stripes, tiny_vit, tmp_path):
    found = []
    for processes in (1, 2):
        home = tmp_path / f"home-{processes}"
        home.mkdir()
        out = tmp_path / f"run-{processes}"
        words = [*COMMON, *MODES[mode], "--data", str(stripes), "--model", str(tiny_vit), "-o", str(out)]
        printed = train(words, home, processes)
        assert printed.stdout.count("the model: --model") == 1  # the first process talks for all
        said = [line for line in printed.stderr.splitlines() if line.startswith(("features of", "train: 0 %"))]
        assert len(said) == len(set(said))
        record = json.loads((out / "run.json").read_text())
        assert record["state"] == "done"
        found.append((load_file(out / "model" / "model.safetensors"), record["figures"]))
    (one, figures), (two, again) = found
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=1e-5)
    assert figures == pytest.approx(again, abs=1e-5)
