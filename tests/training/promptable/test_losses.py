"""The losses of masks against plain formulas; and that of several masks the best one alone learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from manylens.training.promptable.losses import Weights, dice, enlarged, focal, iou, judge


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3


def focal_by_loops(logits: np.ndarray, target: np.ndarray, alpha: float, gamma: float) -> float:
    total = 0.0
    for z, y in zip(logits.ravel(), target.ravel(), strict=True):
        p = 1 / (1 + np.exp(-z))
        right = p if y else 1 - p
        total += (alpha if y else 1 - alpha) * (1 - right) ** gamma * -np.log(right)
    return total / target.size


def dice_by_loops(logits: np.ndarray, target: np.ndarray) -> float:
    p = 1 / (1 + np.exp(-logits))
    common = sum(float(a) for a, y in zip(p.ravel(), target.ravel(), strict=True) if y)
    return 1 - (2 * common + 1) / (p.sum() + target.sum() + 1)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.75, 0.0), (0.5, 1.0)])
def test_focal_is_its_formula(alpha, gamma):
    logits, target = drawn(3, 4, 5), drawn(3, 4, 5, seed=1) > 0
    found = focal(logits, target, alpha, gamma)
    for one, z, y in zip(found, logits.numpy(), target.numpy(), strict=True):
        assert float(one) == pytest.approx(focal_by_loops(z, y, alpha, gamma))


def test_focal_without_focus_is_half_the_entropy():
    logits, target = drawn(2, 6, 6), drawn(2, 6, 6, seed=1) > 0
    plain = torch.nn.functional.binary_cross_entropy_with_logits(logits, target.double())
    assert float(focal(logits, target, 0.5, 0.0).mean()) == pytest.approx(float(plain) / 2)


def test_dice_is_its_formula():
    logits, target = drawn(3, 4, 5), drawn(3, 4, 5, seed=1) > 0
    target[2] = False
    for one, z, y in zip(dice(logits, target), logits.numpy(), target.numpy(), strict=True):
        assert float(one) == pytest.approx(dice_by_loops(z, y))


@pytest.mark.parametrize("loss", [focal, dice])
def test_losses_fall_to_nothing_where_the_answer_is_right_and_sure(loss):
    target = drawn(2, 8, 8) > 0
    right = (target.double() * 2 - 1) * 40
    assert loss(right, target).max() < 1e-6
    assert loss(-right, target).min() > 0.5


@pytest.mark.parametrize("loss", [focal, dice])
def test_gradients_are_those_of_differences(loss):
    logits, target = drawn(2, 3, 3).requires_grad_(), drawn(2, 3, 3, seed=1) > 0
    assert torch.autograd.gradcheck(lambda z: loss(z, target), (logits,))


def test_iou_counts_pixels():
    one = torch.tensor([[[1, 1, 0]], [[0, 0, 0]], [[1, 0, 0]]], dtype=torch.bool)
    other = torch.tensor([[[0, 1, 1]], [[0, 0, 0]], [[0, 0, 1]]], dtype=torch.bool)
    assert iou(one, other).tolist() == pytest.approx([1 / 3, 1.0, 0.0])


# ------------------------------------------------------------------ several masks


def answers(count: int = 4, masks: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits of random masks, of which another one is nearly right for each prompt; their qualities; the objects."""
    targets = drawn(count, 8, 8, seed=5) > 0
    logits = drawn(count, masks, 8, 8).float()
    for number in range(count):
        logits[number, number % masks] += (targets[number].float() * 2 - 1) * 4
    return logits, torch.rand(count, masks, generator=torch.Generator().manual_seed(3)), targets


def test_the_loss_is_that_of_the_best_mask_with_the_error_of_all_qualities():
    logits, predicted, targets = answers()
    weights = Weights(focal=20, dice=1, iou=0.5, others=0)
    judged = judge(logits, predicted, targets, weights)
    assert judged.best.tolist() == [0, 1, 2, 0]
    for number in range(len(targets)):
        z, y = logits[number].numpy().astype(float), targets[number].numpy()
        each = [20 * focal_by_loops(one, y, 0.25, 2) + dice_by_loops(one, y) for one in z]
        true = [((one > 0) & y).sum() / ((one > 0) | y).sum() for one in z]
        wrong = np.mean((predicted[number].numpy() - true) ** 2)
        assert int(np.argmin(each)) == judged.best[number]
        assert float(judged.loss[number]) == pytest.approx(min(each) + 0.5 * wrong, rel=1e-5)
        np.testing.assert_allclose(judged.iou[number].numpy(), true, rtol=1e-6)


def test_only_the_best_mask_learns_and_every_quality_does():
    logits, predicted, targets = answers()
    logits.requires_grad_(), predicted.requires_grad_()
    judged = judge(logits, predicted, targets, Weights(others=0))
    judged.loss.sum().backward()
    moved = logits.grad.abs().amax(dim=(2, 3)) > 0
    expected = torch.nn.functional.one_hot(judged.best, 3).bool()
    assert torch.equal(moved, expected)
    assert (predicted.grad.abs() > 0).all()


def test_others_learn_as_little_as_they_are_told_to():
    logits, predicted, targets = answers()
    logits.requires_grad_()
    each = 20 * focal(logits, targets[:, None]) + dice(logits, targets[:, None])
    rest = (each.sum(dim=1) - each.amin(dim=1)) / 2
    found = judge(logits, predicted, targets, Weights(iou=0, others=0.1)).loss
    torch.testing.assert_close(found, 0.9 * each.amin(dim=1) + 0.1 * rest)
    found.sum().backward()
    assert (logits.grad.abs().amax(dim=(2, 3)) > 0).all()


def test_targets_may_be_finer_than_masks():
    logits, predicted, targets = answers()
    fine = targets.repeat_interleave(3, dim=1).repeat_interleave(3, dim=2)
    judged = judge(logits, predicted, fine)
    by_hand = torch.nn.functional.interpolate(logits, size=(24, 24), mode="bilinear", align_corners=False)
    torch.testing.assert_close(judged.loss, judge(by_hand, predicted, fine).loss)
    assert enlarged(logits, (8, 8)) is logits
