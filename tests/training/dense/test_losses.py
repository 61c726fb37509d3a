import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from manylens.models.nms import iou_matrix
from manylens.training.dense import losses
from manylens.training.dense.losses import VOID


def drawn(seed, classes=4, sides=(5, 6), batch=2):
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (batch, classes, *sides))
    labels = random.integers(-1, classes, (batch, *sides))
    return logits, labels


def as_torch(*arrays):
    return [torch.from_numpy(np.asarray(one)) for one in arrays]


def test_a_batch_of_which_nothing_is_judged_is_no_nan():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    found = losses.class_dice(logits, torch.full((1, 4, 4), VOID))
    found.backward()
    assert found.item() == 0
    assert (logits.grad == 0).all()


def test_pixels_that_are_not_judged_teach_nothing():
    logits, labels = as_torch(*drawn(4))
    logits.requires_grad_(True)
    losses.class_dice(logits, labels).backward()
    silent = (logits.grad == 0).all(dim=1)
    assert torch.equal(silent, labels == VOID)
    assert (labels == VOID).any()


def test_logits_are_brought_to_the_size_of_the_labels():
    logits, labels = torch.randn(1, 2, 2, 2), torch.randint(0, 2, (1, 6, 6))
    large = torch.nn.functional.interpolate(logits, size=(6, 6), mode="bilinear", align_corners=False)
    torch.testing.assert_close(losses.class_dice(logits, labels), losses.class_dice(large, labels))


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_dice(seed, squared):
    random = np.random.default_rng(seed)
    chances, true = random.uniform(size=(5, 40)), random.integers(0, 2, (5, 40)).astype(float)
    expected = []
    for p, g in zip(chances, true, strict=True):
        if squared:
            expected.append(1 - 2 * (p * g).sum() / ((p**2).sum() + (g**2).sum()))
        else:
            expected.append(1 - (2 * (p * g).sum() + 1) / (p.sum() + g.sum() + 1))
    np.testing.assert_allclose(losses.dice_loss(*as_torch(chances, true), squared=squared), expected, rtol=1e-6)


@pytest.mark.parametrize(("found", "loss"), [([1.0, 1.0, 0.0], 0.0), ([0.0, 0.0, 1.0], 1.0)])
def test_dice_of_what_is_wholly_right_or_wrong(found, loss):
    true = torch.tensor([[1.0, 1.0, 0.0]])
    assert losses.dice_loss(torch.tensor([found]), true, squared=True).item() == pytest.approx(loss, abs=1e-6)


def test_class_dice_is_the_mean_over_classes_that_are_shown():
    logits, labels = drawn(5, classes=4)
    labels[labels == 2] = VOID  # class 2 is nowhere
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    judged = labels != VOID
    expected = []
    for c in (0, 1, 3):
        p, g = chances[:, c][judged], (labels == c)[judged].astype(float)
        expected.append(1 - 2 * (p * g).sum() / ((p**2).sum() + (g**2).sum()))
    assert losses.class_dice(*as_torch(logits, labels)).item() == pytest.approx(np.mean(expected), rel=1e-5)


def test_quality_focal():
    random = np.random.default_rng(0)
    logits, quality = random.normal(0, 3, 50), random.uniform(size=50)
    p = 1 / (1 + np.exp(-logits))
    expected = -(abs(quality - p) ** 2) * (quality * np.log(p) + (1 - quality) * np.log(1 - p))
    np.testing.assert_allclose(losses.quality_focal_loss(*as_torch(logits, quality)), expected, rtol=1e-6)
    right = torch.logit(torch.from_numpy(quality))
    assert losses.quality_focal_loss(right, torch.from_numpy(quality)).abs().max() < 1e-12


def corners(random, count):
    low = random.uniform(0, 10, (count, 2))
    return np.hstack([low, low + random.uniform(0.1, 8, (count, 2))])


def one_giou(a, b):
    """Rezatofighi et al., 2019, algorithm 1, in plain numbers."""
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(wide, 0) * max(high, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common
    around = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return common / union - (around - union) / around


@given(st.integers(0, 1000))
def test_iou_and_giou(seed):
    random = np.random.default_rng(seed)
    a, b = corners(random, 6), corners(random, 6)
    table = losses.iou_pairs(torch.from_numpy(a)[:, None], torch.from_numpy(b)[None])
    np.testing.assert_allclose(table, iou_matrix(a, b), atol=1e-9)
    found = losses.giou_pairs(*as_torch(a, b)).numpy()
    np.testing.assert_allclose(found, [one_giou(x, y) for x, y in zip(a, b, strict=True)], atol=1e-9)
    assert (found <= 1).all()
    assert (found > -1).all()


def test_giou_of_boxes_apart_still_says_where_to_go():
    box = torch.tensor([[20.0, 20.0, 30.0, 30.0]], requires_grad=True)
    (1 - losses.giou_pairs(box, torch.tensor([[0.0, 0.0, 10.0, 10.0]]))).sum().backward()
    assert (box.grad[0, :2] > 0).all()  # a step down moves the near corner closer


def test_boxes_of_no_area_are_no_nan():
    nothing = torch.zeros(1, 4)
    for pairs in (losses.iou_pairs, losses.giou_pairs):
        assert pairs(nothing, nothing).isfinite().all()


def test_things_are_counted_over_all_processes(monkeypatch):
    assert losses.counted(torch.tensor(6.0)).item() == 6
    assert losses.counted(torch.tensor(0.0)).item() == 1
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda number: number.add_(4.0))
    given = torch.tensor(6.0)
    assert losses.counted(given).item() == 5  # the mean of 6 here and 4 there
    assert given.item() == 6
