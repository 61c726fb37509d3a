from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from manylens import agent
from manylens.agent import outputs
from manylens.agent.plan import Plan
from manylens.agent.report import graph
from manylens.errors import OutputError

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


def test_a_second_run_replaces_the_files_of_the_first_and_no_others(run: Any, tmp_path: Path) -> None:
    run(cats=2)
    (tmp_path / "out" / "mine.txt").write_text("kept")
    run("How many cats are there?")
    assert names(tmp_path / "out") == {"my-cat-answer.png", "answer.txt", "report.html", "run.json", "mine.txt"}


@pytest.mark.parametrize("record", ["{", "[]", '{"files": ["../mine.txt", "/etc/passwd", "..", 3]}', '{"files": 1}'])
def test_a_spoilt_record_deletes_nothing(run: Any, tmp_path: Path, record: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "mine.txt").write_text("kept")
    (tmp_path / "out" / "run.json").write_text(record)
    run()
    assert (tmp_path / "mine.txt").read_text() == "kept"


def test_a_run_that_cannot_be_written_leaves_the_one_before(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run()
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def full(*args: Any) -> None:
        raise OutputError("labels.json: the disk is full")

    monkeypatch.setattr(outputs, "atomic_write", full)
    with pytest.raises(OutputError):
        run()
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
