"""``manylens evaluate`` with a scripted model: the table, the files, JSON, and mistakes in one line."""

import json
import shlex

import numpy as np
import PIL.Image
import pytest

from manylens import models
from manylens.cli import main
from manylens.tasks import detections
from tests.evaluation import scripted
from tests.evaluation.scripted import Scripted, rectangle

SIZE = (40, 30)
BOXES = {1: [3, 4, 12, 16], 2: [20, 6, 18, 20], 3: [0, 0, 9, 9]}


def answer(request):
    """Finds all but what is on the third picture, and cuts boxes out of what is clicked."""
    number = int(request.image.name[0])
    x, y, width, height = BOXES[number]
    box = (x, y, x + width, y + height)
    if request.task == "detect":
        return detections([box], [0.9], names=["cat"]) if number != 3 else detections([], [])
    mask = rectangle(SIZE, box)
    count = len(request.prompts())
    return detections([box] * count, [0.9] * count, masks=np.stack([mask] * count), objects=list(range(count)))


@pytest.fixture
def run(make_session, monkeypatch, capsys):
    monkeypatch.setitem(models.FAMILIES, "scripted", scripted.FAMILY)
    Scripted.answer, Scripted.asked = staticmethod(answer), []
    tasks = "detect = ['names', 'closed'], segment = ['points', 'box', 'mask']"
    session = make_session(scripted.row(tasks=tasks))
    monkeypatch.setattr("manylens.cli.evaluate.session_for", lambda options: session)

    def call(words):
        with pytest.raises(SystemExit) as left:
            main(["evaluate", *shlex.split(words)])
        printed = capsys.readouterr()
        return left.value.code or 0, printed.out, printed.err

    return call


@pytest.fixture(autouse=True)
def labels(tmp_path, monkeypatch):
    """A COCO file of three pictures, a fourth that is missing, and masks; the working folder holds it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    for number in BOXES:
        pixels = np.full((SIZE[1], SIZE[0], 3), 60 * number, np.uint8)
        PIL.Image.fromarray(pixels).save(tmp_path / "pictures" / f"{number}.png")

    def outline(box):
        x, y, width, height = box
        return [[x, y, x + width, y, x + width, y + height, x, y + height]]

    body = {
        "images": [
            {"id": i, "file_name": f"{i}.png", "width": 40, "height": 30, "site": "north" if i < 3 else "south"}
            for i in (*BOXES, 4)
        ],
        "categories": [{"id": 5, "name": "cat"}],
        "annotations": [
            {
                **{"id": i, "image_id": i, "category_id": 5, "iscrowd": 0},
                **{"bbox": box, "area": box[2] * box[3], "segmentation": outline(box)},
            }
            for i, box in BOXES.items()
        ],
    }
    (tmp_path / "coco.json").write_text(json.dumps(body))
    results = [{"image_id": i, "category_id": 5, "bbox": box, "score": 0.8} for i, box in BOXES.items()]
    (tmp_path / "found.json").write_text(json.dumps([*results, {**results[0], "image_id": 77}]))


DETECT = "--task detect --data coco.json --images pictures --resamples 20"


def test_the_table_the_slices_the_problems_and_the_files(run):
    code, out, err = run(f"{DETECT} --slice site --slice class -o report")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split("\t") == ["figure", "value", "95 % interval", "images"]
    (ap,) = (line.split("\t") for line in lines if line.startswith("AP\t"))
    assert float(ap[1]) == pytest.approx(2 / 3, abs=0.01)
    assert ap[3] == "3"
    assert "north\t1.0000\t-\t2\t2\ttoo small to judge (under 20 pictures)" in lines
    assert any(line.startswith("missing image: 1 (4)") for line in lines)
    assert "1 row left out" in lines
    assert "wrote report/report.json" in lines
    assert "wrote report/predictions.jsonl" in lines
    assert err.splitlines()[0].startswith("measuring detection: average precision of boxes, on 3 records of coco")


def test_the_users_own_command(run):
    code, out, err = run(
        "--task segment --data coco.json --images pictures --model manylens/scripted --prompt click --clicks 2 "
        "--slice site -o report/"
    )
    assert code == 0
    assert "1-click mIoU\t1.0000\t1.0000 to 1.0000\t3" in out
    assert "measuring clicks" in err
    assert json.loads(open("report/report.json").read())["options"]["clicks"] == 2  # noqa: PTH123, SIM115


def test_json_for_machines(run):
    code, out, err = run(f"{DETECT} --json --limit 2 --set threshold=0.5 --seed 3")
    body = json.loads(out, parse_constant=lambda name: pytest.fail(name))
    assert code == 0
    assert (body["task"], body["measure"], body["main"]) == ("detect", "detection", "AP")
    assert body["data"]["records"] == 2
    assert body["model"]["id"] == "manylens/scripted"
    assert (body["options"]["threshold"], body["options"]["seed"]) == (0.5, 3)
    assert body["figures"]["APl"]["value"] is None
    assert {"measuring" in line for line in err.splitlines()} == {True}


def test_saved_predictions_run_no_model(run):
    code, out, _ = run(f"{DETECT} --predictions found.json")
    assert code == 0
    assert "AP\t1.0000" in out
    assert "unknown image: 1 (3)" in out
    assert "2 rows left out" in out
    assert "(saved predictions)" in out
    assert Scripted.asked == []


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        ("--task detect --data nope.json", 2, "nope.json: there is no such file"),
        (f"{DETECT} --strict", 2, "image 4: there is no file"),
        (f"{DETECT} --slice age", 2, "slice 'age': the data has no such field; slice by one of class, size"),
        (f"{DETECT} --model nope", 2, "nope: no such model"),
        (f"{DETECT} --model a --predictions found.json", 2, "both are given"),
        (f"{DETECT} --predictions coco.json", 2, "coco.json"),
        (f"{DETECT} --measure beauty", 2, "measure 'beauty': not known"),
        (f"{DETECT} --split val", 2, "split 'val'"),
        (f"{DETECT} -o coco.json", 2, "coco.json: is a file; name a folder for the report"),
        (f"{DETECT} --format word", 2, "word"),
        (f"{DETECT} --resamples -1", 2, "resamples"),
        (f"{DETECT} --set five", 2, "--set five: not NAME=VALUE"),
        (f"{DETECT} --clicks 2", 2, "option 'clicks': detection does not take it"),
        (f"{DETECT} --max-cost 1", 2, "--max-cost 1: nothing says what time costs here"),
        ("--task see --data coco.json", 2, "'see' is not a task"),
        ("--task classify --data coco.json --images pictures", 2, "classification needs labels"),
        ("--data coco.json", 2, "--task"),
        ("--task depth --data coco.json --images pictures", 2, "depth needs depth"),
    ],
)
def test_mistakes_are_one_line(run, words, code, line):
    got, out, err = run(words)
    lines = [one for one in err.splitlines() if not one.startswith("measuring ")]
    assert (got, out) == (code, "")
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert line in lines[0]


def test_our_own_mistake_is_1(run, monkeypatch):
    def broken(request):
        raise RuntimeError("the model broke")

    Scripted.answer = staticmethod(broken)
    code, _, err = run(DETECT)
    assert code == 1
    assert "the model broke" in err
    monkeypatch.setattr("manylens.evaluation.evaluate.estimates", lambda *a, **k: 1 / 0)
    Scripted.answer = staticmethod(answer)
    assert run(DETECT)[0] == 1


def test_ctrl_c_keeps_what_is_done(run):
    seen = []

    def stopped(request):
        seen.append(request.image.name)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return answer(request)

    Scripted.answer = staticmethod(stopped)
    code, out, err = run(f"{DETECT} -o report")
    assert code == 130
    assert "run it again to go on" in err
    code, out, _ = run(f"{DETECT} -o report")
    assert code == 0
    assert "3 of 3 records judged" in out
    assert len(seen) == 6  # twice the names are tried on a picture; one picture was done


def test_help_names_the_options(run):
    code, out, _ = run("--help")
    assert code == 0
    for option in ("--task", "--data", "--images", "--model", "--predictions", "--prompt", "--slice", "--max-cost"):
        assert option in out
