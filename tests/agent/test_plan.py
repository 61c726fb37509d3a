from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manylens.agent.kinds import accepts, gives, kind_of
from manylens.agent.plan import Plan, Ref, Step
from manylens.errors import PlanError
from manylens.tasks import TASKS

CUT = {"id": 1, "task": "segment", "args": {"image": "cat.jpg", "text": "cat"}}


def plan(*steps: dict[str, Any]) -> Plan:
    return Plan.of({"steps": list(steps)})


def step(number: int, task: str, after: Any = (), **args: Any) -> dict[str, Any]:
    return {"id": number, "task": task, "args": args, "after": list(after)}


def test_the_public_form() -> None:
    made = plan(CUT, step(2, "answer", image="$1.crop", question="What is it?"))
    assert made.to_json() == {
        "steps": [
            {"id": 1, "task": "segment", "args": {"image": "cat.jpg", "text": "cat"}, "after": []},
            {"id": 2, "task": "answer", "args": {"image": "$1.crop", "question": "What is it?"}, "after": [1]},
        ],
        "unclear": [],
    }
    assert Plan.of(json.dumps(made.to_json())) == made
    assert made.media() == ("cat.jpg",)


def test_references_add_to_after() -> None:
    made = plan(
        CUT, step(2, "detect", image="cat.jpg"), step(3, "segment", image="$2.crop", objects="$2.boxes", after=[1])
    )
    assert made.step(3).after == (1, 2)
    assert [[s.id for s in wave] for wave in made.waves()] == [[1, 2], [3]]


def test_a_reference_inside_a_list() -> None:
    made = plan(CUT, step(2, "answer", image="a.jpg", question="What is it?", more_images=["$1.crop", "b.jpg"]))
    assert made.step(2).refs == (Ref(1, "crop"),)
    assert made.media() == ("cat.jpg", "a.jpg", "b.jpg")


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([step(1, "paint", image="a.jpg")], "step 1: 'paint' is not a task"),
        ([step(1, "ask", request="x")], "step 1: 'ask' is not a task"),
        ([step(1, "segment", image="a.jpg", colour="red")], "step 1: segment has no argument 'colour'"),
        ([step(1, "answer", image="a.jpg")], "step 1: answer needs 'question'"),
        ([CUT, CUT], "step 1: two steps have this id"),
        ([CUT, step(2, "answer", after=[7], image="a.jpg", question="x")], "step 2: depends on step 7"),
        ([CUT, step(2, "answer", image="$7.crop", question="x")], "step 2: depends on step 7"),
        ([CUT, step(2, "answer", image="$1.masks", question="x")], "which is masks; image takes image"),
        ([CUT, step(2, "answer", image="$1.text", question="x")], "which segment does not give; it gives masks"),
        ([CUT, step(2, "answer", image="a.jpg", question="$1.boxes")], "'question' of answer refers to $1.boxes"),
        ([CUT, step(2, "segment", image="a.jpg", box="$1.masks")], "which is masks; box takes boxes"),
        ([CUT, step(2, "segment", image="a.jpg", mode="$1.labels")], "mode takes no reference"),
        ([CUT, step(2, "answer", image="$1", question="x")], "'$1' is not a reference"),
        ([step(1, "segment", image="a.jpg", mode="sideways")], "step 1: 'mode' of segment"),
        ([step(1, "segment", image="a.jpg", points=[["x", 2]])], "step 1: 'points' of segment"),
        ([step(1, "segment", image=7, text="cat")], "step 1: 'image' of segment is not the name of a file"),
        ([step(1, "classify", image="$1.crop")], "step 1: 'image' of classify refers to $1.crop"),
        ([step(1, "detect", image="$2.crop"), step(2, "detect", image="$1.crop")], "waits for itself (1 -> 2 -> 1)"),
        ([step(1, "detect", image="a.jpg", after=[2]), step(2, "detect", image="a.jpg", after=[1])], "it waits"),
        ([{"id": 0, "task": "detect"}], "step 1: id"),
        ([{"task": "detect"}], "step 1: id"),
        ([{"id": 1, "task": "detect", "extra": 1}], "step 1: extra"),
        ("steps", "plan: steps"),
    ],
)  # fmt: skip
def test_a_plan_that_cannot_run_is_refused_with_its_step(steps: Any, message: str) -> None:
    with pytest.raises(PlanError) as caught:
        Plan.of({"steps": steps})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("text", ["", "{", "not json", "[1, 2]", '"x"'])
def test_what_is_no_plan(text: str) -> None:
    with pytest.raises(PlanError, match=r"^plan: "):
        Plan.of(text)


def test_every_result_but_a_workflows_gives_something() -> None:
    for name, task in TASKS.items():
        assert bool(gives(name)) != task.workflow, name


def test_each_argument_that_takes_a_picture_takes_the_picture_of_a_step() -> None:
    for name, task in TASKS.items():
        for argument in task.request.model_fields:
            if kind_of(name, argument) == "image":
                assert accepts(name, argument) == {"image"}
    assert kind_of("classify", "names") == "texts"
    assert kind_of("segment", "like") == "example"
    assert kind_of("segment", "mode") == "value"


@given(st.integers(1, 10**6), st.from_regex(r"[a-z_]{1,12}", fullmatch=True))
def test_a_reference_reads_back(number: int, output: str) -> None:
    assert Ref.parse(str(Ref(number, output))) == Ref(number, output)


@given(st.lists(st.sets(st.integers(1, 7)), max_size=7))
def test_waves_run_each_step_after_what_it_needs(needs: list[set[int]]) -> None:
    steps = [
        Step(id=i, task="detect", args={"image": "a.jpg"}, after=tuple(n for n in after if n < i))
        for i, after in enumerate(needs, 1)
    ]
    done: set[int] = set()
    for wave in Plan(steps=tuple(steps)).waves():
        assert all(set(one.after) <= done for one in wave)
        done |= {one.id for one in wave}
    assert done == {one.id for one in steps}
