"""Bad input, end to end: ``manylens evaluate`` on data sets and predictions with one mistake each.

Every mistake is in ``report.json`` and on the page with its id, the rows that it left out are counted, and under
``--strict`` it is one line and exit code 2.
"""

import contextlib
import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from manylens.cli import main

SIZE = (40, 30)
BOXES = {1: [2, 3, 12, 10], 2: [4, 4, 12, 10], 3: [6, 5, 12, 10], 4: [8, 6, 12, 10]}
NAN, HUGE = float("nan"), 10**400


def outline(x, y, width, height):
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def full(size=SIZE):
    return {"size": [size[1], size[0]], "counts": [0, size[0] * size[1]]}


def picture(path, size=SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", size, "gray").save(path)


def png(path, values):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(np.asarray(values, np.uint8)).save(path)


def labels():
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 40, "height": 30, "site": "north"} for i in BOXES],
        "categories": [{"id": 5, "name": "cat"}, {"id": 6, "name": "dog"}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 5, "bbox": box, "area": 120, "segmentation": outline(*box)}
            for i, box in BOXES.items()
        ],
    }


def found():
    return [
        {"image_id": i, "category_id": 5, "bbox": box, "score": 0.9, "segmentation": full()} for i, box in BOXES.items()
    ]


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run the command line in a folder with four pictures: exit code, output, errors but for what is measured."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MANYLENS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("manylens.render.plot.draw_detail", lambda _: "")  # slow, and not asked about here
    monkeypatch.setattr("manylens.evaluation.evaluate.shown", lambda *_: [])
    for i in BOXES:
        picture(tmp_path / "p" / f"{i}.png")

    def call(words):
        with pytest.raises(SystemExit) as left:
            main(words.split())
        printed = capsys.readouterr()
        return (
            left.value.code or 0,
            printed.out,
            [x for x in printed.err.splitlines() if not x.startswith(("measuring", "note: "))],
        )

    return call


def holds(run, words, kind, id, left_out):
    """The mistake is in the report and on the page, is counted, and is an error under ``--strict``."""
    code, out, errors = run(f"{words} --resamples 0 -o report")
    assert (code, errors) == (0, [])
    problems = json.loads(Path("report/report.json").read_text())["problems"]
    assert (kind, id) in [(one["kind"], one["id"]) for one in problems["problems"]]
    assert problems["left_out"] == left_out, problems
    assert f"{left_out} row{'' if left_out == 1 else 's'} left out" in out
    assert f"{kind}: " in out
    page = Path("report/report.html").read_text()
    assert kind in page
    assert id in page
    code, out, errors = run(f"{words} --resamples 0 --strict -o strict")
    assert (code, out) == (2, "")
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert not Path("strict").exists()


def of(key, place=2, **changes):
    """A mistake in the row of that number of a list."""
    return lambda body: body[key][place - 1].update(changes)


def more(key, **row):
    return lambda body: body[key].append(row)


def note(**changes):
    return of("annotations", **changes)


COCO = {
    "missing image": (of("images", file_name="gone.png"), "missing image", "2", 3),  # its annotation, its prediction
    "a name too long": (of("images", file_name="x" * 5000), "missing image", "2", 3),
    "two images of one id": (of("images", id=1), "duplicate id", "1", 3),
    "two annotations of one id": (note(id=1), "duplicate id", "1", 1),
    "annotation of no image": (note(image_id=99), "unknown image", "2", 1),
    "unknown category": (note(category_id=77), "unknown category", "2", 1),
    "category is a list": (note(category_id=[5]), "unknown category", "2", 1),
    "no category": (note(category_id=None), "unknown category", "2", 1),
    "two categories of one name": (more("categories", id=9, name="cat"), "duplicate name", "9", 0),
    "box outside": (note(bbox=[100, 100, 5, 5]), "box outside", "2", 1),
    "box over the border": (note(bbox=[30, 20, 50, 50]), "box outside", "2", 0),
    "box outside, size not stated": (
        lambda body: (note(bbox=[100, 100, 5, 5], segmentation=None)(body), body["images"][1].pop("width")),
        "box outside",
        "2",
        1,
    ),
    "box without area": (note(bbox=[5, 5, 0, 4]), "empty box", "2", 1),
    "negative box": (note(bbox=[5, 5, -3, 4]), "empty box", "2", 1),
    "box of NaN": (note(bbox=[NAN, 5, 3, 4]), "bad box", "2", 1),
    "box beyond floats": (note(bbox=[0, 5, HUGE, 4]), "bad box", "2", 1),
    "box of three": (note(bbox=[0, 5, 4]), "bad box", "2", 1),
    "box of words": (note(bbox=["a", 5, 4, 4]), "bad box", "2", 1),
    "no box": (note(bbox=None, segmentation=None), "no box", "2", 1),
    "zero-area mask": (note(segmentation={"size": [30, 40], "counts": [1200]}), "empty mask", "2", 1),
    "zero-area polygon": (note(segmentation=[[5, 5, 5, 5, 5, 5]]), "empty mask", "2", 1),
    "mask of another size": (note(segmentation=full((10, 10))), "mask size", "2", 1),
    "mask beyond 32 bits": (
        note(segmentation={"size": [10**9, 10**9], "counts": [0, 10**18]}),
        "unreadable mask",
        "2",
        1,
    ),
    "polygon beyond floats": (note(segmentation=[[HUGE, 2, 3, 4, 5, 6]]), "unreadable mask", "2", 1),
    "mask cut short": (note(segmentation={"size": [30, 40], "counts": [0, 7]}), "unreadable mask", "2", 1),
    "area beyond floats": (note(area=HUGE), "bad area", "2", 0),
    "area in words": (note(area="large"), "bad area", "2", 0),
    "width of NaN": (of("images", width=NAN), "bad size", "2", 0),
    "width beyond floats": (of("images", width=HUGE), "bad size", "2", 0),
    "column of two types": (of("images", site=3.5), "mixed column", "site", 0),
}


@pytest.mark.parametrize(("mistake", "kind", "id", "left_out"), COCO.values(), ids=COCO)
def test_labels(run, mistake, kind, id, left_out):
    body = labels()
    mistake(body)
    Path("c.json").write_text(json.dumps(body))
    Path("r.json").write_text(json.dumps([{**row, "segmentation": None} for row in found()]))
    holds(run, "evaluate --task detect --data c.json --images p --predictions r.json", kind, id, left_out)


def said(place=2, **changes):
    return lambda rows: rows[place - 1].update(changes)


RESULTS = {
    "unknown image": ("detect", said(image_id=99), "unknown image", "1", 1),
    "no image": ("detect", said(image_id=None), "unknown image", "1", 1),
    "unknown category": ("detect", said(category_id=77), "unknown category", "1", 1),
    "category is a list": ("detect", said(category_id=[5]), "unknown category", "1", 1),
    "NaN score": ("detect", said(score=NAN), "NaN score", "1", 1),
    "infinite score": ("detect", said(score=-float("inf")), "NaN score", "1", 1),
    "score in words": ("detect", said(score="high"), "NaN score", "1", 1),
    "score beyond floats": ("detect", said(score=HUGE), "NaN score", "1", 1),
    "box of NaN": ("detect", said(bbox=[NAN, 1, 2, 3]), "bad box", "1", 1),
    "box beyond 32 bits": ("detect", said(bbox=[0, 0, 1e300, 3]), "bad box", "1", 1),
    "box beyond floats": ("detect", said(bbox=[0, 0, HUGE, 3]), "bad box", "1", 1),
    "negative box": ("detect", said(bbox=[5, 5, -3, 3]), "bad box", "1", 1),
    "neither box nor mask": ("detect", said(bbox=None, segmentation=None), "broken row", "1", 1),
    "half a character": ("detect", said(id="\\ud800", image_id=99), "unknown image", "\\ud800", 1),
    "no mask": ("segment", said(segmentation=None), "no mask", "1", 1),
    "polygon": ("segment", said(segmentation=outline(1, 1, 5, 5)), "bad mask", "1", 1),
    "mask of another size": ("segment", said(segmentation=full((10, 10))), "mask size", "1", 1),
    "mask cut short": ("segment", said(segmentation={"size": [30, 40], "counts": [0, 7]}), "bad mask", "1", 1),
    "string that is none": ("segment", said(segmentation={"size": [30, 40], "counts": "~~"}), "bad mask", "1", 1),
    "negative runs": ("segment", said(segmentation={"size": [30, 40], "counts": [-5, 1205]}), "bad mask", "1", 1),
    "runs beyond 64 bits": ("segment", said(segmentation={"size": [30, 40], "counts": [0, HUGE]}), "bad mask", "1", 1),
    "negative size": ("segment", said(segmentation={"size": [-30, 40], "counts": [0, 1200]}), "bad mask", "1", 1),
    "zero-area mask": ("segment", said(segmentation={"size": [30, 40], "counts": [1200]}), "empty mask", "1", 0),
}


@pytest.mark.parametrize(("task", "mistake", "kind", "id", "left_out"), RESULTS.values(), ids=RESULTS)
def test_results(run, task, mistake, kind, id, left_out):
    rows = found()
    mistake(rows)
    Path("c.json").write_text(json.dumps(labels()))
    Path("r.json").write_text(json.dumps(rows))
    holds(run, f"evaluate --task {task} --data c.json --images p --predictions r.json", kind, id, left_out)


def test_ids_of_categories_may_be_text_and_no_result_is_a_score_of_0(run):
    Path("c.json").write_text(json.dumps(labels()))
    for rows, ap in (([{**row, "category_id": "5"} for row in found()], 1), ([], 0)):
        Path("r.json").write_text(json.dumps(rows))
        words = "evaluate --task detect --data c.json --images p --predictions r.json --resamples 0 --json"
        code, out, _ = run(words)
        assert code == 0
        body = json.loads(out)
        assert body["figures"]["AP"]["value"] == pytest.approx(ap)
        assert body["problems"]["counts"] == {}


def test_a_result_without_a_box_costs_only_itself(run):
    """Its mask has one; and the other results of the picture keep theirs."""
    rows = [*found(), {"image_id": 2, "category_id": 5, "score": 0.1, "segmentation": full()}]
    rows[1].pop("segmentation")
    Path("c.json").write_text(json.dumps(labels()))
    Path("r.json").write_text(json.dumps(rows))
    code, out, _ = run("evaluate --task detect --data c.json --images p --predictions r.json -o report --resamples 0")
    assert code == 0
    assert "AP\t1.0000" in out
    assert "0 rows left out" in out


def folders():
    for i in BOXES:
        picture(Path("f") / ("cat" if i < 3 else "dog") / f"{i}.png")
    return [["image", "label", "score"], *([f"{i}.png", "cat" if i < 3 else "dog", 0.9] for i in BOXES)]


def cell(value, column=2):
    return lambda rows: rows[2].__setitem__(column, value)


TABLES = {
    "unknown image": (lambda rows: rows.append(["zz.png", "cat", 0.5]), "unknown image", "zz.png", 1),
    "twice": (lambda rows: rows.append(rows[2]), "duplicate prediction", "2.png", 1),
    "NaN score": (cell("nan"), "NaN score", "2.png", 1),
    "score in words": (cell("high"), "NaN score", "2.png", 1),
    "no score": (cell(""), "NaN score", "2.png", 1),
    "unknown category": (cell("cow", 1), "unknown category", "cow", 0),
    "cells missing": (lambda rows: rows[2].pop(), "broken row", "line 3", 1),
    "cells too many": (lambda rows: rows[2].append("x"), "broken row", "line 3", 1),
    "none for a picture": (lambda rows: rows.pop(2), "missing prediction", "cat/2.png", 0),
    "a dead link": (lambda rows: Path("f/cat/x.png").symlink_to("gone.png"), "missing image", "cat/x.png", 1),
}


@pytest.mark.parametrize(("mistake", "kind", "id", "left_out"), TABLES.values(), ids=TABLES)
def test_class_folders_and_a_table_of_labels(run, mistake, kind, id, left_out):
    rows = folders()
    mistake(rows)
    Path("l.csv").write_text("".join(",".join(map(str, row)) + "\n" for row in rows))
    holds(run, "evaluate --task classify --data f --predictions l.csv", kind, id, left_out)


ROWS = {
    "missing image": ("gone.png,cat,1,1,9,9", "missing image", "gone.png", 2),
    "NaN": ("3.png,cat,nan,1,2,3", "bad box", "3.png:0", 1),
    "words": ("3.png,cat,a,1,2,3", "bad box", "3.png:0", 1),
    "a cell left empty": ("3.png,cat,,1,2,3", "bad box", "3.png:0", 1),
    "outside": ("3.png,cat,500,500,600,600", "box outside", "3.png:0", 1),
    "no area": ("3.png,cat,5,5,5,5", "empty box", "3.png:0", 1),
    "no category": ("3.png,,1,1,9,9", "unknown category", "3.png:0", 1),
    "cells missing": ("3.png,cat,1", "broken row", "3", 1),
    "no name": (",cat,1,1,2,2", "broken row", "3", 1),
}


@pytest.mark.parametrize(("row", "kind", "id", "left_out"), ROWS.values(), ids=ROWS)
def test_a_table_of_boxes(run, row, kind, id, left_out):
    Path("d.csv").write_text(f"image,category,x0,y0,x1,y1\n1.png,cat,1,1,9,9\n{row}\n")
    Path("r.json").write_text(json.dumps([{"image_id": "1", "category_id": 0, "bbox": [1, 1, 8, 8], "score": 0.9}]))
    holds(run, "evaluate --task detect --data d.csv --images p --predictions r.json", kind, id, left_out)


def test_a_table_that_calls_a_picture_by_two_labels(run):
    Path("d.csv").write_text("image,label\n1.png,cat\n2.png,dog\n1.png,dog\n")
    Path("l.csv").write_text("image,label\n1.png,cat\n2.png,dog\n")
    holds(run, "evaluate --task classify --data d.csv --images p --predictions l.csv", "two labels", "1.png", 0)


def cut(path):
    Path(path).write_bytes(Path(path).read_bytes()[:60])


MASKS = {
    "mask missing": (lambda: Path("m/masks/2.png").unlink(), "missing mask", "2.png", 2),
    "picture missing": (lambda: Path("m/images/2.png").unlink(), "missing image", "2.png", 2),
    "mask cut short": (lambda: cut("m/masks/2.png"), "unreadable mask", "2.png", 2),
    "mask in colours": (lambda: png("m/masks/2.png", np.eye(3)[None]), "unreadable mask", "2.png", 2),
    "mask of another size": (lambda: png("m/masks/2.png", np.zeros((9, 9))), "mask size", "2.png", 2),
    "a value without a name": (lambda: png("m/masks/2.png", np.full((30, 40), 7)), "unknown category", "2.png:7", 1),
    "prediction missing": (lambda: Path("q/2.png").unlink(), "missing prediction", "2.png", 0),
    "prediction of no picture": (lambda: png("q/zz.png", np.zeros((30, 40))), "unknown image", "zz", 1),
    "prediction cut short": (lambda: cut("q/2.png"), "unreadable prediction", "2.png", 1),
    "prediction in colours": (lambda: png("q/2.png", np.eye(3)[None]), "unreadable prediction", "2.png", 1),
    "prediction of another size": (lambda: png("q/2.png", np.zeros((9, 9))), "mask size", "2.png", 1),
    "prediction of no class": (lambda: png("q/2.png", np.full((30, 40), 7)), "unknown category", "2.png/7", 0),
}


@pytest.mark.parametrize(("mistake", "kind", "id", "left_out"), MASKS.values(), ids=MASKS)
def test_label_pictures(run, mistake, kind, id, left_out):
    for i in BOXES:
        picture(Path("m/images") / f"{i}.png")
        for place in ("m/masks", "q"):
            png(Path(place) / f"{i}.png", np.arange(1200).reshape(30, 40) > 600)
    Path("m/classes.txt").write_text("cat\ndog\n")
    mistake()
    holds(run, "evaluate --task segment --measure semantic --data m --predictions q", kind, id, left_out)


def panoptic(folder):
    numbers = np.repeat([1, 2], 15)[:, None].repeat(40, 1)
    rows = []
    for i in BOXES:
        png(Path(folder) / f"{i}.png", np.stack([numbers, 0 * numbers, 0 * numbers], axis=2))
        segments = [{"id": 1, "category_id": 5}, {"id": 2, "category_id": 6}]
        rows.append({"image_id": i, "file_name": f"{i}.png", "segments_info": segments})
    return rows


def segment(**changes):
    return lambda rows: rows[1]["segments_info"][0].update(changes)


PANOPTIC = {
    "truth: unknown category": ("t", segment(category_id=9), "unknown category", "2:1", 1),
    "truth: not in the PNG": ("t", segment(id=7), "empty mask", "2:7", 2),
    "truth: only in the PNG": ("t", segment(id=7), "unknown segment", "2:1", 2),
    "truth: of no image": ("t", lambda rows: rows[1].update(image_id=99), "unknown image", "99", 1),
    "truth: two of one image": ("t", lambda rows: rows.append(rows[1]), "duplicate id", "2", 1),
    "truth: no PNG": ("t", lambda rows: Path("t/2.png").unlink(), "missing mask", "2", 2),
    "truth: PNG cut short": ("t", lambda rows: cut("t/2.png"), "unreadable mask", "2", 2),
    "truth: PNG of another size": ("t", lambda rows: png("t/2.png", np.zeros((9, 9, 3))), "mask size", "2", 2),
    "prediction: unknown category": ("q", segment(category_id=[9]), "unknown category", "1", 1),
    "prediction: only in the PNG": ("q", segment(id=7), "unknown category", "2/1", 1),
    "prediction: of no image": ("q", lambda rows: rows[1].update(image_id=99), "unknown image", "99", 1),
    "prediction: twice": ("q", lambda rows: rows.append(rows[1]), "duplicate prediction", "2", 1),
    "prediction: no segments": ("q", lambda rows: rows[1].pop("segments_info"), "broken row", "annotations[1]", 1),
    "prediction: none": ("q", lambda rows: rows.pop(1), "missing prediction", "2", 0),
    "prediction: PNG cut short": ("q", lambda rows: cut("q/2.png"), "unreadable prediction", "2", 1),
    "prediction: no PNG": ("q", lambda rows: Path("q/2.png").unlink(), "unreadable prediction", "2", 1),
}


@pytest.mark.parametrize(("side", "mistake", "kind", "id", "left_out"), PANOPTIC.values(), ids=PANOPTIC)
def test_panoptic(run, side, mistake, kind, id, left_out):
    rows = {name: panoptic(name) for name in "tq"}
    mistake(rows[side])
    body = labels()
    for category in body["categories"]:
        category["isthing"] = 1
    Path("t.json").write_text(json.dumps({**body, "annotations": rows["t"]}))
    Path("q.json").write_text(json.dumps({"annotations": rows["q"]}))
    holds(run, "evaluate --task segment --data t.json --images p --predictions q.json", kind, id, left_out)


def test_our_own_predictions(run):
    Path("c.json").write_text(json.dumps(labels()))
    head = {"form": "manylens-predictions", "version": 1, "task": "detect", "measure": "detection"}
    regions = {
        "type": "regions",
        "names": ["cat"],
        "scores": [0.9],
        "boxes": [[2, 3, 14, 13]],
        "masks": None,
        "ids": [],
    }
    lines = [
        json.dumps(head),
        json.dumps({"record": "1", "prediction": regions}),
        json.dumps({"record": "1", "prediction": regions}),
        json.dumps({"record": "2", "prediction": {"type": "regions"}}),
        json.dumps({"record": "77", "prediction": regions}),
        '{"record": "3", "predic',
    ]
    Path("predictions.jsonl").write_text("\n".join(lines))
    words = "evaluate --task detect --data c.json --images p --predictions predictions.jsonl"
    for kind, id in (
        ("duplicate prediction", "1"),
        ("unreadable prediction", "2"),
        ("unknown image", "77"),
        ("broken row", "line 6"),
    ):
        holds(run, words, kind, id, 4)


def test_what_has_nothing_to_judge_it_by_is_said(run):
    folders()
    Path("l.csv").write_text("image,label\n1.png,cat\n")
    words = "evaluate --task classify --data f --predictions l.csv --limit 1 --json"
    notes = " ".join(json.loads(run(words)[1])["notes"])
    assert "not defined, for the data has nothing to judge them by: AUROC" in notes
    assert "one picture was judged, and an interval needs two" in notes


def test_a_folder_that_holds_another_evaluation_keeps_none_of_its_predictions(run):
    Path("c.json").write_text(json.dumps(labels()))
    Path("r.json").write_text(json.dumps(found()))
    words = "evaluate --task detect --data c.json --images p --resamples 0 -o report --predictions"
    old = Path("report/predictions.jsonl")
    old.parent.mkdir()
    head = {"form": "manylens-predictions", "version": 1, "task": "detect", "measure": "detection"}
    old.write_text(json.dumps(head))
    assert run(f"{words} report")[0] == 0
    assert old.exists()  # it was judged
    assert run(f"{words} r.json")[0] == 0
    assert not old.exists()


@pytest.mark.parametrize("column", ["file", "annotations", "id"])
def test_edited_tables_of_our_own_folder_are_one_line(run, column):
    import pyarrow.parquet as parquet

    Path("c.json").write_text(json.dumps(labels()))
    assert run("dataset convert c.json own --to manylens --images p")[0] == 0
    table = parquet.read_table("own/images.parquet")
    table = (
        table.drop([column])
        if column == "file"
        else table.set_column(
            table.column_names.index(column),
            column,
            table.column(column).take([1, 0, 2, 3]) if column == "id" else [[9] * 4],
        ).cast(table.schema)
    )
    parquet.write_table(table, "own/images.parquet")
    code, _, errors = run("dataset check own")
    assert (code, len(errors)) == (2, 1)
    assert "save the data set again" in errors[0]


def test_labels_of_another_size_than_the_upright_picture(run, tmp_path):
    """A tool that does not look at the EXIF orientation: the boxes are of the picture as it is stored."""
    from manylens.data import Annotation, Record
    from manylens.data.sizes import other_size

    turned = PIL.Image.Exif()
    turned[274] = 6
    PIL.Image.new("RGB", SIZE).save("turned.jpg", exif=turned)
    record = Record("a", Path("turned.jpg"), *SIZE, annotations=(Annotation("b", "cat", (1.0, 1.0, 5.0, 5.0)),))
    assert other_size(record) == (30, 40)
    assert other_size(Record("a", Path("p/1.png"), *SIZE, annotations=record.annotations)) is None
    assert other_size(Record("a", Path("turned.jpg"), *SIZE)) is None


BROKEN_FILES = {
    "cut labels": ("c.json", b'{"images": [', "c.json: not JSON"),
    "half a character": ("c.json", b'{"images": [], "annotations": [], "x": "\\ud800"}', "c.json: not JSON"),
    "no labels": ("c.json", b'{"images": [], "annotations": []}', "holds no record"),
    "labels are predictions": ("c.json", b"[]", "not an object"),
    "cut results": ("r.json", b"[{", "r.json: not JSON"),
    "empty features": ("v.npy", b"", "is no whole .npy file of numbers"),
    "features that are code": ("v.npy", b"\x80\x04\x95", "is no whole .npy file of numbers"),
    "table with an endless cell": ("l.csv", b"image,label\n" + b"a" * 200_000, "cannot be read as a table"),
    "table in no encoding": ("l.csv", b"image,label\n\xff,cat\n", "cannot be read as predictions"),
}


@pytest.mark.parametrize(("name", "content", "line"), BROKEN_FILES.values(), ids=BROKEN_FILES)
def test_files_that_cannot_be_read_are_one_line(run, name, content, line):
    Path("c.json").write_text(json.dumps(labels()))
    Path("r.json").write_text(json.dumps(found()))
    Path(name).write_bytes(content)
    file = "r.json" if name == "c.json" else name
    code, out, errors = run(f"evaluate --task detect --data c.json --images p --predictions {file} -o report")
    assert (code, out, len(errors)) == (2, "", 1)
    assert line in errors[0]
    assert not Path("report").exists()


def test_a_name_that_is_not_utf8_is_one_line(run):
    folders()
    name = b"f/cat/\xff.png"
    with contextlib.suppress(OSError):  # some disks take no such name
        Path(name.decode("utf-8", "surrogateescape")).write_bytes(Path("f/cat/1.png").read_bytes())
        code, _, errors = run("dataset check f")
        assert (code, len(errors)) == (2, 1)
        assert "is not UTF-8" in errors[0]
