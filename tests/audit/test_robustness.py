import json
from pathlib import Path

import numpy as np
import pytest

from manylens import models
from manylens.audit.corruptions import table
from manylens.audit.robustness import _area, corrupted, robustness
from manylens.audit.robustness_page import samples
from manylens.data import Annotation, Category, Dataset, Record
from manylens.errors import UserError
from manylens.evaluation.intervals import estimates
from manylens.evaluation.measure import Regions
from manylens.evaluation.measures.detection import Detection
from manylens.media import Image, save_image, to_rle
from manylens.tasks import Classification, Label
from tests.session.fakes import Fake, row


class Bright(Fake):
    """Says ``bright`` or ``dark`` by the mean of the picture."""

    def _answer(self, asked, ctx):
        score = float(asked.image.array.mean() / 255)
        ctx.spend(1.0)
        return Classification(
            tuple(sorted((Label("bright", score), Label("dark", 1 - score)), key=lambda label: -label.score))
        )


@pytest.fixture
def session(make_session, monkeypatch):
    made = make_session(row("a", tasks="classify = ['names', 'closed']"))
    monkeypatch.setitem(models.FAMILIES, "fake", "tests.audit.test_robustness:Bright")
    return made


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    rng = np.random.default_rng(0)
    records = []
    for number in range(12):
        bright = number % 2
        pixels = rng.integers(150 if bright else 20, 220 if bright else 100, (24, 32, 3)).astype(np.uint8)
        path = tmp_path / f"{number}.png"
        save_image(Image.of(pixels), path)
        records.append(Record(str(number), path, 32, 24, label="bright" if bright else "dark"))
    return Dataset.of(records, [Category(1, "bright"), Category(2, "dark")], name="lamps")


def test_what_a_corruption_costs(session, data: Dataset, tmp_path: Path) -> None:
    found = robustness(
        data,
        task="classify",
        session=session,
        corruptions=["brightness", "contrast"],
        out=tmp_path / "out",
        resamples=50,
    )
    lines = {line.name: [one.value for one in line.figures] for line in found.lines}
    assert found.clean.value == 1
    assert lines["contrast"] == [1] * 6  # the mean stays
    assert lines["brightness"][0] == 1
    assert lines["brightness"][-1] == 0.5  # everything is bright
    areas = {line.name: line.area.value for line in found.lines}
    assert areas["brightness"] == pytest.approx(np.mean(lines["brightness"][1:]))
    assert found.area.value == pytest.approx(np.mean(list(areas.values())))
    assert found.kept == pytest.approx(found.area.value)
    assert found.area.low <= found.area.value <= found.area.high


def test_the_interval_of_the_area_lies_about_it() -> None:
    rng = np.random.default_rng(0)
    measure = Detection(categories=[Category(1, "cat")])
    for number in range(30):
        box = np.array([[10.0, 10, 50, 50]])
        scores = rng.random(2).astype(np.float32)
        found = Regions(["cat", "cat"], scores, np.concatenate([box + rng.normal(0, 4, 4), box + 100]))
        annotation = Annotation(f"a{number}", "cat", tuple(box[0]))
        measure.add(Record(str(number), Path("x"), 200, 200, annotations=(annotation,)), found)
    tally = measure.tally()
    area, alone = _area(tally, [tally, tally], 300, 0), estimates(tally, resamples=300)["AP"]
    assert (area.value, area.low, area.high) == pytest.approx((alone.value, alone.low, alone.high))


def test_a_second_run_goes_on_from_what_is_there(session, data: Dataset, tmp_path: Path) -> None:
    asked = {"task": "classify", "session": session, "out": tmp_path / "out", "resamples": 20}
    first = robustness(data, corruptions=["fog"], **asked)
    Fake.batches.clear()
    again = robustness(data, corruptions=["fog"], **asked)
    assert Fake.batches == []
    assert again.to_json() == first.to_json()
    robustness(data, corruptions=["fog", "contrast"], severities=[1, 2], **asked)
    assert sum(Fake.batches) >= 2 * 12
    assert sum(Fake.batches) < 4 * 12


def test_a_cost_cap_keeps_the_corruptions_that_are_done(session, data: Dataset, tmp_path: Path) -> None:
    found = robustness(
        data,
        task="classify",
        session=session,
        corruptions=["fog", "contrast", "frost"],
        severities=[1, 5],
        max_cost=12 * 4.5 + 2,
        resamples=20,
    )
    assert [line.name for line in found.lines] == ["fog"]
    assert "cost cap" in found.stopped


@pytest.mark.parametrize("asked", [{"corruptions": ["rain"]}, {"severities": [7], "corruptions": ["fog"]}])
def test_mistakes(session, data: Dataset, asked: dict) -> None:
    with pytest.raises(UserError, match=r"rain: no corruption|severity 7"):
        robustness(data, task="classify", session=session, **asked)


def test_the_truth_moves_with_the_picture(tmp_path: Path) -> None:
    pixels = np.zeros((60, 80, 3), np.uint8)
    pixels[20:40, 30:60] = 255
    mask = pixels[..., 0] > 0
    save_image(Image.of(pixels), tmp_path / "a.png")
    corner = np.zeros_like(mask)
    corner[:2, :2] = True
    truth = (
        Annotation("m", "thing", (30, 20, 60, 40), to_rle(mask)),
        Annotation("b", "thing", (30, 20, 60, 40)),
        Annotation("gone", "thing", (0, 0, 2, 2), to_rle(corner)),
        Annotation("q", columns={"question": "?"}),
    )
    record = Record("a", tmp_path / "a.png", 80, 60, annotations=truth)
    (made,) = corrupted(iter([record]), table()["rotation"], 4, tmp_path, 0)
    shown = made.image().array[..., 0] > 127
    by_mask, by_box, gone, question = made.annotations
    rows, columns = np.nonzero(shown)
    around = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert by_mask.box == pytest.approx(around, abs=1.5)
    assert by_box.box == pytest.approx(around, abs=1.5)
    assert by_mask.area == pytest.approx(shown.sum(), rel=0.03)
    assert gone.ignore
    assert question == truth[3]


def test_each_picture_has_its_own_noise_the_same_in_every_order(tmp_path: Path) -> None:
    save_image(Image.of(np.full((8, 8, 3), 127, np.uint8)), tmp_path / "a.png")
    records = [Record(name, tmp_path / "a.png", 8, 8) for name in "xy"]
    noise = table()["gaussian_noise"]
    one, other = (tmp_path / "one", tmp_path / "other")
    straight = {r.id: r.image().array.tolist() for r in corrupted(iter(records), noise, 1, one)}
    turned = {r.id: r.image().array.tolist() for r in corrupted(iter(records[::-1]), noise, 1, other)}
    assert straight == turned
    assert straight["x"] != straight["y"]


def test_a_picture_that_cannot_be_read_is_left_to_the_evaluation(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    record = Record("a", tmp_path / "a.png")
    assert list(corrupted(iter([record]), table()["fog"], 1, tmp_path)) == [record]


def test_the_report(session, data: Dataset, tmp_path: Path) -> None:
    found = robustness(data, task="classify", session=session, corruptions=["brightness", "fog"], resamples=20)
    image = next(data.records()).image()
    found.save(tmp_path, samples(image, ["brightness"], [1, 5]))
    page = (tmp_path / "robustness.html").read_text()
    body = json.loads((tmp_path / "robustness.json").read_text())
    assert [line["name"] for line in body["corruptions"]] == ["brightness", "fog"]
    assert "accuracy 1.000 falls to" in page
    assert page.count("<svg") == 1 + 1 + 1  # the mark, one group, the areas
    assert page.count("data:image/jpeg") == 3  # the clean picture first
