"""The whole platform on its embedded weights and real photographs, through the public verbs.

The masks of tests/data were drawn by hand; a broken model, or one that answers with a box, would not reach the bars.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as rle

import manylens
from manylens.runtime import paths

pytestmark = pytest.mark.weights

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
DRAWN = json.loads((ROOT / "examples" / "regions.json").read_text())
_FILES = {image["id"]: image for image in DRAWN["images"]}
_NAMES = {category["id"]: category["name"] for category in DRAWN["categories"]}
REGIONS = {
    (Path(_FILES[row["image_id"]]["file_name"]).name, _NAMES[row["category_id"]]): row for row in DRAWN["annotations"]
}


def drawn(picture: str, name: str) -> tuple[np.ndarray, dict]:
    row = REGIONS[picture, name]
    size = _FILES[row["image_id"]]
    parts = rle.frPyObjects(row["segmentation"], size["height"], size["width"])
    return rle.decode(rle.merge(parts)).astype(bool), row


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home with the real weights and nothing else: no embedding is there, no engine is pinned."""
    made = tmp_path_factory.mktemp("home")
    real = paths.home() / "weights"
    real.mkdir(parents=True, exist_ok=True)
    (made / "weights").symlink_to(real, target_is_directory=True)
    return made


@pytest.fixture(scope="module")
def session(home):
    with manylens.Session(home=home) as made:
        yield made


@pytest.mark.parametrize(
    ("picture", "name", "least_best", "least_box"),
    [
        ("cat.jpg", "cat", 0.85, 0.85),
        ("photographer.jpg", "person", 0.85, 0.85),
        ("astronaut.jpg", "person", 0.7, 0.75),
        ("astronaut.jpg", "helmet", 0.8, 0.75),
        ("rocket.jpg", "rocket", 0.6, 0.65),
        ("sign.png", "board", 0.9, 0.9),
    ],
)
def test_clicks_and_boxes_find_what_people_drew(session, picture, name, least_best, least_box):
    truth, row = drawn(picture, name)
    clicked = manylens.segment(EXAMPLES / picture, points=[row["click"]], session=session)
    x, y, width, height = row["bbox"]
    boxed = manylens.segment(EXAMPLES / picture, box=(x, y, x + width, y + height), session=session)
    assert 1 <= len(clicked) <= 3
    assert (np.diff(clicked.confidence) <= 0).all()
    assert set(clicked.data["level"]) <= {"whole", "part", "subpart"}
    assert max(iou(mask, truth) for mask in clicked.mask) >= least_best
    assert iou(boxed.mask[0], truth) >= least_box
    x, y = (int(v) for v in row["click"])
    assert clicked.mask[:, y, x].all()


def test_words_cut_out_the_cat(session):
    truth, _ = drawn("cat.jpg", "cat")
    found = manylens.segment(EXAMPLES / "cat.jpg", text="cat", session=session)
    assert iou(found.mask[0], truth) >= 0.85
    assert found.data["class_name"][0] == "cat"


def test_several_objects_at_once_keep_their_numbers(session):
    person, helmet = drawn("astronaut.jpg", "person"), drawn("astronaut.jpg", "helmet")
    prompts = [{"points": [person[1]["click"]]}, {"points": [helmet[1]["click"]]}]
    found = manylens.segment(EXAMPLES / "astronaut.jpg", objects=prompts, session=session)
    for number, (truth, _) in enumerate((person, helmet)):
        masks = found.mask[found.data["object"] == number]
        assert max(iou(mask, truth) for mask in masks) >= 0.7


def test_a_coarse_mask_is_refined(session):
    truth, _ = drawn("photographer.jpg", "person")
    shift = np.roll(truth, 14, axis=1)
    found = manylens.segment(EXAMPLES / "photographer.jpg", mask=shift, session=session)
    assert iou(found.mask[0], truth) > iou(shift, truth)


def test_the_cat_is_a_cat_and_the_sign_is_read(session):
    found = manylens.detect(EXAMPLES / "cat.jpg", session=session)
    assert list(found.data["class_name"]) == ["cat"]
    assert iou_of_boxes(found.xyxy[0], drawn("cat.jpg", "cat")[1]["bbox"]) > 0.85
    assert "cat" in manylens.classify(EXAMPLES / "cat.jpg", session=session).best.name
    assert manylens.classify(EXAMPLES / "coffee.jpg", names=["cat", "cup"], session=session).best.name == "cup"
    read = [line.text for line in manylens.read(EXAMPLES / "sign.png", session=session).lines]
    assert read == ["FRESH COFFEE", "OPEN DAILY", "8 AM TO 6 PM"]
    answer = manylens.answer(EXAMPLES / "cat.jpg", "What is it?", session=session)
    assert answer.known
    assert "cat" in answer.text
    assert {item.task for item in answer.evidence} >= {"detect"}


def iou_of_boxes(box: np.ndarray, xywh: list[float]) -> float:
    x, y, width, height = xywh
    across = min(box[2], x + width) - max(box[0], x)
    down = min(box[3], y + height) - max(box[1], y)
    shared = max(across, 0) * max(down, 0)
    return float(shared / ((box[2] - box[0]) * (box[3] - box[1]) + width * height - shared))


def test_crops_of_one_picture_are_closer_than_pictures(session):
    cat = manylens.Image.of(EXAMPLES / "cat.jpg")
    vectors = [
        manylens.embed(image, session=session).vector
        for image in (cat, cat.crop((20, 10, 440, 290)), EXAMPLES / "coffee.jpg", EXAMPLES / "rocket.jpg")
    ]
    likeness = np.array(vectors) @ np.array(vectors).T
    assert np.allclose(np.diag(likeness), 1, atol=1e-5)
    assert likeness[0, 1] > max(likeness[0, 2], likeness[0, 3]) + 0.1


def test_after_the_first_click_the_encoder_does_not_run_again(session, home):
    picture = manylens.Image.of(np.asarray(manylens.Image.of(EXAMPLES / "cat.jpg").array)[:, ::-1])
    with session.open("segment", picture) as photo:
        first = photo.click(200, 150)
        assert [held.pins for held in session.residency.held() if str(held.key) == "manylens/regions-s"] == [1]
        second = photo.click(60, 40, background=True)
        assert [result.metadata["provenance"].cache for result in (first, second)] == ["miss", "memory"]
        assert not second.mask[:, 40, 60].any()
        assert second.mask[:, 150, 200].all()
        undone = photo.undo()
        assert (undone.mask == first.mask).all()
    assert all(held.pins == 0 for held in session.residency.held())
    with manylens.Session(home=home) as other:
        again = manylens.segment(picture, points=[(200, 150)], session=other)
    assert again.metadata["provenance"].cache == "disk"
    assert (again.mask == first.mask).all()


def test_a_refused_click_leaves_the_earlier_ones(session):
    with session.open("segment", EXAMPLES / "cat.jpg") as photo:
        photo.click(200, 150)
        with pytest.raises(manylens.ManylensError, match="lies outside"):
            photo.click(2000, 150)
        assert len(photo.click(230, 160)) >= 1


def test_the_encoder_is_differentiable_from_pixels_under_the_budget(session):
    with session.module("manylens/vit-s") as trainable:
        assert len(trainable.blocks) == 12
        assert set(trainable.parts) >= {"encoder"}
        names = {name.rsplit(".", 1)[-1] for name, _ in trainable.module.named_modules()}
        assert set(trainable.lora_targets) <= names
        pixels = trainable.preprocess([manylens.Image.of(EXAMPLES / "cat.jpg")]).requires_grad_()
        outputs = trainable.forward(pixels)
        outputs["dense"].square().mean().backward()
        assert pixels.grad.abs().sum() > 0
        assert any(held.pins for held in session.residency.held())


def test_a_small_budget_swaps_models_instead_of_failing(home):
    with manylens.Session(home=home) as small:
        small.residency.budget_bytes = small.residency.base_bytes + (1000 << 20)
        manylens.segment(EXAMPLES / "cat.jpg", text="cat", session=small)
        manylens.read(EXAMPLES / "sign.png", session=small)
        assert "manylens/regions-s" not in {str(held.key) for held in small.residency.held()}
        manylens.segment(EXAMPLES / "cat.jpg", text="cat", session=small)


def test_the_command_line_on_a_folder(home, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", "from manylens.cli import main; main()", "detect", EXAMPLES, "--json", "-o", tmp_path],
        capture_output=True,
        text=True,
        check=True,
        env={"MANYLENS_HOME": str(home), "PATH": ""},
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["input"] for row in rows] == sorted(path.name for path in EXAMPLES.glob("*.[jp][pn]g"))
    cat = next(row for row in rows if row["input"] == "cat.jpg")
    assert [found["class_name"] for found in cat["detections"]] == ["cat"]
    assert all(Path(file).is_file() for row in rows for file in row["files"])
