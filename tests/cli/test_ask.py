"""The command around the agent; the agent itself is tested in tests/agent."""

import json

import pytest

from tests.cli.test_commands import picture, run  # noqa: F401 - fixtures


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
    assert "could not" in out
    assert err.startswith("error: read: no embedded model")
