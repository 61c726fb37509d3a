from __future__ import annotations

import numpy as np
import pytest
import torch

from manylens.training.selfsupervised import distil, opening
from manylens.training.selfsupervised.distil import Distil, DistilOptions
from tests.training.selfsupervised.made_up import MEAN, STD, convolutions, textures, tower

LEVELS = [MEAN, STD, (0.4,) * 3, (0.3,) * 3]
PICTURES, _ = textures(96)


def network(seed: int = 0, student: object = None, **options: object) -> Distil:
    teacher = tower("vit", seed=7, hidden_size=64)
    made = student or tower(seed=seed)
    torch.manual_seed(seed)
    return Distil(made, teacher, LEVELS, DistilOptions(**{"anchors": 64, **options}))


def trained(net: Distil, start: int, stop: int, optimiser: torch.optim.Optimizer | None = None) -> tuple[list, object]:
    optimiser = optimiser or torch.optim.AdamW([one for one in net.parameters() if one.requires_grad], lr=3e-3)
    found = []
    for step in range(start, stop):
        chosen = torch.randperm(96, generator=torch.Generator().manual_seed(step))[:32]
        told = net(PICTURES[chosen])
        optimiser.zero_grad()
        told["loss"].backward()
        optimiser.step()
        found.append({name: float(one.detach()) for name, one in told.items() if one.ndim == 0})
    return found, optimiser


@pytest.mark.parametrize("kind", ["vit", "convolutions"])
def test_a_small_encoder_becomes_like_the_large_one(kind):
    student = opening.tower(convolutions()) if kind == "convolutions" else None
    net = network(student=student)
    before = {name: one.clone() for name, one in net.teacher.state_dict().items()}
    told, _ = trained(net, 0, 40)
    assert told[-1]["cosine"] > told[0]["cosine"] + 0.3
    for name in ("vector", "patches"):
        assert told[-1][name] < told[0][name]
    assert told[0]["logits"] == 0  # no anchors yet
    assert told[-1]["logits"] < told[3]["logits"]
    assert all(torch.equal(before[name], one) for name, one in net.teacher.state_dict().items())


def test_regression_is_nothing_only_where_both_are_the_same():
    known = torch.randn(4, 9)
    assert float(distil.regression(known, known)) == pytest.approx(0, abs=1e-5)
    assert float(distil.regression(3 * known, known)) == pytest.approx(0, abs=1e-5)
    assert float(distil.regression(-known, known)) > 3


def test_likenesses_are_softmaxes_over_what_was_seen_before():
    """By hand in NumPy, with a full queue."""
    net = network(anchors=8, temperature=0.05, student_temperature=0.2)
    net.anchors.copy_(torch.randn(8, 64))
    net.mean.copy_(net.anchors.mean(dim=0))
    net.filled.fill_(8)
    answer, known = torch.randn(5, 64), torch.randn(5, 64)
    mean, anchors = net.mean.numpy().copy(), net.anchors.numpy().copy()

    def unit(rows: np.ndarray) -> np.ndarray:
        return (rows - mean) / np.linalg.norm(rows - mean, axis=1, keepdims=True)

    def softmax(rows: np.ndarray) -> np.ndarray:
        raised = np.exp(rows - rows.max(axis=1, keepdims=True))
        return raised / raised.sum(axis=1, keepdims=True)

    centre = (unit(anchors) @ unit(anchors).T).mean(axis=0)
    target = softmax((unit(known.numpy()) @ unit(anchors).T - centre) / 0.05)
    said = np.log(softmax(unit(answer.numpy()) @ unit(anchors).T / 0.2))
    assert float(net._likenesses(answer, known)) == pytest.approx(-(target * said).sum(axis=1).mean(), rel=1e-4)


def test_the_queue_keeps_the_latest_and_their_mean():
    net = network(anchors=6)
    net.train()
    rows = torch.arange(8.0)[:, None].expand(-1, 64)
    net._remember(rows[:4])
    assert torch.allclose(net.mean, torch.full((64,), 1.5))
    net._remember(rows[4:])
    assert sorted(net.anchors[:, 0].tolist()) == [2, 3, 4, 5, 6, 7]
    assert torch.allclose(net.mean, torch.full((64,), 4.5))
    net._remember(torch.arange(20.0)[:, None].expand(-1, 64))
    assert len(net.anchors) == 6


def test_patches_of_another_grid_are_laid_over():
    maps = torch.arange(4.0).view(1, 2, 2, 1).expand(-1, -1, -1, 3).flatten(1, 2)
    found = distil.regridded(maps, (2, 2), (4, 4))
    assert found.shape == (1, 16, 3)
    assert found[0, 0, 0] == 0
    assert found[0, -1, 0] == 3
    assert distil.regridded(maps, (2, 2), (2, 2)) is maps


def test_a_training_goes_on_from_its_state_as_if_it_had_not_stopped():
    whole, _ = trained(network(), 0, 8)
    first = network()
    _, optimiser = trained(first, 0, 4)
    second = network(seed=3)
    second.load_state_dict(first.state_dict())
    again = torch.optim.AdamW([one for one in second.parameters() if one.requires_grad], lr=3e-3)
    again.load_state_dict(optimiser.state_dict())
    rest, _ = trained(second, 4, 8, again)
    assert [row["loss"] for row in rest] == pytest.approx([row["loss"] for row in whole[4:]], abs=1e-5)


def test_each_is_shown_its_own_levels_and_side():
    net = network(patches=1.0).eval()
    small, large = PICTURES[:4], torch.nn.functional.interpolate(PICTURES[:4], scale_factor=2)
    seen = {}
    net.student.register_forward_hook(lambda module, given, made: seen.update(student=given[0]))
    net.teacher.register_forward_hook(lambda module, given, made: seen.update(teacher=given[0]))
    told = net(small, large)
    assert torch.allclose(seen["student"], (small - 0.5) / 0.25, atol=1e-5)
    assert torch.allclose(seen["teacher"], (large - 0.4) / 0.3, atol=1e-5)
    assert "patches" in told
