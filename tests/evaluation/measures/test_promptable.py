"""Clicks and boxes: the loop against a slow one written out here, and figures worked out by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manylens import models
from manylens.data.problems import DataError, Problems
from manylens.data.records import Annotation, Record
from manylens.errors import CostError, UnsupportedError
from manylens.evaluation.measure import Regions
from manylens.evaluation.measures.clicker import Clicker
from manylens.evaluation.measures.promptable import PromptableMeasure, clicks_tally, run_boxes, run_clicks
from manylens.evaluation.tally import Tally, Units
from manylens.media import to_rle
from tests.evaluation import scripted
from tests.evaluation.scripted import Scripted, annotation, answered, record, rectangle

SIZE = (40, 30)
LEFT, RIGHT = rectangle(SIZE, (3, 4, 15, 20)), rectangle(SIZE, (20, 6, 38, 26))


def iou(one, other):
    return (one & other).sum() / (one | other).sum()


def discs(request):
    """A disc of radius 6 at each click, less those of background clicks; and the same grown, as a second guess."""
    y, x = np.mgrid[: request.image.height, : request.image.width]

    def near(points, radius):
        return np.any([(x - px) ** 2 + (y - py) ** 2 <= radius**2 for px, py in points], axis=0) if points else False

    groups = []
    for prompt in request.prompts():
        if prompt.box is not None:
            groups.append([rectangle(SIZE, tuple(int(v) for v in prompt.box))])
        else:
            off = near(prompt.background_points, 3)
            groups.append([near(prompt.points, 6) & ~off, near(prompt.points, 9) & ~off])
    return answered(groups, SIZE)


@pytest.fixture
def session(make_session, monkeypatch):
    monkeypatch.setitem(models.FAMILIES, "scripted", scripted.FAMILY)
    Scripted.answer, Scripted.asked = staticmethod(discs), []
    return make_session(scripted.row())


@pytest.fixture
def dataset(tmp_path):
    return [
        record(
            tmp_path,
            "one",
            annotation("a", LEFT, "door", columns={"tone": 3}),
            annotation("b", RIGHT, "window"),
            annotation("crowd", LEFT, crowd=True),
            annotation("unjudged", LEFT, ignore=True),
            columns={"site": "north"},
        ),
        record(tmp_path, "two", annotation("c", rectangle(SIZE, (0, 0, 9, 9)), "door"), columns={"site": "south"}),
        record(tmp_path, "none"),
    ]


def slowly(truth, clicks):
    """IoU of the best of the first two masks, then after each click: one object, one request a time, by hand."""
    clicker, values, mask = Clicker(truth), [], None
    for _ in range(clicks):
        clicker.click(mask)
        points = [(c.x, c.y) for c in clicker.clicks if c.inside]
        off = [(c.x, c.y) for c in clicker.clicks if not c.inside]
        y, x = np.mgrid[: SIZE[1], : SIZE[0]]
        masks = []
        for radius in (6, 9):
            made = np.zeros_like(truth)
            for px, py in points:
                made |= (x - px) ** 2 + (y - py) ** 2 <= radius**2
            for px, py in off:
                made &= (x - px) ** 2 + (y - py) ** 2 > 3**2
            masks.append(made)
        mask = masks[0]
        if not values:
            values.append(max(iou(m, truth) for m in masks))
        values.append(iou(mask, truth))
    return values


def test_the_loop_is_that_of_one_object_at_a_time(session, dataset):
    tally = run_clicks(dataset, session, problems=Problems(), clicks=8, columns=["site", "tone"], previous_mask=False)
    expected = np.array([slowly(t, 8) for t in (LEFT, RIGHT, rectangle(SIZE, (0, 0, 9, 9)))])
    figures = tally.all()
    assert list(tally.units.ids) == ["a", "b", "c"]
    assert list(tally.units.clusters) == ["one", "one", "two"]
    assert figures["1-click mIoU"] == pytest.approx(expected[:, 1].mean())
    assert figures["oracle mIoU"] == pytest.approx(expected[:, 0].mean())
    assert [figures[f"IoU@{k}"] for k in range(1, 9)] == pytest.approx(expected[:, 1:].mean(0))
    assert tally.units.columns == {
        "site": ["north", "north", "south"],
        "tone": [3, None, None],
        "class": ["door", "window", "door"],
        "size": ["small", "small", "small"],
    }
    assert tally.details()["IoU by clicks"]["lines"]["all"]["x"] == list(range(1, 9))
    # Eight rounds of the first picture, both objects in each request; eight of the second.
    assert [len(request.prompts()) for request in Scripted.asked] == [2] * 8 + [1] * 8


@pytest.mark.parametrize(
    ("ious", "expected"),
    [
        ([[0.5, 0.86, 0.95]], {"NoC@85": 2, "NoC@90": 3, "failed@85": 0, "failed@90": 0}),
        ([[0.85, 0.84, 0.1]], {"NoC@85": 1, "NoC@90": 3, "failed@85": 0, "failed@90": 1}),
        ([[0.9, 0.9, 0.9], [0.1, 0.2, 0.3]], {"NoC@85": 2, "NoC@90": 2, "failed@85": 0.5, "failed@90": 0.5}),
    ],
)
def test_clicks_that_it_takes(ious, expected):
    units = Units("object", [str(i) for i in range(len(ious))], [str(i) for i in range(len(ious))])
    tally = clicks_tally(units, np.array(ious), np.array(ious)[:, 0])
    assert {name: tally.all()[name] for name in expected} == pytest.approx(expected)
    assert tally.main_figure == "1-click mIoU"
    assert tally.lower("NoC@85")
    assert tally.lower("failed@90")
    assert not tally.lower("IoU@1")


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 2**16))
def test_a_weight_is_a_repetition_and_order_is_nothing(n, clicks, seed):
    rng = np.random.default_rng(seed)
    ious, weights = rng.random((n, clicks)), rng.integers(0, 4, n)
    ids = [str(i) for i in range(n)]
    weighted = clicks_tally(Units("object", ids, ids), ious, ious[:, 0]).figures(weights[None].astype(float))
    repeated = rng.permutation(np.repeat(np.arange(n), weights))
    again = [str(i) for i in range(len(repeated))]
    plain = clicks_tally(Units("object", again, again), ious[repeated], ious[repeated, 0]).all()
    assert weighted.keys() == plain.keys()
    for name, value in plain.items():
        assert weighted[name][0] == pytest.approx(value, nan_ok=True)


def test_a_perfect_model_needs_one_click_and_an_empty_one_fails(session, dataset):
    def perfect(request):
        groups = []
        for prompt in request.prompts():
            x, y = (int(v) for v in prompt.points[0])
            groups.append([next(m for m in (LEFT, RIGHT, rectangle(SIZE, (0, 0, 9, 9))) if m[y, x])])
        return answered(groups, SIZE)

    dataset[1] = dataset[0]
    Scripted.answer = staticmethod(perfect)
    figures = run_clicks(dataset[:1], session, problems=Problems(), clicks=5).all()
    assert figures["1-click mIoU"] == figures["IoU@5"] == figures["NoC@90"] == 1
    assert figures["failed@90"] == 0
    assert len(Scripted.asked) == 1, "nothing is left to click on"

    Scripted.answer = staticmethod(lambda request: answered([[] for _ in request.prompts()], SIZE))
    figures = run_clicks(dataset[:1], session, problems=Problems(), clicks=5).all()
    assert figures["1-click mIoU"] == figures["oracle mIoU"] == figures["IoU@5"] == 0
    assert figures["NoC@85"] == 5
    assert figures["failed@85"] == 1


def test_each_object_is_judged_by_its_own_masks(session, dataset):
    """Each is given the other's mask: a mix-up of answers would find the right one."""
    Scripted.answer = staticmethod(lambda request: answered([[RIGHT], [LEFT]][: len(request.prompts())], SIZE))
    figures = run_clicks(dataset[:1], session, problems=Problems(), clicks=1).all()
    assert figures["1-click mIoU"] == figures["oracle mIoU"] == 0
    assert run_boxes(dataset[:1], session, problems=Problems()).all() == {"box mIoU": 0}


@pytest.mark.parametrize(
    ("tasks", "asked", "given"),
    [
        (scripted.SEGMENT, None, True),
        (scripted.SEGMENT, False, False),
        ("segment = ['points', 'box']", None, False),
    ],
)
def test_the_last_mask_goes_back_where_the_model_takes_masks(make_session, session, dataset, tasks, asked, given):
    session = make_session(scripted.row(tasks=tasks))
    run_clicks(dataset[1:2], session, problems=Problems(), clicks=3, previous_mask=asked)
    masks = [request.prompts()[0].mask is not None for request in Scripted.asked]
    assert masks == [False, given, given]


def test_an_object_that_breaks_the_model_is_a_problem_and_the_others_stay(session, dataset):
    def fragile(request):
        if any(p.points and p.points[0][0] > 20 for p in request.prompts()):
            raise ValueError("it broke")
        return discs(request)

    Scripted.answer = staticmethod(fragile)
    problems = Problems()
    tally = run_clicks(dataset, session, problems=problems, clicks=2)
    assert list(tally.units.ids) == ["a", "c"]
    assert [(p.kind, p.id, p.message) for p in problems] == [
        ("model failed", "b", "object b: the model failed (it broke)")
    ]
    with pytest.raises(DataError, match="object b: the model failed"):
        run_clicks(dataset, session, problems=Problems(strict=True), clicks=2)


@pytest.mark.parametrize(
    ("bad", "kind", "message"),
    [
        (Annotation("x", box=(1, 1, 5, 5)), "no mask", "object x: has no mask"),
        (annotation("x", np.zeros((30, 40), bool)), "empty mask", "object x: its mask is empty"),
        (annotation("x", np.ones((9, 9), bool)), "mask size", "its mask is 9 x 9 pixels, the picture 40 x 30"),
        (Annotation("x", mask={"size": [30, 40], "counts": [7]}), "bad mask", "object x: RLE"),
    ],
)
def test_what_cannot_be_judged_is_told(session, tmp_path, bad, kind, message):
    problems = Problems()
    mixed = [record(tmp_path, "one", bad, annotation("good", LEFT))]
    tally = run_clicks(mixed, session, problems=problems, clicks=1)
    assert list(tally.units.ids) == ["good"]
    (problem,) = problems
    assert problem.kind == kind
    assert message in problem.message


def test_a_missing_picture_is_told(session, tmp_path, dataset):
    problems = Problems()
    gone = Record("gone", tmp_path / "gone.png", 40, 30, annotations=(annotation("x", LEFT),))
    assert len(run_boxes([gone, *dataset], session, problems=problems).units) == 3
    assert [(p.kind, p.id) for p in problems] == [("missing image", "gone")]


def test_a_model_without_clicks_ends_the_run_in_one_line(make_session, session, dataset):
    session = make_session(scripted.row(tasks="segment = ['box']"))
    with pytest.raises(UnsupportedError, match="segment with points"):
        run_clicks(dataset, session, problems=Problems())
    assert run_boxes(dataset, session, problems=Problems()).all()["box mIoU"] == 1


def test_what_is_done_is_not_done_again(session, dataset):
    kept = {}
    whole = run_clicks(dataset, session, problems=Problems(), clicks=4, on_unit=kept.__setitem__)
    assert list(kept) == ["a", "b", "c"]
    Scripted.asked.clear()
    part = {"a": kept["a"], "c": kept["c"]}
    again = run_clicks(dataset, session, problems=Problems(), clicks=4, done=part)
    assert {len(request.prompts()) for request in Scripted.asked} == {1}
    assert again.all() == whole.all()
    assert run_clicks(dataset, None, problems=Problems(), clicks=4, done=kept).all() == whole.all()
    only = run_clicks(dataset, None, problems=Problems(), clicks=4, done=part)
    assert list(only.units.ids) == ["a", "c"]
    assert only.units.columns["size"] == ["small", "small"]


def test_a_stop_keeps_what_is_done(session, dataset):
    kept = {}

    def capped(id, values):
        kept[id] = values
        if id == "b":
            raise CostError("run: stopped at its cost cap")

    with pytest.raises(CostError):
        run_clicks(dataset, session, problems=Problems(), clicks=2, on_unit=capped)
    assert list(kept) == ["a", "b"]


def test_boxes_come_from_the_annotation_or_else_from_its_mask(session, tmp_path):
    progress = []
    own = annotation("own", LEFT, box=(3.0, 4.0, 15.0, 12.0))
    tally = run_boxes(
        [record(tmp_path, "one", own, annotation("bare", RIGHT))],
        session,
        problems=Problems(),
        progress=lambda share, line: progress.append((share, line)),
    )
    assert tally.scores().tolist() == pytest.approx([0.5, 1.0])
    assert tally.all() == pytest.approx({"box mIoU": 0.75})
    assert progress == [(1.0, "one")]


def regions(*masks, scores=None):
    scores = np.array(scores or [0.9 - 0.1 * i for i in range(len(masks))], np.float32)
    return Regions([""] * len(masks), scores, masks=[to_rle(mask) for mask in masks])


class TestSavedMasks:
    @pytest.mark.parametrize(
        ("answer", "first", "best"),
        [
            (regions(LEFT), 1, 1),
            (regions(~LEFT, LEFT), 0, 1),
            (regions(~LEFT, LEFT, scores=[0.1, 0.2]), 1, 1),
            (regions(rectangle(SIZE, (3, 4, 9, 20)), RIGHT), 0.5, 0.5),
            (regions(), 0, 0),
            (None, 0, 0),
        ],
    )
    def test_one_object(self, tmp_path, answer, first, best):
        measure = PromptableMeasure()
        measure.add(record(tmp_path, "one", annotation("a", LEFT)), None if answer is None else {"a": answer})
        assert measure.tally().all() == pytest.approx({"1-click mIoU": first, "oracle mIoU": best})

    def test_boxes_have_no_oracle(self, tmp_path):
        measure = PromptableMeasure(prompt="box", columns=["site"])
        shown = record(tmp_path, "one", annotation("a", LEFT, "door"), columns={"site": "north"})
        measure.add(shown, {"a": regions(LEFT)})
        assert measure.tally().all() == {"box mIoU": 1}
        assert measure.tally().units.columns == {"site": ["north"], "class": ["door"], "size": ["small"]}

    @pytest.mark.parametrize(
        ("prediction", "kind", "id", "value"),
        [
            ({"a": regions(LEFT), "ghost": regions(LEFT)}, "unknown object", "ghost", 1),
            ({"a": regions(LEFT, RIGHT, scores=[np.nan, 0.5])}, "NaN score", "a", 0),
            ({"a": regions(np.ones((3, 3), bool))}, "mask size", "a", 0),
        ],
    )
    def test_bad_predictions_are_told(self, tmp_path, prediction, kind, id, value):
        measure = PromptableMeasure()
        measure.add(record(tmp_path, "one", annotation("a", LEFT)), prediction)
        assert [(p.kind, p.id) for p in measure.problems] == [(kind, id)]
        assert measure.tally().all()["oracle mIoU"] == value

    def test_no_unit_is_nan_and_a_tally_comes_back_from_its_file(self, tmp_path):
        measure = PromptableMeasure()
        assert np.isnan(measure.tally().all()["1-click mIoU"])
        measure.add(record(tmp_path, "one", annotation("a", LEFT)), {"a": regions(LEFT)})
        loaded = Tally.load(measure.tally().save(tmp_path / "tally.npz"))
        assert loaded.all() == measure.tally().all()
