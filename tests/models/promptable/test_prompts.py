"""Prompts in a network's pixels, and masks back at the photo's size, against segment-anything's own steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from manylens.errors import PromptError
from manylens.models.promptable import masks as full
from manylens.models.promptable.answer import detections_of
from manylens.models.promptable.decoder import Decoded
from manylens.models.promptable.prompts import Batch, Canvas, batches
from manylens.tasks.prompts import ObjectPrompt

CANVAS = Canvas.padded((90, 60), 64)


def prompt(**fields) -> ObjectPrompt:
    return ObjectPrompt(**fields)


@pytest.mark.parametrize(
    ("fields", "options", "labels"),
    [
        ({"points": [(3, 4)]}, {}, [1, -1]),
        ({"points": [(3, 4)], "background_points": [(5, 6)]}, {}, [1, 0, -1]),
        ({"box": (1, 2, 30, 40)}, {}, [2, 3]),
        ({"points": [(3, 4)], "box": (1, 2, 30, 40)}, {}, [1, 2, 3]),
        ({"mask": np.ones((60, 90), bool)}, {}, []),
        ({"box": (1, 2, 30, 40)}, {"pad_boxes": True}, [2, 3, -1]),
        ({"points": [(3, 4)], "box": (1, 2, 30, 40)}, {"box_first": True}, [2, 3, 1]),
        ({"points": [(3, 4)], "box": (1, 2, 30, 40)}, {"box_first": True, "pad_boxes": True}, [2, 3, 1, -1]),
        ({"mask": np.ones((60, 90), bool)}, {"pad_boxes": True}, []),
    ],
)
def test_labels_come_in_the_order_that_a_family_is_trained_on(fields, options, labels):
    (batch,) = batches([prompt(**fields)], CANVAS, 16, **options)
    assert batch.labels.tolist() == [labels]
    assert batch.points.shape == (1, len(labels), 2)
    assert batch.points.dtype == np.float32
    assert (batch.masks is not None) == ("mask" in fields)


def test_points_are_scaled_by_each_side_of_its_own():
    assert CANVAS.inner == (64, 43)
    (batch,) = batches([prompt(points=[(45, 30)])], CANVAS, 16)
    assert batch.points[0] == pytest.approx(np.array([[32, 21.5], [0, 0]]))
    assert Canvas.filled((90, 60), 64).points([(45, 30)]) == pytest.approx(np.array([[32, 32]]))


def test_a_box_over_the_edge_is_cut_there():
    (over,) = batches([prompt(box=(-7, 20, 900, 61.5))], CANVAS, 16)
    (cut,) = batches([prompt(box=(0, 20, 90, 60))], CANVAS, 16)
    assert over.points.tolist() == cut.points.tolist()


def test_objects_of_one_shape_share_a_batch_and_no_others():
    told = [
        prompt(points=[(1, 1)]),
        prompt(box=(1, 1, 9, 9)),
        prompt(points=[(5, 5)]),
        prompt(points=[(5, 5), (6, 6)]),
        prompt(points=[(5, 5)], mask=np.ones((60, 90), bool)),
    ]
    found = batches(told, CANVAS, 16)
    assert [batch.members for batch in found] == [(0, 2), (1,), (3,), (4,)]
    assert [batch.ambiguous for batch in found] == [True, False, False, False]
    assert [part.members for part in found[0].parts(1)] == [(0,), (2,)]


@pytest.mark.parametrize(("count", "shape"), [(2, (16, 16)), (1, (16, 8)), (1, (32, 32))])
def test_a_previous_mask_fits_one_object_and_the_model(count, shape):
    with pytest.raises(PromptError, match="previous"):
        batches([prompt(points=[(1, 1)])] * count, CANVAS, 16, np.zeros(shape, np.float32))


def test_a_previous_mask_stands_before_a_coarse_one():
    previous = np.full((16, 16), 3, np.float32)
    (batch,) = batches([prompt(mask=np.ones((60, 90), bool))], CANVAS, 16, previous)
    assert (batch.masks == 3).all()
    assert not batch.ambiguous


@pytest.mark.parametrize("canvas", [CANVAS, Canvas.padded((30, 50), 64), Canvas.filled((90, 60), 64)])
def test_a_coarse_mask_comes_back_from_its_logits(canvas):
    width, height = canvas.size
    mask = np.zeros((height, width), bool)
    mask[height // 4 : height * 3 // 4, width // 5 : width // 2] = True
    logits = canvas.logits(mask, 16)
    assert logits.shape == (16, 16)
    assert abs(logits).max() <= 10
    (back,) = full.full_size(logits[None], canvas)
    assert np.count_nonzero(back & mask) / np.count_nonzero(back | mask) > 0.85


def by_torch(logits: np.ndarray, canvas: Canvas) -> np.ndarray:
    """``Sam.postprocess_masks`` of segment-anything, in double precision."""
    planes = torch.from_numpy(logits).double()[:, None]
    if not canvas.direct:
        planes = F.interpolate(planes, (canvas.side, canvas.side), mode="bilinear", align_corners=False)
        planes = planes[..., : canvas.inner[1], : canvas.inner[0]]
    return F.interpolate(planes, canvas.size[::-1], mode="bilinear", align_corners=False)[:, 0].numpy()


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    side=st.sampled_from([32, 64]),
    padded=st.booleans(),
    seed=st.integers(0, 99),
    threshold=st.sampled_from([0.0, 0.5, -0.7]),
)
def test_masks_at_the_photos_size_are_those_of_segment_anything(size, side, padded, seed, threshold):
    canvas = Canvas.padded(size, side) if padded else Canvas.filled(size, side)
    rng = np.random.default_rng(seed)
    # Blobs and emptiness: what is not reached must stay out, whatever lies at the edges.
    logits = rng.standard_normal((2, side // 4, side // 4)).astype(np.float32) - rng.choice([0, 2, 9])
    right = by_torch(logits, canvas)
    sure = abs(right - threshold) > 1e-5
    found = full.full_size(logits, canvas, threshold)
    assert found.shape == right.shape
    assert (found == (right > threshold))[sure].all()


@pytest.mark.parametrize("size", [(640, 480), (1500, 1000), (333, 1025), (1024, 1024)])
def test_masks_of_large_photos_are_those_of_segment_anything(size):
    canvas = Canvas.padded(size, 1024)
    logits = np.random.default_rng(0).standard_normal((1, 256, 256)).astype(np.float32) * 5
    right = by_torch(logits, canvas)
    assert ((full.full_size(logits, canvas) == (right > 0)) | (abs(right) < 1e-4)).all()


def test_boxes_end_behind_the_last_pixel():
    masks = np.zeros((2, 9, 12), bool)
    masks[0, 2:5, 3:11] = True
    assert full.boxes(masks).tolist() == [[3, 2, 11, 5], [0, 0, 0, 0]]
    assert full.boxes(masks[:0]).shape == (0, 4)


# ---- the answer


def found(ambiguous: bool, iou: list[list[float]], halves: list[list[int]]) -> tuple[Batch, Decoded]:
    """Masks that fill as many of eight columns as said."""
    low_res = np.full((len(iou), len(iou[0]), 8, 8), -5, np.float32)
    for row, columns in enumerate(halves):
        for mask, width in enumerate(columns):
            low_res[row, mask, :, :width] = 5
    count = len(iou)
    batch = Batch(tuple(range(count)), np.zeros((count, 2, 2)), np.zeros((count, 2)), None, ambiguous)
    return batch, Decoded(low_res, np.array(iou, np.float32))


SQUARE = Canvas.padded((8, 8), 8)


def test_a_click_gives_three_masks_with_levels_by_area():
    answer = detections_of([found(True, [[0.9, 0.5, 0.8, 1.2]], [[8, 2, 6, 4]])], SQUARE)
    assert answer.confidence.tolist() == pytest.approx([1.0, 0.8, 0.5])
    assert answer.data["level"].tolist() == ["part", "whole", "subpart"]
    assert answer.metadata["low_res"].shape == (3, 8, 8)
    assert (answer.metadata["low_res"] > 0).sum(axis=(1, 2)).tolist() == answer.mask.sum(axis=(1, 2)).tolist()


def test_a_clear_prompt_gives_the_first_mask_alone():
    answer = detections_of([found(False, [[0.9, 0.5, 0.8, 0.7]] * 2, [[8, 2, 6, 4], [4, 2, 6, 8]])], SQUARE)
    assert answer.data["object"].tolist() == [0, 1]
    assert answer.data["level"].tolist() == ["", ""]
    assert answer.xyxy.tolist() == [[0, 0, 8, 8], [0, 0, 4, 8]]


def test_a_part_stays_a_part_where_the_whole_is_too_weak():
    answer = detections_of([found(True, [[0.9, 0.5, 0.8, 0.7]], [[8, 6, 2, 4]])], SQUARE, least=0.6)
    assert answer.confidence.tolist() == pytest.approx([0.8, 0.7])
    assert answer.data["level"].tolist() == ["subpart", "part"]


def test_empty_and_weak_masks_are_left_out():
    answer = detections_of([found(True, [[0.9, 0.5, 0.8, 0.7]], [[8, 2, 0, 4]])], SQUARE, least=0.6)
    assert answer.confidence.tolist() == pytest.approx([0.7])
    nothing = detections_of([], SQUARE)
    assert len(nothing) == 0
    assert nothing.mask.shape == (0, 8, 8)
