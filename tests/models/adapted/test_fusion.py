"""Masks and boxes of several models made one set, held to loops, to the paper and to laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manylens.errors import UserError
from manylens.models.adapted.fusion import Boxes, Instances, fuse, fuse_boxes, shares_of, vote_masks


def test_masks_are_voted_on_pixel_by_pixel():
    masks = np.random.default_rng(0).random((3, 6, 7)) < 0.5
    assert (vote_masks(masks) == (masks.sum(axis=0) >= 2)).all()
    assert (vote_masks(masks, [0, 1, 0]) == masks[1]).all()
    assert (vote_masks(masks, threshold=0.0) == masks.any(axis=0)).all()
    assert (vote_masks(masks[:2]) == masks[:2].all(axis=0)).all()  # half is no majority
    soft = np.random.default_rng(1).random((3, 6, 7))
    assert (vote_masks(soft, [1, 2, 1]) == ((soft[0] + 2 * soft[1] + soft[2]) / 4 > 0.5)).all()


def box(x0, y0, x1, y1, side=24):
    made = np.zeros((side, side), bool)
    made[y0:y1, x0:x1] = True
    return made


def instances(*rows) -> Instances:
    masks, scores, classes = zip(*rows, strict=True) if rows else ((), (), ())
    return Instances(np.array(masks, bool).reshape(-1, 24, 24), np.array(scores, float), np.array(classes, np.int64))


def test_what_all_find_is_one_object():
    first, second, third = box(2, 2, 12, 12), box(3, 2, 13, 12), box(2, 3, 12, 13)
    found = fuse([instances((first, 0.9, 1)), instances((second, 0.9, 1)), instances((third, 0.9, 1))])
    assert len(found) == 1
    assert found.scores.tolist() == pytest.approx([0.9])
    assert (found.masks[0] == (first.astype(int) + second + third >= 2)).all()
    alone = fuse([instances((first, 0.9, 1), (box(14, 14, 20, 20), 0.4, 0))])
    assert alone.scores.tolist() == [0.9, 0.4]
    assert (alone.masks[0] == first).all()


def test_what_few_find_is_less_sure_and_can_be_dropped():
    shared, lone = box(2, 2, 12, 12), box(14, 14, 22, 22)
    given = [instances((shared, 0.8, 0), (lone, 0.9, 0)), instances((shared, 0.6, 0)), instances()]
    found = fuse(given)
    assert found.scores.tolist() == pytest.approx([1.4 / 3, 0.3])
    assert (found.masks[0] == shared).all()
    assert fuse(given, least=0.4).scores.tolist() == pytest.approx([1.4 / 3])
    assert fuse(given, weights=[0, 1, 1]).scores.tolist() == pytest.approx([0.3])
    assert fuse(given, weights=[2, 1, 1]).scores.tolist() == pytest.approx([(1.6 + 0.6) / 4, 0.45])
    assert len(fuse([instances(), instances()])) == 0
    assert fuse([instances()]).masks.shape == (0, 24, 24)


def test_classes_and_models_are_kept_apart():
    one, near = box(2, 2, 12, 12), box(2, 2, 12, 11)
    assert len(fuse([instances((one, 0.9, 0)), instances((one, 0.9, 1))])) == 2
    # Two of one model are two objects, however they overlap; the other model's joins the nearer one.
    found = fuse([instances((one, 0.9, 0), (near, 0.8, 0)), instances((near, 0.7, 0))])
    assert found.scores.tolist() == pytest.approx([0.75, 0.45])
    assert (found.masks[0] == near).all()
    assert len(fuse([instances((one, 0.9, 0)), instances((near, 0.9, 0))], iou=0.95)) == 2


def test_the_surer_of_two_decides_the_shape():
    wide, narrow = box(2, 2, 14, 12), box(2, 2, 10, 12)
    assert (fuse([instances((wide, 0.9, 0)), instances((narrow, 0.6, 0))]).masks[0] == wide).all()
    assert (fuse([instances((wide, 0.6, 0)), instances((narrow, 0.9, 0))]).masks[0] == narrow).all()


@given(st.integers(0, 300))
@settings(max_examples=30, deadline=None)
def test_order_of_models_does_not_matter_and_nothing_is_lost(seed):
    random = np.random.default_rng(seed)

    def some():
        rows = []
        for _ in range(random.integers(0, 5)):
            x, y = random.integers(0, 14, 2)
            rows.append(
                (box(x, y, x + random.integers(4, 10), y + random.integers(4, 10)), random.random(), random.integers(2))
            )
        return instances(*rows)

    given = [some() for _ in range(3)]
    found, turned = fuse(given, [1, 2, 3]), fuse(given[::-1], [3, 2, 1])
    assert found.scores == pytest.approx(turned.scores)
    assert (found.masks == turned.masks).all()
    # Every score went into exactly one object.
    total = sum(weight * one.scores.sum() for weight, one in zip([1, 2, 3], given, strict=True)) / 6
    assert found.scores.sum() == pytest.approx(total)
    assert list(found.scores) == sorted(found.scores, reverse=True)
    same = fuse([given[0]] * 3)
    assert len(same) == len(given[0])
    order = np.argsort(-given[0].scores, kind="stable")
    assert same.scores == pytest.approx(given[0].scores[order])
    assert (same.masks == given[0].masks[order]).all()


def test_a_vote_within_a_large_picture_is_that_of_the_whole():
    """Masks are looked at only where they are set; far apart and at the rim it is the same."""
    random = np.random.default_rng(5)
    masks = np.zeros((3, 24, 24), bool)
    masks[:, 18:, 15:] = random.random((3, 6, 9)) < 0.9
    scores = [0.9, 0.5, 0.7]
    found = fuse([instances((mask, score, 0)) for mask, score in zip(masks, scores, strict=True)], iou=0.1)
    assert len(found) == 1
    assert (found.masks[0] == vote_masks(masks, scores)).all()
    soft = fuse([instances((mask, score, 0)) for mask, score in zip(masks, scores, strict=True)], iou=0.1, threshold=0)
    assert (soft.masks[0] == masks.any(axis=0)).all()


def boxes(*rows) -> Boxes:
    corners, scores, classes = zip(*rows, strict=True) if rows else ((), (), ())
    return Boxes(np.array(corners, float).reshape(-1, 4), np.array(scores, float), np.array(classes, np.int64))


def test_a_fused_box_is_the_mean_of_those_who_found_it_and_less_sure_where_few_did():
    found = fuse_boxes([boxes(((0, 0, 10, 10), 0.9, 1)), boxes(((1, 0, 11, 10), 0.6, 1)), boxes()])
    assert len(found) == 1
    assert found.boxes[0] == pytest.approx([0.4, 0, 10.4, 10])
    assert found.scores.tolist() == pytest.approx([0.5])  # (0.9 + 0.6 + 0) / 3
    assert found.classes.tolist() == [1]
    weighted = fuse_boxes([boxes(((0, 0, 10, 10), 0.9, 1)), boxes(((1, 0, 11, 10), 0.6, 1)), boxes()], [1, 3, 0])
    assert weighted.boxes[0] == pytest.approx([2 / 3, 0, 10 + 2 / 3, 10])
    assert weighted.scores.tolist() == pytest.approx([(0.9 + 1.8) / 4])
    assert len(fuse_boxes([boxes(((0, 0, 10, 10), 0.3, 0)), boxes()], least=0.2)) == 0
    assert fuse_boxes([boxes(), boxes()]).boxes.shape == (0, 4)


def test_boxes_of_other_classes_or_of_one_model_stay_apart():
    one, near = (0, 0, 10, 10), (0, 0, 10, 9)
    assert len(fuse_boxes([boxes((one, 0.9, 0)), boxes((one, 0.9, 1))])) == 2
    found = fuse_boxes([boxes((one, 0.9, 0), (near, 0.8, 0)), boxes((near, 0.7, 0))])
    assert found.scores.tolist() == pytest.approx([0.75, 0.45])  # the other model's joins the nearer one
    assert found.boxes.tolist() == [[*map(float, near)], [*map(float, one)]]
    assert len(fuse_boxes([boxes((one, 0.9, 0)), boxes((near, 0.9, 0))], iou=0.95)) == 2


def overlap(a, b) -> float:
    common = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    area = sum((one[2] - one[0]) * (one[3] - one[1]) for one in (a, b))
    return common / (area - common)


def by_the_paper(found, least: float = 0.55) -> list[tuple[list[float], float, int]]:
    """Section 3 of the paper, step by step."""
    rows = [
        (score, box, label)
        for one in found
        for box, score, label in zip(one.boxes, one.scores, one.classes, strict=True)
    ]
    clusters: list[list] = []
    fused: list[np.ndarray] = []
    for row in sorted(rows, key=lambda row: -row[0]):
        near = [k for k, one in enumerate(clusters) if one[0][2] == row[2] and overlap(fused[k], row[1]) > least]
        if near:
            k = max(near, key=lambda k: overlap(fused[k], row[1]))
            clusters[k].append(row)
            total = sum(one[0] for one in clusters[k])
            fused[k] = sum(one[0] * one[1] for one in clusters[k]) / total
        else:
            clusters.append([row])
            fused.append(row[1])
    made = []
    for cluster, box in zip(clusters, fused, strict=True):
        score = np.mean([row[0] for row in cluster]) * min(len(found), len(cluster)) / len(found)
        made.append((box.tolist(), float(score), int(cluster[0][2])))
    return sorted(made, key=lambda row: -row[1])


@given(st.integers(0, 500), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_boxes_are_fused_as_the_paper_does(seed, models):
    """Where no model finds an object twice, which the paper does not tell apart."""
    random = np.random.default_rng(seed)

    def some() -> Boxes:
        rows = []
        for cell in range(9):
            if random.random() < 0.6:
                corner = np.array([cell % 3, cell // 3]) * 40 + random.uniform(0, 8, 2)
                rows.append((np.concatenate([corner, corner + random.uniform(14, 24, 2)]), random.random(), cell % 2))
        return boxes(*rows)

    found = [some() for _ in range(models)]
    made, expected = fuse_boxes(found), by_the_paper(found)
    assert made.scores.tolist() == pytest.approx([score for _, score, _ in expected])
    assert made.classes.tolist() == [label for _, _, label in expected]
    for box, (other, _, _) in zip(made.boxes.tolist(), expected, strict=True):
        assert box == pytest.approx(other)


BAD = [(0, None), (2, [1]), (2, [1, -1]), (2, [0, 0])]


@pytest.mark.parametrize(("count", "weights"), BAD)
def test_shares_that_cannot_be(count, weights):
    for call in (
        lambda: shares_of(weights, count),
        lambda: fuse([instances()] * count, weights),
        lambda: fuse_boxes([boxes()] * count, weights),
    ):
        with pytest.raises(UserError, match=r"^ensemble: "):
            call()
