"""The content hash: blind to order and place, awake to every change of content."""

import os
import random
import shutil
from dataclasses import replace

import pytest

from manylens.data import Annotation, Category, DataError, Dataset, fingerprint
from manylens.data.fingerprint import FileHashes
from tests.data.helpers import CATEGORIES, picture, record


@pytest.fixture
def rows(tmp_path, monkeypatch):
    monkeypatch.setenv("MANYLENS_HOME", str(tmp_path / "home"))
    return [record(i, path=picture(tmp_path / "pictures" / f"{i}.png", i)) for i in range(6)]


def hashed(rows, categories=CATEGORIES, **options):
    return Dataset.of(rows, categories).fingerprint(**options)


def test_order_place_and_names_of_files_do_not_matter(rows, tmp_path):
    before = hashed(rows)
    shuffled = [replace(one, annotations=one.annotations[::-1]) for one in rows]
    random.Random(0).shuffle(shuffled)
    assert hashed(shuffled, CATEGORIES[::-1]) == before
    shutil.move(tmp_path / "pictures", tmp_path / "elsewhere")
    moved = [replace(one, path=tmp_path / "elsewhere" / one.path.name) for one in rows]
    assert hashed(moved) == before
    assert Dataset.of(moved, CATEGORIES).save(tmp_path / "saved", copy=True).fingerprint() == before
    renumbered = [Category(40 + one.id, one.name, one.is_thing) for one in CATEGORIES]
    assert hashed(moved, renumbered) == before


def test_what_arithmetic_and_types_round_away_does_not_matter(rows):
    before = hashed(rows, pixels=False)
    cat, grass = rows[3].annotations
    x0, y0, x1, y1 = cat.box
    near = replace(cat, id="other", box=(x0, y0, x0 + (x1 - x0) * (1 + 1e-15), y1), area=18)
    columns = {**rows[3].columns, "age": 3.0, "nothing": None}
    rows[3] = replace(rows[3], annotations=(near, grass), columns=columns, width=None)
    assert hashed(rows, pixels=False) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda one: replace(one, id="other"),
        lambda one: replace(one, split="test"),
        lambda one: replace(one, label="grass"),
        lambda one: replace(one, annotations=one.annotations[:1]),
        lambda one: replace(one, annotations=(*one.annotations, replace(one.annotations[0], id="again"))),
        lambda one: replace(one, columns={**one.columns, "age": 99}),
        lambda one: replace(one, columns={**one.columns, "captions": ["d", "c3"]}),
        *[
            lambda one, change=change: replace(
                one, annotations=(replace(one.annotations[0], **change), one.annotations[1])
            )
            for change in (
                {"category": "grass"},
                {"box": (1, 2, 5.6, 6)},
                {"box": None},
                {"mask": {"size": [10, 20], "counts": [0, 11, 189]}},
                {"area": 19},
                {"crowd": True},
                {"ignore": True},
                {"columns": {"text": "T"}},
            )
        ],
    ],
)
def test_content_matters(rows, change):
    before = hashed(rows, pixels=False)
    assert hashed([*rows[:3], change(rows[3]), *rows[4:]], pixels=False) != before


def test_rows_and_categories_matter(rows):
    before = hashed(rows, pixels=False)
    assert hashed(rows[:-1], pixels=False) != before
    assert hashed(rows, CATEGORIES[:1], pixels=False) != before
    swapped = [replace(rows[0], label=rows[1].label), replace(rows[1], label=rows[0].label), *rows[2:]]
    assert hashed(swapped, pixels=False) != before


def test_pictures_count_unless_they_shall_not(rows):
    with_pixels, without = hashed(rows), hashed(rows, pixels=False)
    assert with_pixels != without
    picture(rows[0].path, 99)
    assert hashed(rows) != with_pixels
    assert hashed(rows, pixels=False) == without
    rows[0].path.unlink()
    assert hashed(rows, pixels=False) == without
    with pytest.raises(DataError, match=r"img0: .*0.png cannot be read"):
        hashed(rows)


def test_a_depth_map_counts_by_its_bytes(rows, tmp_path):
    maps = [picture(tmp_path / name / "depth.png", 1) for name in ("one", "two")]
    first, second = ([replace(rows[0], columns={"depth": str(file)})] for file in maps)
    assert hashed(first) == hashed(second)
    picture(maps[1], 2)
    assert hashed(first) != hashed(second)


def test_a_file_is_hashed_once_until_it_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("MANYLENS_HOME", str(tmp_path / "home"))
    file = picture(tmp_path / "a.png")
    os.utime(file, (1_000_000_000, 1_000_000_000))
    with FileHashes() as hashes:
        first = hashes.of(file)
    read = []
    real = fingerprint.hashlib.file_digest
    monkeypatch.setattr(fingerprint.hashlib, "file_digest", lambda *args: read.append(args) or real(*args))
    with FileHashes() as hashes:
        assert hashes.of(file) == first
        assert not read
        picture(file, 5)
        assert hashes.of(file) != first
        assert len(read) == 1
        assert hashes.of(file) != first  # just changed: it may change again within one tick, so it is not remembered
        assert len(read) == 2


def test_without_a_folder_of_caches_it_is_the_same(rows, tmp_path, monkeypatch):
    before = hashed(rows)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MANYLENS_HOME", str(tmp_path / "file"))
    assert hashed(rows) == before
    (tmp_path / "home" / "data" / "files.sqlite").write_bytes(b"not a database at all" * 100)
    monkeypatch.setenv("MANYLENS_HOME", str(tmp_path / "home"))
    assert hashed(rows) == before


def test_annotations_without_anything():
    assert len(hashed([record(0, annotations=(Annotation("a"),), columns={})], pixels=False)) == 64


@pytest.mark.parametrize(("format", "name"), [("coco", "labels.json"), ("csv", "labels.csv"), ("manylens", "own")])
def test_the_format_does_not_matter(rows, tmp_path, format, name):
    things = [replace(one, label="") for one in rows]
    ds = Dataset.of(things, [Category(1, "cat"), Category(2, "grass")])
    written = ds.export(tmp_path / "out" / name, format)
    images = None if format == "manylens" else tmp_path / "pictures"
    again = Dataset.read(written, images=images, format=format)
    assert not again.problems
    assert again.fingerprint() == ds.fingerprint()
