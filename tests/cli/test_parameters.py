import inspect

import pytest

from manylens.cli.parameters import COMMON, fields_from, join_words, signature
from manylens.errors import PromptError
from manylens.tasks import TASKS
from manylens.tasks.requests import SegmentRequest

SEGMENT = ["segment", "a.jpg"]


@pytest.mark.parametrize(
    ("words", "examples"),
    [
        (["--like", "d.jpg", "d.png"], [{"image": "d.jpg", "mask": "d.png"}]),
        (["--like", "d.jpg", "d.png", "dog"], [{"image": "d.jpg", "mask": "d.png", "name": "dog"}]),
        (
            ["--like", "d.jpg", "d.png", "dog", "--like", "c.jpg", "c.png", "--json"],
            [{"image": "d.jpg", "mask": "d.png", "name": "dog"}, {"image": "c.jpg", "mask": "c.png"}],
        ),
    ],
)
def test_like_takes_two_or_three_words(words, examples):
    joined = join_words([*SEGMENT, *words], SegmentRequest)
    given = [joined[i + 1] for i, word in enumerate(joined) if word == "--like"]
    assert fields_from(SegmentRequest, {"like": given})["like"] == examples


def test_a_file_is_never_taken_for_the_name(tmp_path):
    picture = tmp_path / "a.jpg"
    picture.touch()
    joined = join_words(["segment", "--like", "d.jpg", "d.png", str(picture)], SegmentRequest)
    assert joined[-1] == str(picture)


@pytest.mark.parametrize(
    ("values", "fields"),
    [
        ({"points": ["3,4", "5.5,6"], "text": None}, {"points": [(3, 4), (5.5, 6)]}),
        ({"background_points": ["1,2"]}, {"background_points": [(1, 2)]}),
        ({"box": "1,2,3,4"}, {"box": (1, 2, 3, 4)}),
        ({"image": "a.jpg", "mode": "main", "points": []}, {"image": "a.jpg", "mode": "main"}),
    ],
)
def test_fields_from_words(values, fields):
    assert fields_from(SegmentRequest, values) == fields


@pytest.mark.parametrize("word", ["3", "3,4,5", "a,b", "", "3;4"])
def test_a_word_that_is_no_point_says_the_form(word):
    with pytest.raises(PromptError, match="320,210"):
        fields_from(SegmentRequest, {"points": [word]})


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_every_command_has_the_common_options_and_no_name_twice(task):
    names = list(signature(task.request, several=True).parameters)
    assert names[-len(COMMON) :] == list(COMMON)
    assert len(names) == len(set(names))


def test_required_words_stay_required():
    parameters = signature(TASKS["answer"].request, several=False).parameters
    assert parameters["question"].default is inspect.Parameter.empty
    assert parameters["more_images"].default == []
