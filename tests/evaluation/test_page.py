import re
from html.parser import HTMLParser

import numpy as np
import pytest

from manylens.data.problems import Problems
from manylens.evaluation import details
from manylens.evaluation.intervals import estimates
from manylens.evaluation.page import Shown, digits, page
from manylens.evaluation.results import SAVED, DataUsed, Evaluation, ModelUsed
from manylens.evaluation.slices import slice_by
from manylens.evaluation.tally import RatioTally, Units
from manylens.render.page import jpeg

IDS = [f"u{i}" for i in range(60)]


def evaluation(values: np.ndarray, **changes: object) -> Evaluation:
    sites = ["north"] * 30 + ["south"] * 25 + ["few"] * 5
    units = Units("object", IDS, IDS, {"site": sites})
    tally = RatioTally.of_values(units, {"mIoU": values, "IoU/cat": values, "NoC@85": values * 20}, errors=["NoC@85"])
    problems = Problems()
    problems.add("box outside", "a<17>", "annotation a<17>: its box lies outside of the picture")
    made = {
        "task": "segment",
        "measure": "clicks",
        "model": ModelUsed("manylens/regions-s", "abc", "openvino", "bf16", "cpu"),
        "data": DataUsed("regions.json", "f00d", 60, 60, 60),
        "options": {"prompt": "click", "resamples": 100},
        "figures": estimates(tally, resamples=100),
        "details": {"clicks": details.curve("IoU after clicks", "clicks", "IoU", {"mean": ([1, 2], [0.5, 0.6])})},
        "slices": [slice_by(tally, "site", resamples=100)],
        "problems": problems,
        "worst": [],
        "seconds": 1.5,
        "machine": {"cpu": "a processor"},
        "tally": tally,
    }
    return Evaluation(**(made | changes))  # type: ignore[arg-type]


class Text(HTMLParser):
    """Collects the words of a page and checks that its tags are closed."""

    void = frozenset({"meta", "img", "br"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.void:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words += data + " "


VALUES = np.concatenate([np.linspace(0.7, 0.9, 30), np.linspace(0.4, 0.6, 25), np.full(5, 0.5)])


def test_the_page_says_what_was_measured() -> None:
    html = page(evaluation(VALUES))
    words = " ".join(Text(html).words.split())
    assert f"mIoU {VALUES.mean():.3f}" in words
    assert "60 of 60 pictures judged" in words
    assert "south is served worst" in words
    assert "Not judged: few (5 pictures, 0.500)." in words
    assert "too small to judge: fewer than 20 pictures" in words
    assert "1 row left out" in words
    assert "annotation a<17>: its box" in words
    assert "<svg" in html


def test_the_page_fetches_nothing() -> None:
    picture = jpeg(np.zeros((20, 30, 3), np.uint8), "truth")
    html = page(evaluation(VALUES), [Shown("u3", 0.1, "mIoU", [picture, picture], ["said: dog"])])
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", html)
    assert "said: dog" in html


@pytest.mark.parametrize(
    ("values", "words"),
    [(np.full(60, np.nan), "Not defined"), (np.ones(60), "mIoU 1.000")],
)
def test_figures_that_are_not_defined_or_perfect(values: np.ndarray, words: str) -> None:
    assert words in Text(page(evaluation(values))).words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.12345, "0.123"),
        (12.345, "12.3"),
        (1234.5, "1234"),
        (0.0, "0.000"),
        (0.00012, "1.2e-04"),
        (1.7e-16, "0.000"),
        (-1e-13, "0.000"),
        (None, "-"),
    ],
)
def test_digits(value: float | None, text: str) -> None:
    assert digits(value) == text


def test_saved_predictions_are_asked_about_in_the_plural() -> None:
    said = page(evaluation(VALUES, model=ModelUsed(SAVED, source="predictions.csv")))
    assert "How good are the saved predictions at segment by click on regions.json?" in said
    assert "How well does" not in said


def test_a_pair_says_which_is_the_truth() -> None:
    picture = jpeg(np.zeros((20, 30, 3), np.uint8), "a picture")
    html = page(evaluation(VALUES), [Shown("u3", 0.1, "mIoU", [picture, picture], captions=["truth", "found"])])
    assert re.findall(r'class="side">(\w+)<', html) == ["truth", "found"]


def test_every_table_scrolls_in_its_card() -> None:
    html = page(evaluation(VALUES))
    tables = html.split("What was wrong with the rows")[0]
    assert tables.count("<table") == tables.count('<div class="wide"><table') > 2
