import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manylens.data.dataset import Dataset
from manylens.data.formats import folders
from manylens.data.problems import DataError
from manylens.data.records import Category, Record
from manylens.errors import OutputError
from tests.data.formats.making import again, picture, read, words


def rows(records):
    return [(record.id, record.split, record.label) for record in records]


@pytest.mark.parametrize(
    ("files", "classes", "wanted"),
    [
        (["cat/x.jpg", "ant/y.png"], ["ant", "cat"], [("ant/y.png", "", "ant"), ("cat/x.jpg", "", "cat")]),
        (
            ["train/cat/x.jpg", "valid/cat/x.jpg", "test/dog/z.jpg"],
            ["cat", "dog"],
            [("test/dog/z.jpg", "test", "dog"), ("train/cat/x.jpg", "train", "cat"), ("valid/cat/x.jpg", "val", "cat")],
        ),
        (
            ["animals/cat/x.jpg", "animals/y.jpg"],
            ["animals", "animals/cat"],
            [("animals/y.jpg", "", "animals"), ("animals/cat/x.jpg", "", "animals/cat")],
        ),
        (["n01/images/x.JPEG"], ["n01"], [("n01/images/x.JPEG", "", "n01")]),
        (["x.jpg", "cat/y.jpg"], ["cat"], [("x.jpg", "", ""), ("cat/y.jpg", "", "cat")]),
        (
            ["cat/.x.jpg", "cat/y.jpg", ".git/z.jpg", "__MACOSX/cat/y.jpg", "cat/notes.txt"],
            ["cat"],
            [("cat/y.jpg", "", "cat")],
        ),
        (
            ["train/cat/x.jpg", "other/y.jpg"],
            ["other", "train/cat"],
            [("other/y.jpg", "", "other"), ("train/cat/x.jpg", "", "train/cat")],
        ),
    ],
)
def test_folders_are_classes(tmp_path, files, classes, wanted):
    for file in files:  # only their names count
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    categories, records, problems = read("folders", tmp_path)
    assert categories == tuple(Category(i, name) for i, name in enumerate(classes))
    assert rows(records) == wanted
    assert all(record.path == tmp_path / record.id for record in records)
    assert not len(problems)


def test_a_class_without_a_picture_is_an_empty_folder(tmp_path):
    picture(tmp_path / "cat/x.jpg")
    (tmp_path / "dog").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/readme.txt").touch()
    assert [one.name for one in read("folders", tmp_path)[0]] == ["cat", "dog"]


def test_links_are_followed_once(tmp_path):
    picture(tmp_path / "cat/x.jpg")
    (tmp_path / "cat/round").symlink_to(tmp_path)
    assert rows(read("folders", tmp_path)[1]) == [("cat/x.jpg", "", "cat")]


@pytest.mark.parametrize("made", ["nothing", "a file", "no picture"])
def test_a_folder_of_no_pictures_is_an_error(tmp_path, made):
    source = tmp_path / "source"
    if made == "a file":
        source.touch()
    elif made == "no picture":
        source.mkdir()
        (source / "x.txt").touch()
    with pytest.raises(DataError, match="source: no"):
        read("folders", source)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["train", "val"]), words, words),
        min_size=1,
        max_size=4,
        unique_by=lambda row: tuple(part.lower() for part in row),
    ),
    st.booleans(),
)
def test_what_is_written_reads_the_same(rows, with_splits):
    with tempfile.TemporaryDirectory() as folder:
        records = []
        for split, label, name in sorted(rows):
            split = split if with_splits else ""
            id = "/".join(filter(None, [split, label, f"{name}.png"]))
            if any(one.id.lower() == id.lower() for one in records):
                continue
            records.append(Record(id, picture(Path(folder, "in", id)), split=split, label=label))
        records.sort(key=lambda one: one.id.split("/"))
        categories = tuple(
            Category(i, name) for i, name in enumerate(sorted({one.label for one in records} | {"none"}))
        )
        found, back = again("folders", records, categories, Path(folder, "out"))
        assert found == categories
        assert [(one.id, one.split, one.label) for one in back] == [(one.id, one.split, one.label) for one in records]
        assert all(one.path.read_bytes() == other.path.read_bytes() for one, other in zip(back, records, strict=True))
        assert all(one.path != other.path for one, other in zip(back, records, strict=True))


def test_file_names_that_are_taken_are_told_apart(tmp_path):
    made = [picture(tmp_path / place / "x.jpg") for place in ("a", "b")]
    records = [Record(str(i), path, label="cat") for i, path in enumerate(made)]
    _, back = again("folders", records, (), tmp_path / "out")
    assert [one.id for one in back] == ["cat/x-2.jpg", "cat/x.jpg"]


def test_what_cannot_be_written(tmp_path):
    made = picture(tmp_path / "x.jpg")
    dataset = Dataset.of([Record("1", made, label="cat")])
    with pytest.raises(OutputError, match="holds something already"):
        folders.write(dataset, tmp_path)
    for label in ("../cat", ".cat", "a//b", "/cat"):
        with pytest.raises(DataError, match="cannot be the name of a folder"):
            folders.write(Dataset.of([Record("1", made, label=label)]), tmp_path / "out")
    with pytest.raises(DataError, match="cannot be read"):
        folders.write(Dataset.of([Record("1", tmp_path / "none.jpg", label="cat")]), tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.jpg"))
