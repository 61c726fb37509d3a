import json
import tempfile
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from manylens.data.dataset import Dataset
from manylens.data.formats import masks
from manylens.data.problems import DataError
from manylens.data.records import Annotation, Category, Record
from manylens.errors import OutputError
from tests.data.formats.making import HEIGHT, WIDTH, again, label_png, part, picture, read, rle

LABELS = np.array([[0, 0, 1, 1], [0, 2, 2, 255], [0, 2, 2, 255]], np.uint8)


def folder(tmp_path, values=LABELS, names=None, mode=None, mask="masks/x.png", image="images/x.jpg"):
    picture(tmp_path / image, np.asarray(values).shape[1::-1])
    label_png(tmp_path / mask, values, mode)
    for name, content in (names or {}).items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    return tmp_path


def found(record):
    return {(one.id.rsplit(":", 1)[1], one.category, one.ignore) for one in record.annotations}


@pytest.mark.parametrize("mode", [None, "P"])
@pytest.mark.parametrize(
    "names",
    [
        {"classes.txt": "background\nsky\nroad\n"},
        {"labels.txt": "0: background\n1: sky\n2: road\n"},
        {"classes.json": '["_background_", "sky", "road"]'},
        {"classes.json": '{"0": "background", "1": "sky", "2": "road"}'},
        {"classes.json": '{"background": 0, "sky": 1, "road": 2}'},
        {"classes.json": '{"1": "sky", "2": "road"}'},
        {"masks/classes.txt": "\ufeffbackground\nsky\nroad"},
    ],
)
def test_values_are_classes(tmp_path, mode, names):
    (tmp_path / "masks").mkdir()
    categories, [record], problems = read("masks", folder(tmp_path, names=names, mode=mode))
    assert categories == (Category(0, "background", False), Category(1, "sky", False), Category(2, "road", False))
    assert (record.id, record.width, record.height, record.split) == ("x.jpg", 4, 3, "")
    assert record.path == tmp_path / "images" / "x.jpg"
    by_id = {one.id: one for one in record.annotations}
    assert by_id["x.jpg:2"] == Annotation("x.jpg:2", "road", mask=rle(LABELS == 2), area=4)
    assert by_id["x.jpg:255"] == Annotation("x.jpg:255", "", mask=rle(LABELS == 255), area=2, ignore=True)
    assert found(record) == {("0", "background", False), ("1", "sky", False), ("2", "road", False), ("255", "", True)}
    assert not len(problems)


@pytest.mark.parametrize("name", ["void", "unlabeled", "_Ignore_"])
def test_void_is_not_judged(tmp_path, name):
    categories, [record], _ = read("masks", folder(tmp_path, names={"classes.txt": f"{name}\nsky\nroad"}))
    assert [one.name for one in categories] == ["sky", "road"]
    assert found(record) == {("0", "", True), ("1", "sky", False), ("2", "road", False), ("255", "", True)}


def test_without_names_classes_are_named_by_their_values(tmp_path):
    categories, [record], _ = read("masks", folder(tmp_path))
    assert [one.name for one in categories] == ["0", "1", "2"]
    assert found(record) == {("0", "0", False), ("1", "1", False), ("2", "2", False), ("255", "", True)}


@pytest.mark.parametrize("values", [LABELS == 2, (LABELS == 2).astype(np.uint8) * 255])
def test_masks_of_two_values_are_object_and_background(tmp_path, values):
    categories, [record], _ = read("masks", folder(tmp_path, values))
    assert categories == (Category(0, "background", False), Category(1, "object", False))
    assert [(one.category, one.mask) for one in record.annotations] == [
        ("background", rle(LABELS != 2)),
        ("object", rle(LABELS == 2)),
    ]


def test_deep_masks_hold_many_classes(tmp_path):
    names = {"classes.json": '{"255": "a", "1000": "b"}'}
    _, [record], problems = read("masks", folder(tmp_path, np.array([[255, 1000], [65535, 9]], np.uint16), names))
    assert found(record) == {("255", "a", False), ("1000", "b", False), ("65535", "", True)}
    assert [(one.kind, one.id) for one in problems] == [("unknown category", "x.jpg:9")]


@pytest.mark.parametrize(
    ("image", "mask", "id", "split"),
    [
        ("images/x.jpg", "labels/x.png", "x.jpg", ""),
        ("images/training/a b/x.y.jpg", "annotations/training/a b/x.y.png", "training/a b/x.y.jpg", "train"),
        ("images/x.jpg", "masks/x_mask.png", "x.jpg", ""),
        ("x.jpg", "x_mask.png", "x.jpg", ""),
        ("images/val/x_mask.jpg", "masks/val/x_mask.png", "val/x_mask.jpg", "val"),
    ],
)
def test_layouts(tmp_path, image, mask, id, split):
    _, [record], problems = read("masks", folder(tmp_path, mask=mask, image=image))
    assert (record.id, record.split, record.path) == (id, split, tmp_path / image)
    assert len(record.annotations) == 4
    assert not len(problems)


def test_the_folder_of_the_pictures_may_be_given(tmp_path):
    folder(tmp_path, mask="truth/x.png", image="photos/x.jpg")
    _, [record], _ = read("masks", tmp_path / "truth", tmp_path / "photos")
    assert record.path == tmp_path / "photos" / "x.jpg"


def test_what_has_no_partner_is_a_problem(tmp_path):
    folder(tmp_path)
    picture(tmp_path / "images" / "alone.jpg")
    label_png(tmp_path / "masks" / "other.png", LABELS)
    _, records, problems = read("masks", tmp_path)
    assert [one.id for one in records] == ["x.jpg"]
    assert {(one.kind, one.id) for one in problems} == {("missing mask", "alone.jpg"), ("missing image", "other.png")}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("classes.json", "{", "not JSON"),
        ("classes.json", "3", "not names of classes"),
        ("classes.json", '{"a": "b"}', "not names of classes"),
        ("classes.txt", "", "no names"),
        ("classes.txt", "a\na\n", "one twice"),
    ],
)
def test_broken_names_are_an_error(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message) as error:
        read("masks", folder(tmp_path, names={name: content}))
    assert name in error.value.what


def test_names_that_are_not_utf8_are_an_error(tmp_path):
    folder(tmp_path)
    (tmp_path / "classes.txt").write_bytes("Häuser".encode("latin-1"))
    with pytest.raises(DataError, match=r"classes\.txt: cannot be read as UTF-8"):
        read("masks", tmp_path)


@pytest.mark.parametrize("broken", ["cut", "text", "colour"])
def test_a_broken_mask_leaves_its_picture_out(tmp_path, broken):
    folder(tmp_path, np.random.default_rng(0).integers(0, 3, (99, 99), np.uint8), {"classes.txt": "a\nb\nc"})
    mask = tmp_path / "masks" / "x.png"
    if broken == "cut":
        mask.write_bytes(mask.read_bytes()[:1000])
    elif broken == "text":
        mask.write_text("no picture")
    else:
        PIL.Image.new("RGB", (9, 9), "red").save(mask)
    _, records, problems = read("masks", tmp_path)
    assert records == []
    [problem] = problems
    assert (problem.kind, problem.id, problems.left_out) == ("unreadable mask", "x.jpg", 1)
    assert "x.png" in problem.message


@pytest.mark.parametrize("made", ["nothing", "empty", "no pair"])
def test_a_folder_without_masks_is_an_error(tmp_path, made):
    source = tmp_path / "source"
    if made == "empty":
        source.mkdir()
    elif made == "no pair":
        folder(source, mask="masks/y.png")
    with pytest.raises(DataError, match="source: no"):
        read("masks", source)


values = st.sampled_from([0, 1, 2, 7, 254, 255])


@settings(max_examples=20, deadline=None)
@given(
    arrays.arrays(np.uint8, (2, HEIGHT, WIDTH), elements=values), st.sampled_from(["names", "void", "none", "binary"])
)
def test_what_was_read_is_written_back_the_same(numbers, names):
    if names == "binary":
        numbers = (numbers > 2).astype(np.uint8) * 255
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        for name, labels in zip(("a", "train/b.c"), numbers, strict=True):
            picture(place / "in/images" / f"{name}.jpg")
            label_png(place / "in/masks" / f"{name}.png", labels)
        stated = {0: "background", 1: "sky", 2: "road", 7: "sea", 254: "Straße"}
        if names == "void":
            stated = {2: "road", 0: "sky", 1: "void", 7: "Ignore", 254: "a, b"}
        if names in ("names", "void"):
            (place / "in/classes.json").write_text(json.dumps(stated))
        categories, records, problems = read("masks", place / "in")
        assert not len(problems)
        found, back = again("masks", records, categories, place / "out")
        assert sorted(found, key=lambda one: one.id) == sorted(categories, key=lambda one: one.id)
        assert [(r.id, r.split, r.annotations) for r in back] == [(r.id, r.split, r.annotations) for r in records]
        for name, labels in zip(("a", "train/b.c"), numbers, strict=True):
            assert (np.asarray(PIL.Image.open(place / "out/masks" / f"{name}.png")) == labels).all()


def test_object_masks_with_void_keep_it(tmp_path):
    names = {"classes.txt": "background\nobject"}
    categories, records, _ = read("masks", folder(tmp_path / "in", np.array([[0, 1, 255]], np.uint8), names))
    found, back = again("masks", records, categories, tmp_path / "out")
    assert (found, [one.annotations for one in back]) == (categories, [one.annotations for one in records])


def test_masks_of_another_format_become_label_pictures(tmp_path):
    on = np.zeros((3, 4), bool)
    on[0, :2] = True
    made = picture(tmp_path / "p.jpg", (4, 3))
    parts = (
        part("a", on, category="cat"),
        part("b", ~on & (np.arange(4) > 1), category="dog"),
        part("c", on, category="dog"),
    )
    categories = (Category(300, "cat"), Category(300, "dog"))
    records = [Record("1", made, 4, 3, "val", "", parts), Record("2", made, 4, 3), Record("3", made)]
    problems = masks.write(Dataset.of(records, categories), tmp_path / "out")
    assert json.loads((problems / "classes.json").read_text()) == {"0": "background", "1": "cat", "2": "dog"}
    assert np.asarray(PIL.Image.open(tmp_path / "out/masks/val/p.png")).tolist() == [
        [1, 1, 2, 2],
        [0, 0, 2, 2],
        [0, 0, 2, 2],
    ]
    assert not np.asarray(PIL.Image.open(tmp_path / "out/masks/p.png")).any()
    assert (tmp_path / "out/images/p-2.jpg").is_file()
    assert not (tmp_path / "out/masks/p-2.png").exists()


def test_what_cannot_be_written(tmp_path):
    made = picture(tmp_path / "p.jpg", (4, 3))
    record = Record("1", made, 9, 9, annotations=(part("a", np.ones((3, 4), bool), category="cat"),))
    with pytest.raises(DataError, match="image 1: its masks are of 2 sizes"):
        masks.write(Dataset.of([record], (Category(1, "cat"),)), tmp_path / "out")
    with pytest.raises(OutputError, match="holds something"):
        masks.write(Dataset.of([record], (Category(1, "cat"),)), tmp_path)
