from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from manylens.training.selfsupervised import mae
from manylens.training.selfsupervised.mae import Mae, MaeOptions
from tests.training.selfsupervised.made_up import KINDS, MEAN, STD, textures, tower

SMALL = MaeOptions(width=32, depth=1, heads=2)


@pytest.fixture(scope="module")
def published():
    """The network of transformers, whose patches, places and loss are those of the paper's code."""
    import transformers

    torch.manual_seed(0)
    config = transformers.ViTMAEConfig(
        hidden_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=8,
        decoder_hidden_size=32,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=64,
        norm_pix_loss=True,
    )
    return transformers.ViTMAEForPreTraining(config).eval()


def test_patches_and_places_are_those_of_transformers(published):
    pixels = torch.randn(2, 3, 32, 32)
    assert torch.equal(mae.patches_of(pixels, 8), published.patchify(pixels))
    from transformers.models.vit_mae.modeling_vit_mae import build_2d_sinusoidal_position_embedding

    expected = build_2d_sinusoidal_position_embedding(4, 5, 32)
    assert torch.allclose(mae.places((4, 5), 32, pixels.device), expected, atol=1e-5)


@pytest.mark.parametrize("normalise", [True, False])
def test_the_loss_is_that_of_transformers_for_the_same_drawing(published, normalise, monkeypatch):
    net = Mae(tower(), MEAN, STD, SMALL.model_copy(update={"normalise": normalise}))
    drawing = torch.randn(2, 16, 192)
    monkeypatch.setattr(net, "drawn", lambda seen, keep: drawing)
    pixels, numbers = torch.rand(2, 3, 32, 32), torch.rand(2, 16)
    published.config.norm_pix_loss = normalise
    # The same noise hides the same patches.
    with monkeypatch.context() as patched:
        patched.setattr(published.decoder, "forward", lambda *given, **options: SimpleNamespace(logits=drawing))
        expected = published((pixels - 0.5) / 0.25, noise=numbers).loss
    assert float(net(pixels, numbers)["loss"]) == pytest.approx(float(expected), rel=1e-5)


def test_what_is_hidden_does_not_reach_the_drawing():
    net = Mae(tower(), MEAN, STD, SMALL).eval()
    pixels, keep = torch.randn(2, 3, 32, 32), torch.tensor([[0, 3, 7], [1, 2, 15]])
    kept = torch.zeros(2, 16, dtype=torch.bool).scatter_(1, keep, True)
    cells = kept.view(2, 1, 4, 4).repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
    other = torch.where(cells, pixels, torch.randn_like(pixels))
    assert torch.allclose(
        net.drawn(net.tower(pixels, keep=keep), keep), net.drawn(net.tower(other, keep=keep), keep), atol=1e-5
    )
    third = torch.where(cells, torch.randn_like(pixels), pixels)
    assert not torch.allclose(
        net.drawn(net.tower(pixels, keep=keep), keep), net.drawn(net.tower(third, keep=keep), keep), atol=1e-2
    )


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_to_draw(kind):
    torch.manual_seed(0)
    net = Mae(tower(kind), MEAN, STD, SMALL)
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3)
    pictures, _ = textures(32)
    losses = []
    for step in range(40):
        numbers = torch.rand(32, 16, generator=torch.Generator().manual_seed(step))
        loss = net(pictures, numbers)["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) / 5 < losses[0] - 0.15
    assert net.hidden.grad.abs().max() > 0
    idle = {name for name, one in net.named_parameters() if one.grad is None}
    assert {name for name in idle if "mask_token" not in name and "pooler" not in name} == set()
