"""The commands with stand-in models: words, JSON, files, exit codes. Real weights are in tests/test_embedded.py."""

import json

import numpy as np
import PIL.Image
import pytest

from manylens import session as session_module
from manylens.cli import main
from manylens.cli import parameters as cli_parameters
from tests.session.fakes import row


@pytest.fixture
def run(make_session, monkeypatch, capsys):
    """Run a command line; gives (exit code, standard output, standard error)."""
    session = make_session(row("a"))
    monkeypatch.setattr(session_module, "default_session", lambda: session)
    monkeypatch.setattr(cli_parameters, "session_for", lambda options: session)
    monkeypatch.setattr("manylens.cli.task_commands.session_for", lambda options: session)

    def call(*words):
        with pytest.raises(SystemExit) as left:
            main([str(word) for word in words])
        printed = capsys.readouterr()
        return left.value.code or 0, printed.out, printed.err

    return call


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "photo.png"
    PIL.Image.fromarray(np.full((8, 12, 3), 90, np.uint8)).save(path)
    return path


def test_words_for_people(run, picture):
    code, out, err = run("classify", picture)
    assert code == 0
    assert "100.0%  manylens/a 12" in out
    assert err == ""


def test_json_for_machines_and_notes_stay_out_of_it(run, picture):
    code, out, _ = run("answer", picture, "what?", "--json", "--seed", "3")
    body = json.loads(out)
    assert code == 0
    assert body["type"] == "answer"
    assert body["input"] == "photo.png"
    assert body["provenance"]["seed"] == 3
    assert body["provenance"]["notes"] == ["a note"]


def test_files_in_a_folder(run, picture, tmp_path):
    code, out, _ = run("classify", picture, "-o", tmp_path / "out")
    assert code == 0
    assert "wrote" in out
    written = json.loads((tmp_path / "out" / "photo-classify.json").read_text())
    assert written["labels"][0]["name"] == "manylens/a 12"


def test_a_folder_of_pictures_gives_a_line_each_and_goes_on_after_a_bad_one(run, picture, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"")
    code, out, err = run("classify", tmp_path, "--json")
    assert [json.loads(line)["input"] for line in out.splitlines()] == ["photo.png"]
    assert code == 2
    assert "bad.jpg" in err
    assert "1 of 2 pictures failed" in err


@pytest.mark.parametrize("task", ["segment", "detect", "classify", "embed", "read", "depth"])
def test_every_task_on_one_picture_takes_folders(run, task, tmp_path):
    (tmp_path / "none").mkdir()
    extra = ["--mode", "everything"] if task == "segment" else []
    code, _, err = run(task, tmp_path / "none", *extra)
    assert code == 2
    assert "no pictures in this folder" in err


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["classify", "missing.jpg"], 2, "missing.jpg"),
        (["classify", "PICTURE", "--model", "nope"], 2, "nope: no such model"),
        (["read", "PICTURE"], 2, "read: no embedded model does this yet; name a checkpoint"),
        (["answer", "PICTURE", " "], 2, "question is empty"),
        (["answer", "PICTURE", "fail"], 1, "the model broke"),
        (["classify", "PICTURE", "--top", "0"], 2, "top"),
        (["segment", "PICTURE", "--point", "99,1"], 2, "lies outside photo.png, which is 12x8"),
        (["segment", "PICTURE"], 2, "no prompt for photo.png"),
        (["segment", "PICTURE", "--box", "5,5,2,2"], 2, "inverted"),
        (["segment", "PICTURE", "--like", "PICTURE"], 2, "mask"),
        (["pull", "nope"], 2, "nope: no such model"),
    ],
)
def test_mistakes_are_one_line_on_standard_error(run, picture, words, code, line):
    got, out, err = run(*[picture if word == "PICTURE" else word for word in words])
    assert got == code
    assert out == ""
    assert err.startswith("error: ")
    assert line in err
    assert len(err.splitlines()) == 1


def test_pictures_of_one_name_do_not_overwrite_each_others_results(run, picture, tmp_path):
    other = tmp_path / "other" / "photo.png"
    other.parent.mkdir()
    for path in (other, tmp_path / "photo.jpg"):
        PIL.Image.open(picture).save(path)
    code, _, _ = run("classify", tmp_path, other, other, "-o", tmp_path / "out")
    assert code == 0
    written = sorted(path.name.removesuffix("-classify.json") for path in (tmp_path / "out").iterdir())
    assert written == sorted(
        [f"{tmp_path.name}-photo-png", "photo-jpg", "other-photo-png", "other-photo-png-2"],
    )


def test_a_folder_that_cannot_be_written_to_is_said_before_the_work(run, picture, tmp_path):
    file = tmp_path / "taken"
    file.touch()
    for folder in (file, file / "out"):
        code, out, err = run("classify", picture, "-o", folder)
        assert (code, out) == (2, "")
        assert err == f"error: {folder}: cannot be written to ({file} is a file); name another folder with -o\n"
    run("classify", picture, "--model", "nope", "-o", tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["classify", "x.jpg", "--nope"], "--nope"),
        (["classifi", "x.jpg"], "classifi"),
        (["pull"], "ID"),
        (["answer", "x.jpg"], "QUESTION"),
        (["segment", "x.jpg", "--text", "cup", "--text", "bowl"], "--text is given twice"),
        (["classify", "x.jpg", "--top", "many"], "many"),
    ],
)
def test_misuse_of_the_command_line_is_one_line_and_exit_code_2(run, words, line):
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert line in err
    assert len(err.splitlines()) == 1


def test_ctrl_c_says_what_to_do(run, picture, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("manylens.cli.task_commands._run_one", interrupted)
    code, _, err = run("classify", picture)
    assert code == 130
    assert "run it again" in err


def test_log_shows_the_calls(run, picture):
    run("answer", picture, "nested")
    code, out, _ = run("log", "--json")
    rows = json.loads(out)
    assert code == 0
    assert [(entry["task"], entry["model"]) for entry in rows] == [("answer", "manylens/a"), ("classify", "manylens/a")]
    assert "classify" in run("log", "--summary")[1]


def test_models_lists_the_catalog(run):
    code, out, _ = run("models", "--json")
    assert code == 0
    assert [model["id"] for model in json.loads(out)] == ["manylens/a"]
    assert "manylens/a" in run("models", "--task", "answer")[1]


def test_version(run):
    assert run("--version")[1].startswith("manylens ")
