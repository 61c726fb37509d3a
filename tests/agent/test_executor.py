from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from manylens.agent import Plan, execute
from manylens.agent.executor import execute as run_steps
from manylens.agent.handover import named_as
from manylens.errors import EngineError, ManylensError, MediaError
from manylens.tasks import Answer, detections


def plan(*steps: tuple[str, dict[str, Any]], request: str = "a request", unclear: tuple[str, ...] = ()) -> Plan:
    rows = [{"id": i, "task": task, "args": args} for i, (task, args) in enumerate(steps, 1)]
    return Plan.of({"request": request, "steps": rows, "unclear": list(unclear)})


CUT = ("segment", {"image": "a.png", "text": "cat"})
NAME = ("answer", {"image": "$1.crop", "question": "What is it?"})
COUNT = ("answer", {"image": "a.png", "question": "How many?"})


def test_what_a_step_gives_goes_into_the_next(scripted: Any, picture: Any) -> None:
    session = scripted()
    run = execute(plan(CUT, NAME), [picture("a.png")], session=session)
    assert [step.state for step in run.steps] == ["done", "done"]
    assert run.answer == "I cut out 1 cat. It is a cat."
    crop = session.asked[1].image
    assert crop.size == (72, 48)  # the box and a tenth of it on each side
    np.testing.assert_array_equal(crop.array, session.asked[0].image.array[16:64, 24:96])


def test_boxes_become_objects_and_keep_their_names(scripted: Any, picture: Any) -> None:
    session = scripted(cats=2)
    steps = plan(
        ("detect", {"image": "a.png", "names": ["dog"]}), ("segment", {"image": "a.png", "objects": "$1.boxes"})
    )
    run = execute(steps, picture("a.png"), session=session)
    assert [prompt.box for prompt in session.asked[1].objects] == [(30, 20, 90, 60)] * 2
    assert list(run.steps[1].result.data["class_name"]) == ["dog", "dog"]
    assert run.answer == "I found 2 dogs. I cut out 2 dogs."


@pytest.mark.parametrize(
    ("task", "args", "field", "check"),
    [
        ("edit", {"image": "a.png", "mask": "$1.masks", "text": "x"}, "mask", lambda v: v.sum() == 2400),
        ("segment", {"image": "a.png", "box": "$1.boxes"}, "box", lambda v: v == (30, 20, 90, 60)),
        ("segment", {"image": "a.png", "objects": "$1.masks"}, "objects", lambda v: v[0].mask.sum() == 2400),
        ("answer", {"image": "a.png", "question": "$1.labels"}, "question", lambda v: v == "cat"),
        ("answer", {"image": "a.png", "question": "$1.count"}, "question", lambda v: v == "1"),
        ("classify", {"image": "a.png", "names": "$1.labels"}, "names", lambda v: v == ("cat",)),
        (
            "answer",
            {"image": "a.png", "question": "x", "more_images": ["$1.crop"]},
            "more_images",
            lambda v: len(v) == 1,
        ),
    ],
)
def test_outputs_as_arguments(scripted: Any, picture: Any, task: str, args: Any, field: str, check: Any) -> None:
    session = scripted()
    run_steps(plan(CUT, (task, args)), [picture("a.png")], session)
    assert check(getattr(session.asked[1], field))


def test_a_failed_step_holds_up_only_what_needs_it(scripted: Any, picture: Any) -> None:
    session = scripted(fail={"segment": EngineError("segment broke", "report it")})
    run = execute(plan(CUT, NAME, COUNT), [picture("a.png")], session=session)
    assert [step.state for step in run.steps] == ["failed", "skipped", "done"]
    assert [request.task for request in session.asked] == ["segment", "answer"]
    assert run.answer == (
        "I could not cut out the cat: segment broke; report it. "
        'I did not answer "What is it?": step 1 (segment), which it needs, failed. It is a cat.'
    )
    assert [step.exit_code for step in run.failed] == [1]


def test_nothing_found_is_no_failure_but_nothing_is_made_up(scripted: Any, picture: Any) -> None:
    run = execute(plan(CUT, NAME), [picture("a.png")], session=scripted(cats=0))
    assert [step.state for step in run.steps] == ["done", "skipped"]
    assert run.failed == ()
    assert run.answer.startswith("I found no cats. I did not answer")


def test_a_fault_of_a_step_becomes_an_error_of_one_line(scripted: Any, picture: Any) -> None:
    run = execute(plan(COUNT), [picture("a.png")], session=scripted(fail={"answer": ZeroDivisionError("x\ny")}))
    (failed,) = run.failed
    assert isinstance(failed.error, ManylensError)
    assert "step 1 (answer)" in str(failed.error)
    assert "\n" not in str(failed.error)


@pytest.mark.parametrize(("files", "part"), [((), "no file was given"), (("b.png",), "is not among the files given")])
def test_only_the_files_given_are_read(scripted: Any, picture: Any, files: Any, part: str) -> None:
    picture("a.png")
    session = scripted()
    run = execute(plan(CUT), [picture(name) for name in files], session=session)
    assert isinstance(run.failed[0].error, MediaError)
    assert part in run.answer
    assert session.asked == []


@pytest.mark.parametrize(
    ("name", "files", "line"),
    [
        ("$image", (), "no picture was given; name the picture after the request"),
        ("$image2", ("a.png",), "picture 2 was not given; name the picture after the request"),
    ],
)
def test_a_picture_that_was_not_given_has_no_inner_name(
    scripted: Any, picture: Any, name: str, files: Any, line: str
) -> None:
    made = plan(("segment", {"image": name, "text": "cat"}))
    run = execute(made, [picture(file) for file in files], session=scripted())
    assert str(run.failed[0].error) == line
    assert "$" not in run.answer + made.describe()


def test_the_brief_answer_leaves_the_reasons_out(scripted: Any, picture: Any) -> None:
    run = execute(plan(CUT), picture("a.png"), session=scripted(fail={"segment": EngineError("segment broke")}))
    assert (run.brief, run.answer) == ("I could not cut out the cat.", "I could not cut out the cat: segment broke.")
    assert run.to_json()["steps"][0]["error"] == "segment broke"


@pytest.mark.parametrize(
    ("answer", "unclear"),
    [
        (Answer("I do not understand that question.", known=False), ("order a pizza", "How many?")),
        (Answer("I do not know what a wug looks like.", known=False, kind="count"), ("order a pizza",)),
        (Answer("One."), ("order a pizza",)),
    ],
)
def test_a_question_that_the_model_does_not_understand_is_unclear(
    scripted: Any, picture: Any, monkeypatch: pytest.MonkeyPatch, answer: Answer, unclear: tuple[str, ...]
) -> None:
    monkeypatch.setattr(scripted, "answer", lambda self, request: answer)
    run = execute(plan(CUT, COUNT, unclear=("order a pizza",)), picture("a.png"), session=scripted())
    assert run.unclear == unclear
    assert run.to_json()["unclear"] == list(unclear)
    assert ('I did not understand "How many?".' in run.answer) == ("How many?" in unclear)


def test_a_picture_is_read_once_for_all_steps(scripted: Any, picture: Any) -> None:
    session = scripted()
    run_steps(plan(CUT, COUNT), [picture("a.png")], session)
    assert session.asked[0].image is session.asked[1].image


def test_arrays_and_the_first_picture(scripted: Any) -> None:
    session = scripted()
    run = execute(
        plan(("segment", {"image": "$image", "text": "cat"})), np.zeros((80, 120, 3), np.uint8), session=session
    )
    assert run.failed == ()


def test_models_by_task_and_unclear_parts(scripted: Any, picture: Any) -> None:
    session = scripted()
    run = execute(
        plan(CUT, COUNT, unclear=("order a pizza",)), [picture("a.png")], session=session, models={"segment": "x/y"}
    )
    assert session.models == ["x/y", None]
    assert run.answer.endswith('I did not understand "order a pizza".')


def test_several_pictures_are_told_apart_in_the_answer(scripted: Any, picture: Any) -> None:
    steps = plan(CUT, ("segment", {"image": "b.png", "text": "cat"}))
    run = execute(steps, [picture("a.png"), picture("b.png")], session=scripted())
    assert run.answer == "a.png: I cut out 1 cat.\nb.png: I cut out 1 cat."


def test_independent_steps_go_to_the_runner_of_waves_together(scripted: Any, picture: Any) -> None:
    waves: list[list[int]] = []

    def wave(run: Any, steps: Any) -> Any:
        waves.append([step.id for step in steps])
        return [run(step) for step in steps]

    run_steps(plan(CUT, NAME, COUNT), [picture("a.png")], scripted(), wave=wave)
    assert waves == [[1, 3], [2]]


def test_what_is_cut_out_of_boxes_is_the_best_of_each_and_ordered_by_score() -> None:
    masks = np.zeros((4, 8, 8), bool)
    for number, mask in enumerate(masks):
        mask[: number + 1] = True
    boxes = [(0, 0, 8, 8)] * 4
    found = detections(boxes, [0.9, 0.8, 0.7, 0.6], masks=masks, objects=[1, 0, 1, 0])
    named = named_as(found, ["cat", "dog"])
    assert list(named.data["class_name"]) == ["dog", "cat"]
    np.testing.assert_allclose(named.confidence, [0.9, 0.8])
    assert [int(mask.sum()) for mask in named.mask] == [8, 16]
