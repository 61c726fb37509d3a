import re

import numpy as np
import pytest

from manylens.errors import ManylensError, MediaError, PromptError, UnknownTaskError
from manylens.tasks import TASKS, get, request
from manylens.tasks.requests import all_requests

IMAGE = np.zeros((40, 60, 3), np.uint8)
MASK = np.zeros((40, 60), bool)
MASK[5:20, 5:20] = True


def test_every_task_has_its_own_request_type_and_every_request_type_its_task():
    assert {kind.task for kind in all_requests()} == set(TASKS)
    assert all(task.request.task == name for name, task in TASKS.items())


def test_every_field_is_described_for_users():
    for kind in all_requests():
        for name, info in kind.model_fields.items():
            assert info.description, f"{kind.task}.{name}"


@pytest.mark.parametrize(
    ("task", "fields", "needs"),
    [
        ("segment", {"points": [(1, 2)]}, {"points"}),
        ("segment", {"points": [(1, 2)], "background_points": [(3, 4)], "box": (0, 0, 9, 9)}, {"points", "box"}),
        ("segment", {"mask": MASK}, {"mask"}),
        ("segment", {"text": "cat"}, {"text"}),
        ("segment", {"like": [{"image": IMAGE, "mask": MASK}]}, {"like"}),
        ("segment", {"mode": "everything"}, {"everything"}),
        ("segment", {"objects": [{"points": [(1, 1)]}, {"box": (1, 1, 5, 5)}]}, {"points", "box"}),
        ("detect", {}, {"closed"}),
        ("detect", {"names": "cat"}, {"names"}),
        ("detect", {"like": {"image": IMAGE, "box": (0, 0, 5, 5)}}, {"like"}),
        ("classify", {"names": ["cat", "dog"]}, {"names"}),
        ("embed", {"dense": True}, {"image", "dense"}),
        ("embed", {"box": (0, 0, 5, 5)}, {"region"}),
        ("read", {}, {"default"}),
        ("structure", {"kind": "pose"}, {"pose"}),
    ],
)
def test_needs(task, fields, needs):
    assert request(task, image=IMAGE, **fields).needs() == needs


def test_text_needs_text():
    assert request("embed", text="a cat").needs() == {"text"}


@pytest.mark.parametrize(
    ("task", "fields", "named", "remedy"),
    [
        ("segment", {"points": [(60, 5)]}, "(60, 5) lies outside array, which is 60x40", "x from 0 to 59"),
        ("segment", {"points": [(-1, 5)]}, "(-1, 5)", "y from 0 to 39"),
        ("segment", {"points": [(float("nan"), 5)]}, "nan", "x from 0"),
        ("segment", {"box": (30, 30, 10, 10)}, "inverted", "x0 < x1"),
        ("segment", {"box": (70, 0, 90, 20)}, "lies outside", "meets the picture"),
        ("segment", {"box": (0, 0, float("inf"), 5)}, "not finite", "four numbers"),
        ("segment", {}, "no prompt for array", "give a point"),
        ("segment", {"text": "  "}, "text is empty", "say something"),
        ("segment", {"background_points": [(1, 1)]}, "background points alone", "add a point"),
        ("segment", {"mask": np.ones((40, 61), bool)}, "61x40 pixels but the picture is 60x40", "own size"),
        ("segment", {"mask": np.zeros((40, 60), bool)}, "is empty", "at least one pixel"),
        ("segment", {"points": [(1, 1)], "mode": "everything"}, "takes no prompt", "leave"),
        ("segment", {"points": [(1, 1)], "mode": "panoptic"}, "no prompt but examples", "leave"),
        (
            "segment",
            {"like": [{"image": IMAGE, "mask": np.ones((40, 60), bool)}], "mode": "main"},
            "no prompt",
            "leave",
        ),
        ("segment", {"objects": [{}]}, "has no prompt", "points, a box or a mask"),
        ("segment", {"like": [{"image": IMAGE, "mask": np.ones((9, 9), bool)}]}, "9x9 pixels", "own size"),
        ("segment", {"mode": "all"}, "mode", ""),
        ("segment", {"point": [(1, 1)]}, "segment: point", "the fields are image, points"),
        ("segment", {"points": [(1, 2, 3)]}, "not clicks", "[(x, y), ...]"),
        ("segment", {"points": "1,2"}, "points '1,2': not clicks", "[(x, y), ...]"),
        ("detect", {"names": []}, "list of names is empty", "at least one"),
        ("detect", {"names": ["cat", " "]}, "' ' is not a name", "cat"),
        ("detect", {"threshold": 2}, "threshold", ""),
        ("answer", {"question": ""}, "question is empty", "say something"),
        ("match", {}, "needs a text or another picture", "--other"),
        ("embed", {"text": "cat"}, "2 inputs", "exactly one"),
        ("edit", {}, "nothing to do", "instruction"),
    ],
)
def test_mistakes_end_in_one_line_that_names_the_input_and_the_remedy(task, fields, named, remedy):
    with pytest.raises(PromptError) as caught:
        request(task, image=IMAGE, **fields)
    line = str(caught.value)
    assert named in line
    assert remedy in line
    assert "\n" not in line
    assert caught.value.exit_code == 2


def test_a_picture_that_cannot_be_read_keeps_its_own_error(tmp_path):
    path = tmp_path / "note.jpg"
    path.write_text("not a picture")
    with pytest.raises(MediaError, match=r"note\.jpg"):
        request("read", image=path)


def test_a_box_that_hangs_over_the_edge_is_let_through():
    assert request("segment", image=IMAGE, box=(-5, -5, 30, 30)).box == (-5, -5, 30, 30)


@pytest.mark.parametrize("points", [(3, 4), [3, 4], [(3, 4)], np.array([[3, 4]]), np.array([3, 4])])
def test_clicks_may_be_given_as_a_pair_a_list_or_an_array(points):
    assert request("segment", image=IMAGE, points=points).points == ((3.0, 4.0),)


def test_unknown_task_lists_the_tasks():
    with pytest.raises(UnknownTaskError, match="segment, track, detect"):
        get("segmentate")


def test_requests_do_not_change():
    asked = request("read", image=IMAGE)
    with pytest.raises(Exception, match="frozen"):
        asked.threshold = 0.1


def test_prompt_holds_what_was_asked_without_the_media():
    asked = request("segment", image=IMAGE, points=[(1, 2)], mask=MASK)
    assert asked.prompt() == {"points": [[1.0, 2.0]], "mode": "prompt"}


def test_the_single_prompt_and_the_objects_are_one_list():
    asked = request("segment", image=IMAGE, points=[(1, 2)], objects=[{"box": (1, 1, 5, 5)}])
    assert [sorted(prompt.kinds()) for prompt in asked.prompts()] == [["points"], ["box"]]


def test_all_errors_pickle_with_their_line():
    import pickle

    error = PromptError("cat.jpg: no", "do this")
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, ManylensError)
    assert (str(again), again.remedy) == ("cat.jpg: no; do this", "do this")


class TestExamples:
    EXAMPLE = {"image": IMAGE, "mask": MASK}

    def test_one_box_example_or_several(self):
        one = {"image": IMAGE, "box": (1, 1, 5, 5), "name": "cat"}
        assert request("detect", image=IMAGE, like=one).like == request("detect", image=IMAGE, like=[one]).like
        assert request("detect", image=IMAGE, like=one).needs() == {"like"}
        assert request("detect", image=IMAGE, like=None).needs() == {"closed"}

    def test_examples_of_classes(self):
        asked = request("classify", image=IMAGE, like=[{"image": IMAGE, "name": "cat"}])
        assert asked.needs() == {"like"}
        assert len(asked.pictures()) == 2  # what an example shows is part of what was asked

    @pytest.mark.parametrize(
        ("task", "fields", "said"),
        [
            ("detect", {"names": ["cat"], "like": {"image": IMAGE, "box": (1, 1, 5, 5)}}, "names and examples"),
            ("classify", {"names": ["cat"], "like": [{"image": IMAGE, "name": "a"}]}, "names and examples"),
            ("classify", {"like": [{"image": IMAGE, "name": ""}]}, "name"),
            ("segment", {"like": [EXAMPLE, {**EXAMPLE, "name": "cat"}]}, "name all examples, or none"),
            ("segment", {"like": [{**EXAMPLE, "mask": np.zeros_like(MASK)}]}, "empty"),
            ("segment", {"like": [{**EXAMPLE, "mask": MASK[:-1]}]}, "own size"),
            ("segment", {"points": [(1, 1)], "previous": np.zeros(3)}, r"previous is of shape \(3,\)"),
            ("segment", {"points": [(1, 1)], "threshold": 2}, "threshold"),
        ],
    )
    def test_what_does_not_go_together_is_refused(self, task, fields, said):
        with pytest.raises(PromptError, match=said):
            request(task, image=IMAGE, **fields)

    def test_a_match_needs_what_it_compares(self):
        assert request("match", image=IMAGE, text="a").needs() == {"text"}
        assert request("match", image=IMAGE, other=IMAGE).needs() == {"image"}


class TestTrack:
    VIDEO = [np.full((20, 30, 3), value, np.uint8) for value in (0, 90, 180)]

    def test_what_a_track_needs(self):
        asked = request("track", video=self.VIDEO, frame=2, points=[(3, 4)], objects=[{"box": (1, 1, 9, 9)}])
        assert asked.needs() == {"points", "box"}
        assert len(asked.prompts()) == 2
        assert request("track", video=self.VIDEO, text="cat").needs() == {"text"}

    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ({}, "no prompt for frames"),
            ({"frame": 3, "points": [(1, 1)]}, "has no frame 3; give a frame from 0 to 2"),
            ({"points": [(31, 1)]}, "31"),
            ({"mask": np.ones((5, 5), bool)}, "own size"),
            ({"text": " "}, "text is empty"),
        ],
    )
    def test_a_prompt_that_does_not_fit_is_refused(self, fields, said):
        with pytest.raises(PromptError, match=said):
            request("track", video=self.VIDEO, **fields)


def test_examples_are_given_by_name_or_in_order():
    by_name = request("segment", image=IMAGE, like=[{"image": IMAGE, "mask": MASK, "name": "cat"}])
    (example,) = request("segment", image=IMAGE, like=[(IMAGE, MASK, "cat")]).like
    assert (example.image == by_name.like[0].image, example.name) == (True, "cat")
    assert (example.mask == by_name.like[0].mask).all()
    (unnamed,) = request("detect", image=IMAGE, like=[(IMAGE, (0, 0, 5, 5))]).like
    assert (unnamed.box, unnamed.name) == ((0, 0, 5, 5), None)
    words = r'like.0: not an example; give {"image": ..., "mask": ..., "name": ...}'
    for wrong in (3, (IMAGE,), "a.jpg"):
        with pytest.raises(PromptError, match=re.escape(words)):
            request("segment", image=IMAGE, like=[wrong])
