"""Two processes that share a batch learn what one learns that has it all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from manylens.training.metric import losses
from manylens.training.metric.sharing import whole
from tests.training import two_processes

PICTURES = 8


def computed(chosen: torch.Tensor) -> dict[str, torch.Tensor]:
    """Loss and gradients of a small network on some pictures of the batch."""
    found = {}
    given = torch.randn(PICTURES, 6, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([0, 0, 1, 1, 0, 2, 2, 1])
    for kind in losses.LOSSES:
        torch.manual_seed(1)
        layer, criterion = torch.nn.Linear(6, 4), losses.build(kind, 3, 4, {})
        vectors = functional.normalize(layer(given[chosen]), dim=1)
        loss = criterion(whole(vectors), whole(targets[chosen]))
        loss.backward()
        found[kind] = loss.detach()
        for name, one in [*layer.named_parameters(), *criterion.named_parameters()]:
            found[f"{kind} {name}"] = one.grad
    return found


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distribution")
def test_two_processes_agree_with_one(tmp_path: Path):
    expected = computed(torch.arange(PICTURES))
    parts = two_processes.parts(computed, PICTURES, tmp_path)
    for name, one in expected.items():
        mean = (parts[0][name] + parts[1][name]) / 2  # what the training takes of gradients
        torch.testing.assert_close(mean, one, atol=1e-5, rtol=1e-4, msg=name)
        if " " not in name:
            torch.testing.assert_close(parts[0][name], parts[1][name], msg=name)


def test_one_process_keeps_its_rows():
    rows = torch.randn(3, 2, requires_grad=True)
    assert whole(rows) is rows
