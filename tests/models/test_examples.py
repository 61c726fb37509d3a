import numpy as np
import pytest

from manylens.media import bounds
from manylens.models.examples import arranged, classes, is_stuff
from manylens.runtime.context import Context
from manylens.tasks import SegmentRequest, detections
from manylens.tasks.prompts import Example

MASK = np.ones((4, 6), bool)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], []),
        ([None], [("", [0])]),
        ([None, None], [("", [0, 1])]),
        (["cat"], [("cat", [0])]),
        (["cat", "dog", "cat"], [("cat", [0, 2]), ("dog", [1])]),
        (["b", "a", "c", "a"], [("b", [0]), ("a", [1, 3]), ("c", [2])]),
    ],
)
def test_examples_are_gathered_by_name_in_the_order_of_first_mention(names, expected):
    like = [
        Example(image=np.full((4, 6, 3), number, np.uint8), mask=MASK, name=name) for number, name in enumerate(names)
    ]
    found = [(one.name, [int(example.image.array[0, 0, 0]) for example in one.examples]) for one in classes(like)]
    assert found == expected


def answer(*rows):
    """Detections of masks given as (name, class number, score, boxes)."""
    masks = np.zeros((len(rows), 40, 60), bool)
    for mask, (*_, boxes) in zip(masks, rows, strict=True):
        for x0, y0, x1, y1 in boxes:
            mask[y0:y1, x0:x1] = True
    names, numbers, scores, _ = zip(*rows, strict=True)
    return detections(
        [(0, 0, 60, 40)] * len(rows), scores, masks=masks, names=names, class_ids=numbers, objects=numbers
    )


def by(mode, found, **options):
    request = SegmentRequest.of(
        image=np.zeros((40, 60, 3), np.uint8), mode=mode, like=[{"image": np.zeros((4, 6, 3), np.uint8), "mask": MASK}]
    )
    ctx = Context()
    return arranged(found, request, ctx, **options), ctx.notes


CUPS = ("cup", 0, 0.9, [(2, 2, 12, 12), (30, 2, 50, 20), (58, 38, 60, 40)])  # the last is a speck
SKY = ("blue sky", 1, 0.6, [(0, 0, 20, 8), (40, 0, 60, 8)])


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("prompt", [("cup", 100 + 360 + 4, True), ("blue sky", 320, True)]),
        ("semantic", [("cup", 464, True), ("blue sky", 320, False)]),
        ("instance", [("cup", 360, True), ("cup", 100, True), ("blue sky", 160, False), ("blue sky", 160, False)]),
        ("panoptic", [("cup", 360, True), ("cup", 100, True), ("blue sky", 320 - 60 - 60, False)]),
    ],
)
def test_answers_are_arranged_as_the_mode_says(mode, expected):
    found, _ = by(mode, answer(CUPS, SKY))
    areas = found.mask.sum(axis=(1, 2)).tolist()
    assert list(zip(found.data["class_name"], areas, found.data["is_thing"], strict=True)) == expected
    for box, mask in zip(found.xyxy, found.mask, strict=True):
        if mode != "prompt":
            assert tuple(box) == bounds(mask)
    if mode == "panoptic":
        assert found.mask.sum(axis=0).max() == 1


def test_a_panoptic_answer_says_what_it_took_for_stuff():
    assert by("panoptic", answer(CUPS, SKY))[1]["notes"] == ["taken as stuff, which is not counted: blue sky"]
    assert not by("panoptic", answer(CUPS))[1]
    assert not by("instance", answer(SKY))[1]


def test_rows_that_are_instances_stay_together_and_one_that_is_covered_is_none():
    whole = ("cup", 0, 0.9, [(0, 0, 20, 20), (30, 0, 40, 10)])
    hidden = ("cup", 0, 0.5, [(2, 2, 8, 8)])
    found, _ = by("panoptic", answer(whole, hidden), counted=True)
    assert [int(mask.sum()) for mask in found.mask] == [500]
    assert [int(mask.sum()) for mask in by("instance", answer(whole, hidden), counted=True)[0].mask] == [500, 36]
    assert [int(mask.sum()) for mask in by("semantic", answer(whole, hidden), counted=True)[0].mask] == [500]


@pytest.mark.parametrize(
    ("name", "stuff"),
    [("sky", True), ("Blue Sky", True), ("rock face", True), ("cup", False), ("", False), ("sky diver", False)],
)
def test_stuff_is_told_by_name(name, stuff):
    assert is_stuff(name) is stuff


def test_nothing_stays_nothing():
    empty = detections([], [], masks=np.zeros((0, 40, 60), bool))
    assert len(by("panoptic", empty)[0]) == 0
