import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manylens.models.nms import iou_matrix
from manylens.training.dense.boxes import BoxWeights, assign, box_loss
from manylens.training.dense.sets import Objects

SIDE = 40
POINTS = torch.tensor([((x + 0.5) * 8, (y + 0.5) * 8) for y in range(5) for x in range(5)])


def objects(classes, boxes, void=()):
    return Objects(
        torch.tensor(classes, dtype=torch.int64),
        None,
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(void, dtype=torch.float32).reshape(-1, 4),
    )


def around(points, reach):
    return torch.cat([points - reach, points + reach], dim=1)


def reference(scores, boxes, points, true, weights):
    """Place by place and object by object."""
    places, count = len(points), len(true.classes)
    iou = iou_matrix(boxes.double().numpy(), true.boxes.double().numpy())
    chance = 1 / (1 + np.exp(-scores.double().numpy()))
    does = np.full((places, count), -1.0)
    for k, box in enumerate(true.boxes.tolist()):
        inside = [i for i, (x, y) in enumerate(points.tolist()) if box[0] < x < box[2] and box[1] < y < box[3]]
        if not inside:
            middle = np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])
            inside = [int(np.argmin(((points.numpy() - middle) ** 2).sum(axis=1)))]
        for i in inside:
            does[i, k] = chance[i, true.classes[k]] ** weights.by_score * iou[i, k] ** weights.by_iou
    taken = np.zeros_like(does, bool)
    for k in range(count):
        best = [i for i in np.argsort(-does[:, k], kind="stable") if does[i, k] >= 0][: weights.most]
        taken[best, k] = True
    owner = np.full(places, -1)
    for i in range(places):
        if taken[i].any():
            owner[i] = max(np.flatnonzero(taken[i]), key=lambda k: iou[i, k])
    quality = np.zeros(places)
    for k in range(count):
        mine = np.flatnonzero(owner == k)
        if len(mine) and does[mine, k].max() > 0:
            quality[mine] = does[mine, k] / does[mine, k].max() * iou[mine, k].max()
    return owner, quality


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4))
def test_places_go_where_they_do_best(seed, count):
    random = np.random.default_rng(seed)
    low = random.uniform(0, 28, (count, 2))
    true = objects(random.integers(0, 3, count), np.hstack([low, low + random.uniform(1, 12, (count, 2))]))
    scores = torch.from_numpy(random.normal(0, 2, (25, 3)))
    boxes = around(POINTS, torch.from_numpy(random.uniform(2, 9, (25, 2))).float())
    weights = BoxWeights(most=4)
    given_ = assign(scores, boxes, POINTS, true, weights)
    owner, quality = reference(scores, boxes, POINTS, true, weights)
    assert given_.objects.tolist() == owner.tolist()
    np.testing.assert_allclose(given_.quality, quality, atol=1e-5)


def test_an_object_between_all_places_gets_the_nearest():
    true = objects([0], [[13.0, 13.0, 15.0, 15.0]])
    given_ = assign(torch.zeros(25, 1), around(POINTS, 4.0), POINTS, true, BoxWeights())
    assert [i for i, one in enumerate(given_.objects.tolist()) if one == 0] == [6]


def test_even_boxes_that_miss_everything_get_a_place():
    true = objects([0], [[0.0, 0.0, 16.0, 16.0]])
    far = torch.full((25, 4), 300.0)
    given_ = assign(torch.zeros(25, 1), far, POINTS, true, BoxWeights())
    assert sorted(i for i, one in enumerate(given_.objects.tolist()) if one == 0) == [0, 1, 5, 6]


def test_void_is_not_judged_but_its_objects_are():
    true = objects([0], [[0.0, 0.0, 16.0, 16.0]], void=[[0.0, 0.0, 40.0, 16.0]])
    given_ = assign(torch.zeros(25, 1), around(POINTS, 4.0), POINTS, true, BoxWeights())
    assert given_.judged.view(5, 5).tolist() == [[True, True, False, False, False]] * 2 + [[True] * 5] * 3


def test_no_objects():
    given_ = assign(torch.zeros(25, 2), around(POINTS, 4.0), POINTS, objects([], []), BoxWeights())
    assert (given_.objects == -1).all()
    assert (given_.quality == 0).all()
    assert given_.judged.all()


def found(scores, boxes):
    return {"scores": scores, "boxes": boxes, "points": POINTS}


def test_a_right_answer_costs_nothing_and_each_fault_its_part():
    true = [objects([1], [[8.0, 8.0, 32.0, 32.0]])]
    boxes = torch.tensor([8.0, 8.0, 32.0, 32.0]).expand(1, 25, 4)
    wanted = assign(torch.zeros(25, 2), boxes[0], POINTS, true[0], BoxWeights()).quality
    scores = torch.full((1, 25, 2), -15.0)
    scores[0, :, 1] = torch.where(wanted > 0, 15.0, -15.0)
    good = box_loss(found(scores, boxes), true)
    assert good["loss"].item() < 1e-4
    misnamed = box_loss(found(scores.flip(-1), boxes), true)
    assert misnamed["scores"] > 5
    moved = box_loss(found(scores, boxes + 4), true)
    assert moved["boxes"] > 0.2
    missed = box_loss(found(torch.full_like(scores, -15.0), boxes), true)
    assert missed["scores"] > 5


def test_pictures_without_objects_teach_only_that():
    scores, boxes = torch.zeros(2, 25, 2, requires_grad=True), around(POINTS, 4.0).expand(2, -1, -1).clone()
    boxes.requires_grad_(True)
    loss = box_loss(found(scores, boxes), [objects([], []), objects([], [])])
    loss["loss"].backward()
    assert loss["boxes"] == 0
    assert (scores.grad > 0).all()  # all scores go down
    assert (boxes.grad == 0).all()


def test_what_is_found_in_void_is_no_fault():
    boxes = around(POINTS, 4.0).expand(1, -1, -1)
    scores = torch.full((1, 25, 2), -15.0)
    scores[0, :10] = 15.0  # the two upper rows
    void = [objects([], [], void=[[0.0, 0.0, 40.0, 16.0]])]
    assert box_loss(found(scores, boxes), void)["loss"].item() < 1e-3
    assert box_loss(found(scores, boxes), [objects([], [])])["loss"].item() > 100


def test_rare_classes_may_count_for_more():
    true = [objects([0], [[8.0, 8.0, 32.0, 32.0]])]
    boxes, scores = around(POINTS, 4.0).expand(1, -1, -1), torch.zeros(1, 25, 2)
    plain, heavy = (
        box_loss(found(scores, boxes), true),
        box_loss(found(scores, boxes), true, class_weights=torch.tensor([3.0, 3.0])),
    )
    assert heavy["boxes"].item() == pytest.approx(3 * plain["boxes"].item(), rel=1e-5)
    assert heavy["scores"].item() == pytest.approx(3 * plain["scores"].item(), rel=1e-5)
