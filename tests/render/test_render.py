import json

import numpy as np
import PIL.Image
import pytest
from pycocotools.coco import COCO

from manylens.media import Image
from manylens.render import coco_json, draw, say, write_result
from manylens.render.files import slug
from manylens.tasks import (
    Answer,
    Classification,
    Embedding,
    Evidence,
    Label,
    Provenance,
    Reading,
    TextLine,
    detections,
    with_provenance,
)
from manylens.tasks.results import Depth, Picture

IMAGE = Image.of(np.full((60, 80, 3), 90, np.uint8))


def found(levels=None, **more):
    masks = np.zeros((2, 60, 80), bool)
    masks[0, 0:30, 10:40] = masks[1, 35:55, 50:75] = True
    boxes = [[10, 0, 40, 30], [50, 35, 75, 55]]
    return detections(boxes, [0.9, 0.5], masks=masks, names=["cat", "Coffee cup"], levels=levels, **more)


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (found(), "found 1 cat, 1 Coffee cup"),
        (detections([[0, 0, 4, 5], [1, 1, 3, 3]], [0.9, 0.5], names=["cat", ""]), "found 1 cat, 1 object"),
        (detections([[0, 0, 4, 5]], [0.9], names=[""]), "1 box"),
        (detections([], []), "nothing found"),
        (Classification((Label("tabby", 0.5),)), "50.0%  tabby"),
        (Answer("two cats"), "two cats"),
        (Reading(()), "no text found"),
        (Embedding(np.ones(3, np.float32), "s"), "vector of 3 in the space s"),
    ],
)
def test_every_result_is_said(result, words):
    assert words in say(result)


def test_nothing_found_says_why():
    empty = with_provenance(detections([], []), Provenance(task="segment", model="m", notes=("no 'dog' was found",)))
    assert say(empty) == "nothing found: no 'dog' was found"


def test_the_mask_shows_where_it_is_and_nowhere_else():
    drawn = draw(IMAGE, found())
    factor = drawn.shape[0] // 60
    assert drawn.shape == (60 * factor, 80 * factor, 3)
    assert not (drawn[15 * factor, 25 * factor] == 90).all()
    assert (drawn[50 * factor, 20 * factor] == 90).all()


def test_of_the_masks_of_one_click_only_the_best_is_drawn():
    masks = np.zeros((2, 60, 80), bool)
    masks[0, 10:20, 10:20] = masks[1, 10:50, 10:70] = True
    both = detections([[10, 10, 20, 20], [10, 10, 70, 50]], [0.9, 0.5], masks=masks, levels=["part", "whole"])
    drawn = draw(IMAGE, both)
    factor = drawn.shape[0] // 60
    assert (drawn[40 * factor, 60 * factor] == 90).all()


def test_a_label_at_the_top_stays_on_the_picture():
    top = detections([[10, 0, 40, 30]], [0.9], names=["cat"])
    drawn = draw(IMAGE, top)
    low = draw(IMAGE, detections([[10, 25, 40, 50]], [0.9], names=["cat"]))
    count = lambda picture: int((picture == 255).all(axis=2).sum())  # noqa: E731 - white letters
    assert count(drawn) >= 0.8 * count(low) > 0


def test_no_label_hides_another_or_leaves_the_picture():
    plain = Image.of(np.full((480, 640, 3), 90, np.uint8))
    white = lambda picture: int((picture == 255).all(axis=2).sum())  # noqa: E731 - letters
    boxes, names = [[100, 100, 300, 300], [98, 104, 310, 300], [620, 0, 640, 90]], ["cup", "bowl", "dining table"]
    alone = [
        white(draw(plain, detections([[100, 200, 300, 300]], [score], names=[name])))
        for name, score in zip(names, (0.9, 0.8, 0.7), strict=True)
    ]
    assert white(draw(plain, detections(boxes, [0.9, 0.8, 0.7], names=names))) >= 0.95 * sum(alone)
    crowd = draw(plain, detections([[100, 100, 300, 300]] * 60, [0.9] * 60, names=["cup"] * 60))  # more than fit
    assert white(crowd) > 5 * alone[0]


def test_answers_draw_their_boxes_and_labels_draw_nothing():
    assert draw(IMAGE, Answer("one", evidence=(Evidence("box", "cat", 0.9, (5, 5, 40, 40)),))) is not None
    assert draw(IMAGE, Answer("no")) is None
    assert draw(IMAGE, Classification((Label("tabby", 0.5),))) is None
    assert draw(IMAGE, Depth(np.linspace(0, 1, 4800, dtype=np.float32).reshape(60, 80))).shape == (60, 80, 3)


def test_coco_keeps_names_areas_boxes_and_masks(tmp_path):
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(coco_json([(IMAGE, found()), (IMAGE, detections([[0, 0, 4, 5]], [0.1]))])))
    loaded = COCO(path)
    assert [c["name"] for c in loaded.loadCats(loaded.getCatIds())] == ["cat", "Coffee cup", "object"]
    assert len(loaded.imgs) == 1
    first, _, last = loaded.loadAnns(loaded.getAnnIds())
    assert first["bbox"] == [10, 0, 30, 30]
    assert first["area"] == 900
    assert (loaded.annToMask(first).astype(bool) == found().mask[0]).all()
    assert last["area"] == 20


def test_files_hold_the_result(tmp_path):
    names = [path.name for path in write_result(found(), IMAGE, tmp_path, "photo-segment")]
    assert names == [
        "photo-segment.png",
        "photo-segment-1-cat-mask.png",
        "photo-segment-1-cat-cutout.png",
        "photo-segment-2-coffee-cup-mask.png",
        "photo-segment-2-coffee-cup-cutout.png",
        "photo-segment-coco.json",
        "photo-segment.json",
    ]
    mask = np.asarray(PIL.Image.open(tmp_path / "photo-segment-1-cat-mask.png")) > 0
    assert (mask == found().mask[0]).all()
    cutout = np.asarray(PIL.Image.open(tmp_path / "photo-segment-1-cat-cutout.png"))
    assert (cutout[..., 3] > 0).sum() == 900


def test_many_masks_go_into_a_folder_and_are_said_in_short(tmp_path):
    masks = np.zeros((30, 60, 80), bool)
    for i, mask in enumerate(masks):
        mask[2 * i : 2 * i + 2, 5:40] = True
    boxes = [[5, 2 * i, 40, 2 * i + 2] for i in range(30)]
    many = detections(boxes, np.linspace(0.9, 0.1, 30), masks=masks, levels=["part"] * 30, objects=range(30))
    files = write_result(many, IMAGE, tmp_path, "photo-segment")
    assert [path.parent.name for path in files].count("photo-segment-masks") == 30
    assert len(files) == 33
    last = np.asarray(PIL.Image.open(tmp_path / "photo-segment-masks" / "photo-segment-30-part-mask.png")) > 0
    assert (last == masks[29]).all()
    assert say(many).splitlines()[0] == "30 masks"
    assert say(many).endswith("and 10 more")


def test_masks_of_the_result_before_do_not_stay_beside_those_of_the_next(tmp_path):
    (tmp_path / "photo-segment-9-mine-mask.png").touch()
    masks = np.ones((30, 60, 80), bool)
    several = detections([[0, 0, 80, 60]] * 30, [0.5] * 30, masks=masks, levels=["part"] * 30)
    for result, files in ((found(), 4), (several, 30), (found()[:1], 2), (detections([], []), 0)):
        write_result(result, IMAGE, tmp_path, "photo-segment")
        assert len([*tmp_path.rglob("*-mask.png"), *tmp_path.rglob("*-cutout.png")]) == files + 1
    assert (tmp_path / "photo-segment-9-mine-mask.png").exists()
    (tmp_path / "photo-segment.json").write_text("[1]")
    write_result(found(), IMAGE, tmp_path, "photo-segment")


def test_arrays_and_made_pictures(tmp_path):
    files = write_result(Embedding(np.ones(3, np.float32), "s"), None, tmp_path, "text-embed")
    assert np.load(files[0], allow_pickle=False)["vector"].tolist() == [1, 1, 1]
    made = with_provenance(Picture(IMAGE), Provenance(task="generate", model="m", seed=3))
    write_result(made, None, tmp_path, "made")
    assert PIL.Image.open(tmp_path / "made.png").info["model"] == "m"


def test_reading_is_drawn_with_its_words():
    reading = Reading((TextLine("OPEN", 0.9, (5, 20, 60, 40)),))
    assert not (draw(IMAGE, reading) == draw(IMAGE, Reading(()))).all()


@pytest.mark.parametrize(
    ("text", "safe"), [("Coffee cup", "coffee-cup"), ("../etc", "etc"), ("", "object"), ("é", "object")]
)
def test_slug(text, safe):
    assert slug(text) == safe
