"""A list of runs: what is shown of how many, in which columns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from manylens.training.config import Config
from manylens.training.errors import TrainError
from manylens.training.recipes import RECIPES, find
from manylens.training.record import CONFIG
from manylens.training.runs import found, shown, table
from manylens.training.values import write


def run(folder: Path, record: dict, task: str = "classify", history: tuple[dict, ...] = (), **changes) -> Path:
    folder.mkdir(parents=True)
    config = Config.of({"task": task}).changed({key.replace("__", "."): one for key, one in changes.items()})
    write(config.to_json(), folder / CONFIG)
    (folder / "run.json").write_text(json.dumps({"state": "done", "task": task, "started": folder.name, **record}))
    (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in history))
    return folder


DONE = {"figures": {"accuracy": 0.75, "balanced_accuracy": 2 / 3}, "epochs": 4, "seconds": {"fit": 3.2, "save": 0.4}}


def test_the_columns_are_few_and_short(tmp_path):
    run(tmp_path / "1", DONE)
    run(tmp_path / "2", DONE, optimiser__lr=0.0012345678901234)
    many = {
        "optimiser__lr": 1e-4,
        "head__kind": "mlp",
        "schedule__milestones": [3, 5],
        "seed": 7,
        "domain__kind": "coral",
    }
    run(tmp_path / "3", DONE, **many, data__check=False, data__source="a-folder/" * 9, head__options={"hidden": 64})
    columns, lines, more = table(found([tmp_path]))
    assert columns[:7] == ["run", "state", "recipe", "balanced_accuracy", "epochs", "seconds", "optimiser.lr"]
    assert len(columns) == 6 + 5  # of 8 that differ; most runs differ in the rate
    assert not {"head.options", "task", "recipe"} & {*columns[6:], *more}
    assert len(more) == 3
    assert lines[1][1:7] == ["done", "classify", "0.6667", "4", "4", "0.001235"]
    assert [line[0] for line in lines] == [str(tmp_path / name) for name in "123"]  # by their start
    assert all(cell not in ("None", "[]", "{}") and len(cell) <= 32 for line in lines for cell in line[1:])
    few, cut, left = table(found([tmp_path]), width=len(str(tmp_path)) + 80)
    assert (few, len(cut[0]), [*few[6:], *left]) == (columns[: len(few)], len(few), [*columns[6:], *more])
    assert 7 <= len(few) < len(columns)
    assert len(table(found([tmp_path]), width=1)[0]) == 7
    keys = ["head.kind", "data.check", "schedule.milestones", "data.source"]
    columns, lines, more = table(found([tmp_path]), keys)
    assert (columns[6:], more) == (keys, [])
    assert lines[0][6:] == ["", "true", "", ""]
    assert lines[2][6:9] == ["mlp", "false", "3,5"]
    assert lines[2][9] == "..." + ("a-folder/" * 9)[-29:]
    with pytest.raises(TrainError, match=r"^--keys 'optimiser.lrr': no run .* did you mean optimiser.lr\?$"):
        table(found([tmp_path]), ["optimiser.lrr"])


def test_runs_of_several_tasks_name_their_figure(tmp_path):
    run(tmp_path / "1", DONE)
    run(tmp_path / "2", {"figures": {"loss": 1.0, "pq": 0.5}}, "segment", recipe="masks", options={"kind": "panoptic"})
    run(tmp_path / "3", DONE, loop__monitor="accuracy")
    rows = [{"epoch": n, "val/knn": 1 - loss, "seconds": 2.0} for n, loss in enumerate((0.9, 0.4, 0.6))]
    run(tmp_path / "4", {"state": "stopped"}, "embed", tuple(rows))
    run(tmp_path / "5", {"state": "running"})
    columns, lines, _ = table(found([tmp_path]))
    assert columns[3] == "figure"
    assert [line[2:4] for line in lines] == [
        ["classify", "balanced_accuracy 0.6667"],
        ["segment/masks", "pq 0.5"],
        ["classify", "accuracy 0.75"],
        ["embed/dino", "knn 0.6"],
        ["classify", ""],
    ]
    assert lines[3][4:6] == ["3", "6"]
    assert lines[4][4:6] == ["", ""]


def test_what_trained_nothing_and_parts_of_several_are_counted(tmp_path):
    run(tmp_path / "good", DONE)
    run(tmp_path / "bad", {"state": "failed"})
    run(tmp_path / "part", {"state": "stopped"}, history=({"epoch": 0},))
    run(tmp_path / "group" / "mine", DONE)
    for number in range(3):
        run(tmp_path / "search" / f"trial-00{number}", DONE)
    (tmp_path / "search" / "study.sqlite").touch()
    for number in range(2):
        run(tmp_path / "ablation" / "baseline" / f"seed-{number}", DONE)
    run(tmp_path / "jury", DONE)
    run(tmp_path / "jury" / "members" / "seed-0", DONE)
    runs, line = shown(found([tmp_path]))
    assert {one.folder.name for one in runs} == {"good", "part", "mine", "jury"}
    assert line == "not shown: 1 that trained nothing and 6 of searches, ablations and ensembles (--all shows them)"
    assert len(found([tmp_path])) == 11
    for name, count in (("search", 3), ("ablation", 2)):  # what is asked for itself is shown
        runs, line = shown(found([tmp_path, tmp_path / name]))
        assert len(runs) == 4 + count
    assert shown(found([tmp_path / "search"]))[1] == ""


@pytest.mark.parametrize("name", RECIPES)
def test_the_figure_of_a_recipe_is_known_before_it_is_imported(name):
    known = RECIPES[name]
    assert known.name == name
    assert find(known.task, name)[1].watched(Config.of({"task": known.task, "recipe": name})) == known.figure
