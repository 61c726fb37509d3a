from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from manylens.errors import PromptError, UnsupportedError
from manylens.models.composed.words_to_mask import WordsToMask
from manylens.tasks import SegmentRequest, detections

THINGS = [("cat", 0.9, (100, 60, 200, 140)), ("dog", 0.8, (-10, 10, 60, 60)), ("cat", 0.5, (0, 100, 40, 150))]


def segment(picture: Any, text: str) -> Any:
    ctx = picture.context()
    request = SegmentRequest.of(image=picture.image(), text=text)
    return next(WordsToMask(None, {}, None).run([request], ctx)), ctx  # type: ignore[arg-type]


def test_one_mask_a_thing_the_best_of_each(world: Any) -> None:
    found, _ = segment(world(things=THINGS), "the cats and a dog")
    assert list(found.data["class_name"]) == ["cat", "dog", "cat"]
    assert [int(mask.sum()) for mask in found.mask] == [8000, 3000, 2000]
    assert list(found.data["object"]) == [0, 1, 2]


def test_the_score_is_the_detectors_times_the_masks(world: Any) -> None:
    found, _ = segment(world(things=THINGS), "cat, dog")
    np.testing.assert_allclose(found.confidence, [0.81, 0.72, 0.45], rtol=1e-6)


def test_all_boxes_go_in_one_request_and_lie_on_the_picture(world: Any) -> None:
    picture = world(things=THINGS)
    segment(picture, "cat, dog")
    tasks = [task for task, _ in picture.calls]
    assert tasks[:2] == ["detect", "segment"]
    assert tasks.count("segment") == 1
    assert all(prompt.box[0] >= 0 for prompt in picture.calls[1][1].objects)


def test_nothing_found_is_empty_with_a_note(world: Any) -> None:
    found, ctx = segment(world(), "dog")
    assert len(found) == 0
    assert found.mask.shape == (0, 200, 300)
    assert ctx.notes["notes"] == ["no 'dog' was found in array"]


def test_a_name_that_is_not_there_is_noted_beside_those_that_are(world: Any) -> None:
    found, ctx = segment(world(things=THINGS[:1]), "cat, dog, bus")
    assert len(found) == 1
    assert ctx.notes["notes"] == ["no 'dog' or 'bus' was found in array"]


def test_an_unknown_word_and_no_word(world: Any) -> None:
    with pytest.raises(UnsupportedError, match="unicorn"):
        segment(world(), "unicorn")
    with pytest.raises(PromptError, match="names no thing"):
        segment(world(), " the , and")


def test_a_colour_leaves_out_things_of_another(world: Any) -> None:
    pixels = np.full((200, 300, 3), (20, 40, 230), np.uint8)
    pixels[60:140, 100:200] = (220, 10, 10)
    found, ctx = segment(world(things=[THINGS[0], THINGS[2]], pixels=pixels), "red cat")
    assert list(found.data["class_name"]) == ["red cat"]
    assert ctx.notes["notes"] == []
    found, ctx = segment(world(things=THINGS[:1], pixels=pixels), "green cat")
    assert len(found) == 0
    assert ctx.notes["notes"] == ["no 'green cat' was found in array"]


def test_the_mask_that_the_detector_still_knows_wins(world: Any) -> None:
    """Of two masks the surer one is background: alone it shows nothing, and the thing stays when it is taken away."""
    picture = world(things=[("cat", 0.9, (50.0, 40.0, 150.0, 140.0))])
    picture.pixels[40:140, 50:150] = 200
    scene = picture.image()
    shown = picture.detect

    def detect(request: Any) -> Any:
        if request.image.id == scene.id:
            return shown(request)
        there = (request.image.array == 200).all(axis=2).mean() > 0.02
        return detections([(50, 40, 150, 140)] if there else [], [0.9] if there else [], names=["cat"] if there else [])

    def segment_boxes(request: Any) -> Any:
        thing = (scene.array == 200).all(axis=2)
        masks = np.stack([~thing, thing])
        return detections([(0, 0, 300, 200)] * 2, [0.8, 0.6], masks=masks, objects=[0, 0])

    picture.detect, picture.segment = detect, segment_boxes
    found, _ = segment(picture, "cat")
    assert found.mask[0, 90, 100]
    assert not found.mask[0, 10, 10]
