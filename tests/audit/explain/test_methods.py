"""Each method against another implementation, a case worked by hand, or what it must hold by its own definition."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manylens.audit.explain import Options, attention, blackbox, gradients
from manylens.audit.explain.pictures import blended, emptied
from manylens.audit.explain.saliency import Opened
from manylens.errors import PromptError
from manylens.media import Image
from manylens.models.base import Trainable
from tests.audit.explain.fakes import SIDE, brightness, network, picture


def opened(seed=0, label=0):
    trainable = network(seed)
    return Opened(picture(seed), trainable, lambda pixels: trainable.forward(pixels)["logits"][:, label])


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("layer", ["block.0", "block.1", "features"])
def test_grad_cam_is_captums(seed, layer):
    from captum.attr import LayerGradCam

    inside = opened(seed)
    found = gradients.grad_cam(inside, Options(layer=layer))
    oracle = LayerGradCam(inside.score, inside.trainable.taps[layer])
    expected = oracle.attribute(inside.pixels, relu_attributions=True)[0, 0].detach().numpy()
    assert found.map == pytest.approx(expected, abs=1e-7)
    assert found.details["layer"] == layer


def test_grad_cam_takes_the_last_layer_and_refuses_unknown_ones():
    assert gradients.grad_cam(opened(), Options()).details["layer"] == "features"
    with pytest.raises(
        PromptError, match=r"layer 'x': the model has none of that name; name one of block\.0, block\.1"
    ):
        gradients.grad_cam(opened(), Options(layer="x"))


class Linear(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(3)))

    def forward(self, pixels):
        return (pixels * self.weight).sum(dim=(1, 2, 3))


def linear():
    net = Linear()
    trainable = Trainable(net, {}, [], (), network(0).preprocess, lambda pixels: {"logits": net(pixels)[:, None]})
    return Opened(picture(), trainable, net), net.weight.detach()


def test_integrated_gradients_of_a_linear_score_are_weight_times_distance():
    inside, weight = linear()
    found = gradients.integrated_gradients(inside, Options(steps=5))
    assert found.map == pytest.approx((weight * inside.pixels[0]).sum(0).numpy(), abs=1e-4)
    assert found.details["gap"] == pytest.approx(0, abs=1e-2)
    assert "notes" not in found.details


def test_integrated_gradients_sum_to_the_difference_of_scores():
    found = gradients.integrated_gradients(opened(), Options(steps=128))
    assert found.signed
    assert found.map.sum() == pytest.approx(found.details["sum"], rel=1e-4)
    difference = found.details["score"] - found.details["baseline_score"]
    assert found.details["sum"] == pytest.approx(difference, rel=0.02)


def test_occlusion_of_a_linear_score_is_what_the_square_held():
    inside, weight = linear()
    found = gradients.occlusion(inside, Options(window=0.25, stride=1, baseline="black"))
    held = (weight * inside.pixels[0]).sum(0).reshape(4, 8, 4, 8).sum(dim=(1, 3)).numpy()
    assert found.map[::8, ::8] == pytest.approx(held, abs=1e-3)


def test_black_box_occlusion_is_the_drop_of_the_score():
    rgb = np.full((40, 40, 3), 100, np.uint8)
    rgb[:20, :20] = 200
    image = Image.of(rgb)
    found = blackbox.occlusion(image, scored, Options(window=0.5, stride=1, baseline="black"))
    expected = np.zeros((40, 40))
    expected[:20, :20] = 200 / 255
    assert found.map == pytest.approx(expected, abs=1e-3)


def scored(images):
    return np.array([brightness(image) for image in images])


@settings(max_examples=30, deadline=None)
@given(st.tuples(st.integers(3, 60), st.integers(3, 60)), st.integers(1, 9), st.integers(0, 5))
def test_masks_fit_the_picture_and_repeat(shape, grid, seed):
    first, again = (list(blackbox.random_masks(4, shape, grid, 0.5, seed)) for _ in range(2))
    for mask, same in zip(first, again, strict=True):
        assert mask.shape == shape
        assert mask.min() >= 0
        assert mask.max() <= 1
        assert (mask == same).all()


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.8])
def test_masks_keep_the_share_that_was_asked(keep):
    masks = np.stack(list(blackbox.random_masks(600, (28, 28), 7, keep, 0)))
    assert masks.mean(axis=0) == pytest.approx(np.full((28, 28), keep), abs=0.1)
    assert masks.mean() == pytest.approx(keep, abs=0.02)


@pytest.mark.parametrize("kind", ["mean", "black", "blur"])
def test_blending_goes_from_the_picture_to_nothing(kind):
    image = picture()
    empty = emptied(image, kind)
    assert empty.shape == image.array.shape
    assert (blended(image, empty, np.ones((5, 5), np.float32)).array == image.array).all()
    assert (blended(image, empty, np.zeros((48, 64), np.float32)).array == empty).all()
    half = np.zeros((48, 64), bool)
    half[:, :10] = True
    mixed = blended(image, empty, half).array
    assert (mixed[:, :10] == image.array[:, :10]).all()
    assert (mixed[:, 10:] == empty[:, 10:]).all()


def test_one_step_of_the_rollout_by_hand():
    probabilities = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3], [0.2, 0.2, 0.6]])
    expected = [[0.75, 0.15, 0.1], [0.05, 0.8, 0.15], [0.1, 0.1, 0.8]]
    assert attention.rolled(probabilities).numpy() == pytest.approx(np.array(expected))
    dropped = attention.rolled(probabilities, discard=0.34).numpy()  # the weakest of each row but the class's column
    expected = [[0.5 / 0.9, 0.15 / 0.9, 0], [0.05 / 0.85, 0.8 / 0.85, 0], [0.1 / 0.9, 0, 0.8 / 0.9]]
    assert dropped == pytest.approx(np.array([[0.8333333, 0.1666667, 0], *expected[1:]]), abs=1e-6)


@given(st.lists(st.floats(0.01, 1), min_size=4, max_size=40), st.floats(0.05, 1))
def test_a_mass_region_is_the_smallest_that_holds_the_mass(values, mass):
    held = np.array(values)
    region = attention.mass_region(held, mass)
    share = held[region].sum() / held.sum()
    assert share >= mass - 1e-5
    assert held[region].min() >= held[~region].max(initial=0)
    assert (held[region].sum() - held[region].min()) / held.sum() < mass + 1e-5


@pytest.fixture(scope="module")
def transformer(tmp_path_factory):
    """A small DINOv2 with random weights, opened."""
    from transformers import Dinov2Config, Dinov2Model

    from manylens.catalog import Catalog
    from manylens.models.dino.model import Dino
    from manylens.runtime.engines import EngineSettings

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("dinov2")
    config = Dinov2Config(hidden_size=24, num_attention_heads=3, num_hidden_layers=3, image_size=224, patch_size=14)
    Dinov2Model(config).save_pretrained(path)
    row = Catalog.load().resolve(str(path))
    model = Dino(row, {file.name: file for file in path.iterdir()}, EngineSettings(engine="torch"))
    trainable = model.trainable()
    return Opened(picture(), trainable, lambda pixels: trainable.forward(pixels)["vector"].sum(dim=1))


def test_attention_of_the_class_token(transformer):
    blocks = transformer.trainable.attention(transformer.pixels)
    found = attention.attention(transformer, Options())
    expected = blocks[-1][0, :, 0, 1:].detach().numpy().reshape(3, 16, 16)
    assert found.heads == pytest.approx(expected)
    assert found.map == pytest.approx(expected.mean(axis=0))
    heads = attention.heads(transformer, Options(mass=0.6))
    shares = (heads.heads * heads.regions).sum(axis=(1, 2)) / heads.heads.sum(axis=(1, 2))
    assert ((shares >= 0.599) & (shares < 0.65)).all()


def test_rollout_multiplies_the_blocks_up(transformer):
    flow = np.eye(257)
    for block in transformer.trainable.attention(transformer.pixels):
        mean = block[0].mean(dim=0).detach().numpy()
        flow = (0.5 * mean + 0.5 * np.eye(257)) @ flow
    assert attention.rollout(transformer, Options()).map == pytest.approx(flow[0, 1:].reshape(16, 16), abs=1e-6)


def test_grad_cam_of_tokens_stands_on_their_grid(transformer):
    found = gradients.grad_cam(transformer, Options())
    assert found.details["layer"] == "block.1"  # behind the last block only the class token is read
    state = {}
    hook = transformer.trainable.blocks[1].register_forward_hook(lambda block, given, made: state.update(made=made))
    score = transformer.score(transformer.pixels)[0]
    hook.remove()
    (slope,) = torch.autograd.grad(score, state["made"])
    weights = slope[0, 1:].mean(dim=0)
    expected = (state["made"][0, 1:] @ weights).clamp(min=0).reshape(16, 16)
    assert found.map == pytest.approx(expected.detach().numpy(), abs=1e-6)
