"""``manylens audit memorisation`` and ``manylens audit membership``: tables, files, JSON, mistakes in one line."""

import json
import shlex

import numpy as np
import pytest

from manylens import models
from manylens.cli import main
from manylens.evaluation.tally import Tally
from tests.audit.test_memorisation import CHANGES, photo, save
from tests.session.fakes import row


@pytest.fixture
def run(make_session, monkeypatch, capsys, tmp_path):
    session = make_session(row("a", tasks="embed = ['image']", uses="embed"))
    monkeypatch.setitem(models.FAMILIES, "fake", "tests.audit.test_memorisation:Layout")
    monkeypatch.setattr("manylens.cli.memorisation.session_for", lambda options: session)
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "train", **{f"t{i}": photo(i) for i in range(8)})
    save(tmp_path / "held", **{f"h{i}": photo(50 + i) for i in range(6)})
    save(tmp_path / "made", copy=CHANGES["mirrored"](photo(4)), new=photo(90), other=photo(91))
    rng = np.random.default_rng(0)
    for name, scale in (("seen", 1), ("new", 3)):
        losses = rng.exponential(scale, 120)
        (tmp_path / f"{name}.csv").write_text("loss\n" + "".join(f"{one}\n" for one in losses))

    def call(words):
        with pytest.raises(SystemExit) as left:
            main(["audit", *shlex.split(words)])
        printed = capsys.readouterr()
        return left.value.code or 0, printed.out, printed.err

    return call


def test_copies_in_words_and_files(run, tmp_path):
    code, out, err = run("memorisation made --train train --held-out held --resamples 50 -o out")
    assert code == 0
    rows = [line.split("\t") for line in out.splitlines()]
    assert next(row for row in rows if row[0] == "copies")[:2] == ["copies", "0.3333"]
    (copy,) = [row for row in rows if row[0] == "copy.png"]
    assert copy[1] == "t4.png"
    assert copy[-1] == "copy, mirrored"
    assert "1 of 3 made pictures is a copy of a training picture" in out
    assert "note: 3 made pictures are few" in err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "memorisation.html",
        "memorisation.json",
        "tally.npz",
    ]
    assert Tally.load(tmp_path / "out/tally.npz").all()["copies"] == pytest.approx(1 / 3)


def test_copies_as_json(run):
    code, out, _ = run("memorisation made --train train --json --resamples 0 --limit 1")
    body = json.loads(out)
    assert code == 0
    assert body["made"] == {"name": "made", "pictures": 1}
    assert body["level"] == "copies"


def test_members_in_words_and_files(run, tmp_path):
    code, out, err = run("membership seen.csv new.csv --resamples 100 -o out")
    assert code == 0
    auc = float(next(line for line in out.splitlines() if line.startswith("AUC")).split("\t")[1])
    assert auc == pytest.approx(3 / 4, abs=0.07)  # of two exponentials: 3 / (3 + 1)
    assert "strong evidence that members can be told" in out
    assert "does not prove privacy" in err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "membership.html",
        "membership.json",
        "tally.npz",
    ]


def test_members_as_json(run):
    code, out, _ = run("membership seen.csv new.csv --resamples 20 --json")
    assert code == 0
    assert json.loads(out)["members"] == {"name": "seen.csv", "units": 120}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("memorisation nothing --train train", "nothing: there is no such file or folder"),
        ("memorisation made --train train --held-out-split val", "held-out split val: is a part of the training data"),
        ("membership seen.csv", "membership: needs two groups"),
        ("membership seen.csv new.csv --data train --task classify", "membership: needs two groups"),
        ("membership --data train", "membership: needs two groups"),
        ("membership seen.csv made", "made: holds no evaluation"),
        ("membership seen.csv gone", "gone: does not exist"),
    ],
)
def test_mistakes_end_in_one_line(run, words, said):
    code, out, err = run(words)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert said in err
    assert len(err.splitlines()) == 1


def test_help_names_the_options(run):
    for audit, options in (
        ("memorisation", ("--train", "--held-out", "--model", "--percentile")),
        ("membership", ("TRAIN_REPORT", "HELDOUT_REPORT", "--data", "--member-split", "--other-split", "--task")),
    ):
        code, out, _ = run(f"{audit} --help")
        assert code == 0
        assert all(option in out for option in options)
