"""What learns of an opened model, stochastic depth, and LoRA's matrices put into the weights."""

from __future__ import annotations

import pytest
import torch

from manylens.training.config import TransferSection
from manylens.training.transfer.freezing import FrozenNorms, Places, drop_path, freeze, merged


@pytest.fixture
def opened(tiny_vit, session):
    with session.module(str(tiny_vit)) as trainable:
        yield trainable


def test_places_are_before_in_and_after_the_blocks(opened):
    places = Places(opened)
    found = {name: places.of(name) for name, _ in opened.module.named_parameters()}
    assert found["embeddings.cls_token"] == -1
    assert {found[name] for name in found if ".layer.2." in name} == {2}
    assert found["layernorm.weight"] == 3
    assert places.of("encoder.layer.1.attention.q_proj.base_layer.weight") == 1
    assert places.of("encoder.layer.1.attention.q_proj.lora_A.default.weight") == 1


def test_gradual_unfreezing_goes_from_the_last_block_to_the_first(opened):
    waits = freeze(opened, TransferSection(mode="gradual", unfreeze_from=2, unfreeze_every=3))
    epochs = {name: waits[name] for name in waits}
    assert {epochs[name] for name in epochs if ".layer.3." in name} == {2}
    assert {epochs[name] for name in epochs if ".layer.0." in name} == {11}
    assert epochs["embeddings.cls_token"] == 14
    assert epochs["layernorm.weight"] == 2


def test_merged_weights_answer_as_lora_does(opened):
    torch.manual_seed(0)
    pixels = torch.randn(2, 3, 28, 28)
    before = {name: one.clone() for name, one in opened.module.state_dict().items()}
    plain = opened.forward(pixels)["vector"]
    freeze(opened, TransferSection(mode="lora"))
    learning = [name for name, one in opened.module.named_parameters() if one.requires_grad]
    assert learning
    assert all("lora_" in name for name in learning)
    for name, one in opened.module.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(one, std=0.1)
    opened.module.eval()
    adapted = opened.forward(pixels)["vector"]
    assert not torch.allclose(plain, adapted, atol=1e-3)
    state = merged(opened.module)
    assert state.keys() == before.keys()
    import transformers

    fresh = transformers.Dinov2Model(opened.module.config).eval()
    fresh.load_state_dict(state, strict=True)
    found = fresh(pixels).last_hidden_state
    torch.testing.assert_close(found, opened.module(pixels).last_hidden_state, atol=1e-5, rtol=1e-5)


def test_batch_norms_of_what_is_frozen_keep_their_statistics():
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.Conv2d(3, 3, 1), torch.nn.BatchNorm2d(3))
    network[0].requires_grad_(False)
    for policy, kept in (("frozen", True), ("train", False)):
        network.train()
        before = network[0].running_mean.clone()
        learning = network[2].running_mean.clone()
        FrozenNorms(network, policy).hold()
        network(torch.randn(4, 3, 5, 5) + 3)
        assert torch.equal(network[0].running_mean, before) == kept
        assert not torch.equal(network[2].running_mean, learning)


def test_a_block_that_is_passed_over_gives_what_came_in_and_the_mean_is_kept():
    class Adds(torch.nn.Module):
        def forward(self, state: torch.Tensor) -> torch.Tensor:
            return state + 1

    blocks = torch.nn.Sequential(*[Adds() for _ in range(4)])
    drop_path(blocks, 0.5)
    state = torch.zeros(20000, 1, 1)
    blocks.eval()
    assert torch.equal(blocks(state), state + 4)
    blocks.train()
    torch.manual_seed(0)
    shares = [0.125, 0.25, 0.375, 0.5]
    for block, share in zip(blocks, shares, strict=True):
        made = block(state)
        assert float((made == 0).float().mean()) == pytest.approx(share, abs=0.02)
        assert float(made.mean()) == pytest.approx(1.0, abs=0.03)
