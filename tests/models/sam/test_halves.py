"""The decoder in two halves against the whole one, as a torch module."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
import torch
from tests.models.hub import kit
from transformers import SamConfig, SamModel

from manylens.models import network
from manylens.models.sam import halves, picture_graphs
from manylens.models.sam.module import Decoder, token_weights
from manylens.runtime import flops
from manylens.runtime.engines import EngineSettings, Precision

WIDTH = 32
COUNT = itertools.count()
# Of rows that fall into parts of one size, and of rows that do not.
GRIDS = {"four parts": 8, "one part": 6}


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    """Networks that another run kept are not these."""
    monkeypatch.setenv("MANYLENS_HOME", str(tmp_path))


@functools.cache
def sam(grid: int, layers: int) -> SamModel:
    shared = {"hidden_size": WIDTH, "image_size": 4 * grid, "patch_size": 4}
    vision = {**shared, "num_hidden_layers": 1, "num_attention_heads": 2, "output_channels": WIDTH, "num_pos_feats": 16}
    decoder = {"hidden_size": WIDTH, "mlp_dim": 48, "num_attention_heads": 4, "num_hidden_layers": layers}
    config = SamConfig(
        vision_config=vision,
        prompt_encoder_config={**shared, "mask_input_channels": 8},
        mask_decoder_config={**decoder, "iou_head_hidden_dim": 24},
    )
    return kit.noisy(SamModel(config)).eval().requires_grad_(False)


def answers(model: SamModel, grid: int, precision: Precision = "f32") -> halves.Halves:
    settings = EngineSettings("openvino", precision, threads=1)

    @functools.cache
    def built(name: str) -> network.Network:
        made = halves.blueprint(name, 4 * grid, precision, lambda: model)
        return network.build(made, settings, f"{grid} {next(COUNT)}")

    return halves.Halves(token_weights(model), built, precision)


def asked(grid: int, prompts: int, tokens: int = 7, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = (1, grid, grid, WIDTH), (prompts, tokens, WIDTH), (prompts, 1, 4 * grid, 4 * grid)
    embedding, given, masks = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    return embedding, given, masks


def whole(model: SamModel, embedding: np.ndarray, tokens: np.ndarray, masks: np.ndarray | None) -> list[np.ndarray]:
    given = [embedding, tokens] if masks is None else [embedding, tokens, masks]
    with torch.no_grad():
        return [one.numpy() for one in Decoder(model, masks is not None)(*map(torch.from_numpy, given))]


@pytest.mark.parametrize("masked", [False, True], ids=["bare", "masked"])
@pytest.mark.parametrize("prompts", [1, 3])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_both_halves_are_the_whole(grid, layers, prompts, masked):
    model = sam(grid, layers)
    embedding, tokens, masks = asked(grid, prompts)
    given = masks if masked else None
    found, right = answers(model, grid)(embedding, tokens, given), whole(model, embedding, tokens, given)
    for one, other in zip(found, right, strict=True):
        assert other.std() > 0.01
        assert one == pytest.approx(other, abs=1e-4 * float(np.abs(other).max()))


def test_every_group_of_parameters_is_noticed():
    model, (embedding, tokens, masks) = sam(8, 2), asked(8, 1)

    def outputs():
        found = answers(model, 8)
        yield "plain", np.concatenate([one.ravel() for one in found(embedding, tokens)])
        yield "masked", found(embedding, tokens, masks)[0]

    # What prompts and the picture are made into is not of these; the keys' bias adds the same to all scores of a query.
    skip = r"vision_encoder|point_embed|(iou|mask)_token|k_proj\.bias"
    assert kit.overlooked(model, outputs, 1e-3, skip) == []


def test_operations_are_counted_as_of_any_network():
    embedding, tokens, _ = asked(8, 1)
    found = answers(sam(8, 2), 8)
    with flops.counting():  # None or a number: what a graph of free sides needs is not known
        assert len(found(embedding, tokens)) == 2


def test_half_precision_is_close():
    model, (embedding, tokens, _) = sam(8, 2), asked(8, 2)
    low_res, quality = answers(model, 8, "bf16")(embedding, tokens)
    right = whole(model, embedding, tokens, None)
    assert np.abs(low_res - right[0]).mean() < 0.03 * right[0].std()
    assert quality == pytest.approx(right[1], abs=0.03)


def test_prompts_one_after_the_other_and_other_pictures_between_them_are_as_alone():
    model = sam(8, 2)
    several = answers(model, 8)
    for seed, prompts, tokens, masked in ((0, 1, 7, False), (1, 2, 9, False), (0, 1, 7, True), (0, 1, 8, False)):
        embedding, given, masks = asked(8, prompts, tokens, seed)
        told = masks if masked else None
        for one, other in zip(several(embedding, given, told), answers(model, 8)(embedding, given, told), strict=True):
            assert (one == other).all()


@pytest.mark.parametrize(("grid", "rows"), [(64, 16), (16, 4), (6, 6), (4, 1), (1, 1)])
def test_rows_of_a_part(grid, rows):
    assert picture_graphs.rows_of_part(grid) == rows
