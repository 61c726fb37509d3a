"""Saved predictions: ours there and back, those of others, and what is wrong with them."""

import csv
import json

import numpy as np
import PIL.Image
import pytest

from manylens.data import Annotation, Category, DataError, Dataset, Problems, Record
from manylens.errors import UnsupportedError
from manylens.evaluation.evaluate import evaluate
from manylens.evaluation.measure import Regions
from manylens.evaluation.measures.panoptic import PanopticMap
from manylens.evaluation.measures.retrieval import Found
from manylens.evaluation.predictions import Known, Spool, decoded, encoded, read
from manylens.media import to_rle
from manylens.tasks.results import Answer, Caption, Classification, Depth, Label, Reading, TextLine
from tests.evaluation.scripted import picture, rectangle

SIZE = (40, 30)
MASK = rectangle(SIZE, (3, 4, 15, 20))
CATEGORIES = (Category(1, "cat"), Category(7, "dog"), Category(9, "sky", is_thing=False))


@pytest.fixture
def dataset(tmp_path):
    question = Annotation("q1", columns={"question": "is it?", "answers": ["yes"] * 10})
    known = Annotation("a", "cat", (3, 4, 15, 20), mask=dict(to_rle(MASK)), area=float(MASK.sum()))
    return Dataset.of(
        [
            Record("1", picture(tmp_path, "first"), *SIZE, label="cat", annotations=(known, question)),
            Record("2", picture(tmp_path, "second"), *SIZE, label="dog", columns={"captions": ["a dog"]}),
        ],
        CATEGORIES,
        name="two",
    )


@pytest.fixture
def known(dataset):
    return Known.of(dataset)


def write(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    "prediction",
    [
        None,
        "text",
        Classification((Label("cat", 0.75), Label("dog", 0.25))),
        Caption("a cat", 0.5),
        {"q1": Answer("yes", kind="presence"), "q2": None},
        Reading((TextLine("EXIT", 0.9, (0.0, 1.0, 2.0, 3.0)),)),
    ],
    ids=lambda one: type(one).__name__,
)
def test_results_are_the_same_when_they_are_read_back(prediction, tmp_path):
    body = json.loads(json.dumps(encoded(prediction, tmp_path, "a record")))
    assert decoded(body, tmp_path) == prediction


@pytest.mark.parametrize("masks", [None, [dict(to_rle(MASK)), dict(to_rle(~MASK))]], ids=["boxes", "masks"])
def test_regions_are_the_same_when_they_are_read_back(masks, tmp_path):
    boxes = np.array([[0.1, 1, 2, 3.3], [1, 2, 3, 4]], np.float32)
    made = Regions(["cat", "dog"], np.array([0.3, np.nan], np.float32), boxes, masks, ["x", "y"])
    found = decoded(json.loads(json.dumps(encoded(made, tmp_path, "r"), allow_nan=False)), tmp_path)
    np.testing.assert_array_equal(found.boxes, boxes)
    np.testing.assert_array_equal(found.scores, made.scores)
    assert (found.names, found.masks, found.ids) == (made.names, masks, made.ids)


def test_maps_and_vectors_are_the_same_when_they_are_read_back(tmp_path):
    map = np.random.default_rng(0).random((4, 6)).astype(np.float32)
    for name in ("a/b", "a_b"):  # two names that look the same as files
        body = encoded(Depth(map=map + len(name), scale="metric"), tmp_path, name)
        found = decoded(json.loads(json.dumps(body)), tmp_path)
        np.testing.assert_array_equal(found.map, map + len(name))
        assert found.scale == "metric"
    assert len(list((tmp_path / "predictions").iterdir())) == 2
    vectors = Found(map[0], map)
    found = decoded(json.loads(json.dumps(encoded(vectors, tmp_path, "r"))), tmp_path)
    np.testing.assert_array_equal(found.texts, map)


def test_our_file_appears_whole_or_not_at_all(tmp_path, known):
    path = tmp_path / "predictions.jsonl"
    with pytest.raises(TypeError, match="no form on disk"), Spool(path, dict) as spool:
        spool.add("1", object())
    assert list(tmp_path.glob("*.jsonl*")) == []
    assert list(tmp_path.glob(".*.part")) == []
    with Spool(path, lambda: {"task": "caption", "measure": "captions", "model": {"id": "m"}}) as spool:
        spool.add("1", Caption("a cat"))
        spool.add("2", None)
    saved = read(tmp_path, known, Problems())
    assert dict(saved) == {"1": Caption("a cat"), "2": None}
    assert saved.measure("caption") == "captions"
    assert "made by m" in saved.used().notes


def test_bad_rows_of_our_file_are_problems(tmp_path, known):
    path = tmp_path / "predictions.jsonl"
    with Spool(path, lambda: {"measure": "captions"}) as spool:
        for id in ("1", "1", "99"):
            spool.add(id, "a cat")
    path.write_text(path.read_text() + '{"record": "2", "pred')
    problems = Problems()
    assert list(read(path, known, problems)) == ["1"]
    assert dict(problems.counts) == {"duplicate prediction": 1, "unknown image": 1, "broken row": 1}
    assert problems.left_out == 3


# ---------------------------------------------------------------------- the forms of others

RLE = dict(to_rle(MASK))
GOOD = {"image_id": 1, "category_id": 1, "bbox": [3, 4, 12, 16], "score": 0.9}


def test_coco_results(tmp_path, known):
    counts = {"size": RLE["size"], "counts": [0, *_runs(MASK)]} if MASK[0, 0] else _listed(MASK)
    rows = [{**GOOD, "segmentation": RLE}, {**GOOD, "category_id": 7, "segmentation": counts, "id": 44}]
    saved = read(write(tmp_path, "r.json", rows), known, Problems())
    found = saved["1"]
    assert saved.form == "regions"
    assert (found.names, found.ids) == (["cat", "dog"], ["0", "44"])
    np.testing.assert_array_equal(found.boxes, [[3, 4, 15, 20]] * 2)
    assert found.masks == [RLE, RLE]


def _listed(mask):
    return {"size": list(mask.shape), "counts": _runs(mask)}


def _runs(mask):
    flat = mask.T.ravel().astype(int)
    edges = np.flatnonzero(np.diff(flat)) + 1
    return np.diff([0, *edges, len(flat)]).tolist()


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"image_id": 99}, "unknown image"),
        ({"category_id": 2}, "unknown category"),
        ({"score": float("nan")}, "NaN score"),
        ({"score": None}, "NaN score"),
        ({"score": "high"}, "NaN score"),
        ({"bbox": [1, 2, float("nan"), 4]}, "bad box"),
        ({"bbox": [1, 2, 3]}, "bad box"),
        ({"bbox": None}, "broken row"),
        ({"segmentation": [[1, 2, 3, 4, 5, 6]]}, "bad mask"),
    ],
)
def test_bad_rows_of_coco_results_are_left_out_with_their_id(tmp_path, known, change, kind):
    path = write(tmp_path, "r.json", [GOOD, {**GOOD, "id": 17, **change}])
    problems = Problems()
    assert len(read(path, known, problems)["1"]) == 1
    assert [(problem.kind, problem.id) for problem in problems] == [(kind, "17")]
    with pytest.raises(DataError, match="17"):
        read(path, known, Problems(strict=True))


@pytest.mark.parametrize(
    ("rows", "labels", "counts"),
    [
        (["image,label", "1,cat", "second.png,dog"], {"1": [("cat", 1.0)], "2": [("dog", 1.0)]}, {}),
        (
            ["file_name,cat,dog", "first,0.25,0.75", "2,1,0"],
            {"1": [("dog", 0.75), ("cat", 0.25)], "2": [("cat", 1.0), ("dog", 0.0)]},
            {},
        ),
        (["image,label,score", "1,cat,0.2", "1,dog,0.7"], {"1": [("dog", 0.7), ("cat", 0.2)]}, {}),
        (["image,label,score", "1,cat,0.2", "1,cat,0.7"], {"1": [("cat", 0.2)]}, {"duplicate prediction": 1}),
        (["image,cat,dog", "1,0,1", "1,1,0"], {"1": [("dog", 1.0), ("cat", 0.0)]}, {"duplicate prediction": 1}),
        (["image,label,score", "1,cat,nan", "2,dog,x", "1,dog,", "2,cat,1"], {"2": [("cat", 1.0)]}, {"NaN score": 3}),
        (["image,label", "9,cat", "1,cat"], {"1": [("cat", 1.0)]}, {"unknown image": 1}),
    ],
)
def test_csv_of_labels(tmp_path, known, rows, labels, counts):
    problems = Problems()
    saved = read(write(tmp_path, "l.csv", "\n".join(rows)), known, problems)
    assert {id: [(one.name, one.score) for one in found.labels] for id, found in saved.items()} == labels
    assert dict(problems.counts) == counts


def test_captions_answers_and_features(tmp_path, known):
    problems = Problems()
    captions = [{"image_id": 2, "caption": "a dog"}, {"image_id": 2, "caption": "no"}, {"image_id": 5, "caption": ""}]
    assert dict(read(write(tmp_path, "c.json", captions), known, problems)) == {"2": Caption("a dog")}
    answers = [{"question_id": "q1", "answer": "yes"}, {"question_id": "q9", "answer": "no"}]
    assert dict(read(write(tmp_path, "a.json", answers), known, problems)) == {"1": {"q1": Answer("yes")}}
    assert dict(problems.counts) == {"duplicate prediction": 1, "unknown image": 1, "unknown question": 1}
    features = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.save(tmp_path / "f.npy", features)
    np.testing.assert_array_equal(read(tmp_path / "f.npy", known, problems)["2"], features[1])
    np.save(tmp_path / "f.npy", features[:1])
    with pytest.raises(DataError, match=r"is 1x3, the data has 2 records"):
        read(tmp_path / "f.npy", known, problems)


def test_maps_of_classes_and_of_segments(tmp_path, known):
    values = np.where(MASK, 7, 1).astype(np.uint8)
    (tmp_path / "maps").mkdir()
    PIL.Image.fromarray(values).save(tmp_path / "maps" / "first.png")
    found = read(tmp_path / "maps", known, Problems())
    assert (found.form, list(found)) == ("classes", ["1"])
    np.testing.assert_array_equal(found["1"], values)

    ids = np.where(MASK, 300, 5)
    (tmp_path / "p").mkdir()
    colours = np.stack([ids % 256, ids // 256, ids * 0], axis=2).astype(np.uint8)
    PIL.Image.fromarray(colours).save(tmp_path / "p" / "1.png")
    segments = [{"id": 300, "category_id": 1}, {"id": 5, "category_id": 2}]
    body = {"annotations": [{"image_id": 1, "file_name": "1.png", "segments_info": segments}]}
    problems = Problems()
    made = read(write(tmp_path, "p.json", body), known, problems)["1"]
    assert isinstance(made, PanopticMap)
    assert made.names == {300: "cat"}
    np.testing.assert_array_equal(made.ids, np.where(MASK, 300, 0))
    assert dict(problems.counts) == {"unknown category": 1}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.json", None, "gone.json: no such file"),
        ("r.json", "{", "r.json: not JSON"),
        ("r.json", "3", "is no list of predictions"),
        ("r.json", {"a": 1}, "has no 'annotations'"),
        ("r.csv", "a,b\n1,2", "has no column that names the picture"),
        ("r.csv", "image,b\n1,2", "has neither a column 'label' nor one for each class"),
        ("r.txt", "x", "no form of predictions"),
        ("r.npy", "x", "is no whole .npy file of numbers"),
        ("predictions.jsonl", "{}", "its first line is not that of predictions.jsonl"),
    ],
)
def test_files_that_are_no_predictions_are_one_line(tmp_path, known, name, content, message):
    path = tmp_path / name if content is None else write(tmp_path, name, content)
    with pytest.raises(DataError, match=message) as failed:
        read(path, known, Problems())
    assert len(str(failed.value).splitlines()) == 1


def test_pictures_are_known_by_name_where_only_one_has_it(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    records = [Record(f"{folder}1", picture(tmp_path / folder, "same")) for folder in ("a", "b")]
    known = Known.of(Dataset.of(records))
    assert known.record("a1") == "a1"
    assert known.record("same.png") is None
    assert known.record(str(tmp_path / "a" / "same.png")) == "a1"


# ---------------------------------------------------------------------- measured


def test_saved_predictions_are_measured(dataset, tmp_path):
    rows = [{**GOOD, "segmentation": RLE}, {**GOOD, "image_id": 77}]
    path = write(tmp_path, "r.json", rows)
    for task, measure in (("detect", "detection"), ("segment", "instance")):
        found = evaluate(dataset, task=task, predictions=path, resamples=0)
        assert (found.measure, found.model.id, found.model.source) == (measure, "saved predictions", str(path))
        assert found.figures["AP"].value == pytest.approx(1)
        assert found.problems.left_out == 1
    with pytest.raises(DataError, match=r"holds regions, and classification judges labels"):
        evaluate(dataset, task="classify", predictions=path)
    with pytest.raises(UnsupportedError, match="runs the model itself"):
        evaluate(dataset, task="segment", measure="few-shot", predictions=path)
    with pytest.raises(DataError, match="77"):
        evaluate(dataset, task="detect", predictions=path, strict=True)


def test_labels_are_measured(dataset, tmp_path):
    with (tmp_path / "l.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "label"], ["1", "cat"], ["2", "cat"]])
    found = evaluate(dataset, task="classify", predictions=tmp_path / "l.csv", resamples=0)
    assert found.figures["accuracy"].value == 0.5


@pytest.mark.parametrize(
    ("high", "names"),
    [(255, None), (1, "background\nthing"), (1, "1 thing")],
    ids=["0 and 255", "named background", "background without a name"],
)
@pytest.mark.parametrize("said", ["the same", "all object", "nothing"])
def test_label_pictures_are_read_like_the_truth_and_false_alarms_count(tmp_path, high, names, said):
    truth = MASK.astype(np.uint8) * high
    given = {"the same": truth, "all object": np.full_like(truth, high), "nothing": np.zeros_like(truth)}[said]
    for folder, values in (("data/masks", truth), ("found", given)):
        (tmp_path / folder).mkdir(parents=True)
        PIL.Image.fromarray(values).save(tmp_path / folder / "first.png")
    (tmp_path / "data/images").mkdir()
    picture(tmp_path / "data/images", "first")
    if names:
        (tmp_path / "data/classes.txt").write_text(names)
    made = evaluate(tmp_path / "data", task="segment", predictions=tmp_path / "found", resamples=0)
    share = MASK.mean()
    thing, ground = {"the same": (1, 1), "all object": (share, 0), "nothing": (0, 1 - share)}[said]
    figures = {name: one.value for name, one in made.figures.items()}
    assert made.measure == "semantic"
    assert figures["IoU/background"] == pytest.approx(ground)
    assert figures["mIoU"] == pytest.approx((thing + ground) / 2)
    assert not len(made.problems)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", "image,label\nx,cat\ny,dog\n", "none of its 2 rows can be used .first: unknown image x"),
        ("a.json", [{"question_id": 77, "answer": "yes"}], "unknown question 77"),
        ("b.json", [{"image_id": "1", "category_id": 5, "bbox": [0, 0, 2, 2], "score": 1}], "unknown category"),
    ],
)
def test_predictions_of_other_data_are_an_error_that_names_the_ids(tmp_path, known, name, content, told):
    with pytest.raises(DataError, match=told) as error:
        read(write(tmp_path, name, content), known, Problems())
    assert "1, 2" in error.value.remedy
    assert "q1" in error.value.remedy


def test_predictions_of_another_split_are_an_error(dataset, tmp_path):
    path = write(tmp_path, "a.csv", "image,label\n2,cat\n")
    with pytest.raises(DataError, match="none of its 1 predictions is for the records that are judged"):
        evaluate(dataset, task="classify", predictions=path, limit=1, resamples=0)
