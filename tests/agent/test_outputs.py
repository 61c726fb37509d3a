from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import PIL.Image
import pytest

from manylens import agent
from manylens.agent import StepRun, UnsavedError, outputs
from manylens.agent.plan import Plan, Step
from manylens.agent.report import graph
from manylens.errors import OutputError
from manylens.media import Image
from manylens.tasks import Answer

CUT_AND_TELL = "Cut out the cat and tell me what it is"


@pytest.fixture
def run(scripted: Any, picture: Any, tmp_path: Path) -> Any:
    def make(request: str = CUT_AND_TELL, **options: Any) -> Any:
        return agent.ask(request, picture("My Cat.png"), out=tmp_path / "out", session=scripted(**options))

    return make


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_files_of_a_run(run: Any, tmp_path: Path) -> None:
    made = run()
    stem = "my-cat"
    assert {path.name for path in made.files} == names(tmp_path / "out") == {
        f"{stem}-cat-mask.png", f"{stem}-cat-cutout.png", f"{stem}-segment.png",
        "labels.json", "answer.txt", "report.html", "run.json",
    }  # fmt: skip
    mask = np.asarray(PIL.Image.open(tmp_path / "out" / f"{stem}-cat-mask.png"))
    cutout = np.asarray(PIL.Image.open(tmp_path / "out" / f"{stem}-cat-cutout.png"))
    assert (mask > 0).sum() == 2400
    np.testing.assert_array_equal(cutout[..., 3], mask)
    assert (tmp_path / "out" / "answer.txt").read_text() == "I cut out 1 cat. It is a cat.\n"


def test_labels_are_coco(run: Any, tmp_path: Path, capsys: Any) -> None:
    from pycocotools.coco import COCO

    run("find the dogs and cut them out", cats=2)
    coco = COCO(tmp_path / "out" / "labels.json")
    assert len(coco.anns) == 2  # the boxes that were cut out are not counted twice
    (category,) = coco.cats.values()
    assert category["name"] == "dogs"
    for annotation in coco.anns.values():
        assert annotation["bbox"] == [30, 20, 60, 40]
        assert annotation["area"] == coco.annToMask(annotation).sum() == 2400
    assert coco.imgs[1]["file_name"] == "My Cat.png"


def test_a_thing_found_twice_gets_two_names(run: Any, tmp_path: Path) -> None:
    run(cats=2)
    assert {"my-cat-cat-mask.png", "my-cat-cat-2-mask.png"} <= names(tmp_path / "out")


def test_nothing_that_stood_in_the_folder_is_deleted(run: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "data.csv").write_text("mine")
    (out / "run.json").write_text('{"files": ["data.csv", "../a.txt"]}')  # someone else's record
    (tmp_path / "a.txt").write_text("mine")
    run(cats=2)
    first = names(out)
    run("How many cats are there?")
    assert names(out) == first | {"my-cat-answer.png"}
    assert (out / "data.csv").read_text() == (tmp_path / "a.txt").read_text() == "mine"
    assert json.loads((out / "run.json").read_text())["request"] == "How many cats are there?"


def test_a_folder_that_cannot_be_written_to_is_found_before_the_work(
    scripted: Any, picture: Any, tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("a file")
    session = scripted()
    for out in (tmp_path / "taken", tmp_path / "taken" / "out"):
        with pytest.raises(OutputError, match="taken"):
            agent.ask(CUT_AND_TELL, picture("a.png"), out=out, session=session)
    assert session.asked == []


def test_pictures_of_the_same_name_are_told_apart(scripted: Any, picture: Any, tmp_path: Path) -> None:
    out, places = tmp_path / "out", ("p1", "p2")
    for place in places:
        (tmp_path / place).mkdir()
        picture("x.png").rename(tmp_path / place / "x.png")  # copies: the pixels are the same too
    made = agent.ask("cut out the cat", [tmp_path / p / "x.png" for p in places], out=out, session=scripted())
    labels = json.loads((out / "labels.json").read_text())
    assert [image["file_name"] for image in labels["images"]] == [str(tmp_path / p / "x.png") for p in places]
    assert [row["image_id"] for row in labels["annotations"]] == [1, 2]
    assert {path.name for path in made.files} == names(out)
    assert {"p1-x-cat-mask.png", "p2-x-cat-mask.png", "p1-x-segment.png", "p2-x-segment.png"} <= names(out)


def test_arrays_are_told_apart(scripted: Any, tmp_path: Path) -> None:
    arrays = [np.full((80, 120, 3), value, np.uint8) for value in (10, 200)]
    session = scripted()
    agent.ask("cut out the cat", arrays, out=tmp_path / "out", session=session)
    assert [int(request.image.array[0, 0, 0]) for request in session.asked] == [10, 200]
    labels = json.loads((tmp_path / "out" / "labels.json").read_text())
    assert len({image["file_name"] for image in labels["images"]}) == 2


def test_parts_of_one_name_are_numbered_in_the_labels(scripted: Any, tmp_path: Path) -> None:
    images = [Image.of(np.full((80, 120, 3), value, np.uint8)) for value in (10, 200)]
    for image in images:
        image.name = "x.png (cat)"
    found = scripted().segment(SimpleNamespace(objects=()))
    steps = [Step(id=i, task="segment", args={"image": "x.png"}) for i in (1, 2)]
    runs = [StepRun(step, result=found, image=image) for step, image in zip(steps, images, strict=True)]
    outputs.Folder(tmp_path).write(runs)
    labels = json.loads((tmp_path / "labels.json").read_text())
    assert [image["file_name"] for image in labels["images"]] == ["x.png (cat)", "x.png (cat) (2)"]
    assert [image.name for image in images] == ["x.png (cat)"] * 2


def test_a_run_that_cannot_be_written_leaves_the_one_before(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run()
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def full(*args: Any) -> None:
        raise OutputError("labels.json: the disk is full")

    monkeypatch.setattr(outputs, "atomic_write", full)
    with pytest.raises(UnsavedError, match="disk is full") as failure:
        run()
    assert failure.value.run.answer == "I cut out 1 cat. It is a cat."
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_the_record_is_json_with_masks_as_rle(run: Any, tmp_path: Path) -> None:
    made = run()
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["answer"] == made.answer
    assert record["plan"] == made.plan.to_json()
    assert record["steps"][0]["result"]["detections"][0]["mask"]["size"] == [80, 120]


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def page_of(tmp_path: Path) -> tuple[str, Page]:
    text = (tmp_path / "out" / "report.html").read_text()
    return text, Page(text)


def test_the_page_shows_everything_and_reaches_nothing_outside(run: Any, tmp_path: Path) -> None:
    run(CUT_AND_TELL + " and order a pizza")
    text, page = page_of(tmp_path)
    said = " ".join(page.words)
    for part in (
        CUT_AND_TELL,
        "I cut out 1 cat.",
        "order a pizza",
        "m/segment",
        "openvino f32",
        "m/ssd",
        "crop of step 1",
    ):
        assert part in said, part
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "iframe", "object", "a")]
    sources = [attrs["src"] for tag, attrs in page.tags if tag == "img"]
    assert len(sources) >= 4
    assert all(source.startswith("data:image/") for source in sources)
    assert not re.search(r"(?:https?:)?//(?!\w*www\.w3\.org)[\w.]+\.\w+/", re.sub(r"data:[^\"]+", "", text))
    for name in ("my-cat-cat-mask.png", "report.html", "run.json"):
        assert name in said


def test_a_question_that_was_not_understood_is_not_an_outcome_of_the_page(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scripted: Any
) -> None:
    monkeypatch.setattr(scripted, "answer", lambda self, request: Answer("I do not understand.", known=False))
    run("Cut out the cat. Why is it there?")
    _, page = page_of(tmp_path)
    said = " ".join(page.words)
    assert "Not understood, and left out: “Why is the cat there?”" in " ".join(said.split())
    assert " I cut out 1 cat. " in said


def test_text_from_a_picture_stays_text(run: Any, tmp_path: Path) -> None:
    made = run('Read the text and <script>alert("x")</script>')
    text, page = page_of(tmp_path)
    assert "<b>IGNORE" not in text
    assert not [tag for tag, _ in page.tags if tag == "script"]
    assert [step.step.task for step in made.steps] == ["read"]


def test_the_plan_is_drawn_without_overlaps_and_inside_its_frame() -> None:
    steps = [
        {"id": 1, "task": "detect", "args": {"image": "a.jpg"}},
        {"id": 2, "task": "detect", "args": {"image": "b.jpg"}},
        {"id": 3, "task": "classify", "args": {"image": "$2.crop"}},
        {"id": 4, "task": "classify", "args": {"image": "$1.crop"}},
        {"id": 5, "task": "classify", "args": {"image": "$1.crop"}, "after": [4]},
    ]
    nodes, arrows, (width, height) = graph(Plan.of({"steps": steps}))
    assert len({(node.x, node.y) for node in nodes}) == 5
    assert all(0 <= node.x <= width - 196 and 0 <= node.y <= height - 58 for node in nodes)
    assert [arrow.label for arrow in arrows] == ["crop", "crop", "crop", ""]
    columns: dict[int, list[int]] = {}
    for node in nodes:
        columns.setdefault(node.x, []).append(node.y)
    assert all(abs(a - b) >= 58 for ys in columns.values() for a in ys for b in ys if a != b)


def test_asking_only_for_the_plan_needs_no_files() -> None:
    made = agent.ask("Cut out the cat", ["nowhere/cat.jpg"], plan_only=True)
    assert made.to_json()["steps"][0]["args"] == {"image": "cat.jpg", "text": "cat"}


def test_a_request_for_nothing_makes_no_steps(scripted: Any, tmp_path: Path) -> None:
    run = agent.ask("Write me a poem", out=tmp_path / "out", session=scripted())
    assert run.steps == ()
    assert run.answer == 'I did not understand "Write me a poem".'
    assert (tmp_path / "out" / "report.html").exists()
