import json
from dataclasses import replace

import numpy as np
import pytest

from manylens.cli import main
from tests.evaluation.test_page import VALUES, evaluation

MADE = evaluation(VALUES)
MODEL, DATA, OPTIONS = MADE.model, MADE.data, MADE.options


def run(capsys, *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["compare", *map(str, words)])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


@pytest.fixture
def folders(tmp_path):
    evaluation(VALUES).save(tmp_path / "a")
    evaluation(VALUES + 0.05).save(tmp_path / "b")
    return tmp_path / "a", tmp_path / "b"


def test_two_evaluations_side_by_side(capsys, folders, tmp_path) -> None:
    code, out, err = run(capsys, *folders, "-o", tmp_path / "c.json")
    assert (code, err) == (0, "")
    assert "real, b is better" in out
    assert "60 objects of 60 pictures that both judged" in out
    body = json.loads((tmp_path / "c.json").read_text())
    assert body["differences"]["mIoU"]["difference"]["value"] == pytest.approx(0.05)
    assert body["differences"]["NoC@85"]["better"] == "a"


def test_json_is_all_that_is_printed(capsys, folders) -> None:
    code, out, _ = run(capsys, *folders, "--json")
    assert code == 0
    assert json.loads(out)["main"] == "mIoU"


def test_the_same_evaluation_is_no_better_than_itself(capsys, folders) -> None:
    _, out, _ = run(capsys, folders[0], folders[0])
    assert "may be chance" in out
    assert "is better" not in out


@pytest.mark.parametrize("missing", ["nothing", "empty"])
def test_a_folder_without_an_evaluation_is_one_line(capsys, folders, tmp_path, missing: str) -> None:
    (tmp_path / "empty").mkdir()
    code, _, err = run(capsys, folders[0], tmp_path / missing)
    assert code == 2
    assert missing in err
    assert err.count("\n") == 1


def test_the_folder_of_an_audit_will_do(capsys, folders) -> None:
    for folder in folders:
        (folder / "report.json").unlink()
    code, out, _ = run(capsys, *folders)
    assert code == 0
    assert "real, b is better" in out


def test_figures_that_are_not_defined_are_left_away(capsys, tmp_path) -> None:
    evaluation(np.full(60, np.nan)).save(tmp_path / "a")
    code, out, _ = run(capsys, tmp_path / "a", tmp_path / "a")
    assert code == 0
    assert "mIoU is not defined for both" in out


def test_what_else_differs_is_said(capsys, tmp_path) -> None:
    evaluation(VALUES, options={"clicks": 5, "seed": 1}).save(tmp_path / "a")
    evaluation(VALUES, options={"clicks": 3, "seed": 2}).save(tmp_path / "b")
    _, out, _ = run(capsys, tmp_path / "a", tmp_path / "b")
    assert "note: clicks is not the same: 5 in a, 3 in b" in out
    assert "seed is" not in out


@pytest.mark.parametrize(
    ("changes", "notes"),
    [
        ({"data": replace(DATA, fingerprint="beef")}, ["the data are not the same"]),
        ({"data": replace(DATA, fingerprint="beef", split="val")}, ["split is not the same: not set in a, val in b"]),
        (
            {"data": replace(DATA, fingerprint="beef"), "options": {**OPTIONS, "limit": 9}},
            ["limit is not the same: not set in a, 9 in b"],
        ),
        ({"model": replace(MODEL, precision="int8")}, ["precision is not the same: bf16 in a, int8 in b"]),
        ({"model": replace(MODEL, weights="fff")}, ["weights is not the same: abc in a, fff in b"]),
        ({"model": replace(MODEL, id="b", weights="fff", engine="")}, []),
    ],
)
def test_only_what_differs_is_said_to(capsys, tmp_path, changes: dict, notes: list[str]) -> None:
    evaluation(VALUES).save(tmp_path / "a")
    evaluation(VALUES, **changes).save(tmp_path / "b")
    said = [line for line in run(capsys, tmp_path / "a", tmp_path / "b")[1].splitlines() if line.startswith("note: ")]
    assert len(said) == len(notes)
    assert all(line.startswith(f"note: {note}") for line, note in zip(said, notes, strict=True))


def test_a_row_without_p_is_not_said_to_be_chance(capsys, tmp_path) -> None:
    few = np.where(np.arange(60) < 2, VALUES, np.nan)
    for name, values in (("a", few), ("b", few + 0.1)):
        evaluation(values).save(tmp_path / name)
    _, out, _ = run(capsys, tmp_path / "a", tmp_path / "b")
    assert "cannot be said" in out
    assert "may be chance" not in out
