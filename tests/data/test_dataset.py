"""The data set: opened lazily, seen in parts, saved whole or not at all."""

import gc
import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest

from manylens import data
from manylens.data import Annotation, Category, DataError, Dataset, Record, store, tables
from manylens.data.store import Store
from manylens.errors import OutputError
from manylens.media import atomic_write
from tests.data.helpers import CATEGORIES, picture, record, records


@pytest.fixture
def small_groups(monkeypatch):
    """Row groups of five, so that a few rows already spread over files and groups."""
    monkeypatch.setattr(tables, "GROUP", 5)


@pytest.fixture
def ds():
    return Dataset.of(records(23), CATEGORIES, name="toy")


@pytest.mark.parametrize("batch", [1, 4, 1024])
def test_rows_come_out_as_they_went_in(small_groups, tmp_path, batch):
    rows = [*records(23), Record("bare", Path("/far/away.png"))]
    ds = Dataset.of(rows, CATEGORIES, name="toy")
    assert list(ds.records(batch=batch)) == rows
    saved = ds.save(tmp_path)
    here = [replace(one, path=Path.cwd() / one.path) for one in rows]
    assert list(saved.records(batch=batch)) == here
    again = Dataset.open(tmp_path)
    assert list(again) == here
    assert (again.name, again.categories, len(again), again.annotations) == ("toy", CATEGORIES, 24, 46)
    assert again.columns == ("site", "age", "score", "checked", "captions")
    assert again.annotation_columns == ("text", "answers")
    assert again.splits == {"val": 6, "train": 17, "": 1}
    assert again.root == tmp_path


def test_pictures_in_the_folder_are_named_from_it_and_move_with_it(tmp_path):
    rows = [record(i, path=picture(tmp_path / "here" / "pictures" / f"{i}.png", i)) for i in range(3)]
    rows.append(record(3, path=picture(tmp_path / "out.png", 3), columns={"depth": str(rows[0].path)}))
    Dataset.of(rows).save(tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    moved = list(Dataset.open(tmp_path / "there"))
    assert [one.path for one in moved] == [
        *(tmp_path / "there" / "pictures" / f"{i}.png" for i in range(3)),
        tmp_path / "out.png",
    ]
    assert moved[3].columns["depth"] == str(tmp_path / "there" / "pictures" / "0.png")
    assert moved[0].image().size == (20, 10)


def test_copies_have_names_of_their_own_and_are_made_once(tmp_path):
    ids = ["a/b", "a", "a.png", "A", "../up", "a b?", "..", "x" * 300]
    rows = [Record(id, picture(tmp_path / str(i) / "same.png", i)) for i, id in enumerate(ids)]
    saved = Dataset.of(rows).save(tmp_path / "to", copy=True)
    paths = [one.path for one in saved]
    assert len({str(path).casefold() for path in paths}) == len(ids)
    assert all(path.resolve().is_relative_to(tmp_path / "to" / "images") for path in paths)
    assert [path.read_bytes() for path in paths] == [one.path.read_bytes() for one in rows]
    Dataset.of(rows).save(tmp_path / "to", copy=True)
    assert sum(file.is_file() for file in (tmp_path / "to" / "images").rglob("*")) == len(ids)


def test_no_picture_is_opened(tmp_path, monkeypatch):
    rows = [record(i, path=tmp_path / f"{i}.png") for i in range(5)]
    for one in rows:
        one.path.write_bytes(b"no picture")
    Dataset.of(rows, CATEGORIES).save(tmp_path)
    ds = Dataset.read(tmp_path)
    assert (len(list(ds)), ds.describe()["records"], len(ds.select(split="val"))) == (5, 5, 2)


def test_a_few_rows_cost_a_few_groups(small_groups, tmp_path, monkeypatch):
    Dataset.of(records(100)).save(tmp_path)
    read = []
    real = tables.Cursor._group
    monkeypatch.setattr(tables.Cursor, "_group", lambda self, group: read.append(group) or real(self, group))
    ds = Dataset.open(tmp_path)
    assert not read
    next(ds.records(batch=4))
    assert sorted(read) == [0, 0, 1]  # one of the images, two of their 8 annotations
    read.clear()
    assert [one.id for one in ds.select(ids=["img3", "img97"])] == ["img3", "img97"]
    assert sorted(set(read)) == [0, 1, 19, 38, 39] or set(read) <= {0, 1, 19, 38, 39}


def test_a_view_keeps_its_rows_and_their_annotations_together(small_groups, ds):
    rows = list(ds)
    view = ds.select(where={"site": ["s1", "s2"]}).select(split="val")
    assert list(view.records(batch=2)) == [one for one in rows if one.columns["site"] != "s0" and one.split == "val"]
    assert view.annotations == 2 * len(view) == len(view.annotation_column("id"))
    assert view.splits == {"val": len(view)}
    assert view.values("id") == [one.id for one in view]


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ({"split": "val"}, lambda one: one.split == "val"),
        ({"ids": ["img7", "img2", "img7"]}, lambda one: one.id in ("img2", "img7")),
        ({"where": {"age": 3}}, lambda one: one.columns["age"] == 3),
        ({"where": {"age": (3, 4.0)}}, lambda one: one.columns["age"] in (3, 4)),
        ({"where": {"checked": True, "site": "s0"}}, lambda one: one.columns["age"] % 6 == 0),
        ({"where": {"captions": ["c3", "c5"]}}, lambda one: one.id in ("img3", "img5")),
        ({"where": {"label": "cat"}, "limit": 100}, lambda one: one.label == "cat"),
        ({"limit": 4}, lambda one: one.columns["age"] < 4),
    ],
)
def test_select(ds, asked, kept):
    assert [one.id for one in ds.select(**asked)] == [one.id for one in ds if kept(one)]


def test_what_is_not_known_can_be_asked_for():
    ds = Dataset.of([record(0, columns={}), record(1), record(2, columns={"captions": []})])
    assert ds.select(where={"site": None}).values("id") == ["img0", "img2"]
    assert ds.select(where={"captions": None}).values("id") == ["img0"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"split": "test"}, "split 'test': there is none; the splits are val, train"),
        ({"ids": ["img1", "img99"]}, "id 'img99': no image has it; there are img0, img1"),
        ({"where": {"nope": 1}}, "column 'nope': there is none; the columns are id, .*site, age"),
        ({"where": {"site": "s9"}}, "column 'site': no image has 's9' there; there are s0, s1, s2"),
        ({"where": {"age": "old"}}, "column 'age': holds int, not 'old'"),
        ({"where": {"captions": "none"}}, "column 'captions': no image has 'none'"),
        ({"split": "val", "where": {"age": 1}}, "toy: no record has split 'val' and age 1; ask for less"),
        ({"limit": 0}, "limit: 0"),
    ],
)
def test_nothing_to_select_says_what_there_is(ds, asked, said):
    with pytest.raises(DataError, match=said) as caught:
        ds.select(**asked)
    assert "\n" not in str(caught.value)


def test_records_need_ids_of_their_own():
    with pytest.raises(DataError, match="'img1': two have this id"):
        Dataset.of([record(1), record(1, annotations=())])
    with pytest.raises(DataError, match="annotation 'a1': two have this id"):
        Dataset.of([record(1), replace(record(1), id="other")])
    with pytest.raises(DataError, match="no record"):
        Dataset.of([])


def test_categories_that_no_one_names_are_those_that_occur():
    ds = Dataset.of([record(1, label="dog"), record(2)])
    assert ds.categories == (Category(1, "cat"), Category(2, "dog"), Category(3, "grass"))


def test_describe(ds):
    body = json.loads(json.dumps(ds.describe()))
    assert {key: body[key] for key in ("name", "records", "annotations", "boxes", "masks", "splits", "labels")} == {
        **{"name": "toy", "records": 23, "annotations": 46, "boxes": 23, "masks": 23},
        **{"splits": {"val": 6, "train": 17}, "labels": {"cat": 11}},
    }
    assert body["categories"] == {"cat": 23, "grass": 23}
    assert body["columns"]["site"] == {
        "type": "text",
        "known": 23,
        "distinct": 3,
        "values": {"s0": 8, "s1": 8, "s2": 7},
    }
    assert body["columns"]["age"] == {"type": "int", "known": 23, "min": 0, "max": 22, "mean": 11}
    assert body["columns"]["captions"] == {"type": "texts", "known": 23, "shortest": 2, "longest": 2}
    assert body["annotation_columns"]["text"]["known"] == 23
    assert ds.select(split="val").describe()["categories"] == {"cat": 6, "grass": 6}


def failing(after):
    yield from records(after)
    raise RuntimeError("stop")


@pytest.mark.parametrize("after", [0, 3, 12])
@pytest.mark.parametrize("existing", [True, False])
def test_a_save_that_fails_leaves_what_was_there(small_groups, tmp_path, monkeypatch, existing, after):
    folder = tmp_path / "ds"
    if existing:
        Dataset.of(records(4)).save(folder)
    before = {file.name: file.read_bytes() for file in folder.glob("*")} if existing else {}
    new = Dataset.of([record(i, path=picture(tmp_path / f"{i}.png", i)) for i in range(23)])
    monkeypatch.setattr(Store, "records", lambda self, rows, batch: itertools.chain(iter(list_of[:after]), failing(0)))
    list_of = [record(i, path=tmp_path / f"{i}.png") for i in range(23)]
    with pytest.raises(RuntimeError):
        new.save(folder, copy=True)
    left = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    assert left == before


def test_a_save_that_fails_at_its_end_leaves_what_was_there(tmp_path, monkeypatch):
    Dataset.of(records(4)).save(tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def full(path, content):
        if content:
            raise OutputError(f"{path}: the disk is full", "")
        return atomic_write(path, content)

    monkeypatch.setattr(store, "atomic_write", full)
    with pytest.raises(OutputError, match="disk is full"):
        Dataset.of(records(9)).save(tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_spool_goes_with_the_last_who_reads_it(small_groups):
    ds = Dataset.of(records(23))
    folder = ds._store.images.source.parent
    view = ds.select(split="val")
    del ds
    gc.collect()
    assert len(list(view)) == 6
    del view
    gc.collect()
    assert not folder.exists()


def test_a_stream_that_breaks_off_leaves_no_spool(small_groups, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(RuntimeError):
        Dataset.of(failing(12))
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_tables_of_two_saves_are_never_mixed(tmp_path):
    Dataset.of(records(3)).save(tmp_path / "a")
    Dataset.of(records(3)).save(tmp_path / "b")
    opened = Dataset.open(tmp_path / "a")
    (tmp_path / "b" / "annotations.parquet").replace(tmp_path / "a" / "annotations.parquet")
    with pytest.raises(DataError, match=r"annotations.parquet: is not of the same save"):
        Dataset.open(tmp_path / "a")
    with pytest.raises(DataError, match="not of the same save"):
        list(opened)


def test_saved_over_itself(small_groups, tmp_path):
    Dataset.of(records(23)).save(tmp_path)
    kept = Dataset.open(tmp_path).split({"a": 0.5, "b": 0.5}).select(split="a").save(tmp_path)
    assert len(kept) == len(list(kept)) == len(Dataset.open(tmp_path)) == 12
    assert kept.splits == {"a": 12}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["annotations.parquet", "dataset.json", "images.parquet"]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda at: (at / "dataset.json").unlink(), "has no dataset.json"),
        (lambda at: (at / "dataset.json").write_text("{"), "dataset.json: cannot be read"),
        (lambda at: (at / "dataset.json").write_text("[]"), "dataset.json: "),
        (lambda at: (at / "dataset.json").write_text('{"version": 1}'), "lacks or has a wrong 'stamp'"),
        (lambda at: (at / "dataset.json").write_text('{"version": 99}'), "is of version 99"),
        (lambda at: (at / "images.parquet").unlink(), "images.parquet: is missing"),
        (lambda at: (at / "images.parquet").write_bytes(b"PAR1"), "images.parquet: cannot be read"),
        (lambda at: (at / "images.parquet").write_bytes(b""), "images.parquet: cannot be read"),
    ],
)
def test_a_damaged_folder_is_said_in_one_line(tmp_path, spoil, said):
    Dataset.of(records(3)).save(tmp_path)
    spoil(tmp_path)
    with pytest.raises(DataError, match=said) as caught:
        Dataset.open(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        Dataset.of(records(3)).save(tmp_path / "file")


def test_a_full_disk_is_said_in_one_line_and_leaves_nothing(small_groups, tmp_path, monkeypatch):
    ds = Dataset.of(records(23))

    def full(self, table, **_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyarrow.parquet.ParquetWriter.write_table", full)
    with pytest.raises(OutputError, match=r"No space left on device\); free some space"):
        ds.save(tmp_path / "ds")
    assert not list((tmp_path / "ds").iterdir())
    with pytest.raises(OutputError, match="No space left"):
        Dataset.of(records(23))


def test_what_is_not_there_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match="there is no such file"):
        Dataset.read(tmp_path / "none.json")
    with pytest.raises(DataError, match="format 'yolo': not known; name one of manylens, coco"):
        Dataset.read(tmp_path, format="yolo")
    with pytest.raises(DataError, match="format 'yolo'"):
        Dataset.of(records(1)).export(tmp_path / "out", "yolo")


def test_masks_are_kept_as_short_strings():
    long = Annotation("a", "cat", mask={"size": [10, 20], "counts": [0, 10, 190]})
    as_bytes = Annotation("b", "cat", mask={**record(0).annotations[1].mask, "counts": b"0:"})
    rows = [record(0, annotations=(long,)), record(1, annotations=(as_bytes,))]
    found = [one.annotations[0].mask for one in Dataset.of(rows)]
    assert found[0] == record(0).annotations[1].mask
    assert found[1]["counts"] == "0:"


def test_the_room_exports_what_it_promises():
    assert set(data.__all__) == {"Annotation", "Category", "DataError", "Dataset", "Problem", "Problems", "Record"}
