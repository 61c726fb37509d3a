"""``manylens dataset``: what it prints, what it writes, how it ends."""

import json
from dataclasses import replace

import pytest

from manylens.cli import main
from manylens.data import Annotation, Category, Dataset
from tests.data.helpers import picture, record


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Run a command line; gives (exit code, standard output, standard error)."""
    monkeypatch.setenv("MANYLENS_HOME", str(tmp_path / "home"))

    def call(*words):
        with pytest.raises(SystemExit) as left:
            main([str(word) for word in words])
        printed = capsys.readouterr()
        return left.value.code or 0, printed.out, printed.err

    return call


@pytest.fixture
def good(tmp_path):
    """A folder of our own form with eight records."""
    folder = tmp_path / "good"
    rows = [record(i, path=picture(folder / "pictures" / f"{i}.png", i), label="cat") for i in range(8)]
    Dataset.of(rows, [Category(1, "cat"), Category(2, "grass")], name="toy").save(folder)
    return folder


@pytest.fixture
def bad(good):
    """The same with a missing picture and a box outside."""
    rows = list(Dataset.open(good))
    rows[0] = replace(rows[0], annotations=(Annotation("far", "cat", (50, 0, 60, 5)),))
    Dataset.of(rows, [Category(1, "cat"), Category(2, "grass")], name="toy").save(good)
    rows[3].path.unlink()
    return good


def test_info(run, good):
    code, out, err = run("dataset", "info", good)
    assert (code, err) == (0, "")
    assert out.splitlines()[:3] == [
        "toy: 8 records, 16 annotations (8 boxes, 8 masks)",
        "splits: val 2, train 6",
        "labels: cat 8",
    ]
    assert "column age (int, known of 8 records): 0 to 7" in out
    _, out, _ = run("dataset", "info", good, "--json", "--hash")
    body = json.loads(out)
    assert body["categories"] == {"cat": 8, "grass": 8}
    assert body["hash"] == Dataset.open(good).fingerprint()


def test_check_lists_each_mistake_with_its_id(run, good, bad):
    code, out, err = run("dataset", "check", bad)
    assert (code, err) == (0, "")
    assert "box outside: annotation far of image img0: its box [50, 0, 60, 5] is outside of the image\n" in out
    assert "missing image: image img3: there is no file" in out
    assert out.endswith("4 problems, 4 rows left out\n")
    code, strict, err = run("dataset", "check", bad, "--strict")
    assert code == 2
    assert strict == out
    assert len(err.splitlines()) == 1
    _, out, _ = run("dataset", "check", bad, "--json")
    assert json.loads(out)["counts"] == {"box outside": 1, "missing image": 1, "image left out": 2}


def test_check_of_what_is_right(run, good):
    assert run("dataset", "check", good, "--strict") == (0, "nothing is wrong\n", "")


def test_convert_and_back(run, good, tmp_path):
    before = Dataset.open(good).fingerprint()
    code, out, _ = run("dataset", "convert", good, tmp_path / "labels.json", "--to", "coco")
    assert code == 0
    assert out == f"wrote {tmp_path / 'labels.json'} (8 records)\n"
    words = ("--format", "coco", "--images", good / "pictures", "--to", "manylens", "--copy")
    code, _, _ = run("dataset", "convert", tmp_path / "labels.json", tmp_path / "own", *words)
    assert code == 0
    assert len(list((tmp_path / "own" / "images").rglob("*.png"))) == 8
    assert Dataset.open(tmp_path / "own").fingerprint() == before


def test_convert_leaves_out_what_is_wrong_and_says_so(run, bad, tmp_path):
    code, out, err = run("dataset", "convert", bad, tmp_path / "own", "--to", "manylens")
    assert code == 0
    assert "(7 records)" in out
    assert err.startswith("note: 4 rows left out; ")
    code, _, err = run("dataset", "convert", bad, tmp_path / "strict", "--to", "manylens", "--strict")
    assert code == 2
    assert "annotation far of image img0" in err
    assert not (tmp_path / "strict").exists()


def test_split(run, good, tmp_path):
    words = ("--split", "train=0.75", "--split", "test=0.25", "--group", "site", "--seed", "1")
    code, out, _ = run("dataset", "split", good, tmp_path / "own", *words)
    assert code == 0
    made = Dataset.open(tmp_path / "own")
    assert f"wrote {tmp_path / 'own'} (" in out
    assert sum(made.splits.values()) == 8
    sites = {name: set(made.select(split=name).values("site")) for name in made.splits}
    assert not set.intersection(*sites.values())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["info", "none"], "none: there is no such file or folder"),
        (["convert", "GOOD", "out", "--to", "yolo"], "--to yolo: no such format; name one of manylens, coco"),
        (["convert", "GOOD", "out.json", "--to", "coco", "--copy"], "--copy: says nothing"),
        (["split", "GOOD", "out", "--split", "train"], "--split train: not NAME=SHARE"),
        (["split", "GOOD", "out", "--split", "a=0.5", "--split", "a=0.5"], "--split: names a split twice"),
        (["split", "GOOD", "out", "--split", "a=0.5"], "sum to 0.5, not to 1"),
        (["split", "GOOD", "out", "--split", "a=1", "--stratify", "nope"], "column 'nope': there is none"),
        (["info", "GOOD", "--format", "yolo"], "format 'yolo': not known"),
    ],
)
def test_mistakes_are_one_line(run, good, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    code, _, err = run("dataset", *[str(good) if word == "GOOD" else word for word in words])
    assert code == 2
    assert said in err
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.glob("out*"))
