"""The worst examples of the page: which record, which annotation, which pictures, which words."""

from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest

from manylens.data import Annotation, Record
from manylens.evaluation.measure import Regions
from manylens.evaluation.results import Example, finite
from manylens.evaluation.worst import shown
from manylens.media import to_rle
from manylens.tasks.results import Answer, Caption, Classification, Label
from tests.evaluation.scripted import picture, rectangle

SIZE = (40, 30)
RLE = dict(to_rle(rectangle(SIZE, (3, 4, 15, 20))))
DOOR = Annotation("1", "door", (3, 4, 15, 20), RLE)
ASKED = Annotation("q", columns={"question": "is it?"})


def of(record, prediction, unit, kind="image", lower=False):
    tally = SimpleNamespace(units=SimpleNamespace(kind=kind), score_name="F of this one", lower=lambda figure: lower)
    evaluation = SimpleNamespace(main_figure="F", worst=[Example(unit, record.id, 0.25, str(record.path))], tally=tally)
    (made,) = shown(evaluation, {record.id: record}, {record.id: prediction} if prediction is not None else {})
    assert (made.unit, made.score, made.figure) == (unit, -0.25 if lower else 0.25, "F of this one")
    return [one.alt for one in made.pictures], list(made.lines)


REGIONS = Regions(["cat"], np.array([0.9], np.float32), np.array([[1, 1, 9, 9]], np.float32))
MASKS = Regions(["cat"], np.array([0.1], np.float32), masks=[RLE])


@pytest.mark.parametrize(
    ("unit", "label", "annotations", "prediction", "pictures", "lines"),
    [
        ("1", "", (DOOR,), REGIONS, ["1: what is there", "1: what was found"], []),
        ("1", "", (DOOR,), MASKS, ["1: what is there", "1: what was found"], []),
        ("1", "", (DOOR,), None, ["1: what is there"], []),
        ("1", "cat", (), Classification((Label("dog", 0.75),)), ["1"], ["is cat", "was said to be dog 0.75"]),
        ("1", "", (), Caption("a dog"), ["1"], ["was said: a dog"]),
        ("q", "", (ASKED,), {"q": Answer("no"), "r": Answer("yes")}, ["1"], ["asked: is it?", "was said: no"]),
    ],
)
def test_the_truth_beside_what_was_said(tmp_path, unit, label, annotations, prediction, pictures, lines):
    record = Record("1", picture(tmp_path, "1"), *SIZE, label=label, annotations=annotations)
    assert of(record, prediction, unit, "question" if unit == "q" else "image") == (pictures, lines)


def test_an_object_is_shown_alone_and_named(tmp_path):
    for name in ("p", "1"):  # a picture may have the number of an annotation
        record = Record(name, picture(tmp_path, name), *SIZE, annotations=(DOOR,))
        assert of(record, None, "1", "object") == ([f"{name}: what is there"], ["is door"])
        assert of(record, {"1": REGIONS}, "1", "object")[0][1] == f"{name}: what was found"


def test_an_error_is_shown_as_the_figure_is(tmp_path):
    of(Record("p", tmp_path / "gone.png"), None, "p", lower=True)


def test_a_picture_that_is_gone_costs_only_itself(tmp_path):
    assert of(Record("p", tmp_path / "gone.png"), None, "p") == ([], [])


def test_json_knows_no_nan():
    given = {"a": float("nan"), "b": [np.float32("inf"), np.float32(0.5), np.int64(3)], "c": (True, None), "d": SIZE}
    assert finite(given) == {"a": None, "b": [None, 0.5, 3], "c": [True, None], "d": [40, 30]}


def test_a_class_has_one_colour_on_both_sides(tmp_path, monkeypatch):
    hues = []

    def drawn(image, found):
        hues.append(dict(zip(found.data["class_name"].tolist(), found.data["hue"].tolist(), strict=True)))
        return image.array

    monkeypatch.setattr(import_module("manylens.render.draw"), "draw", drawn)
    boxes = np.array([[1, 1, 9, 9], [2, 2, 9, 9], [3, 3, 20, 20]], np.float32)
    found = Regions(["cat", "door", "dog"], np.array([0.9, 0.8, 0.7], np.float32), boxes)
    cat = Annotation("2", "cat", (1, 2, 9, 12))
    record = Record("1", picture(tmp_path, "1"), *SIZE, annotations=(DOOR, cat))
    of(record, found, "1")
    assert hues == [{"door": 0, "cat": 1}, {"cat": 1, "door": 0, "dog": 2}]
