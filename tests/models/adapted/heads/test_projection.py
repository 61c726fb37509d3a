"""Heads that make a vector of a picture: of length 1, as wide as is asked, and near what the encoder says at first."""

from __future__ import annotations

import pytest
import torch

from manylens.errors import UserError
from manylens.models.adapted import heads

WIDTHS = {"vector": 12, "mean": 8}


def built(kind: str, **options):
    torch.manual_seed(0)
    return heads.build(kind, WIDTHS, 0, options)


@pytest.mark.parametrize("kind", ["projection", "mlp-projection"])
@pytest.mark.parametrize("features", [("vector",), ("vector", "mean")])
def test_vectors_are_as_wide_as_asked_and_of_length_1(kind, features):
    head = built(kind, width=6, features=features)
    given = {name: torch.randn(5, width) for name, width in WIDTHS.items()}
    found = head(given, (28, 28))["vector"]
    assert found.shape == (5, head.width) == (5, 6)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(5))
    assert head.needs == features


def test_at_first_all_cosines_are_the_encoders():
    head, vectors = built("projection", width=12), torch.randn(5, 12)
    found = head({"vector": vectors}, (28, 28))["vector"]
    unit = torch.nn.functional.normalize(vectors, dim=1)
    torch.testing.assert_close(found @ found.T, unit @ unit.T)


def test_without_a_width_nothing_is_projected():
    head, vectors = built("projection", width=0), torch.randn(40, 12) * 3 + 5
    assert head.width == 12
    assert not list(head.parameters())
    head.norm.measure(vectors)
    expected = (vectors - vectors.mean(dim=0)) / vectors.std(dim=0, unbiased=False)
    found = head({"vector": vectors}, (28, 28))["vector"]
    torch.testing.assert_close(found, torch.nn.functional.normalize(expected, dim=1))


@pytest.mark.parametrize(
    ("kind", "options"),
    [("projection", {"width": -1}), ("mlp-projection", {"width": 0}), ("mlp-projection", {"hidden": 0})],
)
def test_a_width_that_is_none_is_named(kind, options):
    with pytest.raises(UserError, match=r"width"):
        built(kind, **options)
