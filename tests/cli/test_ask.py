"""The command around the agent; the agent itself is tested in tests/agent."""

import json
from types import SimpleNamespace

import pytest

from manylens.agent import outputs
from manylens.errors import OutputError
from manylens.tasks import Answer
from tests.cli.test_commands import picture, run  # noqa: F401 - fixtures


def answers(monkeypatch, answer):
    """Have every question answered with this."""
    session = SimpleNamespace(run=lambda request, **_: answer)
    monkeypatch.setattr("manylens.cli.ask.session_for", lambda options: session)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["", "PICTURE"], "request is empty"),
        (["Write me a poem", "PICTURE"], "nothing in it was understood"),
        (["cut out the cat", "missing.jpg"], "missing.jpg: no such file"),
        (["cut out the cat", "BAD"], "bad.jpg: the file is empty"),
        (["cut out the cat", "PICTURE", "--model", "segment"], "not TASK=ID"),
    ],
)
def test_mistakes_are_one_line(run, picture, tmp_path, words, line):  # noqa: F811
    (tmp_path / "bad.jpg").touch()
    files = {"PICTURE": picture, "BAD": tmp_path / "bad.jpg"}
    code, _, err = run("ask", *[files.get(word, word) for word in words], "-o", tmp_path / "out")
    assert code == 2
    assert line in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_plan_needs_no_files(run):  # noqa: F811
    code, out, _ = run("ask", "Cut out the cat and tell me what it is", "none.jpg", "--plan-only", "--json")
    plan = json.loads(out)
    assert code == 0
    assert [step["task"] for step in plan["steps"]] == ["segment", "answer"]
    assert plan["steps"][1]["after"] == [plan["steps"][0]["id"]]
    assert plan["unclear"] == []


def test_what_is_not_understood_is_said(run):  # noqa: F811
    code, out, err = run("ask", "Cut out the cat and order a pizza", "none.jpg", "--plan-only")
    assert code == 0
    assert "segment" in out
    assert "not understood: 'order a pizza'" in err


def test_a_step_that_fails_is_the_exit_code(run, picture):  # noqa: F811
    code, out, err = run("ask", "read the sign", picture)
    assert code == 2
    assert "I could not read the text.\n" in out
    assert err.startswith("error: read: no embedded model")
    assert len(err.splitlines()) == 1


def test_no_picture_is_one_line_without_inner_names(run):  # noqa: F811
    code, out, err = run("ask", "cut out the cat")
    assert code == 2
    assert "segment  image: the picture" in out
    assert "I could not cut out the cat." in out
    assert err == "error: no picture was given; name the picture after the request\n"
    assert "$" not in out


def test_a_folder_that_is_a_file_is_said_before_the_work(run, picture, monkeypatch):  # noqa: F811
    answers(monkeypatch, Answer("12 cups."))
    code, out, err = run("ask", "what is in the picture?", picture, "-o", picture)
    assert code == 1
    assert "photo.png: cannot be written to" in err
    assert len(err.splitlines()) == 1
    assert "12" not in out


@pytest.mark.parametrize("json_too", [False, True])
def test_a_full_disk_does_not_cost_the_answer(run, picture, tmp_path, monkeypatch, json_too):  # noqa: F811
    def full(*_):
        raise OutputError("answer.txt: the disk is full")

    answers(monkeypatch, Answer("12 cups."))
    monkeypatch.setattr(outputs, "atomic_write", full)
    words = ["ask", "what is in the picture?", picture, "-o", tmp_path / "out"]
    code, out, err = run(*words, *(["--json"] if json_too else []))
    assert code == 1
    answer = json.loads(out)["answer"] if json_too else out
    assert "12 cups." in answer
    assert err == "error: answer.txt: the disk is full\n"


def test_a_question_that_is_not_understood_is_said(run, picture, monkeypatch):  # noqa: F811
    answers(monkeypatch, Answer("I do not understand.", known=False))
    code, out, err = run("ask", "what is it?", picture)
    assert code == 0
    assert 'I did not understand "What is it?".' in out
    assert err == "not understood: 'What is it?'\n"
