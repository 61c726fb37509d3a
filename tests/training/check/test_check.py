"""The check: what is planted is found, what is sound passes, and what stops a training says so in one line."""

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from manylens.data import Annotation, Category, Dataset, Record, rle
from manylens.data.looks import Look
from manylens.media import Image
from manylens.training.check import Checker, check, resized, run
from manylens.training.check.findings import ERRORS
from manylens.training.errors import TrainError


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("MANYLENS_HOME", str(tmp_path / "home"))


def save(path: Path, seed: int, size=(48, 36)) -> Path:
    """A smooth picture that no other seed gives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    blobs = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    PIL.Image.fromarray(blobs).resize(size, PIL.Image.Resampling.BICUBIC).save(path)
    return path


def labelled(folder: Path, counts: dict[str, dict[str, int]], **columns) -> list[Record]:
    """Records by split and class, each with a picture of its own."""
    made = []
    for split, classes in counts.items():
        for name, count in classes.items():
            for _ in range(count):
                i = len(made)
                path = save(folder / f"{i}.png", i)
                made.append(
                    Record(f"r{i}", path, split=split, label=name, columns={k: v[i] for k, v in columns.items()})
                )
    return made


def kinds(report) -> tuple[set[str], set[str]]:
    return {one.kind for one in report.errors}, {one.kind for one in report.warnings}


SOUND = {"train": {"a": 6, "b": 4}, "val": {"a": 3, "b": 2}}

LABELS = [
    (SOUND, set(), set()),
    ({"train": {"a": 4}, "val": {"a": 2}}, {"one-label"}, set()),
    ({"train": {"a": 4, "b": 1}, "val": {"a": 2}}, {"one-example"}, {"never-judged"}),
    ({"train": {"a": 4, "b": 1}, "val": {"a": 2, "b": 1}}, set(), {"few-examples"}),
    ({"train": {"a": 4, "b": 3}, "val": {"a": 2, "c": 2, "b": 1}}, {"held-out-only"}, set()),
    ({"train": {"a": 4, "b": 3}, "val": {"a": 2}}, set(), {"never-judged"}),
    ({"train": {"a": 20, "b": 2}, "val": {"a": 2, "b": 1}}, set(), {"imbalance"}),
    ({"train": {"a": 4, "b": 3}}, set(), {"no-validation"}),
    ({"train": {"a": 4, "b": 3}, "val": {"a": 2, "b": 1}, "": {"c": 1}}, set(), {"no-example"}),  # of no split: unused
    ({"train": {"a": 4, "b": 3}, "val": {"a": 2, "b": 1}, "target": {"": 2}}, set(), set()),
    ({"train": {"a": 4, "b": 3, "": 1}, "val": {"a": 2, "b": 1}}, set(), {"no-label"}),
    ({"train": {"": 2}, "val": {"a": 2, "b": 1}}, {"no-training-data"}, {"no-label"}),
]


@pytest.mark.parametrize(("counts", "errors", "warnings"), LABELS)
def test_labels_of_pictures(tmp_path, counts, errors, warnings):
    report = check(Dataset.of(labelled(tmp_path, counts)), task="classify")
    assert kinds(report) == (errors, warnings)
    used = {
        split: {n: c for n, c in found.items() if n} for split, found in counts.items() if split not in ("", "target")
    }
    assert report.labels is not None
    assert {split: found for split, found in report.labels.counts.items() if found} == {
        s: c for s, c in used.items() if c
    }
    if errors:
        with pytest.raises(TrainError) as error:
            report.stop()
        assert "\n" not in str(error.value)
        assert ";" in str(error.value)
    else:
        report.stop()


def test_the_words_of_errors(tmp_path):
    lonely = {"train": {"dog": 4, "cat": 1, "eel": 1}, "val": {"dog": 2}}
    report = check(Dataset.of(labelled(tmp_path, lonely)), task="classify")
    with pytest.raises(
        TrainError, match=r"^class 'cat' \(and 1 more\): has one example; give it two or more, or leave"
    ):
        report.stop()
    assert report.errors[0].examples == ("cat", "eel")
    # What is known and meant goes through.
    allowed = check(Dataset.of(labelled(tmp_path, lonely)), task="classify", allow=["one-example"])
    allowed.stop()
    assert kinds(allowed) == (set(), {"one-example", "never-judged"})
    with pytest.raises(TrainError, match=r"^class 'cat' .* \(and 1 more finding\);"):
        allowed.stop(strict=True)
    with pytest.raises(TrainError, match="did you mean 'one-example'"):
        check(Dataset.of(labelled(tmp_path, SOUND)), task="classify", allow=["one-exampl"])
    with pytest.raises(TrainError, match=r"split 'learn': there is none.*name one of train, val"):
        check(Dataset.of(labelled(tmp_path, SOUND)), task="classify", train="learn")


def test_what_stops_a_training_says_how_it_is_allowed(tmp_path):
    data = Dataset.of(labelled(tmp_path, {"train": {"dog": 4, "cat": 1}, "val": {"dog": 2, "eel": 2}}))
    allowed: list[str] = []
    for _ in range(2):  # each line allows what those before it did, too
        with pytest.raises(TrainError, match=r", or allow it with --set data\.allow=\[[a-z,-]+\]$") as error:
            check(data, task="classify", allow=allowed).stop()
        allowed = str(error.value).rpartition("[")[2].rstrip("]").split(",")
    assert {*allowed} == {"held-out-only", "one-example"}
    report = check(data, task="classify", allow=allowed)
    report.stop()
    with pytest.raises(TrainError) as error:  # strict asks for no warning at all
        report.stop(strict=True)
    assert "data.allow" not in str(error.value)
    nothing = check(Dataset.of(labelled(tmp_path, {"train": {"": 2}, "val": {"a": 2}})), task="classify")
    with pytest.raises(TrainError) as error:
        nothing.stop()
    assert "data.allow" not in str(error.value)


def test_the_guide_names_the_kinds_that_can_be_allowed():
    guide = (Path(__file__).parents[3] / "docs" / "train.md").read_text()
    told = guide.split("`data.allow`", 1)[1].split("`data.strict`", 1)[0]
    assert all(f"`{kind}`" in told for kind in ERRORS)


def test_statistics_of_labels(tmp_path):
    report = check(
        Dataset.of(labelled(tmp_path, {"train": {"a": 6, "b": 2}, "val": {"a": 1, "b": 1}})), task="classify"
    )
    assert report.labels.learned == {"a": 6, "b": 2}
    assert report.labels.ratio == 3
    assert report.labels.majority == 0.75
    assert report.splits == {"train": 8, "val": 2}
    assert any("1:3" in line for line in report.lines())


def test_classes_that_are_known_but_have_no_example(tmp_path):
    categories = [Category(1, "a"), Category(2, "b"), Category(3, "c")]
    report = check(Dataset.of(labelled(tmp_path, SOUND), categories), task="classify")
    assert kinds(report) == (set(), {"no-example"})
    assert report.warnings[0].examples == ("c",)


def test_a_task_without_classes_does_not_ask_for_labels(tmp_path):
    report = check(Dataset.of(labelled(tmp_path, {"train": {"": 4}, "val": {"": 2}})), task="embed")
    assert kinds(report) == (set(), set())
    assert report.labels is None
    assert report.splits == {"train": 4, "val": 2}


def test_pictures_that_cannot_be_read(tmp_path):
    records = labelled(tmp_path, SOUND)
    whole = records[0].path.read_bytes()
    records[0].path.write_bytes(whole[: len(whole) // 2])
    records[1].path.write_bytes(b"")
    records[2].path.write_text("no picture")
    records[3].path.unlink()
    report = check(Dataset.of(records), task="classify")
    assert kinds(report) == (set(), {"unreadable"})
    assert report.left_out == ("r0", "r1", "r2", "r3")
    assert report.warnings[0].count == 4
    assert "0.png" in report.warnings[0].what  # the reason of the first
    assert report.splits == {"train": 6, "val": 5}
    assert report.labels.learned == {"b": 4, "a": 2}
    for record in records:
        if record.split == "train":
            record.path.write_bytes(b"")
    report = check(Dataset.of(records), task="classify")
    with pytest.raises(TrainError, match="split 'train': has no picture that can be used"):
        report.stop()


def touched(one: PIL.Image.Image) -> PIL.Image.Image:
    one.putpixel((3, 3), (9, 9, 9))
    return one


def planted(tmp_path) -> list[Record]:
    """20 and 10 strangers, and: two equal ones and one near within train; one equal and two near across."""
    records = labelled(tmp_path, {"train": {"a": 10, "b": 10}, "val": {"a": 5, "b": 5}})

    def put(name, source, split, label, change=lambda one: one):
        path = tmp_path / f"{name}.png"
        change(PIL.Image.open(source.path)).save(path)
        records.append(Record(name, path, split=split, label=label))

    put("again", records[0], "train", "a")
    put("torn", records[1], "train", "b")  # equal pixels, another label
    put("near-inside", records[2], "train", "a", lambda one: one.resize((30, 24)))
    put("leaked", records[3], "val", "a")
    put("leaked-again", records[3], "val", "a")
    put("beside-leaked", records[3], "train", "a", lambda one: one.resize((31, 24)))
    put("nearer", records[4], "train", "a", lambda one: touched(one.resize((32, 32))))
    put("near-leaked", records[4], "val", "a", lambda one: one.resize((32, 32)))
    put("mirrored-leaked", records[5], "val", "a", lambda one: one.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT))
    put("tested", records[25], "test", "b")  # stands in val
    put("alone", Record("", save(tmp_path / "x.png", 999)), "test", "b")
    return records


def test_planted_copies_are_found_and_nothing_else(tmp_path):
    report = check(Dataset.of(planted(tmp_path)), task="classify")
    found = report.copies
    leaks = {(one.seen, one.split): (one.exact, one.near, one.of) for one in found.leaks}
    assert leaks == {("train", "val"): (2, 2, 14), ("val", "test"): (1, 0, 2)}
    pairs = {(one, other) for leak in found.leaks for one, other, _ in leak.examples}
    assert {("leaked", "r3"), ("near-leaked", "nearer"), ("mirrored-leaked", "r5")} <= pairs
    assert found.exact == {"train": 2, "val": 1, "test": 0}
    assert found.near == {"train": 3, "val": 0, "test": 0}
    assert found.conflicts == (("r1", "torn"),)
    assert kinds(report) == ({"leak"}, {"near-leak", "copies", "conflict"})
    with pytest.raises(TrainError, match="pixel for pixel"):
        report.stop()


def test_one_leak_among_many_is_only_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(run.copies, "ALLOWED", 0.2)
    report = check(Dataset.of([one for one in planted(tmp_path) if one.id not in ("tested", "alone")]), task="classify")
    assert not report.errors
    assert "leak" in kinds(report)[1]


def test_copies_do_not_hang_together_over_blocks_and_order(tmp_path, monkeypatch):
    records = planted(tmp_path)
    whole = check(Dataset.of(records), task="classify").copies
    monkeypatch.setattr(run.copies.duplicates, "_BLOCK", 3)
    monkeypatch.setattr(run.copies, "_EDGES", 0)
    assert check(Dataset.of(records), task="classify").copies == whole
    turned = check(Dataset.of(records[::-1]), task="classify").copies
    counts = [{(one.seen, one.split, one.exact, one.near) for one in found.leaks} for found in (whole, turned)]
    assert counts[0] == counts[1]
    assert (turned.exact, turned.near, turned.limit) == (whole.exact, whole.near, pytest.approx(whole.limit))


@pytest.mark.parametrize("block", [3, 2048])
def test_a_chain_of_near_pictures_counts_once(tmp_path, monkeypatch, block):
    monkeypatch.setattr(run.copies.duplicates, "_BLOCK", block)
    monkeypatch.setattr(run.copies, "_EDGES", 0)
    records = labelled(tmp_path, {"train": {"a": 12, "b": 12}, "val": {"a": 2, "b": 2}})
    for number in range(5):
        path = tmp_path / f"chain{number}.png"
        PIL.Image.open(records[0].path).resize((40 + number, 36)).save(path)
        records.append(Record(f"chain{number}", path, split="train", label="a"))
    assert check(Dataset.of(records), task="classify").copies.near == {"train": 5, "val": 0}


def test_blank_pictures_are_no_leak(tmp_path):
    records = labelled(tmp_path, SOUND)
    for number, split in enumerate(("train", "train", "val")):
        path = tmp_path / f"black{number}.png"
        PIL.Image.new("RGB", (20, 20)).save(path)
        records.append(Record(f"black{number}", path, split=split, label="a"))
    report = check(Dataset.of(records), task="classify")
    assert report.copies.leaks == ()
    assert report.copies.blank == 3
    assert "blank" in kinds(report)[1]


def test_without_a_search_nothing_is_said_of_copies(tmp_path):
    report = check(Dataset.of(planted(tmp_path)), task="classify", search=False)
    assert report.copies is None
    assert not report.errors


@pytest.mark.parametrize(
    ("patients", "torn"), [("ppqqrrssttuuvvw", ()), ("ppqqrrssttttuvw", ("'t'",)), ([None] * 15, ())]
)
def test_groups_in_several_splits(tmp_path, patients, torn):
    records = labelled(tmp_path, SOUND, patient=list(patients), site=["x"] * 15)
    report = check(Dataset.of(records), task="classify", group="patient")
    assert ("group-leak" in kinds(report)[0]) == bool(torn)
    if torn:
        assert report.errors[0].examples == torn
        with pytest.raises(TrainError, match=r"column 'patient': 1 group of 8 has pictures in several splits"):
            report.stop()
    assert "group-leak" in kinds(check(Dataset.of(records), task="classify", group="site"))[0]


def box(id: str, category: str, *corners: float, **changes) -> Annotation:
    return Annotation(id, category, corners, area=(corners[2] - corners[0]) * (corners[3] - corners[1]), **changes)


def mask(id: str, category: str, pixels: np.ndarray) -> Annotation:
    runs = np.flatnonzero(np.diff(np.r_[0, pixels.T.ravel(), 1 - pixels.T.ravel()[-1:]]))
    lengths = np.diff(np.r_[0, runs]).tolist()
    packed = rle.packed({"size": list(pixels.shape), "counts": lengths})
    return Annotation(id, category, mask=packed)


def test_masks_that_are_empty_or_missing(tmp_path):
    whole, empty = np.ones((36, 48), int), np.zeros((36, 48), int)
    whole[:, :24] = 0
    records = [
        Record("full", save(tmp_path / "0.png", 0), split="train", annotations=(mask("m0", "a", whole),)),
        Record("two", save(tmp_path / "1.png", 1), split="train", annotations=(mask("m1", "a", whole),)),
        Record("hollow", save(tmp_path / "2.png", 2), split="train", annotations=(mask("m2", "a", empty),)),
        Record("bare", save(tmp_path / "3.png", 3), split="train"),
        Record("boxed", save(tmp_path / "5.png", 5), split="train", annotations=(box("m5", "a", 0, 0, 9, 9),)),
        Record("held", save(tmp_path / "4.png", 4), split="val", annotations=(mask("m3", "a", whole),)),
    ]
    report = check(Dataset.of(records), task="segment")
    assert kinds(report) == (set(), {"empty-mask", "bare"})
    by_kind = {one.kind: one for one in report.warnings}
    assert by_kind["empty-mask"].examples == ("m2",)
    assert by_kind["bare"].examples == ("hollow", "bare", "boxed")
    assert report.labels.counts == {"train": {"a": 2}, "val": {"a": 1}}
    assert not check(Dataset.of(records), task="detect").errors
    nothing = check(Dataset.of(records[2:]), task="segment")
    with pytest.raises(TrainError, match=r"split 'train': no picture has a mask .*; give masks"):
        nothing.stop()


def test_classes_of_objects(tmp_path):
    def objects(split, number, *names):
        found = tuple(box(f"{split}{number}-{i}", name, 0, 0, 20, 20) for i, name in enumerate(names))
        return Record(
            f"{split}{number}",
            save(tmp_path / f"{split}{number}.png", hash((split, number)) % 1000),
            split=split,
            annotations=found,
        )

    records = [
        objects("train", 0, "a", "a", "b"),
        objects("train", 1, "a"),
        objects("val", 0, "a"),
        objects("val", 1, "c"),
    ]
    report = check(Dataset.of(records), task="detect")
    errors, warnings = kinds(report)
    assert errors == {"held-out-only"}
    assert "few-examples" in warnings  # b
    assert report.labels.counts["train"] == {"a": 3, "b": 1}
    one_class = [objects("train", 2, "a", "a"), objects("val", 2, "a")]
    assert not check(Dataset.of(one_class), task="detect").errors
    unnamed = [objects("train", 3, "", ""), objects("val", 3, "")]
    assert not check(Dataset.of(unnamed), task="detect").errors
    assert check(Dataset.of(unnamed), task="detect").labels is None


def test_labels_made_for_another_size_are_left_out(tmp_path):
    path = save(tmp_path / "turned.jpg", 0)
    turned = PIL.Image.open(path)
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(path, exif=exif)
    records = [
        Record("turned", path, 48, 36, "train", annotations=(box("b0", "a", 0, 0, 20, 20),)),
        Record("fine", save(tmp_path / "1.png", 1), 48, 36, "train", annotations=(box("b1", "a", 0, 0, 20, 20),)),
        Record("held", save(tmp_path / "2.png", 2), 48, 36, "val", annotations=(box("b2", "a", 0, 0, 20, 20),)),
    ]
    report = check(Dataset.of(records), task="detect")
    assert report.left_out == ("turned",)
    assert "wrong-size" in kinds(report)[1]


def test_the_plan_for_resizing(tmp_path):
    sizes = [(100, 50), (200, 100), (40, 40), (400, 100)]
    records = []
    for i, (width, height) in enumerate(sizes):
        found = (box(f"s{i}", "screw", 0, 0, 10, 10), box(f"p{i}", "plate", 0, 0, width, height))
        records.append(
            Record(f"r{i}", save(tmp_path / f"{i}.png", i, (width, height)), split="train", annotations=found)
        )
    report = check(Dataset.of(records), task="detect", side=56, cell=14)
    found = report.sizes
    assert found.width["least"] == 40
    assert found.width["median"] == 150
    assert found.enlarged == 0.25  # 40 x 40
    assert found.stretched == 0.25  # 400 x 100; a ratio of 2 is none
    # An object of 100 pixels of area in W x H comes out as sqrt(100 * 56 * 56 / (W * H)) on a side.
    after = sorted(10 * 56 / np.sqrt(width * height) for width, height in sizes)
    assert found.objects["screw"].after["median"] == pytest.approx(np.median(after), rel=1e-5)
    assert found.objects["screw"].small == np.mean(np.array(after) < 14)
    assert found.objects["plate"].small == 0
    assert found.objects[""].count == 8
    warned = next(one for one in report.warnings if one.kind == "small-objects")
    assert warned.examples == ("screw",)
    # At the side that it names, 95 % are a cell or more.
    again = check(Dataset.of(records), task="detect", side=found.side_for_most, cell=14).sizes
    assert again.objects[""].after["5%"] >= 14
    assert found.side_for_most % 14 == 0
    tiny = check(Dataset.of(records), task="detect", side=2)
    assert next(one for one in tiny.warnings if one.kind == "vanishing").count == tiny.sizes.objects[""].lost == 4
    unsized = check(Dataset.of(records), task="detect")
    assert unsized.sizes.side_for_most is None
    assert resized(unsized, 56, 28) == check(Dataset.of(records), task="detect", side=56, cell=28)


def test_each_picture_is_read_once_and_a_second_check_reads_none(tmp_path, monkeypatch):
    import os

    records = labelled(tmp_path, SOUND)
    for record in records:
        os.utime(record.path, (1_000_000_000, 1_000_000_000))
    read = []
    monkeypatch.setattr(Record, "image", lambda record: read.append(record.id) or Image.of(record.path))
    first = check(Dataset.of(records), task="classify")
    assert sorted(read) == sorted(one.id for one in records)
    again = check(Dataset.of(records), task="classify")
    assert len(read) == len(records)
    assert again.to_json() == first.to_json()
    save(records[0].path, 77)
    check(Dataset.of(records), task="classify")
    assert len(read) == len(records) + 1


def test_a_caller_may_look_itself(tmp_path):
    records = labelled(tmp_path, SOUND)
    checker = Checker(Dataset.of(records), task="classify")
    for record in checker.records():
        checker.see(record, Look.of(record.image()))
    assert checker.report().to_json() == check(Dataset.of(records), task="classify").to_json()


def test_progress_rises_to_the_end_and_the_report_is_plain(tmp_path):
    told = []
    report = check(
        Dataset.of(planted(tmp_path)), task="classify", progress=lambda share, line: told.append((share, line))
    )
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)
    assert json.loads(json.dumps(report.to_json())) == report.to_json()
    lines = report.lines()
    assert lines[0].startswith("error: split 'val'")
    assert all("\n" not in line for line in lines)


def test_problems_of_the_labels_are_passed_on(tmp_path):
    annotation = box("b", "a", -100, -100, -50, -50)
    records = [
        Record("r", save(tmp_path / "0.png", 0), 48, 36, "train", annotations=(annotation, box("c", "a", 0, 0, 9, 9))),
        Record("s", save(tmp_path / "1.png", 1), 48, 36, "val", annotations=(box("d", "a", 0, 0, 9, 9),)),
    ]
    report = check(Dataset.of(records), task="detect")
    found = next(one for one in report.warnings if one.kind == "box-outside")
    assert (found.count, found.examples) == (1, ("b",))
    assert report.labels.counts["train"] == {"a": 1}
