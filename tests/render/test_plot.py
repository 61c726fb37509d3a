import math
import xml.etree.ElementTree as ET

import pytest

from manylens.evaluation import details
from manylens.render import plot

X = [0.0, 0.5, 1.0]
DETAILS = [
    details.curve("calibration", "said", "true", {"all": (X, X)}, diagonal=True),
    details.curve("clicks", "clicks", "IoU", {"a": ([1, 2, 3], [0.5, math.nan, 0.7]), "b": ([1, 2, 3], X)}),
    details.curve("band", "x", "y", {"a": (X, X)}, bands={"a": (X, X)}),
    details.matrix("confusion", ["cat", "dog & <b>"], [[5, 0], [1, 4]]),
    details.matrix("large", [f"class {i}" for i in range(60)], [[i == j for j in range(60)] for i in range(60)]),
    details.bars("AP by class", "AP", {"cat": 0.5, "dog": 0.25}),
]


@pytest.mark.parametrize("detail", DETAILS, ids=lambda detail: detail["title"])
def test_a_plot_is_one_svg_in_the_page_s_colours(detail: dict) -> None:
    text = plot.draw_detail(detail)
    assert ET.fromstring(text).tag.endswith("svg")
    assert "var(--" in text
    assert not {"#010203", "#040506", "#070809", "#0a0b0c"} & set(text.replace('"', " ").replace(";", " ").split())
    assert "http://" not in text.replace("http://www.w3.org", "")  # nothing is fetched
    assert plot.draw_detail(detail) == text


def test_a_table_has_no_drawing() -> None:
    assert plot.draw_detail(details.table("per class", ["class", "AP"], [["cat", 0.5]])) == ""


def test_names_and_numbers_stand_in_the_drawing() -> None:
    text = plot.matrix(["cat", "dog"], [[5, 0], [1, 4]])
    said = [node.text for node in ET.fromstring(text).iter() if node.tag.endswith("text")]
    assert {"cat", "dog", "5", "4", "1"} <= set(said)
    assert "0" not in said  # empty cells stay empty


def test_intervals_draw_a_line_for_each_name() -> None:
    text = plot.intervals({"a": (0.5, 0.4, 0.6), "b": (0.7, math.nan, math.nan)}, "mIoU", faint=["b"])
    said = [node.text for node in ET.fromstring(text).iter() if node.tag.endswith("text")]
    assert {"a", "b", "mIoU"} <= set(said)
