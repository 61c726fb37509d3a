from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manylens.data.records import Annotation, Record
from manylens.evaluation.measures.answers import Answers
from manylens.evaluation.measures.vqa import accuracy, normal
from manylens.tasks.results import Answer
from tests.evaluation.measures import checks


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Cat", "cat"),
        ("two", "2"),
        ("None.", "0"),
        ("1,000", "1000"),
        ("1.5", "1.5"),
        ("yes!", "yes"),
        ("black/white", "black white"),
        ("black, white", "black white"),
        ("t-shirt", "t shirt"),
        ("x -y z-w", "x y zw"),  # the reference looks at the whole answer, not at each mark
        ("dont know", "don't know"),
        ("couldntve", "couldn't've"),
        ("couldnt've", "couldn't've"),
        ("its a dog", "its dog"),
        ("well", "well"),
        ("", ""),
    ],
)
def test_the_official_normal_form(text: str, expected: str) -> None:
    assert normal(text) == expected


@pytest.mark.parametrize(
    ("answer", "answers", "expected"),
    [
        ("cat", ["cat"], 1.0),
        ("dog", ["cat"], 0.0),
        ("a cat", ["Cat!"], 1.0),
        ("cat", ["cat"] * 10, 1.0),
        ("cat", ["cat"] + ["dog"] * 9, (9 * 1 / 3) / 10),
        ("cat", ["cat"] * 2 + ["dog"] * 8, (2 * 1 / 3 + 8 * 2 / 3) / 10),
        ("cat", ["cat"] * 3 + ["dog"] * 7, (3 * 2 / 3 + 7) / 10),
        ("cat", ["cat"] * 4 + ["dog"] * 6, 1.0),
        ("cat", ["cat", "cat", "dog"], (2 * 1 / 2 + 1) / 3),
    ],
)
def test_accuracy_by_hand(answer: str, answers: list[str], expected: float) -> None:
    assert accuracy(answer, answers) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("answer", "expected"), [("1 cat.", 1), ("There is one", 1), ("11 cats", 0), ("1", 1), ("", 0), ("It is 1.5", 0)]
)
def test_an_answer_that_contains_what_people_said(answer: str, expected: float) -> None:
    assert accuracy(answer, ["1"], contained=True) == expected


@given(st.lists(st.sampled_from(["cat", "dog", "bird"]), min_size=10, max_size=10), st.sampled_from(["cat", "cow"]))
def test_accuracy_is_the_mean_over_subsets_of_nine(answers: list[str], answer: str) -> None:
    subsets = [min(sum(one == answer for one in nine) / 3, 1) for nine in combinations(answers, 9)]
    assert accuracy(answer, answers) == pytest.approx(sum(subsets) / 10)


def question(id: str, answers: object, **columns: object) -> Annotation:
    return Annotation(id, columns={"question": "What?", "answers": answers, **columns})


def pairs() -> list:
    a = Record(
        "a", Path("a.jpg"), annotations=(question("1", ["cat"], kind="name"), question("2", ["3"], kind="count"))
    )
    b = Record("b", Path("b.jpg"), annotations=(question("3", ["cat"] * 2 + ["dog"] * 8, kind="name"),))
    return [(a, {"1": Answer(text="a cat"), "2": Answer(text="no idea", known=False)}), (b, {"3": Answer(text="cat")})]


def test_questions_are_units_of_their_picture(tmp_path: Path) -> None:
    tally = checks.tally_of(Answers(columns=["kind"]), pairs())
    third = (2 / 3 + 16 / 3) / 10
    assert tally.all() == pytest.approx(
        {
            "accuracy": (1 + 0 + third) / 3,
            "contains": (1 + 0 + third) / 3,
            "unanswered": 1 / 3,
            "accuracy/count": 0.0,
            "accuracy/name": (1 + third) / 2,
        }
    )
    assert list(tally.units.clusters) == ["a", "a", "b"]
    assert tally.units.columns == {"kind": ["name", "count", "name"]}
    assert tally.lower("unanswered")
    assert not tally.lower("accuracy/name")
    checks.order_and_batches_do_not_matter(Answers, pairs())
    checks.survives_a_file(tally, tmp_path)


def test_what_is_wrong_is_said() -> None:
    record = Record("a", Path("a.jpg"), annotations=(question("1", []), question("2", ["x"]), Annotation("3")))
    measure = Answers()
    tally = checks.tally_of(measure, [(record, {"9": Answer(text="?")}), (record, None)])
    assert tally.all() == {"accuracy": 0, "contains": 0, "unanswered": 1}
    assert measure.problems.counts == {"no answers": 2, "unknown question": 1}
