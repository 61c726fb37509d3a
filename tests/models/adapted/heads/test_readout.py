import numpy as np
import pytest
import torch

from manylens.models.adapted.heads import readout


def test_a_class_map_is_the_best_class_of_the_enlarged_logits():
    logits = np.random.default_rng(0).normal(0, 3, (4, 5, 7)).astype(np.float32)
    label, chance = readout.class_map(logits, (31, 23))
    large = torch.nn.functional.interpolate(
        torch.from_numpy(logits)[None], size=(23, 31), mode="bilinear", align_corners=False
    )[0].softmax(dim=0)
    best, expected = large.max(dim=0)
    assert label.shape == chance.shape == (23, 31)
    assert (label == expected.numpy()).mean() > 0.999  # equal ones may round apart
    np.testing.assert_allclose(chance, best, rtol=1e-3)


def test_probabilities_of_huge_logits_are_no_nan():
    _, chance = readout.class_map(np.array([[[1e4]], [[-1e4]], [[1e4]]], np.float32), (2, 2))
    np.testing.assert_allclose(chance, 0.5)


def rectangle(x0, y0, x1, y1):
    mask = np.full((8, 8), -9.0, np.float32)
    mask[y0:y1, x0:x1] = 9.0
    return mask


CLASSES = np.array(
    [[9, 0, 0, 0], [0, 9, 0, 0], [9, 0, 0, 0], [0, 0, 9, 0], [0, 0, 9, 0], [0, 0, 0, 9]], np.float32
)  # 0 and 1 are things, 2 is stuff, 3 nothing
MASKS = np.stack(
    [
        rectangle(0, 0, 4, 4),
        rectangle(4, 0, 8, 4),
        rectangle(0, 4, 4, 6),
        rectangle(0, 6, 8, 8),
        rectangle(4, 4, 8, 6),
        rectangle(0, 0, 8, 8),
    ]
)


@pytest.mark.parametrize(
    ("kind", "labels", "areas"),
    [
        ("instance", [0, 0, 1], [8, 16, 16]),
        ("panoptic", [0, 0, 1, 2], [8, 16, 16, 24]),
        ("semantic", [0, 1, 2], [24, 16, 24]),
    ],
)
def test_regions(kind, labels, areas):
    found = readout.regions(CLASSES, MASKS, (8, 8), kind, stuff=frozenset({2}))
    assert sorted(one.label for one in found) == labels
    assert sorted((one.label, int(one.mask.sum())) for one in found) == list(zip(labels, areas, strict=True))
    assert all(one.score > 0.9 for one in found)
    large = readout.regions(CLASSES, MASKS, (80, 40), kind, stuff=frozenset({2}))
    assert sorted(one.label for one in large) == labels
    assert all(one.mask.shape == (40, 80) for one in large)


def test_instances_come_best_first_and_not_too_many():
    classes = np.array([[1.0, 0], [3.0, 0], [2.0, 0]], np.float32)
    found = readout.regions(classes, MASKS[:3], (8, 8), "instance", threshold=0.0)
    scores = [one.score for one in found]
    assert scores == sorted(scores, reverse=True)
    assert len(readout.regions(classes, MASKS[:3], (8, 8), "instance", threshold=0.0, limit=2)) == 2
    assert readout.regions(classes, MASKS[:3], (8, 8), "instance", threshold=0.99) == []


def test_boxes_are_of_the_picture_and_each_object_has_one():
    scores = np.array([[3.0, -9], [2.0, -9], [-9, 1.0], [-9, -9], [1.5, -9], [-9, 0.5]], np.float32)
    corners = np.array(
        [[2, 2, 10, 10], [2, 2, 10, 11], [2, 2, 10, 10], [0, 0, 1, 1], [12, 12, 30, 30], [-5, -5, 2, 1]], np.float32
    )
    found, score, label = readout.boxes(scores, corners, (16, 16), (32, 48))
    # Of the first two the better one stays; the third is of another class; the last two are cut off at the ends.
    assert label.tolist() == [0, 0, 1, 1]
    np.testing.assert_allclose(score, 1 / (1 + np.exp(-np.array([3.0, 1.5, 1.0, 0.5]))), rtol=1e-6)
    assert found.tolist() == [[4, 6, 20, 30], [24, 36, 32, 48], [4, 6, 20, 30], [0, 0, 4, 3]]


def test_no_boxes():
    found, score, label = readout.boxes(np.full((4, 2), -9.0), np.ones((4, 4)), (8, 8), (8, 8))
    assert (found.shape, score.shape, label.shape) == ((0, 4), (0,), (0,))
    outside = np.array([[20, 20, 30, 30]], np.float32)
    assert len(readout.boxes(np.array([[5.0]]), outside, (8, 8), (8, 8))[0]) == 0
