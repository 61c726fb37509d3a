"""Depth Anything and DPT against plain transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from tests.models.hub import kit
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config, DPTConfig
from transformers import DPTForDepthEstimation as Dpt

from manylens.errors import UnsupportedError, WeightsError
from manylens.media import Image
from manylens.session import Session
from manylens.tasks import DepthRequest, to_json

EXAMPLES = Path(__file__).parents[3] / "examples"
_PROCESSORS = {
    "anything": {
        "size": {"height": 70, "width": 70},
        "keep_aspect_ratio": True,
        "ensure_multiple_of": 14,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    },
    "metric": {"size": {"height": 70, "width": 70}, "keep_aspect_ratio": True, "ensure_multiple_of": 14},
    "dpt": {"size": {"height": 64, "width": 64}},
}
_CLASSES = {"anything": DepthAnythingForDepthEstimation, "metric": DepthAnythingForDepthEstimation, "dpt": Dpt}


def picture(seed: int, width: int = 90, height: int = 60) -> Image:
    return Image.of(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def made(kind: str, folder: Path) -> Path:
    torch.manual_seed(0)
    small = {"hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 3}
    if kind == "dpt":
        config = DPTConfig(
            **small,
            intermediate_size=40,
            image_size=64,
            patch_size=16,
            backbone_out_indices=[0, 1, 2, 3],
            neck_hidden_sizes=[8, 12, 16, 20],
            fusion_hidden_size=8,
        )
        model = Dpt(config)
    else:
        backbone = Dinov2Config(
            **small, image_size=70, patch_size=14, out_indices=[1, 2, 3, 4], reshape_hidden_states=False
        )
        config = DepthAnythingConfig(
            backbone_config=backbone,
            reassemble_hidden_size=24,
            neck_hidden_sizes=[8, 12, 16, 20],
            fusion_hidden_size=8,
            head_hidden_size=6,
            depth_estimation_type="metric" if kind == "metric" else "relative",
            max_depth=20 if kind == "metric" else 1,
        )
        model = DepthAnythingForDepthEstimation(config)
    kit.noisy(model)
    with torch.no_grad():  # the last unit is rectified: noise alone may leave nothing
        last = [
            tensor for name, tensor in model.named_parameters() if name.startswith("head.") and name.endswith("bias")
        ]
        last[-1].fill_(0.5)
    return kit.save(model, folder, preprocessor_config=_PROCESSORS[kind])


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("depth")
    return {kind: made(kind, root / kind) for kind in _PROCESSORS}


def raw(folder: Path, **settings) -> dict[str, np.ndarray]:
    return {"map": kit.opened(folder, **settings).raw(picture(1))}


@pytest.mark.parametrize("kind", sorted(_PROCESSORS))
@pytest.mark.parametrize(
    ("settings", "tolerance"),
    [({}, 1e-5), ({"engine": "openvino"}, 1e-4), ({"engine": "openvino", "precision": "bf16"}, 0.1)],
    ids=["torch", "openvino", "bf16"],
)
def test_maps_equal_those_of_transformers(kind, settings, tolerance, folders):
    processor = transformers.DPTImageProcessorPil(**_PROCESSORS[kind])
    pixels = processor([picture(1).array], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        right = _CLASSES[kind].from_pretrained(folders[kind]).eval()(pixel_values=pixels).predicted_depth[0].numpy()
    assert np.ptp(right) > 0.01 * np.abs(right).max() > 0
    found = raw(folders[kind], **settings)["map"]
    assert np.allclose(found, right, atol=tolerance * float(np.abs(right).max()))


@pytest.mark.parametrize("kind", sorted(_PROCESSORS))
def test_no_parameter_can_change_unnoticed(kind, folders, tmp_path):
    # A bias of the keys adds the same to all of a query's scores, which the softmax takes out again. DPT's own class
    # pooler and last norm are not read, nor is the first fusion layer's branch for a second map that it never gets.
    skip = r"(key|k_proj)\.bias|dpt\.layernorm|pooler|fusion_stage\.layers\.#\.residual_layer1|mask_token|auxiliary"
    assert kit.unnoticed(folders[kind], tmp_path, raw, 1e-6, skip) == []


@pytest.mark.parametrize("kind", sorted(_PROCESSORS))
@pytest.mark.parametrize("size", [(90, 60), (60, 90), (300, 40), (70, 70), (33, 200)])
def test_pictures_are_prepared_as_transformers_does(kind, size, folders):
    image = picture(2, *size)
    processor = transformers.DPTImageProcessorPil(**_PROCESSORS[kind])
    right = processor([image.array], return_tensors="np")["pixel_values"][0]
    found = kit.opened(folders[kind]).planes(image)
    assert found.shape == right.shape
    assert np.allclose(found, right, atol=1e-5)


def test_the_map_is_brought_to_the_pictures_size_as_transformers_does(folders):
    model = kit.opened(folders["anything"])
    processor = transformers.DPTImageProcessorPil(**_PROCESSORS["anything"])
    said = transformers.modeling_outputs.DepthEstimatorOutput(
        predicted_depth=torch.from_numpy(model.raw(picture(1)))[None]
    )
    right = processor.post_process_depth_estimation(said, target_sizes=[(60, 90)])[0]["predicted_depth"].numpy()
    found = kit.run(model, DepthRequest.of(image=picture(1)))
    assert found.map.dtype == np.float32
    assert np.allclose(found.map, right, atol=1e-4 * np.abs(right).max())


@pytest.mark.parametrize(
    ("kind", "scale", "inverse"),
    [("anything", "relative", True), ("metric", "metric", False), ("dpt", "relative", True)],
)
def test_the_result_says_what_its_numbers_mean(kind, scale, inverse, folders, tmp_path):
    with Session(home=tmp_path) as session:
        first, second = (
            session.run(DepthRequest.of(image=EXAMPLES / "cat.jpg"), model=str(folders[kind])) for _ in range(2)
        )
    assert (first.scale, first.inverse) == (scale, inverse)
    assert to_json(first)["inverse"] is inverse
    assert first.map.shape == (300, 451)
    assert (first.provenance.cache, second.provenance.cache) == ("miss", "memory")
    assert (first.map == second.map).all()


def test_training_sees_the_same_map(folders):
    opened = kit.opened(folders["dpt"]).trainable()
    pixels = opened.preprocess([picture(1)]).requires_grad_(True)
    found = opened.forward(pixels)["depth"]
    assert np.allclose(found.detach().numpy()[0], raw(folders["dpt"])["map"], atol=1e-5)
    found.sum().backward()
    assert pixels.grad.abs().sum() > 0
    assert len(opened.blocks) == 4


@pytest.mark.parametrize(
    ("values", "error", "said"),
    [
        ({"size": "large"}, WeightsError, "has a size of 'large'"),
        ({"size": {"height": 0, "width": 70}}, WeightsError, "has a size of"),
        ({"ensure_multiple_of": -3}, UnsupportedError, "multiples of -3"),
        ({"do_pad": True}, UnsupportedError, "pads pictures"),
    ],
)
def test_a_processor_that_makes_no_sense_is_refused(values, error, said, folders, tmp_path):
    copy = shutil.copytree(folders["dpt"], tmp_path / "odd")
    (copy / "preprocessor_config.json").write_text(json.dumps({**_PROCESSORS["dpt"], **values}))
    with pytest.raises(error, match=said):
        kit.opened(copy)
