"""What a run says of itself, and which runs a folder holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from manylens.training.config import Config
from manylens.training.errors import TrainError
from manylens.training.record import CONFIG, Record, told
from manylens.training.runs import found
from manylens.training.values import write

DATA, BASE = {"hash": "0" * 64}, {"weights": "1"}
PLAIN = Config.of({"task": "classify"})


@pytest.mark.parametrize("text", [None, "", "{", "[]", "{}", "\udcff"])
def test_a_record_that_cannot_be_read_says_nothing(text, tmp_path):
    if text is not None:
        (tmp_path / "run.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert told(tmp_path) == {}


def test_a_run_says_what_was_written(tmp_path):
    made = Record.begin(tmp_path / "run", PLAIN, DATA, BASE, resume=False)
    made.save(state="done", figures={"accuracy": 0.5})
    assert told(tmp_path / "run") == json.loads(json.dumps(made.values))


def test_a_run_whose_record_is_broken_does_not_go_on(tmp_path):
    Record.begin(tmp_path / "run", PLAIN, DATA, BASE, resume=False)
    (tmp_path / "run" / "run.json").write_text("{")
    for resume in (True, False):
        with pytest.raises(TrainError, match=r"cannot go on, its run\.json is broken"):
            Record.begin(tmp_path / "run", PLAIN, DATA, BASE, resume)


def test_runs_are_found_where_they_are_whole(tmp_path):
    def run(name: str, record: str, config: bool = True) -> Path:
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "run.json").write_text(record)
        if config:
            write(PLAIN.to_json(), tmp_path / name / CONFIG)
        return tmp_path / name

    second = run("a", '{"started": "2"}')
    first = run("b/members/c", '{"started": "1"}')
    run("broken", "{")
    run("another", '{"request": "What is it?"}', config=False)  # of an answer, not of a training
    assert [one.folder for one in found([tmp_path, tmp_path / "b"])] == [first, second]
    assert found([tmp_path])[-1].config["optimiser.kind"] == "adamw"
