"""Which measure is taken: from what is asked, what the data holds and what the model takes; and every measure runs."""

import dataclasses
import inspect

import numpy as np
import pytest

from manylens import models
from manylens.data import Annotation, Category, DataError, Dataset, Record
from manylens.errors import UnsupportedError
from manylens.evaluation.evaluate import evaluate
from manylens.evaluation.protocols import PROTOCOLS, Asked, Driven, Facts, choose
from manylens.media import Image
from manylens.tasks import TASKS
from manylens.tasks.results import Caption, Depth, Embedding, Picture, Reading, TextLine, detections
from tests.evaluation import scripted
from tests.evaluation.scripted import Scripted, annotation, picture, rectangle

SIZE = (40, 30)
MASKS = Facts(frozenset({"boxes", "masks"}))
STUFF = Facts(frozenset({"boxes", "masks"}), things=False, stuff=True)
BOTH = Facts(frozenset({"boxes", "masks"}), things=True, stuff=True)
ALL = frozenset({"labels", "boxes", "masks", "captions", "depth", "video", "questions", "text", "splits"})
NONE = frozenset()


@pytest.mark.parametrize(
    ("task", "facts", "prompt", "takes", "measure"),
    [
        ("classify", Facts(ALL), None, NONE, "classification"),
        ("detect", MASKS, None, NONE, "detection"),
        ("segment", MASKS, "click", NONE, "clicks"),
        ("segment", BOTH, "box", NONE, "boxes"),
        ("segment", MASKS, "none", NONE, "instance"),
        ("segment", STUFF, "none", NONE, "semantic"),
        ("segment", BOTH, "none", NONE, "panoptic"),
        ("segment", MASKS, None, NONE, "clicks"),
        ("segment", MASKS, None, frozenset({"points", "box"}), "clicks"),
        ("segment", MASKS, None, frozenset({"instance", "semantic"}), "instance"),
        ("segment", STUFF, None, frozenset({"points"}), "semantic"),
        ("segment", BOTH, None, NONE, "panoptic"),
        ("embed", Facts(frozenset({"labels", "splits"})), None, NONE, "features"),
        ("embed", Facts(frozenset({"labels"})), None, NONE, "retrieval"),
        ("match", Facts(frozenset({"captions"})), None, NONE, "retrieval"),
        ("track", Facts(frozenset({"masks", "video"})), None, NONE, "tracks"),
        ("embed", Facts(frozenset({"masks", "video"})), None, NONE, "propagation"),
        ("caption", Facts(ALL), None, NONE, "captions"),
        ("answer", Facts(ALL), None, NONE, "answers"),
        ("read", Facts(ALL), None, NONE, "reading"),
        ("depth", Facts(ALL), None, NONE, "depth"),
        ("generate", Facts(ALL), None, NONE, "generation"),
    ],
)
def test_the_usual_measure(task, facts, prompt, takes, measure):
    assert choose(task, facts, measure=None, prompt=prompt, takes=takes).name == measure
    assert choose(task, facts, measure=measure, prompt=prompt, takes=takes).name == measure


@pytest.mark.parametrize(
    ("task", "facts", "options", "error", "message"),
    [
        ("classify", MASKS, {}, DataError, "classification needs labels, and the data holds boxes, masks"),
        ("segment", Facts(NONE), {}, DataError, "clicks needs masks, and the data holds nothing of the kind"),
        ("embed", Facts(frozenset({"labels"})), {"measure": "features"}, DataError, "needs labels and splits"),
        ("speak", MASKS, {}, UnsupportedError, "speak: no measure judges this task"),
        ("segment", MASKS, {"prompt": "wink"}, UnsupportedError, "prompt 'wink': not known; give one of click, box"),
        ("segment", MASKS, {"measure": "beauty"}, UnsupportedError, "measure 'beauty': not known; name one of class"),
    ],
)
def test_what_does_not_fit_is_refused(task, facts, options, error, message):
    with pytest.raises(error, match=message):
        choose(task, facts, **{"measure": None, "prompt": None, "takes": NONE, **options})


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=lambda one: one.name)
def test_every_measure_takes_what_the_table_says(protocol):
    judge = protocol.load()
    assert set(protocol.tasks) <= set(TASKS)
    assert protocol.calls in TASKS
    if isinstance(protocol, Asked):
        taken = {part.name for part in dataclasses.fields(judge)}
        assert {"categories", "problems", "columns", *protocol.options, *protocol.fixed} <= taken
        return
    assert isinstance(protocol, Driven)
    taken = set(inspect.signature(judge).parameters)
    kept = {"done", "on_unit"} if protocol.keeps else set()
    assert {"dataset", "session", "model", "seed", "columns", "problems", "progress", *kept} <= taken
    assert set(protocol.options) <= taken


def test_facts_are_those_of_the_first_records():
    plain = Annotation("a", "cat", (0, 0, 1, 1))
    asked = Annotation("b", columns={"question": "is it?", "text": "EXIT"})
    record = Record("r", "p.png", label="x", annotations=(plain, asked), columns={"captions": ["a cat"], "depth": ""})
    facts = Facts.of([record], [Category(1, "cat"), Category(2, "sky", is_thing=False)], splits=2)
    assert facts.holds == {"labels", "boxes", "questions", "text", "captions", "splits"}
    assert (facts.things, facts.stuff) == (True, True)


# ---------------------------------------------------------------------- every measure, run by a scripted model


@pytest.fixture
def ready(make_session, monkeypatch):
    def make(*tasks):
        monkeypatch.setitem(models.FAMILIES, "scripted", scripted.FAMILY)
        Scripted.answer, Scripted.asked = staticmethod(answer), []
        return make_session(scripted.row(tasks=", ".join(tasks)))

    return make


def answer(request):
    """Everything right: what is asked about is written in the picture's name."""
    if request.task == "caption":
        return Caption("a red door in a wall")
    if request.task == "read":
        return Reading((TextLine("EXIT", 0.9, (0.0, 0.0, 9.0, 9.0)),))
    if request.task == "depth":
        return Depth(map=np.full((30, 40), 2.0, np.float32), scale="metric")
    if request.task == "generate":
        return Picture(image=Image.of(np.full((30, 40, 3), 90, np.uint8)))
    if request.task == "embed":
        return embedded(request)
    mask = rectangle(SIZE, (3, 4, 15, 20))
    masks = np.stack([mask, ~mask])
    return detections([(3, 4, 15, 20), (0, 0, 40, 30)], [0.9, 0.8], masks=masks, names=["door", "wall"])


def embedded(request):
    blue = "blue" in request.text if request.text is not None else request.image.array.mean() > 127
    vector = np.eye(4, dtype=np.float32)[int(blue)]
    dense = np.ones((3, 4, 4), np.float32) if request.dense else None
    return Embedding(vector=vector, space="scripted", dense=dense)


def shade(folder, name, value):
    import PIL.Image

    path = folder / f"{name}.png"
    PIL.Image.fromarray(np.full((30, 40, 3), value, np.uint8)).save(path)
    return path


@pytest.mark.parametrize(
    ("task", "tasks", "options", "measure", "figure", "value"),
    [
        ("caption", "caption = ['default']", {}, "captions", "CIDEr-D", None),
        ("read", "read = ['default']", {}, "reading", "CER", 0),
        ("depth", "depth = ['default']", {}, "depth", "AbsRel", 0),
        ("segment", "segment = ['semantic']", {"measure": "semantic"}, "semantic", "mIoU", 1),
        ("segment", "segment = ['panoptic']", {"prompt": "none"}, "panoptic", "PQ", 1),
        ("segment", "segment = ['instance']", {"measure": "instance"}, "instance", "AP", 1),
        ("segment", "segment = ['text']", {"measure": "instance"}, "instance", "AP", 1),
        ("embed", "embed = ['image', 'text']", {}, "retrieval", "R@1 image to text", 1),
        ("embed", "embed = ['image', 'text']", {"measure": "features"}, "features", "k-NN accuracy", 1),
    ],
)
def test_measures_of_a_model_that_is_right(ready, tmp_path, task, tasks, options, measure, figure, value):
    mask = rectangle(SIZE, (3, 4, 15, 20))
    np.save(tmp_path / "depth.npy", np.full((30, 40), 2.0))

    def record(name, split, number):
        known = (
            annotation(f"{name}-door", mask, "door", box=(3, 4, 15, 20)),
            annotation(f"{name}-wall", ~mask, "wall", box=(0, 0, 40, 30)),
        )
        words = ["a red door in a wall"] if not number else ["a blue door in a wall"]
        columns = {"captions": words, "depth": str(tmp_path / "depth.npy"), "text": "EXIT"}
        path = shade(tmp_path, name, 250 * number + len(name))
        return Record(name, path, *SIZE, split, str(number), known, columns)

    # Pictures of one class, and their captions, are alike: only one of each may be searched.
    names = ["a", "bb"] if measure == "retrieval" else ["a", "bb", "ccc", "dddd"]
    records = [record(name, "train" if i < 2 else "val", i % 2) for i, name in enumerate(names)]
    categories = [Category(1, "door"), Category(2, "wall", is_thing=measure == "instance")]
    dataset = Dataset.of(records, categories, name="four")
    found = evaluate(dataset, task=task, session=ready(tasks), resamples=5, out=tmp_path / "out", **options)
    assert found.measure == measure
    assert dict(found.problems.counts) == {}
    assert found.main_figure == figure
    if value is not None:
        assert found.figures[figure].value == pytest.approx(value)
    assert found.model.id == "manylens/scripted"
    if isinstance(PROTOCOLS[measure], Asked):
        again = evaluate(dataset, task=task, predictions=tmp_path / "out", measure=measure, resamples=5)
        assert again.tally.all() == pytest.approx(found.tally.all(), nan_ok=True)


def test_vectors_of_two_spaces_are_not_compared(ready, tmp_path):
    session = ready("embed = ['image', 'text']")
    Scripted.answer = staticmethod(
        lambda request: Embedding(np.ones(4, np.float32) / 2, "words" if request.text is not None else "pictures")
    )
    dataset = Dataset.of([Record("a", picture(tmp_path, "a"), columns={"captions": ["a door"]})])
    with pytest.raises(DataError, match="of different spaces"):
        evaluate(dataset, task="embed", session=session)


def test_made_pictures(ready, tmp_path):
    records = [Record(str(i), shade(tmp_path, str(i), 20 * i), columns={"captions": ["a red door"]}) for i in range(3)]
    found = evaluate(
        Dataset.of(records),
        task="generate",
        session=ready("generate = ['default']", "embed = ['image', 'text']"),
        resamples=0,
    )
    assert found.measure == "generation"
    assert found.figures["FID"].value == pytest.approx(0, abs=1e-6)
    rng = np.random.default_rng(0)
    np.save(tmp_path / "made.npy", rng.random((3, 4)))
    np.save(tmp_path / "real.npy", rng.random((9, 4)))
    saved = {"predictions": tmp_path / "made.npy", "resamples": 0}
    with pytest.raises(DataError, match="no features of real pictures"):
        evaluate(Dataset.of(records), task="generate", **saved)
    judged = evaluate(Dataset.of(records), task="generate", reference=tmp_path / "real.npy", **saved)
    assert judged.figures["FID"].value > 0
