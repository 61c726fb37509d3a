from __future__ import annotations

import numpy as np
import pytest
import torch

from manylens.training.selfsupervised import objectives
from manylens.training.selfsupervised.objectives import Centre


def softmax(values: np.ndarray) -> np.ndarray:
    raised = np.exp(values - values.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def rows(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_views_are_compared_as_in_dinos_own_loop():
    student, teacher = rows(5, 3, 7), rows(2, 3, 7, seed=1).softmax(dim=-1)
    total, terms = 0.0, 0
    for g, target in enumerate(teacher.numpy()):
        for v, answer in enumerate(student.numpy()):
            if v == g:
                continue
            total += float((-target * np.log(softmax(answer / 0.1))).sum(axis=-1).mean())
            terms += 1
    found = objectives.across_views(student, teacher, 0.1)
    assert float(found) == pytest.approx(total / terms, rel=1e-5)


def test_half_precision_does_not_reach_the_sum():
    """A product in half precision would lose all but two digits over so many prototypes."""
    student, teacher = rows(5, 3, 4000), rows(2, 3, 4000, seed=1).softmax(dim=-1)
    with torch.autocast("cpu", torch.bfloat16):
        found = objectives.across_views(student, teacher, 0.1)
    assert float(found) == pytest.approx(float(objectives.across_views(student, teacher, 0.1)), rel=1e-6)


def test_its_gradient_is_that_of_the_loop():
    teacher = rows(2, 3, 7, seed=1).softmax(dim=-1)
    one, other = (rows(4, 3, 7).requires_grad_() for _ in range(2))
    objectives.across_views(one, teacher, 0.1).backward()
    said = (other / 0.1).log_softmax(dim=-1)
    pairs = [-(teacher[g] * said[v]).sum(dim=-1).mean() for g in range(2) for v in range(4) if v != g]
    torch.stack(pairs).mean().backward()
    assert torch.allclose(one.grad, other.grad, atol=1e-6)


def test_the_centre_is_a_running_mean_of_what_came_before():
    """By hand: the answer to a batch does not know the batch's own mean."""
    centre = Centre(3, momentum=0.9)
    first, second = rows(4, 3), rows(6, 3, seed=1)
    assert torch.allclose(centre(first, 0.5), (first / 0.5).softmax(dim=-1))
    centre.update(first)
    by_hand = 0.1 * first.mean(dim=0)
    assert torch.allclose(centre.mean, by_hand)
    assert torch.allclose(centre(second, 0.5), ((second - by_hand) / 0.5).softmax(dim=-1))
    centre.update(second)
    assert torch.allclose(centre.mean, 0.9 * by_hand + 0.1 * second.mean(dim=0))
    centre.update(rows(0, 3))
    assert torch.allclose(centre.mean, 0.9 * by_hand + 0.1 * second.mean(dim=0))


def balanced(logits: np.ndarray, temperature: float, rounds: int) -> np.ndarray:
    """Sinkhorn-Knopp as DINOv2 writes it: prototypes x samples, float64."""
    table = np.exp(logits.astype(np.float64) / temperature).T
    prototypes, samples = table.shape
    table /= table.sum()
    for _ in range(rounds):
        table /= table.sum(axis=1, keepdims=True) * prototypes
        table /= table.sum(axis=0, keepdims=True) * samples
    return (table * samples).T


@pytest.mark.parametrize("rounds", [1, 3])
def test_sinkhorn_is_that_of_dinov2(rounds):
    logits = 0.3 * rows(12, 5)
    found = objectives.sinkhorn(logits, 0.05, rounds)
    assert found.numpy() == pytest.approx(balanced(logits.numpy(), 0.05, rounds), abs=1e-5)
    assert found.sum(dim=1).numpy() == pytest.approx(1.0, abs=1e-5)


def test_sinkhorn_uses_all_prototypes_where_one_would_win_for_all():
    logits = 0.1 * rows(60, 4)
    logits[:, 2] += 1.0
    assert float((logits / 0.05).softmax(dim=-1).mean(dim=0)[2]) > 0.99
    assert objectives.sinkhorn(logits, 0.05, 50).mean(dim=0).numpy() == pytest.approx(0.25, abs=0.02)
    assert objectives.sinkhorn(rows(0, 4), 0.05).shape == (0, 4)


def test_patches_count_by_picture():
    """A picture with many masked patches weighs as much as one with few; one without any lowers the mean."""
    student, teacher = rows(5, 4), rows(5, 4, seed=1).softmax(dim=-1)
    weights = torch.tensor([0.25, 0.25, 0.25, 0.25, 1.0])
    each = -(teacher.numpy() * np.log(softmax(student.numpy() / 0.1))).sum(axis=-1)
    expected = (each[:4].mean() + each[4]) / 3
    assert float(objectives.on_patches(student, teacher, weights, 3, 0.1)) == pytest.approx(expected, rel=1e-5)
    assert float(objectives.on_patches(rows(0, 4), rows(0, 4), weights[:0], 3, 0.1)) == 0


def test_koleo_is_minus_the_log_distance_to_the_nearest():
    vectors = rows(6, 5)
    unit = vectors.numpy() / np.linalg.norm(vectors.numpy(), axis=1, keepdims=True)
    distances = np.linalg.norm(unit[:, None] - unit[None], axis=-1) + 9 * np.eye(6)
    expected = -np.log(distances.min(axis=1)).mean()
    assert float(objectives.koleo(vectors)) == pytest.approx(expected, rel=1e-4)
    assert float(objectives.koleo(vectors[:1])) == 0


def test_koleo_pushes_near_vectors_apart():
    vectors = torch.tensor([[1.0, 0.0], [1.0, 0.1], [-1.0, 0.0]]).requires_grad_()
    before = float(vectors.detach()[1, 1] - vectors.detach()[0, 1])
    objectives.koleo(vectors).backward()
    moved = vectors.detach() - 0.01 * vectors.grad
    assert float(moved[1, 1] - moved[0, 1]) > before
