"""Requests over the photographs in examples/, on the real embedded weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from pycocotools.coco import COCO

from manylens import agent
from manylens.session import Session

pytestmark = pytest.mark.weights
EXAMPLES = Path(__file__).parents[2] / "examples"
TRUTH = Path(__file__).parents[2] / "examples" / "regions.json"


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with Session() as made:
        yield made


@pytest.mark.parametrize(
    ("picture", "request_", "answer"),
    [
        ("cat.jpg", "How many cats are there?", "1 cat."),
        ("cat.jpg", "Is there a dog?", "No, I see no dog."),
        ("cat.jpg", "Where is the cat?", "The cat is in the centre."),
        ("cat.jpg", "how many black cats are there", "I see no black cats."),
        ("cat.jpg", "What color is the cat", "The cat is brown."),
        ("coffee.jpg", "Is there a cup?", "Yes, I see a cup."),
        ("coffee.jpg", "How many dogs are there", "I see no dogs."),
        ("astronaut.jpg", "How many people can you see?", "1 person."),
        ("astronaut.jpg", "What is this?", "It is a person."),
        ("photographer.jpg", "Is there a person or a cat?", "Yes, a person."),
        ("sign.png", "What does the sign say?", 'The sign says "FRESH COFFEE / OPEN DAILY / 8 AM TO 6 PM".'),
        ("sign.png", "what number is on the sign", 'I read "8 AM TO 6 PM".'),
        ("cat.jpg", "What colour is the sky?", 'I do not know what "sky" looks like.'),
    ],
)
def test_answers_on_photographs(session: Session, picture: str, request_: str, answer: str) -> None:
    assert agent.ask(request_, EXAMPLES / picture, session=session).answer == answer


def test_the_main_job(session: Session, tmp_path: Path) -> None:
    run = agent.ask("Cut out the cat and tell me what it is", EXAMPLES / "cat.jpg", out=tmp_path, session=session)
    assert run.failed == ()
    assert run.answer.startswith("I cut out 1 cat. It is a cat (")
    mask = np.asarray(PIL.Image.open(tmp_path / "cat-cat-mask.png")) > 0
    assert mask.shape == (300, 451)
    assert mask[150, 230]  # between the eyes
    assert not mask[:, 440:].any()  # the table on the right
    assert 0.4 < mask.mean() < 0.95
    labels = json.loads((tmp_path / "labels.json").read_text())
    assert [category["name"] for category in labels["categories"]] == ["cat"]
    used = [part["model"] for step in run.steps for part in step.provenance.parts]
    assert used == ["manylens/ssd-coco", "manylens/regions-s", "manylens/ssd-coco", "manylens/efficientnet-lite3"]
    page = (tmp_path / "report.html").read_text()
    assert all(model in page for model in used)


@pytest.mark.parametrize(
    ("picture", "request_", "things"),
    [
        ("cat.jpg", "find the cat and cut it out", ["cat"]),
        ("coffee.jpg", "cut out the cup", ["cup"]),
        ("astronaut.jpg", "cut out the person and the dog", ["person"]),
        ("cat.jpg", "cut out the dog", []),
    ],
)
def test_cutting_out(session: Session, picture: str, request_: str, things: list[str]) -> None:
    last: Any = agent.ask(request_, EXAMPLES / picture, session=session).steps[-1]
    assert list(last.result.data["class_name"]) == things


@pytest.mark.parametrize(
    ("picture", "thing", "least"),
    [("cat.jpg", "cat", 0.6), ("coffee.jpg", "cup", 0.6), ("astronaut.jpg", "person", 0.6)],
)
def test_the_mask_lies_on_what_a_person_drew(session: Session, picture: str, thing: str, least: float) -> None:
    drawn = COCO(TRUTH)
    image = next(row for row in drawn.imgs.values() if row["file_name"] == picture)
    category = drawn.getCatIds(catNms=[thing])
    (outline,) = drawn.loadAnns(drawn.getAnnIds(imgIds=[image["id"]], catIds=category))
    truth = drawn.annToMask(outline).astype(bool)
    run = agent.ask(f"Cut out the {thing}", EXAMPLES / picture, session=session)
    mask = run.steps[0].result.mask[0]
    assert (mask & truth).sum() / (mask | truth).sum() >= least


def test_a_task_without_an_embedded_model_says_which_checkpoint_to_name(session: Session) -> None:
    run = agent.ask("Describe the picture and count the cats", EXAMPLES / "cat.jpg", session=session)
    assert [step.state for step in run.steps] == ["failed", "done"]
    assert "--model" in run.answer
    assert "Traceback" not in run.answer
