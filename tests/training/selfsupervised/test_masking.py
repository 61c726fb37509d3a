from __future__ import annotations

import pytest
import torch

from manylens.training.selfsupervised import masking


@pytest.mark.parametrize("shape", [(16, 16), (7, 12), (2, 2)])
def test_blocks_cover_about_what_is_asked_and_never_more(shape):
    cells = shape[0] * shape[1]
    shares = torch.linspace(0, 0.6, 200)
    numbers = torch.rand(200, masking.RECTANGLES, 4, generator=torch.Generator().manual_seed(0))
    found = masking.blocks(numbers, shape, shares)
    assert found.shape == (200, cells)
    assert found.dtype == torch.bool
    counts = found.sum(dim=1)
    assert (counts <= (shares * cells).floor()).all()
    assert int(counts[0]) == 0
    if cells > 50:
        wanted = shares[100:] * cells
        assert float((counts[100:] / wanted).mean()) > 0.85


def test_blocks_are_of_one_piece_rather_than_scattered():
    numbers = torch.rand(100, masking.RECTANGLES, 4, generator=torch.Generator().manual_seed(0))
    found = masking.blocks(numbers, (16, 16), torch.full((100,), 0.4)).view(100, 16, 16)
    beside = (found[:, :, 1:] == found[:, :, :-1]).float().mean()
    assert float(beside) > 0.8  # 0.52 if each patch were drawn for itself


def test_blocks_lie_everywhere():
    numbers = torch.rand(400, masking.RECTANGLES, 4, generator=torch.Generator().manual_seed(0))
    found = masking.blocks(numbers, (8, 8), torch.full((400,), 0.4)).float().mean(dim=0).view(8, 8)
    assert float(found.min()) > 0.05


@pytest.mark.parametrize(("cells", "ratio", "stay"), [(16, 0.75, 4), (49, 0.6, 20), (4, 0.99, 1)])
def test_a_share_is_kept_at_random(cells, ratio, stay):
    numbers = torch.rand(300, cells, generator=torch.Generator().manual_seed(0))
    found = masking.kept(numbers, ratio)
    assert found.shape == (300, stay)
    assert (found.diff(dim=1) > 0).all()
    often = torch.bincount(found.flatten(), minlength=cells) / 300
    assert often.numpy() == pytest.approx(stay / cells, abs=0.12)
