"""The runner: what is measured, on what, and what happens when something is wrong or stops it."""

import json

import numpy as np
import pytest

import manylens
from manylens import models
from manylens.data import Annotation, Category, DataError, Dataset, Record
from manylens.errors import CancelledError, CostError, EngineError, ManylensError, PromptError, UnsupportedError
from manylens.evaluation.evaluate import evaluate
from manylens.evaluation.results import Evaluation
from manylens.runtime.rates import Rates
from manylens.tasks import Answer, Classification, Label, detections
from tests.evaluation import scripted
from tests.evaluation.scripted import Scripted, annotation, answered, picture, record, rectangle

SIZE = (40, 30)
CLASSIFY = "classify = ['names']"
BOXES = {"one": (3, 4, 15, 20), "two": (20, 6, 38, 26), "three": (0, 0, 9, 9), "four": (10, 10, 30, 25)}


def truth(folder, name, category="cat", **columns):
    x0, y0, x1, y1 = BOXES[name]
    known = Annotation(f"a-{name}", category, (x0, y0, x1, y1), area=(x1 - x0) * (y1 - y0), columns=columns)
    return Record(name, picture(folder, name), *SIZE, annotations=(known,), columns={"site": name[0]})


@pytest.fixture
def boxed(tmp_path):
    """Four pictures with a box each; the colour belongs to the annotation."""
    records = [truth(tmp_path, name, "cat" if name != "two" else "dog", colour=name[:2]) for name in BOXES]
    return Dataset.of(records, [Category(1, "cat"), Category(2, "dog")], name="boxed")


@pytest.fixture
def ready(make_session, monkeypatch):
    """A session over the scripted model: ``ready(tasks, answer)``."""

    def make(tasks, answer, **options):
        monkeypatch.setitem(models.FAMILIES, "scripted", scripted.FAMILY)
        Scripted.answer, Scripted.asked = staticmethod(answer), []
        return make_session(scripted.row(tasks=tasks), **options)

    return make


def name_of(request):
    return request.image.name.removesuffix(".png")


def perfect(request):
    name = name_of(request)
    category = "dog" if name == "two" else "cat"
    return detections([BOXES[name]], [0.9], names=[category]) if category in request.names else detections([], [])


DETECT = "detect = ['names', 'closed']"


def test_a_perfect_detector_scores_1(ready, boxed):
    found = evaluate(boxed, task="detect", session=ready(DETECT, perfect), resamples=20)
    assert found.measure == "detection"
    assert found.figures["AP"].value == pytest.approx(1)
    assert found.model.id == "manylens/scripted"
    assert (found.data.records, found.data.judged, found.data.annotations) == (4, 4, 4)
    assert found.data.fingerprint == boxed.fingerprint()
    assert {asked.threshold for asked in Scripted.asked} == {0.01}
    assert {asked.names for asked in Scripted.asked} == {("cat", "dog")}


def test_options_reach_the_request(ready, boxed):
    evaluate(boxed, task="detect", session=ready(DETECT, lambda r: detections([], [])), threshold=0.3, closed=True)
    assert {(asked.threshold, asked.names) for asked in Scripted.asked} == {(0.3, None)}
    evaluate(boxed, task="detect", session=ready(DETECT, perfect), threshold=0)
    assert {asked.threshold for asked in Scripted.asked} == {0}


def test_a_record_that_fails_is_counted_and_the_run_goes_on(ready, boxed):
    def answer(request):
        if name_of(request) == "two":
            raise ValueError("the model broke")
        return perfect(request)

    found = evaluate(boxed, task="detect", session=ready(DETECT, answer), resamples=0)
    assert found.data.judged == 3
    assert dict(found.problems.counts) == {"model failed": 1}
    assert found.problems.left_out == 1
    assert [problem.id for problem in found.problems] == ["two"]
    with pytest.raises(DataError, match="two"):
        evaluate(boxed, task="detect", session=ready(DETECT, answer), resamples=0, strict=True)


def test_classes_that_the_model_does_not_know_count_as_missed(ready, boxed):
    def answer(request):
        if "dog" in request.names:
            raise UnsupportedError("'dog': not known")
        return perfect(request)

    found = evaluate(boxed, task="detect", session=ready(DETECT, answer), resamples=0)
    assert (found.figures["AP/cat"].value, found.figures["AP/dog"].value) == (pytest.approx(1), 0)
    assert any("'dog'" in note for note in found.notes)
    with pytest.raises(UnsupportedError, match="'cat', 'dog': the model knows none of them"):
        evaluate(boxed, task="detect", session=ready(DETECT, _knows_nothing))


def test_labels_that_a_classifier_does_not_know_are_not_asked_for(ready, tmp_path):
    records = [
        Record(name, scripted.picture(tmp_path, name), 40, 30, label=label)
        for name, label in (("one", "cat"), ("two", "eight"), ("three", "nine"))
    ]
    data = Dataset.of(records, [Category(i, name) for i, name in enumerate(("cat", "eight", "nine"))], name="labelled")

    def answer(request):
        if "cat" not in request.names:
            raise UnsupportedError("the model knows none of them")
        return Classification(labels=tuple(Label(name, float(name == "cat")) for name in request.names))

    found = evaluate(data, task="classify", session=ready(CLASSIFY, answer), resamples=0)
    assert Scripted.asked[-1].names == ("cat",)
    assert found.figures["accuracy"].value == found.figures["top-5"].value == pytest.approx(1 / 3)
    assert [note for note in found.notes if "'eight', 'nine': not asked for, they count as missed" in note]


def test_a_model_that_does_not_do_the_task_is_not_said_to_know_no_names(ready, boxed):
    session = ready(CLASSIFY, perfect)
    with pytest.raises(UnsupportedError, match="scripted does not do detect; it does classify"):
        evaluate(boxed, task="detect", model="manylens/scripted", session=session)


def _knows_nothing(request):
    raise UnsupportedError("nothing is known")


def test_what_would_meet_every_record_ends_the_run_at_once(ready, boxed):
    session = ready("classify = ['closed']", perfect)
    with pytest.raises(UnsupportedError, match="detect with names: no embedded model"):
        evaluate(boxed, task="detect", session=session)
    with pytest.raises(ManylensError, match="nope: no such model"):
        evaluate(boxed, task="detect", model="nope", session=session)


def test_nothing_judged_is_an_error(ready, boxed):
    def broken(request):
        raise ValueError("the model broke")

    with pytest.raises(EngineError, match=r"nothing could be judged, the first: .*the model broke"):
        evaluate(boxed, task="detect", session=ready(DETECT, broken))


# ---------------------------------------------------------------------- going on, stopping


def test_a_stopped_run_goes_on_where_it_was(ready, boxed, tmp_path):
    seen = []

    def answer(request):
        seen.append(name_of(request))
        if len(seen) == 4:
            raise CancelledError("stopped")
        return perfect(request)

    out = tmp_path / "out"
    session = ready(DETECT, answer)
    with pytest.raises(CancelledError):
        evaluate(boxed, task="detect", session=session, out=out, resamples=0)
    assert not (out / "report.json").exists()
    assert len(list(out.glob("unfinished-*"))) == 1
    before = len(seen)
    found = evaluate(boxed, task="detect", session=session, out=out, resamples=0)
    assert found.figures["AP"].value == pytest.approx(1)
    assert len(seen) - before < 4 + 1  # the names are tried once more; what was done is not
    assert not list(out.glob("unfinished-*"))


class Flat(Rates):
    """Every call costs 1."""

    cost_money = True

    def money(self, seconds):
        return 1.0


def test_a_cost_cap_stops_cleanly_and_says_how_many_were_judged(ready, boxed, tmp_path):
    out = tmp_path / "out"
    session = ready(DETECT, perfect, rates=Flat())
    found = evaluate(boxed, task="detect", session=session, out=out, resamples=0, max_cost=5.5)
    assert "cost cap" in found.stopped
    assert 0 < found.data.judged < 4
    assert 0 < found.cost <= 5.5
    assert json.loads((out / "report.json").read_text())["stopped"]
    again = evaluate(boxed, task="detect", session=session, out=out, resamples=0)
    assert (again.stopped, again.data.judged) == ("", 4)
    with pytest.raises(CostError, match="nothing was judged yet"):
        evaluate(boxed, task="detect", session=session, resamples=0, max_cost=0.5)


def test_clicks_stop_and_go_on_too(ready, tmp_path):
    masks = {name: rectangle(SIZE, box) for name, box in BOXES.items()}
    records = [record(tmp_path, name, annotation(name, mask, "door")) for name, mask in masks.items()]
    dataset = Dataset.of(records)

    def answer(request):
        return answered([[masks[name_of(request)]] for _ in request.prompts()], SIZE)

    session = ready(scripted.SEGMENT, answer, rates=Flat())
    out = tmp_path / "out"
    found = evaluate(dataset, task="segment", prompt="click", clicks=1, session=session, out=out, max_cost=3.5)
    assert "cost cap" in found.stopped
    assert 0 < len(found.tally.units) < 4
    again = evaluate(dataset, task="segment", prompt="click", clicks=1, session=session, out=out)
    assert len(Scripted.asked) == 4 + 4  # each object once, and once more for the page
    assert again.figures["1-click mIoU"].value == 1
    assert again.options["clicks"] == 1


# ---------------------------------------------------------------------- slices


def test_slices_by_record_annotation_class_and_size(ready, boxed):
    def answer(request):
        return perfect(request) if name_of(request) != "three" else detections([], [])

    found = evaluate(
        boxed, task="detect", session=ready(DETECT, answer), slices=("site", "colour", "class", "size"), resamples=10
    )
    site, colour, classes, size = found.slices
    assert {group.name: round(group.figures["AP"].value, 2) for group in site.groups} == {"f": 1, "o": 1, "t": 0.5}
    assert {group.name: round(group.figures["AP"].value, 2) for group in colour.groups} == {
        **{"fo": 1, "on": 1, "tw": 1},
        "th": 0,
    }
    assert [(group.name, group.units, group.clusters) for group in classes.groups] == [("cat", 3, 3), ("dog", 1, 1)]
    assert [group.name for group in size.groups] == ["small"]
    assert not any(group.judged for one in found.slices for group in one.groups)


def test_a_group_is_judged_by_its_own_annotations_alone(ready, tmp_path):
    one = Annotation("a", "cat", (0, 0, 10, 10), area=100, columns={"tone": "light"})
    two = Annotation("b", "cat", (20, 10, 35, 25), area=225, columns={"tone": "dark"})
    dataset = Dataset.of([Record("p", picture(tmp_path, "p"), *SIZE, annotations=(one, two))], [Category(1, "cat")])

    def finds_light(request):
        return detections([(0, 0, 10, 10)], [0.9], names=["cat"])

    found = evaluate(dataset, task="detect", session=ready(DETECT, finds_light), slices=("tone",), resamples=0)
    assert {group.name: group.figures["AP"].value for group in found.slices[0].groups} == {
        "dark": 0,
        "light": pytest.approx(1),
    }
    assert found.figures["AP"].value == pytest.approx(0.505, abs=0.01)


@pytest.mark.parametrize(
    ("field", "message"),
    [("nope", r"slice 'nope': the data has no such field; slice by one of class, size, split, label, site, colour")],
)
def test_an_unknown_field_lists_those_there_are_before_anything_is_run(ready, boxed, field, message):
    with pytest.raises(DataError, match=message):
        evaluate(boxed, task="detect", session=ready(DETECT, perfect), slices=(field,))
    assert Scripted.asked == []


# ---------------------------------------------------------------------- other tasks


def test_classification_asks_for_the_classes_of_the_data(ready, tmp_path):
    records = [Record(n, picture(tmp_path, n), label=n[0]) for n in ("a1", "a2", "b1", "b2")]
    dataset = Dataset.of(records, [Category(1, "a"), Category(2, "b")])

    def answer(request):
        right = name_of(request)[0]
        best = right if name_of(request) != "b2" else "a"
        assert request.top == len(request.names) == 2
        return Classification((Label(best, 0.8), Label("b" if best == "a" else "a", 0.2)))

    found = evaluate(dataset, task="classify", session=ready("classify = ['names']", answer), slices=("class",))
    assert found.figures["accuracy"].value == 0.75
    assert {group.name: group.figures["accuracy"].value for group in found.slices[0].groups} == {"a": 1, "b": 0.5}
    assert found.worst[0].unit == "b2"
    assert found.worst[0].path.endswith("b2.png")


def test_every_question_is_a_request_and_one_that_fails_is_a_wrong_answer(ready, tmp_path):
    questions = [
        Annotation(f"q{i}", columns={"question": text, "answers": ["yes"] * 10})
        for i, text in enumerate(["is it?", "fail", "or not?"])
    ]
    silent = Record("silent", picture(tmp_path, "silent"))
    asked = Record("asked", picture(tmp_path, "asked"), annotations=tuple(questions))
    last = Record("last", picture(tmp_path, "last"), annotations=(Annotation("q9", columns=questions[0].columns),))

    def answer(request):
        if request.question == "fail":
            raise ValueError("the model broke")
        return Answer("yes")

    found = evaluate(Dataset.of([silent, asked, last]), task="answer", session=ready("answer = ['default']", answer))
    assert found.tally.units.ids == ["q0", "q1", "q2", "q9"]
    assert found.figures["accuracy"].value == 0.75
    assert [problem.id for problem in found.problems] == ["q1"]


def test_a_missing_picture_is_told_from_a_broken_one(ready, tmp_path):
    (tmp_path / "bad.png").write_text("no picture")
    records = [
        Record("good", picture(tmp_path, "good"), label="a"),
        Record("gone", tmp_path / "gone.png", label="a"),
        Record("bad", tmp_path / "bad.png", label="b"),
    ]
    session = ready("classify = ['names']", lambda request: Classification((Label("a", 1.0),)))
    found = evaluate(Dataset.of(records), task="classify", session=session, resamples=0)
    assert dict(found.problems.counts) == {"missing image": 1, "bad image": 1}
    assert found.data.judged == 1


# ---------------------------------------------------------------------- what is kept


def test_saved_and_read_back_the_same(ready, boxed, tmp_path):
    out = tmp_path / "out"
    made = evaluate(boxed, task="detect", session=ready(DETECT, perfect), out=out, slices=("site",), resamples=10)
    assert {file.name for file in made.files} >= {"report.json", "tally.npz", "predictions.jsonl"}
    again = Evaluation.load(out)
    assert again.to_json() == made.to_json()
    assert again.tally.all() == pytest.approx(made.tally.all(), nan_ok=True)
    body = json.loads((out / "report.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert body["figures"]["APl"]["value"] is None  # there is no large object
    judged = evaluate(boxed, task="detect", predictions=out, resamples=10, slices=("site", "colour"))
    assert judged.model.id == "saved predictions"
    for name, figure in made.figures.items():
        np.testing.assert_allclose(
            [judged.figures[name].value, judged.figures[name].low], [figure.value, figure.low], equal_nan=True
        )


def test_two_runs_on_the_same_data_compare(ready, boxed):
    good = evaluate(boxed, task="detect", session=ready(DETECT, perfect), resamples=0)
    none = evaluate(boxed, task="detect", session=ready(DETECT, lambda request: detections([], [])), resamples=0)
    found = manylens.compare(none.tally, good.tally, resamples=50)
    assert found.differences["AP"].difference.value == pytest.approx(1)


def test_order_of_the_records_changes_nothing(ready, boxed):
    session = ready(DETECT, perfect)
    turned = Dataset.of(reversed(list(boxed)), boxed.categories)
    one, two = (evaluate(data, task="detect", session=session, resamples=30) for data in (boxed, turned))
    assert one.data.fingerprint == two.data.fingerprint
    for name, figure in one.figures.items():
        np.testing.assert_allclose(
            [two.figures[name].value, two.figures[name].low], [figure.value, figure.low], equal_nan=True
        )


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"model": "a", "predictions": "b"}, PromptError, "both are given"),
        ({"clicks": 3}, UnsupportedError, "option 'clicks': detection does not take it; it takes closed, threshold"),
        ({"split": "val"}, DataError, "split 'val': there is none"),
        ({"limit": 0}, DataError, "limit"),
        ({"predictions": "nope.json"}, DataError, "nope.json: no such file"),
        ({"measure": "captions"}, UnsupportedError, "measure 'captions': judges caption, not detect"),
        ({"prompt": "click"}, UnsupportedError, "detect takes none"),
    ],
)
def test_mistakes_are_said_before_anything_is_run(ready, boxed, options, error, message):
    with pytest.raises(error, match=message):
        evaluate(boxed, task="detect", session=ready(DETECT, perfect), **options)
    assert Scripted.asked == []


def test_limit_and_split_take_a_part(ready, boxed):
    session = ready(DETECT, perfect)
    assert evaluate(boxed, task="detect", session=session, limit=2, resamples=0).data.records == 2
    halves = boxed.split({"train": 0.5, "val": 0.5}, seed=0)
    found = evaluate(halves, task="detect", session=session, split="val", resamples=0)
    assert (found.data.records, found.data.split) == (halves.splits["val"], "val")
