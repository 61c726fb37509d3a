import contextlib
import io
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as oracle
from pycocotools.coco import COCO

from manylens.data.dataset import Dataset
from manylens.data.problems import DataError
from manylens.data.records import Annotation, Category, Record
from tests.data.formats.making import HEIGHT, WIDTH, again, part, picture, read, rle, words

EXAMPLES = Path(__file__).parents[3] / "examples"
IMAGE = {"id": 1, "file_name": "a.jpg", "width": 40, "height": 30}
CLASSES = [{"id": 3, "name": "cat", "supercategory": "animal"}, {"id": 9, "name": "sky", "isthing": 0}]


def labels(tmp_path, annotations=(), images=(IMAGE,), categories=CLASSES, name="labels.json", **more):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"images": list(images), "annotations": list(annotations), "categories": list(categories)}
    path.write_text(json.dumps(content | more))
    return path


def annotation(**fields):
    return {"id": 5, "image_id": 1, "category_id": 3, "bbox": [1, 2, 10, 20]} | fields


def coco(path):
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def assert_as_pycocotools(path, records):
    theirs = coco(path)
    seen = 0
    for record in records:
        for one in record.annotations:
            wanted = theirs.annToRLE(theirs.anns[int(one.id)])
            counts = wanted["counts"]
            assert one.mask == {
                "size": wanted["size"],
                "counts": counts.decode() if isinstance(counts, bytes) else counts,
            }
            assert one.area == theirs.anns[int(one.id)]["area"]
            x, y, w, h = theirs.anns[int(one.id)]["bbox"]
            assert one.box == (x, y, x + w, y + h)
            seen += 1
    assert seen == len(theirs.anns)


def test_the_drawn_regions_read_as_pycocotools_reads_them():
    categories, records, problems = read("coco", EXAMPLES / "regions.json", EXAMPLES)
    assert (len(records), len(categories), len(problems)) == (6, 7, 0)
    assert all(record.path.is_file() for record in records)
    assert records[0].columns == {"place": "indoors"}
    assert records[0].annotations[0].columns == {"click": [390, 430]}
    assert_as_pycocotools(EXAMPLES / "regions.json", records)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.lists(st.floats(-5, 45, width=16), min_size=6, max_size=12).map(lambda p: p[: len(p) // 2 * 2]),
        min_size=1,
        max_size=3,
    )
)
def test_polygons_are_the_union_that_pycocotools_makes(polygons):
    with tempfile.TemporaryDirectory() as folder:
        path = labels(Path(folder), [annotation(segmentation=polygons, area=7.5)])
        assert_as_pycocotools(path, read("coco", path)[1])


@pytest.mark.parametrize("form", ["counts", "string"])
def test_run_lengths_of_both_forms(tmp_path, form):
    on = np.zeros((30, 40), dtype=bool)
    on[3:9, 4:20] = True
    segmentation = rle(on)
    if form == "counts":
        flat = on.ravel(order="F").astype(int)
        edges = np.flatnonzero(np.diff(flat)) + 1
        segmentation = {"size": [30, 40], "counts": np.diff([0, *edges, flat.size]).tolist()}
    path = labels(tmp_path, [annotation(segmentation=segmentation, area=96, iscrowd=1)])
    _, [record], _ = read("coco", path)
    assert record.annotations[0].mask == rle(on)
    assert record.annotations[0].crowd
    assert_as_pycocotools(path, [record])


def test_what_else_a_row_holds_becomes_columns(tmp_path):
    rows = [
        annotation(keypoints=[1, 2, 2], num_keypoints=1, ignore=1, attributes={"occluded": True}),
        {"id": 6, "image_id": 1, "caption": "a cat"},
        {"id": 7, "image_id": 1, "caption": "the cat"},
        {
            "id": 8,
            "image_id": 1,
            "question": "how many?",
            "answers": [{"answer": "one", "answer_id": 1}, {"answer": "1"}],
        },
        {"id": 9, "image_id": 1, "question": "what?", "answer": "cat"},
    ]
    image = IMAGE | {"license": 3, "neg_category_ids": [1, 2], "split": "mine", "label": "cat"}
    categories, [record], problems = read("coco", labels(tmp_path, rows, [image]))
    assert categories == (Category(3, "cat", True, "animal"), Category(9, "sky", False))
    assert record.columns == {"license": 3, "neg_category_ids": [1, 2], "captions": ["a cat", "the cat"]}
    assert (record.id, record.split, record.label, record.width, record.height) == ("1", "mine", "cat", 40, 30)
    first, second, third = record.annotations
    assert first.columns == {"keypoints": [1, 2, 2], "num_keypoints": 1, "attributes": {"occluded": True}}
    assert (first.category, first.box, first.ignore) == ("cat", (1, 2, 11, 22), True)
    assert second.columns == {"question": "how many?", "answers": ["one", "1"]}
    assert third.columns == {"question": "what?", "answers": ["cat"]}
    assert not len(problems)


@pytest.mark.parametrize(
    ("labels_at", "picture_at", "file_name"),
    [
        ("x.json", "a b/ü.jpg", "a b/ü.jpg"),
        ("x.json", "images/a.jpg", "a.jpg"),
        ("annotations/instances_val2017.json", "val2017/a.jpg", "a.jpg"),
        ("annotations/instances_val2017.json", "images/val2017/a.jpg", "a.jpg"),
        ("annotations/lvis_v1_val.json", "val2017/a.jpg", "val2017/a.jpg"),
        ("train/_annotations.coco.json", "train/a.jpg", "a.jpg"),
        ("x.json", "deep/a.jpg", "deep\\a.jpg"),
        ("x.json", "images/a.jpg", "C:\\data\\images\\a.jpg"),
        ("x.json", "back\\slash.jpg", "back\\slash.jpg"),
    ],
)
def test_pictures_are_found_where_they_use_to_be(tmp_path, labels_at, picture_at, file_name):
    made = picture(tmp_path / picture_at)
    path = labels(tmp_path, images=[IMAGE | {"file_name": file_name}], name=labels_at)
    _, [record], _ = read("coco", path)
    assert record.path == made


def test_pictures_in_the_folder_that_is_given(tmp_path):
    made = picture(tmp_path / "elsewhere" / "a.jpg")
    path = labels(tmp_path, images=[IMAGE | {"file_name": "val2017/a.jpg"}])
    assert read("coco", path, tmp_path / "elsewhere")[1][0].path == made
    path = labels(tmp_path, images=[IMAGE | {"file_name": str(made)}])
    assert read("coco", path, tmp_path)[1][0].path == made
    with pytest.raises(DataError, match="nowhere: no such folder"):
        read("coco", path, tmp_path / "nowhere")


def test_lvis_names_its_files_by_url(tmp_path):
    made = picture(tmp_path / "train2017" / "000000391895.jpg")
    image = {
        "id": 391895,
        "coco_url": "http://images.cocodataset.org/train2017/000000391895.jpg",
        "not_exhaustive_category_ids": [],
    }
    _, [record], _ = read("coco", labels(tmp_path, images=[image]))
    assert record.path == made
    assert record.columns["not_exhaustive_category_ids"] == []


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("instances_val2017.json", "val"),
        ("train.json", "train"),
        ("image_info_test-dev.json", "test"),
        ("trainer.json", ""),
        ("valid/labels.json", "val"),
        ("contest.json", ""),
        ("panoptic_training.json", "train"),
    ],
)
def test_the_name_of_the_file_tells_the_split(tmp_path, name, split):
    assert read("coco", labels(tmp_path, name=name))[1][0].split == split


def test_a_polygon_needs_a_size_that_the_file_may_give(tmp_path):
    picture(tmp_path / "a.jpg", (40, 30))
    rows = [annotation(segmentation=[[1, 1, 9, 1, 9, 9]])]
    image = {"id": 1, "file_name": "a.jpg"}
    _, [record], _ = read("coco", labels(tmp_path, rows, [image]))
    assert record.annotations[0].mask["size"] == [30, 40]
    (tmp_path / "a.jpg").unlink()
    _, [record], problems = read("coco", labels(tmp_path, rows, [image]))
    assert not record.annotations
    assert problems.counts == {"unreadable mask": 1}


@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        ({"bbox": [1, 2, 3]}, "bad box", "annotation 5: its bbox is not four numbers"),
        ({"bbox": "1234"}, "bad box", "not four numbers"),
        ({"bbox": [1, 2, None, 4]}, "bad box", "not four numbers"),
        ({"category_id": 77}, "unknown category", "annotation 5: no category has the id 77"),
        ({"category_id": [3]}, "unknown category", "no category has the id"),
        ({"segmentation": [[1, 2, 3, 4]]}, "unreadable mask", "three corners"),
        ({"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "unreadable mask", "three corners"),
        ({"segmentation": [[1, 2, 3, 4, 5, "6"]]}, "unreadable mask", "no number"),
        ({"segmentation": [[1, 2, 3, 4, 5, float("nan")]]}, "unreadable mask", "out of this world"),
        ({"segmentation": [[1, 2, 3, 4, 5, 1e30]]}, "unreadable mask", "out of this world"),
        ({"segmentation": "abc"}, "unreadable mask", "is a str"),
        ({"segmentation": {"size": [30, 40]}}, "unreadable mask", "RLE"),
        ({"segmentation": {"size": [30, 40], "counts": [1, 2]}}, "unreadable mask", "do not fill 30 x 40"),
        ({"segmentation": {"size": "ab", "counts": "ab"}}, "unreadable mask", "RLE"),
        ({"image_id": 4}, "unknown image", "annotation 5: no image has the id 4"),
    ],
)
def test_a_broken_row_is_a_problem_with_its_id(tmp_path, fields, kind, message):
    path = labels(tmp_path, [annotation(**fields), annotation(id=6)])
    _, [record], problems = read("coco", path)
    assert [one.id for one in record.annotations] == ["6"]
    [problem] = problems
    assert (problem.kind, problem.id) == (kind, "5")
    assert message in problem.message
    with pytest.raises(DataError, match="annotation 5"):
        read("coco", path, strict=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "holds a list"),
        (b'{"images": []}', "has no 'annotations'"),
        (b'{"annotations": []}', "has no 'images'"),
        (b'{"images": {}, "annotations": []}', "its 'images' is not a list"),
        (b'{"images": [3], "annotations": []}', "its 'images' is not a list"),
        (b'{"images": [], "annotations": [], "categories": {}}', "its 'categories' is not a list"),
        (b'{"images": [{"id": 1}], "annotations": []}', r"images\[0\] has no 'file_name'"),
        (b'{"images": [{"id": 1, "file_name": 3}], "annotations": []}', r"images\[0\] has no 'file_name'"),
        (b'{"images": [{"file_name": "a"}], "annotations": []}', r"images\[0\] has no 'id'"),
        (b'{"images": [], "annotations": [{"id": 1}]}', r"annotations\[0\] has no 'image_id'"),
        (b'{"images": [], "annotations": [], "categories": [{"id": 1}]}', r"categories\[0\] lacks"),
        (b'{"images": [], "annotations": [], "categories": [{"name": "a"}]}', r"categories\[0\] lacks"),
        (
            b'{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}',
            "the id 1",
        ),
    ],
)
def test_a_broken_file_is_one_error_that_names_it(tmp_path, content, message):
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read("coco", path)
    assert error.value.what.startswith(str(path))
    assert error.value.remedy
    assert "\n" not in str(error.value)


def test_a_missing_file_is_one_error(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read("coco", tmp_path / "none.json")


def test_two_classes_of_one_name_are_told_apart(tmp_path):
    rows = [annotation(), annotation(id=6, category_id=4)]
    path = labels(tmp_path, rows, categories=[{"id": 3, "name": "bat"}, {"id": 4, "name": "bat"}])
    categories, [record], problems = read("coco", path)
    assert [one.name for one in categories] == ["bat", "bat #4"]
    assert [one.category for one in record.annotations] == ["bat", "bat #4"]
    assert problems.counts == {"duplicate name": 1}
    assert problems.left_out == 0


def test_ids_that_are_numbers_are_written_so_and_others_are_kept_beside_free_ones(tmp_path):
    records = [
        Record("x/y.jpg", tmp_path / "y.jpg", annotations=(part("left", box=(0.0, 0.0, 2.0, 2.0), category="cat"),)),
        Record("12", tmp_path / "z.jpg", annotations=(part("7", box=(0.0, 0.0, 2.0, 2.0), category="cat"),)),
        Record("007", tmp_path / "b.jpg"),
    ]
    categories = (Category(4, "cat"),)
    _, back = again("coco", records, categories, tmp_path / "out.json")
    assert [record.id for record in back] == ["x/y.jpg", "12", "007"]
    assert [one.id for record in back for one in record.annotations] == ["left", "7"]
    content = json.loads((tmp_path / "out.json").read_text())
    assert [image["id"] for image in content["images"]] == [13, 12, 14]
    assert [row["id"] for row in content["annotations"]] == [8, 7]
    theirs = coco(tmp_path / "out.json")
    assert theirs.loadImgs([13])[0]["file_name"] == "y.jpg"


parts = st.fixed_dictionaries(
    {
        "on": st.none() | st.lists(st.booleans(), min_size=35, max_size=35).filter(any),
        "category": st.sampled_from(["", "cat", "sky"]),
        "crowd": st.booleans(),
        "ignore": st.booleans(),
        "columns": st.dictionaries(words, st.integers() | words | st.booleans() | st.lists(words), max_size=2),
    }
)


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_what_is_written_reads_the_same(data):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        records = []
        for i, id in enumerate(data.draw(st.lists(words, min_size=1, max_size=3, unique=True))):
            annotations = []
            for k, fields in enumerate(data.draw(st.lists(parts, max_size=3))):
                on = fields.pop("on")
                on = None if on is None else np.array(on).reshape(HEIGHT, WIDTH)
                own = {} if on is not None else {"box": (0.25, 1.0, 3.5, 4.0), "area": 9.75}
                annotations.append(part(f"{i}.{k}", on, **own, **fields))
            columns = {"depth": str(folder / "d.png"), "captions": data.draw(st.lists(words, min_size=1, max_size=3))}
            split, label = data.draw(st.sampled_from(["", "train", "x"])), data.draw(st.sampled_from(["", "cat"]))
            path = folder / "pictures" / f"{id}.jpg"
            records.append(Record(id, path, WIDTH, HEIGHT, split, label, tuple(annotations), columns))
        categories = (Category(2, "cat", True, "animal"), Category(1, "sky", False))
        # Written twice: columns that differ between rows are text from the first time on.
        first = list(Dataset.of(records, categories).records())
        found, back = again("coco", first, categories, folder / data.draw(st.sampled_from(["made.json", "val.json"])))
        assert found == categories
        assert back == first


def test_objects_in_columns_are_objects_again(tmp_path):
    source = labels(
        tmp_path, [annotation(attributes={"occluded": True}, area=1)], [IMAGE | {"meta": [{"a": 1}], "note": "[?"}]
    )
    picture(tmp_path / "a.jpg")
    written = Dataset.read(source).export(tmp_path / "out.json", "coco")
    made = json.loads(written.read_text())
    assert made["annotations"][0]["attributes"] == {"occluded": True}
    assert made["images"][0]["meta"] == [{"a": 1}]
    assert made["images"][0]["note"] == "[?"


def test_its_masks_and_areas_are_what_pycocotools_reads_back(tmp_path):
    _, records, _ = read("coco", EXAMPLES / "regions.json", EXAMPLES)
    categories, _, _ = read("coco", EXAMPLES / "regions.json", EXAMPLES)
    found, back = again("coco", records, categories, tmp_path / "out.json")
    assert (found, back) == (categories, records)
    assert_as_pycocotools(tmp_path / "out.json", records)
    assert oracle.area(back[0].annotations[0].mask) > 0


def test_an_annotation_without_an_id_gets_one(tmp_path):
    row = annotation()
    del row["id"]
    _, [record], _ = read("coco", labels(tmp_path, [row, row]))
    assert [one.id for one in record.annotations] == ["1:0", "1:1"]
    assert isinstance(record.annotations[0], Annotation)
