"""Losses of metric learning, held to values by hand, to loops, and to laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from manylens.training.errors import TrainError
from manylens.training.metric import figures, losses


def units(count: int, width: int = 5, seed: int = 0) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(count, width, generator=random, dtype=torch.float64), dim=1)


def numbers(*values: int) -> torch.Tensor:
    return torch.tensor(values)


# ------------------------------------------------------------------ supervised contrastive


def test_supcon_by_hand():
    vectors = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    found = losses.supcon(vectors, numbers(0, 0, 1, 1), temperature=1.0)
    assert found.item() == pytest.approx(-math.log(math.e / (math.e + 2)))
    # At half the temperature cosines count twice.
    found = losses.supcon(vectors, numbers(0, 0, 1, 1), temperature=0.5)
    assert found.item() == pytest.approx(-math.log(math.e**2 / (math.e**2 + 2)))


@pytest.mark.parametrize("targets", [(0, 0, 1, 1, 1, 2), (0, 1, 2, 3, 0, 0), (4, 4, 4, 4, 4, 4)])
def test_supcon_is_the_papers_sum(targets):
    vectors, temperature = units(6), 0.2
    means = []
    for i in range(6):
        positives = [j for j in range(6) if j != i and targets[j] == targets[i]]
        if not positives:
            continue
        all_others = sum(math.exp(float(vectors[i] @ vectors[a]) / temperature) for a in range(6) if a != i)
        terms = [float(vectors[i] @ vectors[p]) / temperature - math.log(all_others) for p in positives]
        means.append(-sum(terms) / len(positives))
    assert losses.supcon(vectors, numbers(*targets), temperature).item() == pytest.approx(np.mean(means), rel=1e-6)


def test_where_all_are_alone_supcon_is_nothing():
    vectors = units(4).requires_grad_(True)
    for count in (1, 4):
        found = losses.supcon(vectors[:count], torch.arange(count))
        found.backward()
        assert found.item() == 0
    assert (vectors.grad == 0).all()


# ------------------------------------------------------------------ proxies


def test_proxy_anchor_by_hand():
    cosines = torch.tensor([[0.5, -0.2], [0.0, 0.8]])
    found = losses.proxy_anchor(cosines, numbers(0, 1), alpha=2.0, margin=0.1)
    near = [math.log(1 + math.exp(-2 * (0.5 - 0.1))), math.log(1 + math.exp(-2 * (0.8 - 0.1)))]
    far = [math.log(1 + math.exp(2 * (0.0 + 0.1))), math.log(1 + math.exp(2 * (-0.2 + 0.1)))]
    assert found.item() == pytest.approx(sum(near) / 2 + sum(far) / 2)


def test_proxies_without_a_picture_in_the_batch_only_push():
    cosines = torch.tensor([[0.5, -0.2, 0.1], [0.4, 0.3, -0.6]])
    found = losses.proxy_anchor(cosines, numbers(0, 0), alpha=3.0, margin=0.1)
    near = math.log(1 + math.exp(-3 * 0.4) + math.exp(-3 * 0.3))  # the one proxy that has some
    far = [0.0, math.log(1 + math.exp(3 * -0.1) + math.exp(3 * 0.4)), math.log(1 + math.exp(3 * 0.2) + math.exp(-1.5))]
    assert found.item() == pytest.approx(near + sum(far) / 3)


def test_arcface_by_hand():
    cosines = torch.tensor([[0.6, 0.1], [-0.3, 0.2]])
    found = losses.arcface(cosines, numbers(0, 1), scale=4.0, margin=0.5)
    expected = []
    for own, other in ((0.6, 0.1), (0.2, -0.3)):
        turned = math.cos(math.acos(own) + 0.5)
        expected.append(-math.log(math.exp(4 * turned) / (math.exp(4 * turned) + math.exp(4 * other))))
    assert found.item() == pytest.approx(np.mean(expected), rel=1e-5)


def test_arcface_without_a_margin_is_cross_entropy_of_cosines():
    cosines, targets = 2 * torch.rand(6, 4) - 1, numbers(0, 1, 2, 3, 0, 1)
    found = losses.arcface(cosines, targets, scale=8.0, margin=0.0)
    torch.testing.assert_close(found, functional.cross_entropy(8 * cosines, targets))


def test_arcface_is_less_the_nearer_the_own_proxy_also_past_a_half_turn():
    own = torch.linspace(-1, 1, 101)
    found = [losses.arcface(torch.tensor([[float(one), 0.0]]), numbers(0), margin=0.5).item() for one in own]
    assert (np.diff(found) < 1e-6).all()


# ------------------------------------------------------------------ laws of all


def made(kind: str, classes: int = 7, width: int = 5) -> losses.Criterion:
    torch.manual_seed(0)
    return losses.build(kind, classes, width, {}).double()


@pytest.mark.parametrize("kind", losses.LOSSES)
def test_the_order_of_the_batch_changes_nothing(kind):
    vectors, targets, order = units(8), numbers(0, 0, 1, 2, 2, 2, 5, 6), torch.randperm(8)
    criterion = made(kind)
    torch.testing.assert_close(criterion(vectors[order], targets[order]), criterion(vectors, targets))


@pytest.mark.parametrize("kind", losses.LOSSES)
@pytest.mark.parametrize(
    "targets", [(0, 1, 2, 3), (0, 0, 0, 0), (3, 3, 5, 6)], ids=["all alone", "one class", "some alone"]
)
@pytest.mark.parametrize("same", [False, True], ids=["apart", "collapsed"])
def test_gradients_are_numbers(kind, targets, same):
    vectors = units(4) if not same else units(1).expand(4, -1).clone()
    vectors.requires_grad_(True)
    criterion = made(kind)
    if same and isinstance(criterion, losses.WithProxies):
        criterion.proxies.data[targets[0]] = vectors[0].detach()  # an angle of 0
    criterion(vectors, numbers(*targets)).backward()
    for one in (vectors, *criterion.parameters()):
        assert torch.isfinite(one.grad).all()


@pytest.mark.parametrize("kind", losses.LOSSES)
def test_steps_bring_those_of_a_class_together(kind):
    vectors, targets = units(9, width=4).requires_grad_(True), numbers(0, 0, 0, 1, 1, 1, 2, 2, 2)
    criterion = losses.build(kind, 3, 4, {}).double()
    optimiser = torch.optim.Adam([vectors, *criterion.parameters()], lr=0.05)
    for _ in range(150):
        optimiser.zero_grad()
        criterion(functional.normalize(vectors, dim=1), targets).backward()
        optimiser.step()
    before, after = (figures.retrieval(one.detach().numpy(), targets.numpy()) for one in (units(9, width=4), vectors))
    assert before["map_at_r"] < 0.3
    assert after["map_at_r"] > 0.7


@pytest.mark.parametrize("kind", ["proxy_anchor", "arcface"])
def test_the_length_of_a_proxy_does_not_count(kind):
    criterion, vectors, targets = made(kind), units(4), numbers(0, 1, 2, 6)
    before = criterion(vectors, targets)
    criterion.proxies.data *= torch.linspace(0.5, 9, 7)[:, None]
    torch.testing.assert_close(criterion(vectors, targets), before)


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        ("supcom", {}, "did you mean 'supcon'"),
        ("supcon", {"temprature": 1}, "did you mean 'temperature'"),
        ("supcon", {"temperature": 0}, "temperature: 0 does not fit"),
        ("arcface", {"scale": "64"}, "scale: '64' does not fit"),
        ("proxy_anchor", {"alpha": float("nan")}, "alpha: nan does not fit"),
    ],
)
def test_what_does_not_fit_is_named(kind, options, says):
    with pytest.raises(TrainError) as caught:
        losses.build(kind, 3, 4, options)
    assert says in f"{caught.value} {caught.value.remedy}"
