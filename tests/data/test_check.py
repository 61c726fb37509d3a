"""Each mistake is taken down once, with its id; the row is left out or mended."""

import math
from dataclasses import replace

import pytest

from manylens.data import Annotation, DataError, Dataset, Problems
from manylens.data.check import checked
from tests.data.helpers import CATEGORIES, picture, record

NAN, INF = math.nan, math.inf
FULL = {"size": [10, 20], "counts": [0, 200]}


@pytest.fixture
def right(tmp_path):
    return record(1, path=picture(tmp_path / "1.png"))


def run(records, **options):
    problems = Problems()
    return list(checked(records, CATEGORIES, problems, **options)), problems


def test_what_is_right_stays_as_it_is(right):
    found, problems = run([replace(right, annotations=right.annotations[:1])])
    assert found == [replace(right, annotations=right.annotations[:1])]
    assert not problems


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"box": (NAN, 0, 5, 5)}, "bad box"),
        ({"box": (0, 0, INF, 5)}, "bad box"),
        ({"box": (0, 0, 5)}, "bad box"),
        ({"box": (5, 5, 5, 8)}, "empty box"),
        ({"box": (8, 5, 5, 8)}, "empty box"),
        ({"box": (20, 0, 25, 5)}, "box outside"),
        ({"box": (-9, 0, 0, 5)}, "box outside"),
        ({"category": "dog"}, "unknown category"),
        ({"id": ""}, "empty id"),
        ({"box": None, "mask": {"size": [10, 20], "counts": [200]}}, "empty mask"),
        ({"box": None, "mask": {"size": [10, 20], "counts": [100, 0, 100]}}, "empty mask"),
        ({"box": None, "mask": {"size": [20, 10], "counts": [0, 200]}}, "mask size"),
        ({"box": None, "mask": {"size": [10, 20], "counts": [0, 199]}}, "unreadable mask"),
        ({"box": None, "mask": {"size": [10, 20], "counts": "~~"}}, "unreadable mask"),
    ],
)
def test_annotations_left_out(right, changes, kind):
    bad = replace(right.annotations[0], **changes)
    found, problems = run([replace(right, annotations=(bad, right.annotations[1]))])
    assert [one.id for one in found[0].annotations] == ["b1"]
    (problem,) = problems
    assert (problem.kind, problem.id, problem.left_out) == (kind, bad.id, True)
    assert "img1" in problem.message
    assert "\n" not in problem.message
    assert problems.left_out == 1


@pytest.mark.parametrize(
    ("box", "cut", "said"),
    [
        ((-2, -3, 5, 6), (0, 0, 5, 6), True),
        ((15, 5, 30, 30), (15, 5, 20, 10), True),
        ((0, 0, 20.001, 10), (0, 0, 20, 10), False),  # rounding
    ],
)
def test_a_box_over_the_border_is_cut(right, box, cut, said):
    found, problems = run([replace(right, annotations=(Annotation("a", "cat", box, None, 9.0),))])
    assert found[0].annotations[0].box == cut
    assert found[0].annotations[0].area == 9.0  # the file's own
    assert [one.left_out for one in problems] == [False] * said


def test_boxes_of_pictures_of_unknown_size(right):
    boxes = ((0, 0, 1e6, 5), (-5, 0, 5, 5), (-5, 0, -1, 5))
    parts = tuple(Annotation(f"a{i}", "cat", box) for i, box in enumerate(boxes))
    unsized = replace(right, width=None, height=None, annotations=parts)
    found, problems = run([unsized])  # the head of the file tells it
    assert [one.box for one in found[0].annotations] == [(0, 0, 20, 5), (0, 0, 5, 5)]
    assert (found[0].width, found[0].height) == (None, None)
    assert (len(problems), problems.left_out) == (3, 1)
    right.path.write_text("no picture")
    found, problems = run([unsized])
    assert [one.box for one in found[0].annotations] == [(0, 0, 1e6, 5), (0, 0, 5, 5)]
    assert (len(problems), problems.left_out) == (2, 1)


def test_box_and_area_come_from_the_mask_or_the_box(right):
    mask = {"size": [10, 20], "counts": [12, 3, 185]}
    parts = (
        Annotation("a", "cat", None, mask),
        Annotation("b", "cat", (1, 2, 3, 5)),
        Annotation("c", "cat", None, FULL),
    )
    found, problems = run([replace(right, annotations=parts)])
    assert [(one.box, one.area) for one in found[0].annotations] == [
        ((1, 2, 2, 5), 3),
        ((1, 2, 3, 5), 6),
        ((0, 0, 20, 10), 200),
    ]
    assert not problems


def test_area_that_is_no_number_is_taken_anew(right):
    found, problems = run([replace(right, annotations=(Annotation("a", "cat", (1, 2, 3, 5), None, NAN),))])
    assert found[0].annotations[0].area == 6
    assert [(one.kind, one.left_out) for one in problems] == [("bad area", False)]


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"path": record(1).path}, "missing image"),
        ({"label": "dog"}, "unknown category"),
        ({"id": ""}, "empty id"),
    ],
)
def test_records_left_out_with_their_annotations(right, changes, kind):
    found, problems = run([replace(right, **changes)])
    assert not found
    assert problems.counts == {kind: 1, "image left out": 2}
    assert problems.left_out == 3


def test_duplicate_ids(right):
    again = replace(right, id="img2")  # annotations with the ids of the first
    found, problems = run([right, right, again])
    assert [(one.id, len(one.annotations)) for one in found] == [("img1", 2), ("img2", 0)]
    assert problems.counts == {"duplicate id": 3, "image left out": 2}


def test_pictures_need_not_be_there_where_no_one_looks(right):
    found, problems = run([replace(right, path=right.path / "none")], pictures=False)
    assert len(found) == 1
    assert not problems


def test_a_size_that_is_none(right):
    found, problems = run([replace(right, width=0, annotations=())])
    assert (found[0].width, found[0].height) == (None, None)
    assert [(one.kind, one.left_out) for one in problems] == [("bad size", False)]


def test_no_categories_means_any(right):
    problems = Problems()
    assert next(checked([replace(right, label="dog")], (), problems)).label == "dog"
    assert not problems


def test_strict_stops_at_the_first(right):
    stream = checked([right, replace(right, label="dog")], CATEGORIES, Problems(strict=True))
    assert next(stream).id == "img1"
    with pytest.raises(DataError, match="img1: another image has this id"):
        next(stream)


def test_a_saved_data_set_is_checked_as_it_is_read(tmp_path, right):
    other = record(2, path=picture(tmp_path / "2.png", 2))
    Dataset.of([right, other], CATEGORIES).save(tmp_path)
    assert not Dataset.read(tmp_path).problems
    other.path.unlink()
    assert len(Dataset.open(tmp_path)) == 2
    assert Dataset.open(tmp_path).check().counts["missing image"] == 1
    again = Dataset.read(tmp_path)
    assert [one.id for one in again] == ["img1"]
    assert again.problems.counts["missing image"] == 1
    with pytest.raises(DataError, match="img2: there is no file"):
        Dataset.read(tmp_path, strict=True)
    right.path.unlink()
    with pytest.raises(DataError, match=r"no record; 6 rows were left out.*img1.*--images"):
        Dataset.read(tmp_path)
