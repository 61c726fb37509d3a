import json
from pathlib import Path

import numpy as np
import pytest

from manylens.data.dataset import Dataset
from manylens.data.formats import recognise, recognition
from manylens.data.problems import DataError
from tests.data.formats.making import label_png, picture

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.mark.parametrize(
    ("files", "source", "wanted"),
    [
        (["x.csv"], "x.csv", "csv"),
        (["x.TSV"], "x.TSV", "csv"),
        (["x.parquet"], "x.parquet", "csv"),
        (["x.json"], "x.json", "coco"),
        (["dataset.json"], "dataset.json", "manylens"),
        (["dataset.json", "a/x.jpg"], "", "manylens"),
        (["cat/x.jpg", "dog/y.jpg"], "", "folders"),
        (["train/images/x.jpg"], "", "folders"),
        (["images/x.jpg", "masks/x.png"], "", "masks"),
        (["images/val/x.jpg", "annotations/val/x.png", "classes.json"], "", "masks"),
        (["x.jpg", "x_mask.png"], "", "masks"),
    ],
)
def test_formats_are_recognised(tmp_path, files, source, wanted):
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("{}")
    assert recognise(tmp_path / source) == wanted


def test_panoptic_is_told_from_coco_wherever_its_segments_stand(tmp_path, monkeypatch):
    monkeypatch.setattr(recognition, "_PIECE", 32)
    for blanks in range(0, 70, 3):
        path = tmp_path / f"{blanks}.json"
        path.write_text(json.dumps({"images": [], "annotations": [{"x": "-" * blanks, "segments_info": []}]}))
        assert recognise(path) == "panoptic"


@pytest.mark.parametrize(
    ("files", "source", "message"),
    [
        (["x.txt"], "x.txt", "of no format"),
        ([], "none", "no such file"),
        (
            ["annotations/instances_val2017.json", "val2017/x.jpg"],
            "",
            "holds files of labels; name the one to read, such as",
        ),
    ],
)
def test_what_is_not_recognised(tmp_path, files, source, message):
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    with pytest.raises(DataError, match=message):
        recognise(tmp_path / source)


def test_a_data_set_goes_through_every_format(tmp_path):
    regions = Dataset.read(EXAMPLES / "regions.json", images=EXAMPLES)
    assert (len(regions), regions.annotations, len(regions.problems)) == (6, 8, 0)
    for format, target in [
        ("coco", "a/made.json"),
        ("csv", "b/made.csv"),
        ("csv", "c/made.parquet"),
        ("masks", "d"),
        ("panoptic", "e/made.json"),
        ("folders", "f"),
    ]:
        written = regions.export(tmp_path / target, format)
        back = Dataset.read(written)
        assert len(back) == 6, format
        assert not len(back.problems), list(back.problems)
        if format in ("coco", "csv"):
            assert [one.annotations for one in back] == [one.annotations for one in regions]
            assert {one.name for one in back.categories} == {one.name for one in regions.categories}
        if format in ("masks", "panoptic"):
            areas = {one.category: one.area for record in back for one in record.annotations if not one.ignore}
            assert areas.keys() - {"background"} == {one.name for one in regions.categories}


def test_label_pictures_and_labels_of_one_folder_go_through_the_door(tmp_path):
    picture(tmp_path / "images" / "x.jpg", (4, 3))
    label_png(tmp_path / "masks" / "x.png", np.eye(3, 4, dtype=np.uint8) * 255)
    [record] = Dataset.read(tmp_path)
    assert [(one.category, one.area) for one in record.annotations] == [("background", 9), ("object", 3)]
