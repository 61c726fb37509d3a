from __future__ import annotations

import copy

import pytest
import torch

from manylens.errors import UnsupportedError
from manylens.training.selfsupervised import opening
from manylens.training.selfsupervised.towers import Opaque, Vit
from tests.training.selfsupervised.made_up import KINDS, convolutions, network, opened, tower

PIXELS = torch.randn(3, 3, 32, 48, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", KINDS)
def test_a_tower_gives_what_transformers_gives(kind):
    model = network(kind)
    found = Vit(model)(PIXELS)
    options = {"interpolate_pos_encoding": True} if kind == "vit" else {}
    state = model(PIXELS, **options).last_hidden_state
    assert torch.allclose(found.vector, state[:, 0], atol=1e-5)
    assert torch.allclose(found.patches, state[:, -24:], atol=1e-5)
    assert found.grid == (4, 6)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "vit"])
def test_masked_patches_are_those_of_transformers(kind):
    """And they are not seen: what is in them changes nothing."""
    model = network(kind)
    masked = torch.rand(3, 24, generator=torch.Generator().manual_seed(1)) < 0.4
    found = Vit(model)(PIXELS, masked=masked)
    expected = model(PIXELS, bool_masked_pos=masked).last_hidden_state
    assert torch.allclose(found.vector, expected[:, 0], atol=1e-5)
    assert not torch.allclose(found.vector, Vit(model)(PIXELS).vector, atol=1e-2)
    cells = masked.view(3, 1, 4, 6).repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
    other = torch.where(cells, torch.randn_like(PIXELS), PIXELS)
    assert torch.allclose(Vit(model)(other, masked=masked).vector, found.vector, atol=1e-5)


@pytest.mark.parametrize("kind", ["vit", "dinov2"])
def test_a_network_without_a_mask_token_gets_one(kind):
    model = network(kind, **({"use_mask_token": False} if kind == "dinov2" else {}))
    assert model.embeddings.mask_token is None
    made = Vit(model)
    made.needs_mask_token()
    masked = torch.ones(3, 24, dtype=torch.bool)
    one, other = (made(pixels, masked=masked).vector for pixels in (PIXELS, torch.randn_like(PIXELS)))
    assert torch.allclose(one, other, atol=1e-5)
    assert model.embeddings.mask_token in set(made.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_dropped_patches_are_as_if_nobody_could_look_at_them(kind):
    """Held to the whole network whose attention is kept from the dropped ones."""
    model = network(kind)
    prefix = 1 + getattr(model.config, "num_register_tokens", 0)
    keep = torch.rand(3, 24, generator=torch.Generator().manual_seed(1)).argsort(dim=1)[:, :9].sort(dim=1).values
    found = Vit(model)(PIXELS, keep=keep)
    assert found.patches.shape == (3, 9, 48)
    assert found.grid == (4, 6)
    seen = torch.zeros(3, prefix + 24, dtype=torch.bool)
    seen[:, :prefix] = True
    seen.scatter_(1, keep + prefix, True)
    mask = seen[:, None, None].expand(-1, 1, prefix + 24, -1)
    options = {"interpolate_pos_encoding": True} if kind == "vit" else {}
    state = model.embeddings(PIXELS, **options)
    turns = {"position_embeddings": model.rope_embeddings(PIXELS)} if kind == "dinov3_vit" else {}
    for block in Vit(model).blocks:
        state = block(state, attention_mask=mask, **turns)
    state = (model.norm if kind == "dinov3_vit" else model.layernorm)(state)
    assert torch.allclose(found.vector, state[:, 0], atol=1e-4)
    expected = state[:, prefix:].gather(1, keep[..., None].expand(-1, -1, 48))
    assert torch.allclose(found.patches, expected, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_each_parameter_has_its_block(kind):
    made = tower(kind)
    found = {name: made.block_of(name) for name, _ in made.named_parameters()}
    own = {id(one): number for number, block in enumerate(made.blocks) for one in block.parameters()}
    for name, parameter in made.named_parameters():
        assert found[name] == own.get(id(parameter), -1 if "embeddings" in name else 1), name
    assert set(found.values()) == {-1, 0, 1}


def test_the_plain_network_is_the_module_itself_or_its_base():
    import transformers

    model = network("dinov2")
    given = opened(model, lambda pixels: {"vector": Vit(model)(pixels).vector})
    assert opening.plain(given) is model
    classifier = transformers.Dinov2ForImageClassification(model.config).eval()
    given = opened(classifier, lambda pixels: {"vector": Vit(classifier.dinov2)(pixels).vector})
    assert opening.plain(given) is classifier.dinov2
    assert isinstance(opening.tower(given), Vit)


def test_a_network_that_is_read_early_ends_there():
    """As the embedded one is: the class token of a block that is not the last, less a centre, without the norm."""
    model = network("dinov2", num_hidden_layers=4)
    centre = torch.randn(48, generator=torch.Generator().manual_seed(3))

    def forward(pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        state = model.embeddings(pixels)
        for block in model.encoder.layer[:3]:
            state = block(state)
        return {"vector": state[:, 0] - centre}

    made = opening.plain(opened(model, forward))
    assert made.config.num_hidden_layers == len(made.encoder.layer) == 3
    assert made.encoder.layer[2] is model.encoder.layer[2]
    assert made.embeddings is model.embeddings
    assert model.config.num_hidden_layers == 4
    found, read = Vit(made)(PIXELS).vector, forward(PIXELS)["vector"]
    norm = torch.nn.functional.layer_norm
    assert torch.allclose(found, norm(read + centre, (48,)) - norm(centre, (48,)), atol=1e-3)


def test_a_vector_of_another_make_is_refused():
    model = network("dinov2")
    given = opened(model, lambda pixels: {"vector": Vit(model)(pixels).patches.mean(dim=1)})
    with pytest.raises(UnsupportedError, match="mine: its vector is not the class token"):
        opening.tower(given, "mine")
    nothing = opened(torch.nn.Linear(1, 1), lambda pixels: {"depth": pixels})
    with pytest.raises(UnsupportedError, match="mine: gives no vector"):
        opening.tower(nothing, "mine")


def test_any_other_encoder_is_a_tower_that_hides_nothing():
    given = convolutions()
    made = opening.tower(given)
    assert isinstance(made, Opaque)
    assert (made.width, made.depth, made.dense) == (12, 2, True)
    given.module.eval()
    found = made(PIXELS)
    assert torch.equal(found.vector, given.forward(PIXELS)["vector"])
    assert found.grid == (4, 6)
    assert [made.block_of(name) for name, _ in made.named_parameters()] == [0, 0, 1, 1, 1, 1]
    with pytest.raises(UnsupportedError, match="patches can be hidden"):
        made(PIXELS, masked=torch.zeros(3, 24, dtype=torch.bool))
    with pytest.raises(UnsupportedError, match="mine: is no vision transformer"):
        opening.vit(given, "mine")


def test_a_copy_of_another_encoder_has_weights_and_modes_of_its_own():
    given = convolutions()
    made = opening.tower(given)
    twin = copy.deepcopy(made)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(0.5)
    given.module.train()
    given.module[3].eval()  # parts may have modes of their own
    twin.eval()
    half = convolutions()
    with torch.no_grad():
        for parameter in half.module.parameters():
            parameter.mul_(0.5)
    half.module.eval()
    statistics = given.module[1].running_mean.clone()
    assert torch.allclose(twin(PIXELS).vector, half.forward(PIXELS)["vector"], atol=1e-6)
    assert torch.equal(given.module[1].running_mean, statistics)
    assert [one.training for one in given.module] == [True, True, True, False]
    given.module.eval()
    assert torch.equal(made(PIXELS).vector, convolutions().module.eval() and given.forward(PIXELS)["vector"])
    twin(PIXELS).vector.sum().backward()
    assert all(parameter.grad is None for parameter in given.module.parameters())
    assert all(parameter.grad is not None for parameter in twin.parameters())
