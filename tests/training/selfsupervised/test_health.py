from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from manylens.training.selfsupervised.health import Health, effective_rank, health


def rows(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_the_rank_is_that_of_its_definition():
    table = rows(40, 6) * torch.tensor([5.0, 3.0, 1.0, 1.0, 0.1, 0.0])
    values = np.linalg.svd(table.numpy(), compute_uv=False)
    shares = values / values.sum()
    expected = np.exp(-sum(one * np.log(one) for one in shares if one > 0))
    assert effective_rank(table) == pytest.approx(expected, rel=1e-4)


def test_the_rank_counts_directions():
    basis = torch.eye(10)[:4]
    table = torch.cat([basis, -basis])
    assert effective_rank(table) == pytest.approx(4, rel=1e-6)
    assert effective_rank(torch.zeros(8, 5)) == 0


def test_vectors_in_all_directions_are_well():
    found = health(rows(500, 16), mean_entropy=0.9, entropy=0.4)
    assert found.spread == pytest.approx(1, abs=0.05)
    assert found.rank > 15
    assert found.sentence() == ""
    assert found.figures() == {"spread": found.spread, "rank": found.rank, "mean_entropy": 0.9, "entropy": 0.4}


@pytest.mark.parametrize(
    ("vectors", "answers", "says"),
    [
        (rows(1, 16).expand(50, -1) + 0.01 * rows(50, 16), {}, "vectors of different pictures are nearly the same"),
        (rows(50, 1) * rows(1, 16), {}, "vectors of different pictures are nearly the same"),
        (rows(50, 16), {"mean_entropy": 0.01, "entropy": 0.005}, "same few prototypes"),
        (rows(50, 16), {"mean_entropy": 1.0, "entropy": 0.999}, "a bit of all prototypes"),
        (rows(50, 16) * math.nan, {}, "no numbers any more"),
    ],
)
def test_each_collapse_has_its_sentence(vectors, answers, says):
    sentence = health(vectors, **answers).sentence()
    assert says in sentence
    assert "; " in sentence
    assert "\n" not in sentence


def test_what_all_vectors_share_does_not_count():
    found = health(10 * rows(1, 16) + rows(200, 16))
    assert found.spread < 0.15
    assert found.rank > 12


def test_few_pictures_tell_nothing():
    assert health(torch.ones(4, 8)).sentence() == ""
    assert health(torch.ones(1, 8)) == Health(1, 1.0, 1.0)
