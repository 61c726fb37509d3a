"""Everything, the main object and examples on real weights and photographs, through a session."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from pycocotools import mask as rle

from manylens.media import Image
from manylens.runtime import paths
from manylens.session import Session
from manylens.tasks import DetectRequest, SegmentRequest, provenance_of

pytestmark = pytest.mark.weights

EXAMPLES = Path(__file__).parents[3] / "examples"
MODEL = "manylens/regions-s"


def drawn(picture: str, name: str) -> np.ndarray:
    data = json.loads((EXAMPLES / "regions.json").read_text())
    file = next(one for one in data["images"] if Path(one["file_name"]).name == picture)
    kind = next(one["id"] for one in data["categories"] if one["name"] == name)
    row = next(one for one in data["annotations"] if (one["image_id"], one["category_id"]) == (file["id"], kind))
    parts = rle.frPyObjects(row["segmentation"], file["height"], file["width"])
    return rle.decode(rle.merge(parts)).astype(bool)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    (home / "weights").symlink_to(paths.home() / "weights", target_is_directory=True)
    with Session(home=home) as made:
        yield made


def segment(session, picture, **prompt):
    image = picture if isinstance(picture, Image) else EXAMPLES / picture
    return session.run(SegmentRequest.of(image=image, **prompt), model=MODEL)


@pytest.mark.parametrize(
    ("picture", "name", "least"),
    [("cat.jpg", "cat", 0.6), ("photographer.jpg", "person", 0.8), ("rocket.jpg", "rocket", 0.6)],
)
def test_the_main_object(session, picture, name, least):
    found = segment(session, picture, mode="main")
    assert len(found) == 1
    assert iou(found.mask[0], drawn(picture, name)) >= least


def test_everything_holds_what_people_drew(session):
    found = segment(session, "coffee.jpg", mode="everything")
    assert 10 <= len(found) <= 100
    assert (np.diff(found.confidence) <= 0).all()
    assert set(found.data["level"]) == {"whole", "part", "subpart"}
    assert max(iou(mask, drawn("coffee.jpg", "cup")) for mask in found.mask) > 0.6
    assert found.mask.any(axis=0).mean() > 0.98
    flat = found.mask[:, ::2, ::2].reshape(len(found), -1).astype(np.float32)
    shared = flat @ flat.T
    union = np.diag(shared)[:, None] + np.diag(shared)[None] - shared
    assert (shared / union)[~np.eye(len(found), dtype=bool)].max() < 0.85


@pytest.mark.parametrize("tone", [100, 110, 120])  # HED's own mean is here, and it sees edges in it
def test_everything_in_one_grey_is_nothing(session, tone):
    found = segment(session, Image.of(np.full((64, 64, 3), tone, np.uint8)), mode="everything")
    assert len(found) == 0
    assert "no region stands out" in provenance_of(found).notes


def test_the_threshold_and_what_is_not_used(session):
    every = segment(session, "coffee.jpg", mode="everything")
    some = segment(session, "coffee.jpg", mode="everything", threshold=0.8, points_per_side=8)
    assert 0 < len(some) < len(every)
    assert some.confidence.min() >= 0.8
    assert any("points per side" in note for note in provenance_of(some).notes)


def test_an_example_finds_the_mirrored_thing_and_only_that(session):
    cat = drawn("cat.jpg", "cat")
    mirrored = Image.of(np.ascontiguousarray(np.asarray(PIL.Image.open(EXAMPLES / "cat.jpg"))[:, ::-1]))
    like = [{"image": EXAMPLES / "cat.jpg", "mask": cat, "name": "cat"}]
    found = segment(session, mirrored, like=like)
    assert list(found.data["class_name"]) == ["cat"]
    assert iou(found.mask[0], cat[:, ::-1]) > 0.8
    absent = segment(session, "rocket.jpg", like=like)
    assert len(absent) == 0
    assert "cat is not there" in provenance_of(absent).notes[0]


def test_two_of_a_kind_are_instances_where_they_are_asked_for(session):
    one, cat = np.asarray(PIL.Image.open(EXAMPLES / "cat.jpg")), drawn("cat.jpg", "cat")
    two = Image.of(np.concatenate([one, one[:, ::-1]], axis=1))
    like = [{"image": EXAMPLES / "cat.jpg", "mask": cat, "name": "cat"}]
    (whole,) = segment(session, two, like=like, mode="semantic").mask
    found = segment(session, two, like=like, mode="panoptic")
    assert list(found.data["class_name"]) == ["cat", "cat"]
    assert found.mask.sum(axis=0).max() == 1
    assert not (found.mask.any(axis=0) & ~whole).any()
    for right in (np.pad(cat, ((0, 0), (0, cat.shape[1]))), np.pad(cat[:, ::-1], ((0, 0), (cat.shape[1], 0)))):
        assert max(iou(mask, right) for mask in found.mask) > 0.7


def test_several_classes_and_scenes_that_are_kept(session):
    like = [
        {"image": EXAMPLES / "cat.jpg", "mask": drawn("cat.jpg", "cat"), "name": "cat"},
        {"image": EXAMPLES / "astronaut.jpg", "mask": drawn("astronaut.jpg", "helmet"), "name": "helmet"},
    ]
    segment(session, "astronaut.jpg", like=like)
    found = segment(session, "astronaut.jpg", like=like)
    assert list(found.data["class_name"]) == ["helmet"]
    assert iou(found.mask[0], drawn("astronaut.jpg", "helmet")) > 0.6
    assert provenance_of(found).cache == "memory"


def test_both_eyes_by_one(session):
    request = DetectRequest.of(
        image=EXAMPLES / "cat.jpg", like={"image": EXAMPLES / "cat.jpg", "box": (130, 80, 220, 150), "name": "eye"}
    )
    found = session.run(request, model=MODEL)
    assert list(found.data["class_name"]) == ["eye", "eye"]
    centres = sorted(((found.xyxy[:, 0] + found.xyxy[:, 2]) / 2).tolist())
    assert centres == pytest.approx([172, 317], abs=20)


@pytest.mark.parametrize("size", [(1, 1), (8, 2000), (60, 80)], ids=["pixel", "strip", "one-colour"])
def test_odd_pictures_have_an_answer_in_every_mode(session, size):
    pixels = np.full((*size, 3), 120, np.uint8)
    image, mask = Image.of(pixels), np.ones(size, bool)
    for prompt in ({"mode": "everything"}, {"mode": "main"}, {"like": [{"image": image, "mask": mask}]}):
        found = segment(session, image, **prompt)
        assert found.mask.shape[1:] == size
    box = (0, 0, size[1], size[0])
    session.run(DetectRequest.of(image=image, like={"image": EXAMPLES / "cat.jpg", "box": (9, 9, 90, 90)}), model=MODEL)
    session.run(DetectRequest.of(image=EXAMPLES / "cat.jpg", like={"image": image, "box": box}), model=MODEL)
