from pathlib import Path

import jiwer
import numpy as np
import pytest

from manylens.data.records import Annotation, Record
from manylens.evaluation.measures.reading import Text, normal
from manylens.tasks.results import Reading, TextLine
from tests.evaluation.measures import checks


def place(row: int) -> tuple[float, float, float, float]:
    return (0.0, 20.0 * row, 100.0, 20.0 * row + 10)


def record(name: str, lines: list[str], boxes: bool = False, ignore: tuple[int, ...] = ()) -> Record:
    annotations = tuple(
        Annotation(f"{name}{i}", box=place(i) if boxes else None, ignore=i in ignore, columns={"text": line})
        for i, line in enumerate(lines)
    )
    return Record(name, Path("x.png"), annotations=annotations)


def reading(lines: list[str], rows: list[int] | None = None) -> Reading:
    return Reading(
        lines=tuple(TextLine(t, 1.0, place(r)) for t, r in zip(lines, rows or range(len(lines)), strict=True))
    )


PAIRS = [
    (record("a", ["STOP", "give way"]), reading(["STOP", "give  may"])),
    (record("b", ["exit"]), None),
    (Record("c", Path("x.png"), columns={"text": "one two\nthree"}), reading(["one two", "three", "four"])),
    (record("d", [""]), reading(["noise"])),
]


def test_rates_are_those_of_jiwer() -> None:
    tally = checks.tally_of(Text(), PAIRS)
    truth, said = ["STOP give way", "exit", "one two three"], ["STOP give may", "", "one two three four"]
    three = tally.figures(np.array([[1.0, 1, 1, 0]]))
    assert three["CER"][0] == pytest.approx(jiwer.cer(truth, said))
    assert three["WER"][0] == pytest.approx(jiwer.wer(truth, said))
    assert three["exact lines"][0] == pytest.approx((1 + 0 + 2) / 5)
    assert set(three) == {"CER", "WER", "exact lines"}  # no boxes, no figures by box
    noise = tally.figures(np.array([[1.0, 0, 0, 1]]))["CER"][0]
    assert noise == pytest.approx((1 + 5) / 13)  # what was read where nothing stands is insertions
    assert tally.lower("CER")
    assert tally.main_figure == "CER"


@pytest.mark.parametrize(
    ("lines", "rows", "expected"),
    [
        (["STOP", "way"], [0, 1], {"found recall": 1, "found precision": 1, "found F1": 1, "spotted F1": 1}),
        (["STOP", "wax"], [0, 1], {"found recall": 1, "found precision": 1, "found F1": 1, "spotted F1": 0.5}),
        (["STOP"], [0], {"found recall": 0.5, "found precision": 1, "found F1": 2 / 3, "spotted F1": 2 / 3}),
        (["STOP", "STOP"], [0, 0], {"found recall": 0.5, "found precision": 0.5, "found F1": 0.5, "spotted F1": 0.5}),
        (["STOP", "???"], [0, 2], {"found recall": 0.5, "found precision": 1, "found F1": 2 / 3, "spotted F1": 2 / 3}),
        (["STOP"], [5], {"found recall": 0, "found precision": 0, "found F1": 0, "spotted F1": 0}),
    ],
)
def test_lines_by_their_boxes(lines: list[str], rows: list[int], expected: dict[str, float]) -> None:
    """Line 2 is illegible: what is read there is left out."""
    truth = record("a", ["STOP", "way", "##"], boxes=True, ignore=(2,))
    found = checks.tally_of(Text(), [(truth, reading(lines, rows))]).all()
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_matching_is_one_to_one_and_as_many_as_can_be() -> None:
    """Two of the lines are where other lines are, exactly; only the shifted match finds all three."""
    truth = tuple(Annotation(str(y), box=(0, y, 10, y + 10), columns={"text": "a"}) for y in (0, 3, 6))
    lines = tuple(TextLine("a", 1, (0, y, 10, y + 10)) for y in (3, 6, 9))
    found = checks.tally_of(Text(), [(Record("a", Path("x.png"), annotations=truth), Reading(lines=lines))]).all()
    assert found["found recall"] == 1


def test_what_holds_of_every_tally(tmp_path: Path) -> None:
    checks.order_and_batches_do_not_matter(Text, PAIRS)
    checks.a_weight_repeats(Text, PAIRS, [2, 1, 0, 3])
    checks.survives_a_file(checks.tally_of(Text(), PAIRS), tmp_path)


def test_perfect_and_empty() -> None:
    truth = record("a", ["STOP", "give way"], boxes=True)
    assert checks.tally_of(Text(), [(truth, reading(["STOP", "give way"]))]).all() == {
        "CER": 0, "WER": 0, "exact lines": 1, "found recall": 1, "found precision": 1, "found F1": 1, "spotted F1": 1
    }  # fmt: skip
    empty = checks.tally_of(Text(), [(truth, None)]).all()
    assert (empty["CER"], empty["WER"], empty["exact lines"], empty["found recall"]) == (1, 1, 0, 0)
    assert np.isnan(empty["found precision"])


def test_nothing_known_is_left_out() -> None:
    measure = Text()
    measure.add(Record("a", Path("x.png")), reading(["x"]))
    assert measure.problems.counts == {"no text": 1}
    assert len(measure.tally().units) == 0


@pytest.mark.parametrize(
    ("text", "fold", "expected"),
    [("a \n b", False, "a b"), ("STOP!", False, "STOP!"), ("STOP!", True, "stop"), ("e\u0301", False, "\u00e9")],
)
def test_normal(text: str, fold: bool, expected: str) -> None:
    assert normal(text, fold) == expected
