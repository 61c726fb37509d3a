"""SAM against Meta's segment-anything and plain transformers, on a small checkpoint of the true architecture."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks._baselines.meta_sam import meta_sam
from tests.models.hub import kit
from transformers import SamConfig, SamModel
from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

from manylens.catalog import Catalog
from manylens.errors import PromptError, UnsupportedError, WeightsError
from manylens.media import Image
from manylens.models import checkpoint
from manylens.models.sam import grid_decoder, picture_graphs, spec
from manylens.runtime.context import Context
from manylens.runtime.store import EmbeddingStore
from manylens.session import Session
from manylens.tasks import SegmentRequest

SIDE, PATCH, LOW = 64, 4, 64
EXAMPLES = Path(__file__).parents[3] / "examples"
CONFIGS = Path(__file__).parent / "configs"
PROCESSOR = {
    "size": {"longest_edge": SIDE},
    "pad_size": {"height": SIDE, "width": SIDE},
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "rescale_factor": 1 / 255,
}
CONFIG = SamConfig(
    vision_config={
        "hidden_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": PATCH,
        # 16 patches in windows of 5: the last ones hold padding.
        "window_size": 5,
        "global_attn_indexes": [1],
        "output_channels": 32,
        "num_pos_feats": 16,
        "mlp_ratio": 2.0,
    },
    prompt_encoder_config={"hidden_size": 32, "image_size": SIDE, "patch_size": PATCH, "mask_input_channels": 8},
    mask_decoder_config={"hidden_size": 32, "mlp_dim": 48, "num_attention_heads": 4, "iou_head_hidden_dim": 24},
)
ENGINES = pytest.mark.parametrize(
    ("settings", "tolerance"),
    [
        ({"engine": "torch"}, 1e-4),
        ({"engine": "openvino"}, 1e-4),
        # Half precision keeps two to three digits; the logits are of size 5.
        ({"engine": "torch", "precision": "bf16"}, 0.25),
        ({"engine": "openvino", "precision": "bf16"}, 0.25),
    ],
    ids=["torch", "openvino", "torch-bf16", "openvino-bf16"],
)
# The bias of the keys adds the same to all scores of a query: softmax does not see it.
UNSEEN = r"k_proj\.bias"


def picture(width: int = 90, height: int = 61, seed: int = 1) -> Image:
    return Image.of(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def sam() -> SamModel:
    model = kit.noisy(SamModel(CONFIG))
    with torch.no_grad():
        model.mask_decoder.iou_prediction_head.proj_out.bias += 0.5  # scores in the middle of 0..1
        for part in model.mask_decoder.output_hypernetworks_mlps:
            part.proj_out.weight *= 3
    return model


@pytest.fixture(scope="module")
def folder(sam, tmp_path_factory) -> Path:
    return kit.save(sam, tmp_path_factory.mktemp("sam"), preprocessor_config=PROCESSOR)


@pytest.fixture(scope="module")
def opened(folder):
    """The checkpoint on an engine, loaded once for each; torch f32 unless told."""
    return functools.cache(lambda **settings: kit.opened(folder, **settings))


@pytest.fixture(scope="module")
def predictor(sam):
    meta = meta_sam(sam)
    from segment_anything import SamPredictor

    found = SamPredictor(meta)
    found.set_image(picture().array)
    return found


def mask_of(image: Image) -> np.ndarray:
    mask = np.zeros((image.height, image.width), bool)
    mask[10:40, 20:70] = True
    return mask


# ---- the encoder and its pre-processing


@pytest.mark.parametrize("size", [(64, 64), (90, 61), (33, 200), (640, 480), (7, 5), (2, 130), (129, 97)])
def test_pictures_are_prepared_as_by_meta_and_by_transformers(size, predictor):
    image = picture(*size)
    vision = spec.Vision(SIDE, PATCH, 1, 1, 1, 1, 1, (), 1e-6, "gelu", True, (123.675, 116.28, 103.53), (58.395,) * 3)
    square = vision.picture(image.array)
    width, height = vision.canvas(image.size).inner
    assert (square[:height, :width] == predictor.transform.apply_image(image.array)).all()
    assert not square[height:].any()
    assert not square[:, width:].any()
    theirs = SamImageProcessorPil(**PROCESSOR)(image.array, return_tensors="np")
    assert tuple(theirs["reshaped_input_sizes"][0]) == (height, width)
    mean, deviation = np.array(PROCESSOR["image_mean"]), np.array(PROCESSOR["image_std"])
    expected = (square[:height, :width] / 255 - mean) / deviation
    assert theirs["pixel_values"][0][:, :height, :width] == pytest.approx(expected.transpose(2, 0, 1), abs=1e-5)


def test_a_strip_thinner_than_a_pixel_still_has_one(opened):
    model, strip = opened(), picture(1, 300)
    assert model.vision.canvas(strip.size).inner == (1, SIDE)
    found = kit.run(model, SegmentRequest.of(image=strip, points=[(0.5, 150)]))
    assert found.mask.shape[1:] == (300, 1)


@ENGINES
def test_embeddings_equal_those_of_meta_and_transformers(settings, tolerance, opened, sam, predictor):
    image = picture()
    (found,) = opened(**settings).embeddings([image])
    found = np.moveaxis(found, -1, 1)
    assert predictor.features.std() > 0.3
    assert found == pytest.approx(predictor.features.numpy(), abs=tolerance)
    pixels = SamImageProcessorPil(**PROCESSOR)(image.array, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        theirs = sam.vision_encoder(pixels).last_hidden_state
    assert found == pytest.approx(theirs.numpy(), abs=tolerance)


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_a_side_that_patches_do_not_fill(engine, tmp_path):
    config = SamConfig(
        vision_config={**CONFIG.vision_config.to_dict(), "image_size": 66},
        prompt_encoder_config={**CONFIG.prompt_encoder_config.to_dict(), "image_size": 66},
        mask_decoder_config=CONFIG.mask_decoder_config.to_dict(),
    )
    model = kit.noisy(SamModel(config))
    sides = {"size": {"longest_edge": 66}, "pad_size": {"height": 66, "width": 66}}
    made = kit.save(model, tmp_path, preprocessor_config=PROCESSOR | sides)
    (found,) = kit.opened(made, engine=engine).embeddings([picture()])
    pixels = SamImageProcessorPil(**PROCESSOR | sides)(picture().array, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        theirs = model.vision_encoder(pixels).last_hidden_state
    assert np.moveaxis(found, -1, 1) == pytest.approx(theirs.numpy(), abs=1e-4)


# ---- clicks, boxes and masks

CLICK = {"points": [(30, 20)]}
PROMPTS = {
    "click": CLICK,
    "clicks": {"points": [(30, 20), (50.5, 44.25)], "background_points": [(5, 5)]},
    "box": {"box": (10, 12, 70, 50)},
    "box and click": {"box": (10, 12, 70, 50), "background_points": [(60, 20)]},
    "previous and click": {**CLICK, "previous": np.random.default_rng(3).standard_normal((LOW, LOW)) * 4},
    "box in a corner": {"box": (0, 0, 90, 61)},
}


def theirs(predictor, prompt, **options):
    """Meta's masks, scores and logits; several masks for a single click only, as its notebooks advise."""
    points = [*prompt.get("points", ()), *prompt.get("background_points", ())]
    labels = [1] * len(prompt.get("points", ())) + [0] * len(prompt.get("background_points", ()))
    several = len(points) == 1 and "box" not in prompt and "previous" not in prompt
    previous = prompt.get("previous")
    return predictor.predict(
        point_coords=np.array(points) if points else None,
        point_labels=np.array(labels) if points else None,
        box=np.array(prompt["box"]) if "box" in prompt else None,
        mask_input=None if previous is None else previous[None],
        multimask_output=several,
        **options,
    )


@pytest.mark.parametrize("name", PROMPTS)
@ENGINES
def test_masks_equal_those_of_metas_predictor(name, settings, tolerance, opened, predictor):
    prompt = PROMPTS[name]
    masks, scores, logits = theirs(predictor, prompt)
    assert all(0.02 < mask.mean() < 0.98 for mask in masks)
    found = kit.run(opened(**settings), SegmentRequest.of(image=picture(), **prompt))
    half = settings.get("precision") == "bf16"
    order = np.argsort(-np.clip(scores, 0, 1), kind="stable")
    if half:  # two scores that are close may change places
        order = _matched(found.metadata["low_res"], logits)
    assert len(found) == len(masks) == (3 if name == "click" else 1)
    assert found.confidence == pytest.approx(np.clip(scores, 0, 1)[order], abs=0.03 if half else 1e-4)
    if half:  # a few pixels beside steep edges are far off, the rest is not
        assert np.abs(found.metadata["low_res"] - logits[order]).mean() < tolerance
        assert all(iou(a, b) > 0.9 for a, b in zip(found.mask, masks[order], strict=True))
    else:
        assert found.metadata["low_res"] == pytest.approx(logits[order], abs=3 * tolerance)
        assert (found.mask != masks[order]).mean() < 2e-4


def _matched(low_res, logits):
    return [int(np.argmin([np.abs(one - other).mean() for other in logits])) for one in low_res]


def iou(a, b):
    return np.count_nonzero(a & b) / max(1, np.count_nonzero(a | b))


def test_the_three_masks_of_a_click_are_named_by_their_size(opened):
    found = kit.run(opened(), SegmentRequest.of(image=picture(), **CLICK))
    areas = dict(zip(found.data["level"], found.mask.sum(axis=(1, 2)), strict=True))
    assert areas["whole"] >= areas["part"] >= areas["subpart"] > 0
    assert (np.diff(found.confidence) <= 0).all()


def test_a_coarse_mask_is_the_logits_of_its_cover(opened, predictor):
    image = picture()
    mask = mask_of(image)
    model = opened()
    logits = model.vision.canvas(image.size).logits(mask, LOW)
    assert set(np.unique(np.sign(logits))) == {-1, 1}
    _, score, low_res = predictor.predict(mask_input=logits[None], multimask_output=False)
    found = kit.run(model, SegmentRequest.of(image=image, mask=mask))
    assert found.metadata["low_res"] == pytest.approx(low_res, abs=3e-4)
    assert found.confidence == pytest.approx(np.clip(score, 0, 1), abs=1e-4)


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_several_objects_at_once_are_each_alone(engine, opened):
    model, image = opened(engine=engine), picture()
    objects = [
        {"points": [(30, 20)]},
        {"box": (10, 12, 70, 50)},
        {"points": [(70, 50)]},
        {"points": [(12, 12), (40, 40)], "background_points": [(80, 50)]},
        {"mask": mask_of(image)},
        {"box": (1, 2, 50, 60)},
    ]
    together = kit.run(model, SegmentRequest.of(image=image, objects=objects))
    assert set(together.data["object"]) == set(range(len(objects)))
    for number, prompt in enumerate(objects):
        alone = kit.run(model, SegmentRequest.of(image=image, **prompt))
        mine = together.data["object"] == number
        assert together.metadata["low_res"][mine] == pytest.approx(alone.metadata["low_res"], abs=1e-4)
        assert (together.mask[mine] != alone.mask).mean() < 2e-4
        assert list(together.data["level"][mine]) == list(alone.data["level"])


def test_a_threshold_leaves_masks_out(opened):
    model = opened()
    every = kit.run(model, SegmentRequest.of(image=picture(), **CLICK))
    middle = float(every.confidence[:2].mean())
    assert len(kit.run(model, SegmentRequest.of(image=picture(), threshold=middle, **CLICK))) == 1


def test_every_group_of_parameters_is_noticed(folder, tmp_path):
    def outputs(path: Path) -> dict[str, np.ndarray]:
        model, ctx = kit.opened(path), Context()
        scene, _ = model.scene(picture(), ctx)
        decoder = model.decoder(ctx)
        points = np.array([[[20.0, 14.0], [40.0, 30.0], [8.0, 9.0], [50.0, 40.0]]], np.float32)
        clicks = decoder(scene, np.append(points[:, :2], np.zeros((1, 1, 2), np.float32), 1), np.array([[1, 0, -1]]))
        logits = PROMPTS["previous and click"]["previous"][None, None]
        refined = decoder(scene, points[:, 2:], np.array([[2, 3]]), logits)
        return {"low_res": clicks.low_res, "iou": clicks.iou, "refined": refined.low_res}

    assert kit.unnoticed(folder, tmp_path, outputs, 3e-4, skip=UNSEEN) == []


# ---- what is kept, and what is not loaded


def test_a_picture_seen_before_loads_no_encoder(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("MANYLENS_HOME", str(tmp_path))
    request = SegmentRequest.of(image=picture(), **CLICK)
    first, again = Context(store=EmbeddingStore(tmp_path / "s")), Context(store=EmbeddingStore(tmp_path / "s"))
    right = next(iter(kit.opened(folder, engine="openvino").run([request], first)))
    model = kit.opened(folder, engine="openvino")
    monkeypatch.setattr(checkpoint, "load", lambda *_, **__: pytest.fail("the weights were read"))
    found = next(iter(model.run([request], again)))
    assert (first.notes["cache"], again.notes["cache"]) == ("miss", "disk")
    assert (found.mask == right.mask).all()
    assert set(model._networks) == set(picture_graphs.NAMES)


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_the_weights_are_read_once_for_all_decoders(engine, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("MANYLENS_HOME", str(tmp_path))
    loaded, load = [], checkpoint.load
    monkeypatch.setattr(checkpoint, "load", lambda *given, **named: loaded.append(1) or load(*given, **named))
    model = kit.opened(folder, engine=engine)
    for asked in (CLICK, PROMPTS["previous and click"], {"mode": "everything", "points_per_side": 2}):
        kit.run(model, SegmentRequest.of(image=picture(), **asked))
    assert loaded == [1]
    assert not hasattr(model._source, "vision_encoder")


def test_a_network_on_another_device_leaves_the_next_one_its_weights(folder):
    model = kit.opened(folder, device="meta")  # stands for a GPU
    for name in ("decoder", grid_decoder.DECODER, "masked-decoder", "encoder"):
        model._network(name)


def test_a_batch_gives_what_each_request_gives_alone(opened):
    model = opened()
    asked = [SegmentRequest.of(image=picture(seed=seed), **CLICK) for seed in (1, 2, 1)]
    found = list(model.run(asked, Context()))
    for request, one in zip(asked, found, strict=True):
        assert (one.mask == kit.run(model, request).mask).all()
    assert (found[0].mask == found[2].mask).all()


def test_a_gpu_encodes_the_new_pictures_of_a_batch_together(folder, opened, monkeypatch):
    # The processor under a name that is not its usual one stands for a GPU.
    model = kit.opened(folder, device="cpu:0")
    runs: list[int] = []
    encode = model.embeddings
    monkeypatch.setattr(model, "embeddings", lambda images: runs.append(len(images)) or encode(images))
    asked = [SegmentRequest.of(image=picture(40 + seed, 50, seed), **CLICK) for seed in (1, 2, 1, 3)]
    ctx = Context()
    kept = next(iter(model.run(asked[:1], ctx)))
    found = list(model.run(asked, ctx))
    assert runs == [1, 2]
    assert (found[0].mask == kept.mask).all()
    for request, one in zip(asked, found, strict=True):
        alone = kit.run(opened(), request)
        assert one.metadata["low_res"] == pytest.approx(alone.metadata["low_res"], abs=1e-4)


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_pictures_encoded_together_are_each_alone(engine, opened):
    model, images = opened(engine=engine), [picture(), picture(30, 80, 2)]
    for image, together in zip(images, model.embeddings(images), strict=True):
        assert together == pytest.approx(model.embeddings([image])[0], abs=1e-5)


def test_clicks_of_a_session_refine_the_mask_before(folder, tmp_path):
    with Session(home=tmp_path) as session, session.open("segment", EXAMPLES / "cat.jpg", model=str(folder)) as opened:
        first = opened.click(200, 150)
        assert len(first) == 3
        second = opened.click(260, 200)
        assert len(second) == 1
        alone = session.run(
            SegmentRequest.of(image=EXAMPLES / "cat.jpg", points=[(200, 150), (260, 200)]), model=str(folder)
        )
        assert not np.allclose(second.metadata["low_res"], alone.metadata["low_res"], atol=1e-3)
        width, height = opened.image.size
        assert second.mask.shape == (1, height, width)
        assert second.metadata["provenance"].cache == "memory"


def test_everything_runs_through_a_session(folder, tmp_path):
    with Session(home=tmp_path) as session:
        request = SegmentRequest.of(image=EXAMPLES / "cat.jpg", mode="everything", points_per_side=4, threshold=0.0)
        found = session.run(request, model=str(folder))
    assert found.mask is not None


# ---- training, doctor, published checkpoints


def test_the_trainable_form_gives_the_embedding_and_gradients(folder):
    model, image = kit.opened(folder), picture()
    opened = model.trainable()
    pixels = opened.preprocess([image]).requires_grad_(True)
    found = opened.forward(pixels)
    (embedding,) = model.embeddings([image])
    assert found["dense"][0].detach().numpy() == pytest.approx(embedding[0], abs=1e-4)
    found["vector"].sum().backward()
    assert pixels.grad is not None
    assert pixels.grad.abs().sum() > 0
    assert {"encoder", "prompt_encoder", "decoder"} <= set(opened.parts)
    assert len(opened.blocks) == 3


def test_the_probe_gives_features_of_one_width(opened):
    found = opened(engine="openvino").probe()()
    assert found.shape == (1, SIDE // PATCH, SIDE // PATCH, 32)


@pytest.mark.parametrize("row", [row for row in Catalog.load() if row.family == "sam"], ids=lambda row: row.id)
def test_published_checkpoints_are_those_of_their_configs(row):
    config = json.loads((CONFIGS / f"{row.id.replace('/', '--')}.json").read_text())
    with torch.device("meta"):
        model = SamModel(SamConfig(**{k: v for k, v in config.items() if k not in ("model_type", "architectures")}))
    vision = model.config.vision_config
    tensors = dict(model.named_parameters())
    assert sum(tensor.numel() * 4 for tensor in tensors.values()) == pytest.approx(row.bytes, rel=0.02)
    shapes = {name.removeprefix("vision_encoder."): tuple(t.shape) for name, t in tensors.items()}
    assert shapes["pos_embed"] == (1, 64, 64, vision.hidden_size)
    for number in range(vision.num_hidden_layers):
        side = 64 if number in vision.global_attn_indexes else 14
        for axis in "hw":
            size = vision.hidden_size // vision.num_attention_heads
            assert shapes[f"layers.{number}.attn.rel_pos_{axis}"] == (2 * side - 1, size)
        assert shapes[f"layers.{number}.attn.qkv.weight"] == (3 * vision.hidden_size, vision.hidden_size)
    assert f"layers.{vision.num_hidden_layers}.attn.qkv.weight" not in shapes


# ---- bad input


def _edited(folder: Path, target: Path, file: str, **values) -> Path:
    shutil.copytree(folder, target)
    body = json.loads((target / file).read_text())
    body = {**body, **values, "vision_config": {**body.get("vision_config", {}), **values.get("vision_config", {})}}
    (target / file).write_text(json.dumps(body))
    return target


@pytest.mark.parametrize(
    ("file", "values", "error", "says"),
    [
        ("config.json", {"vision_config": {"hidden_act": "swish"}}, UnsupportedError, "swish"),
        ("config.json", {"vision_config": {"num_hidden_layers": 2}}, WeightsError, "has too many: vision_encoder"),
        ("config.json", {"vision_config": {"num_hidden_layers": 4}}, WeightsError, "lacks vision_encoder.layers.3"),
        ("config.json", {"vision_config": {"window_size": 4}}, WeightsError, "of another shape: vision_encoder"),
        ("preprocessor_config.json", {"size": {"longest_edge": 32}}, WeightsError, "32 pixels"),
        ("preprocessor_config.json", {"resample": 3}, UnsupportedError, "resampling"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_in_one_line(file, values, error, says, folder, tmp_path):
    wrong = _edited(folder, tmp_path / "wrong", file, **values)
    with pytest.raises(error, match=says) as caught:
        kit.run(kit.opened(wrong), SegmentRequest.of(image=picture(), **CLICK))
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_preprocessor_is_refused(folder, tmp_path):
    wrong = tmp_path / "wrong"
    shutil.copytree(folder, wrong)
    (wrong / "preprocessor_config.json").unlink()
    with pytest.raises(WeightsError, match=r"no preprocessor_config.json"):
        kit.opened(wrong)


def test_a_processor_within_a_processor_is_read(folder, tmp_path):
    newer = tmp_path / "newer"
    shutil.copytree(folder, newer)
    (newer / "preprocessor_config.json").unlink()
    (newer / "processor_config.json").write_text(json.dumps({"image_processor": PROCESSOR}))
    assert kit.opened(newer).vision == kit.opened(folder).vision


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"previous": np.zeros((32, 32), np.float32), **CLICK}, "previous: is 32x32 but the model's masks are 64x64"),
        (
            {"previous": np.zeros((64, 64), np.float32), "objects": [CLICK, {"box": (1, 1, 9, 9)}]},
            "previous: given with 2 objects",
        ),
    ],
)
def test_a_previous_mask_that_does_not_fit_is_refused(fields, says, opened):
    with pytest.raises(PromptError, match=says):
        kit.run(opened(), SegmentRequest.of(image=picture(), **fields))
