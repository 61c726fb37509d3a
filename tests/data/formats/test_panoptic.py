import json
import tempfile
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from manylens.data.problems import DataError
from manylens.data.records import Category, Record
from tests.data.formats.making import HEIGHT, WIDTH, again, label_png, part, read, rle

CLASSES = [{"id": 1, "name": "cat", "isthing": 1, "supercategory": "animal"}, {"id": 2, "name": "sky", "isthing": 0}]
CATEGORIES = (Category(1, "cat", True, "animal"), Category(2, "sky", False))
IMAGE = {"id": 9, "file_name": "9.jpg", "width": 4, "height": 3}
# A hand-made picture: segment 3 + 256 * 2 = 515, segment 7 * 65536 = 458752, and void.
NUMBERS = np.array([[515, 515, 0, 0], [515, 0, 458752, 458752], [0, 0, 458752, 458752]])
COLOURS = np.stack([NUMBERS % 256, NUMBERS // 256 % 256, NUMBERS // 65536], axis=2).astype(np.uint8)
SEGMENTS = [
    {"id": 515, "category_id": 1, "iscrowd": 1, "bbox": [0, 0, 2, 2], "area": 3},
    {"id": 458752, "category_id": 2, "iscrowd": 0, "bbox": [2, 1, 2, 2], "area": 4, "seen": True},
]


def files(tmp_path, segments=SEGMENTS, png="panoptic_val/9.png", images=(IMAGE,), colours=COLOURS, **changes):
    if png:
        label_png(tmp_path / png, colours)
    row = {"image_id": 9, "file_name": "9.png", "segments_info": segments} | changes
    content = {"images": list(images), "annotations": [row], "categories": CLASSES}
    path = tmp_path / "panoptic_val.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("png", ["panoptic_val/9.png", "9.png"])
def test_segments_are_annotations(tmp_path, png):
    categories, [record], problems = read("panoptic", files(tmp_path, png=png))
    assert categories == CATEGORIES
    assert (record.id, record.split, record.width, record.height) == ("9", "val", 4, 3)
    cat, sky = record.annotations
    assert (cat.id, cat.category, cat.crowd, cat.box, cat.area) == ("9:515", "cat", True, (0, 0, 2, 2), 3)
    assert cat.mask == rle(NUMBERS == 515)
    assert (sky.id, sky.category, sky.crowd, sky.columns) == ("9:458752", "sky", False, {"seen": True})
    assert sky.mask == rle(NUMBERS == 458752)
    assert not len(problems)


def test_it_is_written_back_exactly(tmp_path):
    source = files(tmp_path / "in") if (tmp_path / "in").mkdir() is None else None
    categories, records, _ = read("panoptic", source)
    target = tmp_path / "out" / "panoptic_val.json"
    assert again("panoptic", records, categories, target)[1] == records
    made = json.loads(target.read_text())
    [row] = made["annotations"]
    assert row["segments_info"] == SEGMENTS
    assert made["categories"] == CLASSES
    png = np.asarray(PIL.Image.open(tmp_path / "out" / "panoptic_val" / row["file_name"]))
    assert (png == COLOURS).all()
    assert row["file_name"] == "000000000009.png"


@pytest.mark.parametrize(
    ("segments", "kind", "id", "kept"),
    [
        ([*SEGMENTS, SEGMENTS[0] | {"id": 8}], "empty mask", "9:8", 2),
        ([*SEGMENTS, SEGMENTS[0]], "empty mask", "9:515", 2),
        ([*SEGMENTS, SEGMENTS[0] | {"id": "x"}], "empty mask", "9:x", 2),
        (SEGMENTS[:1], "unknown segment", "9:458752", 1),
        ([SEGMENTS[0] | {"category_id": 5}, SEGMENTS[1]], "unknown category", "9:515", 1),
        ([SEGMENTS[0] | {"bbox": [1]}, SEGMENTS[1]], "bad box", "9:515", 1),
    ],
)
def test_a_broken_segment_is_a_problem(tmp_path, segments, kind, id, kept):
    _, [record], problems = read("panoptic", files(tmp_path, segments))
    assert [(problem.kind, problem.id) for problem in problems] == [(kind, id)]
    assert len(record.annotations) == kept


def test_pngs_that_are_missing_or_of_another_size_are_problems(tmp_path):
    images = [IMAGE, IMAGE | {"id": 10}]
    path = files(tmp_path, images=images)
    content = json.loads(path.read_text())
    content["annotations"].append({"image_id": 10, "file_name": "10.png", "segments_info": SEGMENTS})
    path.write_text(json.dumps(content))
    _, records, problems = read("panoptic", path)
    assert [record.id for record in records] == ["9"]
    assert problems.counts == {"missing mask": 1}
    _, records, problems = read("panoptic", files(tmp_path, images=[IMAGE | {"width": 5}]))
    assert not records
    assert problems.counts == {"mask size": 1}


def test_no_png_at_all_is_an_error_that_says_where_they_were_looked_for(tmp_path):
    with pytest.raises(DataError) as error:
        read("panoptic", files(tmp_path, png=None))
    assert str(tmp_path / "panoptic_val" / "9.png") in str(error.value)
    assert str(tmp_path / "9.png") in str(error.value)


@pytest.mark.parametrize("broken", ["cut", "text", "deep"])
def test_a_broken_png_leaves_its_picture_out(tmp_path, broken):
    path = files(
        tmp_path,
        colours=np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8),
        images=[{"id": 9, "file_name": "9.jpg"}],
    )
    png = tmp_path / "panoptic_val" / "9.png"
    if broken == "cut":
        png.write_bytes(png.read_bytes()[:5000])
    elif broken == "text":
        png.write_text("no picture")
    else:
        label_png(png, np.full((3, 4), 700, np.uint16))
    _, records, problems = read("panoptic", path)
    assert records == []
    [problem] = problems
    assert (problem.kind, problem.id, problems.left_out) == ("unreadable mask", "9", 1)
    assert "9.png" in problem.message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"segments_info": None}, r"annotations\[0\] has no list 'segments_info'"),
        ({"segments_info": [3]}, r"annotations\[0\] has no list 'segments_info'"),
        ({"file_name": None}, r"annotations\[0\] has no 'image_id' or 'file_name'"),
        ({"image_id": None}, r"annotations\[0\] has no 'image_id' or 'file_name'"),
    ],
)
def test_a_broken_file_is_an_error(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        read("panoptic", files(tmp_path, **changes))


@settings(max_examples=20, deadline=None)
@given(
    arrays.arrays(np.int64, (2, HEIGHT, WIDTH), elements=st.sampled_from([0, 1, 2, 300, 70000, 256**3 - 1])),
    st.sampled_from(["", "train"]),
)
def test_what_is_written_reads_the_same(numbers, split):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        records = []
        for id, canvas in zip(("3", "a/b"), numbers, strict=True):
            annotations = [
                part(f"{id}:{n}", canvas == n, category="cat" if n % 2 else "sky", crowd=n == 1)
                for n in np.unique(canvas).tolist()
                if n
            ]
            columns = {"place": "here"}
            records.append(Record(id, folder / f"{id}.jpg", WIDTH, HEIGHT, split, "", tuple(annotations), columns))
        assert again("panoptic", records, CATEGORIES, folder / "out.json") == (CATEGORIES, records)


def test_of_masks_that_overlap_the_first_is_on_top(tmp_path):
    on = np.zeros((3, 4), bool)
    on[0] = True
    both = [
        part("a", on, category="cat"),
        part("b", np.ones((3, 4), bool), category="sky"),
        part("c", on, category="cat", ignore=True),
    ]
    _, [record] = again(
        "panoptic", [Record("1", tmp_path / "x.jpg", annotations=tuple(both))], CATEGORIES, tmp_path / "o.json"
    )
    assert [(one.category, one.area, one.mask) for one in record.annotations] == [
        ("cat", 4, rle(on)),
        ("sky", 8, rle(~on)),
    ]
