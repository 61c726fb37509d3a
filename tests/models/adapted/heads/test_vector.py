"""Heads of whole pictures, held to what their papers' formulas say."""

from __future__ import annotations

import pytest
import torch

from manylens.models.adapted import heads

WIDTHS = {"vector": 8, "mean": 8, "dense": 12, "block.1": 12}


def made(kind, **options):
    torch.manual_seed(0)
    return heads.build(kind, WIDTHS, 3, options).eval()


@pytest.fixture
def features():
    torch.manual_seed(1)
    return {
        "vector": 5 + 3 * torch.randn(40, 8),
        "mean": torch.randn(40, 8),
        "dense": torch.randn(40, 4, 5, 12),
        "block.1": torch.randn(40, 4, 5, 12),
    }


def test_a_linear_probe_reads_standardised_vectors(features):
    head = made("linear", features=("vector", "mean"))
    both = torch.cat([features["vector"], features["mean"]], dim=1)
    head.norm.measure(both)
    wanted = (both - both.mean(dim=0)) / both.std(dim=0, unbiased=False)
    torch.testing.assert_close(head.vector(features), wanted, atol=1e-3, rtol=1e-3)
    said = head(features, (4, 5))["logits"]
    torch.testing.assert_close(said, wanted @ head.classes.weight.T + head.classes.bias, atol=1e-3, rtol=1e-3)


def test_cosines_do_not_depend_on_length(features):
    head = made("linear", cosine=True)
    said = head(features, (4, 5))["logits"]
    assert said.abs().max() <= 1 + 1e-6
    with torch.no_grad():
        head.classes.weight.mul_(7)
    torch.testing.assert_close(head(features, (4, 5))["logits"], said)


@pytest.mark.parametrize("names", [("dense",), ("block.1",), ("block.1", "dense")])
def test_an_attentive_probe_is_the_softmax_of_queries_over_patches(features, names):
    head = made("attentive", features=names, queries=2, heads=3)
    assert head.needs == names
    width = 12 * len(names)
    tokens = head.norm(torch.cat([features[name] for name in names], dim=-1).reshape(40, 20, width))
    key, value = (tokens @ head.key_value.weight.T + head.key_value.bias).chunk(2, dim=-1)
    parts = []
    for number in range(3):
        mine = slice(number * width // 3, (number + 1) * width // 3)
        weights = head.query[:, mine] @ key[..., mine].transpose(1, 2) / (width // 3) ** 0.5
        parts.append(weights.softmax(dim=-1) @ value[..., mine])
    wanted = head.after(head.out(torch.cat(parts, dim=-1)) + head.query).flatten(1)
    torch.testing.assert_close(head.vector(features), wanted, atol=1e-5, rtol=1e-5)
    said = head(features, (4, 5))["logits"]
    assert said.shape == (40, 3)
    shuffled = {name: one.flip(1) for name, one in features.items() if one.ndim == 4}
    torch.testing.assert_close(head(shuffled, (4, 5))["logits"], said, atol=1e-5, rtol=1e-5)
