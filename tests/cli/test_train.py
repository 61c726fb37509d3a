"""The commands train, runs and export as they are typed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from manylens.cli import main
from tests import tiny


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.dinov2(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for name, level in (("dark", 60), ("light", 190)):
        (root / name).mkdir()
        for number in range(10):
            pixels = random.normal(level, 30, (28, 28, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


@pytest.fixture
def typed(base, pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MANYLENS_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    common = ["--task", "classify", "--data", str(pictures), "--model", str(base), "--epochs", "3", "--batch-size", "4"]

    def run(*words: str, given: bool = True) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main([words[0], *(common if given and words[0] == "train" else ()), *words[1:]])
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return run


def test_a_run_is_trained_listed_used_and_exported(typed, pictures, tmp_path):
    code, out, err = typed("train", "-o", "runs/first", "--json")
    assert code == 0, err
    assert json.loads(out)["figures"]["accuracy"] >= 0.5
    assert "epoch 3 of 3" in err
    typed("train", "-o", "runs/mlp", "--head", "mlp", "--lr", "0.01")
    code, out, _ = typed("runs")
    assert code == 0
    assert out.splitlines()[0].split("\t")[-2:] == ["head.kind", "optimiser.lr"]
    assert len(out.splitlines()) == 3
    (tmp_path / "runs" / "bad").mkdir()
    (tmp_path / "runs" / "bad" / "run.json").write_text('{"state": "failed"}')
    (tmp_path / "runs" / "bad" / "config.yaml").write_text("task: classify\n")
    code, out, err = typed("runs", "--keys", "seed,head.kind")
    assert out.splitlines()[0].split("\t")[3:] == ["balanced_accuracy", "epochs", "seconds", "seed", "head.kind"]
    assert (len(out.splitlines()), err) == (3, "not shown: 1 that trained nothing (--all shows them)\n")
    assert len(typed("runs", "--all")[1].splitlines()) == 4
    assert len(json.loads(typed("runs", "--json")[1])) == 3
    code, out, _ = typed("classify", str(pictures / "dark" / "0.png"), "--model", "runs/first", "--json")
    assert code == 0
    assert {label["name"] for label in json.loads(out)["labels"]} == {"dark", "light"}
    code, out, err = typed("export", "runs/first", "-o", "out")
    assert code == 0, err
    assert (tmp_path / "out" / "model.onnx").exists()
    assert (tmp_path / "runs" / "first" / "model" / "README.md").exists()


def test_a_side_that_is_made_whole_patches_is_said(typed):
    code, _, err = typed("train", "-o", "runs/x", "--set", "side=30", "--epochs", "1")
    assert code == 0, err
    assert "side 30 becomes 28, whole patches of 7 pixels" in err.splitlines()


def test_a_mistyped_run_is_told_as_such(typed, pictures, tmp_path):
    (tmp_path / "runs" / "first").mkdir(parents=True)
    code, _, err = typed("classify", str(pictures / "dark" / "0.png"), "--model", "runs/frist")
    assert (code, err) == (2, "error: runs/frist: no such folder; did you mean runs/first?\n")


def test_an_ablation_prints_means_and_differences(typed):
    code, out, err = typed("train", "-o", "runs/a", "--ablate", "weighted_loss,mixup", "--seeds", "2")
    assert code == 0, err
    lines = [line.split("\t") for line in out.splitlines() if "\t" in line]
    assert [line[0] for line in lines[:5]] == ["variant", "baseline", "weighted_loss", "mixup", "all of them"]
    assert "weighted_loss: changes nothing here: the classes are as frequent as each other" in out.splitlines()


def test_a_batch_size_is_told_with_the_steps_of_an_epoch(typed):
    code, out, err = typed("train", "--find-batch-size")
    assert code == 0, err
    size, steps = re.search(r"^--batch-size (\d+) \((\d+) steps? an epoch; ", out, re.MULTILINE).groups()
    assert int(steps) == 16 // int(size)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--set", "optimizer.lr=1"], "did you mean optimiser?"),
        (["--ablate", "focl"], "did you mean 'focal'"),
        (["--ablate", "focal", "--search"], "cannot be had at once"),
        (["--search"], "has no search.space"),
        (["--transfer", "frosen"], "'frosen' does not fit"),
        (["--config", "none.yaml"], "none.yaml: cannot be read"),
        (["--recipe", "dino"], "classify has none of that name"),
        (["--ensemble", "folds", "--members", "50"], "folds"),
    ],
)
def test_a_mistake_is_one_line(typed, words, says):
    code, _, err = typed("train", "-o", "runs/x", *words)
    assert code == 2
    assert says in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("runs", "nowhere"), "holds no run"),
        (("export", "nowhere", "-o", "out"), "nowhere"),
        (("train", "--task", "classify", "--data", "nowhere", "-o", "x"), "nowhere: there is no such file"),
        (("train", "--task", "classify", "-o", "x"), "data: none is given"),
    ],
)
def test_what_is_not_there_is_named(typed, words, says):
    code, _, err = typed(*words, given=False)
    assert code == 2
    assert says in err.splitlines()[-1]
