import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manylens.training.dense import sets
from manylens.training.dense.points import at_points, unsure_points
from manylens.training.dense.sets import Objects, SetWeights


def objects(classes, masks):
    count = len(classes)
    return Objects(torch.tensor(classes, dtype=torch.int64), masks, torch.zeros(count, 4), torch.zeros(0, 4))


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(0, 6), st.integers(0, 10_000))
def test_the_assignment_is_the_cheapest_of_all(queries, count, seed):
    costs = np.random.default_rng(seed).normal(size=(queries, count))
    rows, columns = (one.numpy() for one in sets.assigned(torch.from_numpy(costs)))
    some = min(queries, count)
    assert len(set(rows.tolist())) == len(set(columns.tolist())) == some
    if queries >= count:
        every = [costs[list(p), range(count)].sum() for p in itertools.permutations(range(queries), count)]
    else:
        every = [costs[range(queries), list(p)].sum() for p in itertools.permutations(range(count), queries)]
    assert costs[rows, columns].sum() == pytest.approx(min(every))


def test_costs_that_are_no_numbers_break_nothing():
    costs = torch.tensor([[float("nan"), 1.0], [0.0, float("inf")]])
    rows, columns = sets.assigned(costs)
    assert rows.tolist() == [0, 1]
    assert columns.tolist() == [1, 0]


def test_values_at_points_are_bilinear():
    random = np.random.default_rng(0)
    planes, points = random.normal(size=(3, 5, 7)), random.uniform(size=(3, 40, 2))
    expected = np.zeros((3, 40))
    for i, j in np.ndindex(3, 40):
        x, y = points[i, j] * [7, 5] - 0.5
        x0, y0 = int(np.floor(x)), int(np.floor(y))
        for dy, dx in np.ndindex(2, 2):
            if 0 <= y0 + dy < 5 and 0 <= x0 + dx < 7:  # nothing is outside
                weight = (1 - abs(x - x0 - dx)) * (1 - abs(y - y0 - dy))
                expected[i, j] += weight * planes[i, y0 + dy, x0 + dx]
    found = at_points(torch.from_numpy(planes), torch.from_numpy(points).float())
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert at_points(torch.zeros(0, 5, 7), torch.rand(1, 9, 2)).shape == (0, 9)


def test_points_gather_where_the_mask_is_unsure():
    torch.manual_seed(0)
    plane = torch.linspace(-10, 10, 64).expand(1, 64, 64)  # unsure in the middle columns only
    points = unsure_points(plane, 400)
    assert points.shape == (1, 400, 2)
    assert ((points >= 0) & (points <= 1)).all()
    near = (points[0, :, 0] - 0.5).abs() < 0.2
    assert near[:300].all()  # three quarters, of three times as many
    assert near[300:].float().mean() < 0.6  # the rest is anywhere


def two_discs():
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    return torch.stack([(x - 8) ** 2 + (y - 8) ** 2 < 25, (x - 22) ** 2 + (y - 20) ** 2 < 36])


def answer(masks, classes, order):
    """What queries would say that are wholly right, in some order; the others find nothing."""
    queries = len(order)
    logits, names = torch.full((1, queries, 32, 32), -20.0), torch.zeros(1, queries, 3)
    names[..., 2] = 20.0
    for query, which in enumerate(order):
        if which is not None:
            logits[0, query] = masks[which].float() * 40 - 20
            names[0, query] = torch.nn.functional.one_hot(torch.tensor(classes[which]), 3) * 20.0
    return {"classes": names, "masks": logits}


@pytest.mark.parametrize("order", [(0, 1, None), (None, 1, 0), (1, None, None, 0)])
def test_a_right_answer_costs_nothing_in_any_order(order):
    torch.manual_seed(0)
    masks = two_discs()
    found = sets.set_loss(answer(masks, [0, 1], order), [objects([0, 1], masks)], SetWeights(points=500))
    assert found["classes"].item() < 1e-4
    assert found["dice"].item() < 0.2  # most points are looked for on the edges, where half a pixel is of the object
    assert found["masks"].item() < 0.6


def test_each_part_notices_its_own_fault():
    masks = two_discs()
    right = answer(masks, [0, 1], (0, 1, None))
    true = [objects([0, 1], masks)]
    torch.manual_seed(0)
    good = sets.set_loss(right, true)
    torch.manual_seed(0)
    misnamed = sets.set_loss({**right, "classes": right["classes"][:, :, [1, 0, 2]]}, true)
    torch.manual_seed(0)
    moved = sets.set_loss({**right, "masks": right["masks"].roll(3, -1)}, true)
    torch.manual_seed(0)
    extra = sets.set_loss(answer(masks, [0, 1], (0, 1, 1)), true)
    assert misnamed["classes"] > good["classes"] + 5
    assert moved["classes"].item() == pytest.approx(good["classes"].item())
    assert moved["dice"] > good["dice"] + 0.1
    assert moved["masks"] > good["masks"] + 0.5
    assert extra["classes"] > good["classes"] + 0.5  # a second query for the same object is no find
    assert extra["dice"].item() == pytest.approx(good["dice"].item())


def test_costs_are_what_the_pairs_cost_one_by_one():
    torch.manual_seed(3)
    classes, masks = torch.randn(4, 3), torch.randn(4, 16, 16) * 3
    there = torch.rand(2, 16, 16) > 0.6
    true, weights = objects([1, 0], there), SetWeights(1.5, 2.5, 3.5, points=64)
    torch.manual_seed(4)
    found = sets.costs(classes, masks, true, weights)
    torch.manual_seed(4)
    points = torch.rand(1, 64, 2)
    for query, place in np.ndindex(4, 2):
        one = at_points(masks[query : query + 1], points)[0].double().numpy()
        other = at_points(there[place : place + 1], points)[0].double().numpy()
        p = 1 / (1 + np.exp(-one))
        crossed = -(other * np.log(p) + (1 - other) * np.log(1 - p)).mean()
        dice = 1 - (2 * (p * other).sum() + 1) / (p.sum() + other.sum() + 1)
        name = classes[query].softmax(0)[true.classes[place]].item()
        assert found[query, place].item() == pytest.approx(1.5 * -name + 2.5 * crossed + 3.5 * dice, rel=1e-4)


def test_pictures_without_objects_and_more_objects_than_queries():
    torch.manual_seed(0)
    found = {"classes": torch.randn(3, 2, 4, requires_grad=True), "masks": torch.randn(3, 2, 8, 8, requires_grad=True)}
    none = objects([], torch.zeros(0, 8, 8, dtype=torch.bool))
    many = objects([0, 1, 2, 0, 1], torch.rand(5, 8, 8) > 0.5)
    loss = sets.set_loss(found, [none, many, none], SetWeights(points=32))["loss"]
    assert loss.isfinite()
    loss.backward()
    assert found["masks"].grad[[0, 2]].abs().sum() == 0
    assert found["masks"].grad[1].abs().sum() > 0
    assert sets.set_loss(found, [none, none, none])["loss"].isfinite()


def test_rare_classes_may_count_for_more():
    torch.manual_seed(0)
    found = {"classes": torch.zeros(1, 2, 3), "masks": torch.zeros(1, 2, 8, 8)}
    true = [objects([0], torch.ones(1, 8, 8, dtype=torch.bool))]
    found["classes"][0] = torch.tensor([[0.0, 3.0, 0.5], [0.2, 3.0, -0.5]])  # taken for the other class
    found["masks"][0, 0] = 1.0  # the first query is the one that is matched
    plain = sets.set_loss(found, true)["classes"]
    heavy = sets.set_loss(found, true, class_weights=torch.tensor([10.0, 1.0]))["classes"]
    one, other = -torch.log_softmax(found["classes"][0], -1)
    assert plain.item() == pytest.approx(((one[0] + 0.1 * other[2]) / 1.1).item(), rel=1e-5)
    assert heavy.item() == pytest.approx(((10 * one[0] + 0.1 * other[2]) / 10.1).item(), rel=1e-5)


def test_every_stage_is_judged():
    torch.manual_seed(0)
    classes, masks = torch.randn(3, 1, 2, 3, requires_grad=True), torch.randn(3, 1, 2, 8, 8, requires_grad=True)
    found = {"classes": classes[-1], "masks": masks[-1], "stage_classes": classes, "stage_masks": masks}
    sets.set_loss(found, [objects([1], torch.rand(1, 8, 8) > 0.5)])["loss"].backward()
    assert (classes.grad.abs().sum(dim=(1, 2, 3)) > 0).all()
    assert (masks.grad.abs().sum(dim=(1, 2, 3, 4)) > 0).all()
