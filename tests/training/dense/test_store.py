import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from manylens.data import Dataset
from manylens.data.records import Annotation, Category, Record
from manylens.media import from_rle, to_rle
from manylens.training.dense.store import NO_CLASS, ObjectStore
from manylens.training.errors import TrainError

NAMES = ("cat", "dog")


def blob(seed, shape=(20, 30)):
    random = np.random.default_rng(seed)
    mask = np.zeros(shape, bool)
    y, x = random.integers(0, shape[0] - 6), random.integers(0, shape[1] - 6)
    mask[y : y + 6, x : x + 5] = random.random((6, 5)) < 0.7
    mask[y + 2, x + 2] = True
    return mask


def record(number, annotations, **fields):
    return Record(f"p{number}", Path(f"{number}.png"), 30, 20, annotations=tuple(annotations), **fields)


def some(count=7):
    made = []
    for number in range(count):
        annotations = [
            Annotation(f"{number}/{i}", NAMES[(number + i) % 2], mask=to_rle(blob(10 * number + i)))
            for i in range(number % 4)
        ]
        made.append(record(number, annotations))
    return made


@pytest.mark.parametrize("in_memory", [0, 1 << 20])
def test_masks_come_back_as_they_were(in_memory):
    records = some()
    store = ObjectStore.of(records, NAMES, in_memory=in_memory)
    assert len(store) == 7
    assert store.objects == sum(len(one.annotations) for one in records)
    for number, one in enumerate(records):
        rows = store.rows(number)
        assert [store.picture(row) for row in rows] == [number] * len(one.annotations)
        for row, annotation in zip(rows, one.annotations, strict=True):
            mask = from_rle(annotation.mask)
            found = store.mask(row)
            assert found.dtype == bool
            np.testing.assert_array_equal(found, mask)
            ys, xs = np.nonzero(mask)
            assert store.box(row).tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
            assert store.names[store.class_of(row)] == annotation.category
    assert store.ids == [one.id for one in records]
    assert store.paths == [one.path for one in records]


def test_a_record_comes_back_for_measures():
    store = ObjectStore.of(
        [
            record(
                0,
                [
                    Annotation("a", "dog", box=(1, 2, 11, 12), area=50.0, crowd=True),
                    Annotation("b", "", mask=to_rle(blob(1)), area=3.0, ignore=True),
                    Annotation("c", "cat", mask=to_rle(blob(2))),
                ],
            )
        ],
        NAMES,
    )
    one, two, three = store.record(0).annotations
    assert (one.category, one.box, one.mask, one.area, one.crowd, one.ignore) == (
        "dog",
        (1, 2, 11, 12),
        None,
        50.0,
        True,
        False,
    )
    assert (two.category, two.area, two.ignore) == ("", 3.0, True)
    np.testing.assert_array_equal(from_rle(two.mask), blob(1))
    assert three.area == blob(2).sum()
    assert three.area < (three.box[2] - three.box[0]) * (three.box[3] - three.box[1])
    assert store.record(0).id == "p0"
    assert (store.record(0).width, store.record(0).height) == (30, 20)
    assert store.classes.tolist() == [1, NO_CLASS, 0]
    assert store.crowd.tolist() == [True, False, False]
    assert store.has_mask.tolist() == [False, True, True]
    assert store.mask(0) is None


def test_what_cannot_be_learned_is_left_out():
    nothing = to_rle(np.zeros((20, 30), bool))
    store = ObjectStore.of(
        [
            record(
                0,
                [
                    Annotation("empty", "cat", mask=nothing),
                    Annotation("empty with a box", "cat", box=(0, 0, 3, 3), mask=nothing),
                    Annotation("other", "horse", box=(0, 0, 3, 3)),
                    Annotation("neither", "cat"),
                    Annotation("right", "dog", box=(0, 0, 3, 3)),
                ],
            )
        ],
        NAMES,
    )
    assert store.objects == 1
    assert store.class_of(0) == 1


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        ({"size": [20, 30], "counts": "1"}, "runs that do not fill"),
        ({"size": [20, 30], "counts": [600, 5]}, "runs that do not fill"),
        (to_rle(blob(0, (21, 30))), "is 30 x 21 pixels, the picture 30 x 20"),
    ],
)
def test_a_broken_mask_is_named(mask, said):
    with pytest.raises(TrainError, match=f"annotation bad of picture p0: its mask .*{said}"):
        ObjectStore.of([record(0, [Annotation("bad", "cat", mask=mask)])], NAMES)


def test_lists_of_counts_are_packed():
    mask = blob(3)
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat.astype(int))) + 1
    counts = np.diff([0, *edges, flat.size]).tolist()
    store = ObjectStore.of([record(0, [Annotation("a", "cat", mask={"size": [20, 30], "counts": counts})])], NAMES)
    np.testing.assert_array_equal(store.mask(0), mask)


def test_it_reads_a_data_set_of_any_form(tmp_path):
    records = some()
    categories = [Category(i, name) for i, name in enumerate(NAMES)]
    data = Dataset.of(records, categories)
    one, other = ObjectStore.of(records, NAMES), ObjectStore.of(data, NAMES)
    assert other.classes.tolist() == one.classes.tolist()
    assert other.boxes.tolist() == one.boxes.tolist()
    assert all((one.mask(row) == other.mask(row)).all() for row in range(one.objects))


def test_a_size_that_is_not_said_is_read_from_the_file(tmp_path):
    import PIL.Image

    PIL.Image.new("RGB", (30, 20)).save(tmp_path / "x.png")
    unsized = replace(some()[1], path=tmp_path / "x.png", width=None, height=None)
    assert ObjectStore.of([unsized], NAMES).size(0) == (30, 20)
    with pytest.raises(TrainError, match="p1: its size cannot be read"):
        ObjectStore.of([replace(unsized, path=tmp_path / "y.png")], NAMES)


def test_memory_is_that_of_run_lengths_not_of_masks():
    mask = np.zeros((480, 640), bool)
    mask[100:300, 200:400] = True
    rle = to_rle(mask)
    big = [
        Record(
            str(n),
            Path("x.png"),
            640,
            480,
            annotations=tuple(Annotation(f"{n}/{i}", "cat", mask=rle) for i in range(10)),
        )
        for n in range(100)
    ]
    size = len(pickle.dumps(ObjectStore.of(big, NAMES, in_memory=1 << 30)))
    # A thousand masks would be 293 MiB.
    assert size < 1000 * (64 + len(rle["counts"]))


def test_a_copy_in_another_process_reads_the_same():
    store = ObjectStore.of(some(), NAMES, in_memory=0)
    other = pickle.loads(pickle.dumps(store))
    assert all((store.mask(row) == other.mask(row)).all() for row in range(store.objects))
