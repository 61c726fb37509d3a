"""Mode everything against Meta's SamAutomaticMaskGenerator, and its parts against segment-anything's and laws."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from benchmarks._baselines.lively_sam import lively
from benchmarks._baselines.meta_sam import meta_sam
from benchmarks._baselines.torchvision_stub import segment_anything
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco
from tests.models.hub import kit
from transformers import SamConfig, SamModel

from manylens.errors import PromptError
from manylens.media import Image
from manylens.models.promptable import everything, grid, rle
from manylens.models.promptable.everything import Everything
from manylens.models.promptable.prompts import Canvas
from manylens.models.promptable.stability import Enlarger
from manylens.runtime.context import Context
from manylens.session import Session
from manylens.tasks import SegmentRequest

segment_anything()
from segment_anything import SamAutomaticMaskGenerator, SamPredictor  # noqa: E402
from segment_anything.utils import amg  # noqa: E402

SIDE, WIDTH, LOW = 64, 64, 16
CONFIG = SamConfig(
    vision_config={
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "mlp_ratio": 2.0,
        "image_size": SIDE,
        "patch_size": 16,
        "output_channels": WIDTH,
        "num_pos_feats": WIDTH // 2,
        "global_attn_indexes": [1],
        "window_size": 2,
    },
    prompt_encoder_config={"hidden_size": WIDTH, "image_size": SIDE, "patch_size": 16, "mask_input_channels": 4},
    mask_decoder_config={"hidden_size": WIDTH, "mlp_dim": 32, "num_attention_heads": 4, "iou_head_hidden_dim": 16},
)
PROCESSOR = {
    "size": {"longest_edge": SIDE},
    "pad_size": {"height": SIDE, "width": SIDE},
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "rescale_factor": 1 / 255,
}


def photo(seed: int, width: int = 96, height: int = 64) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height))


@pytest.fixture(scope="module")
def sam() -> SamModel:
    model = kit.noisy(SamModel(CONFIG))
    predictor = SamPredictor(meta_sam(model))
    predictor.set_image(photo(0))
    return lively(model, predictor.features, steep=400, good=0.9, points=32)


@pytest.fixture(scope="module")
def meta(sam) -> Any:
    return meta_sam(sam)


@pytest.fixture(scope="module")
def folder(sam, tmp_path_factory):
    return kit.save(sam, tmp_path_factory.mktemp("sam") / "tiny", preprocessor_config=PROCESSOR)


@pytest.fixture(scope="module")
def models(folder):
    found = {engine: kit.opened(folder, engine=engine) for engine in ("torch", "openvino")}
    yield found
    for model in found.values():
        model.close()


def ours(model: Any, rgb: np.ndarray, options: Everything) -> list[everything.Mask]:
    ctx = Context()

    def encode(crop: grid.Crop) -> Any:
        x0, y0, x1, y1 = crop
        image = Image.of(np.ascontiguousarray(rgb[y0:y1, x0:x1]))
        return model.scene(image, ctx)[0], model.vision.canvas(image.size)

    scene, canvas = encode((0, 0, rgb.shape[1], rgb.shape[0]))
    return everything.all_masks(model.decoder(ctx), scene, canvas, options, ctx.check, encode)


def theirs(meta: Any, rgb: np.ndarray, **options: Any) -> list[dict[str, Any]]:
    return SamAutomaticMaskGenerator(meta, output_mode="uncompressed_rle", **options).generate(rgb)


def same_masks(found: list[everything.Mask], wanted: list[dict[str, Any]], size: tuple[int, int]) -> float:
    """Hold our masks to theirs, one to one by point, crop and score; gives the share of equal run lengths."""

    def sure(one: tuple[Any, ...], iou: float) -> tuple[Any, ...]:
        return (*(round(float(value), 3) for value in one), round(float(iou), 2), float(iou))

    assert len(found) == len(wanted)
    assert [mask.iou for mask in found] == pytest.approx([one["predicted_iou"] for one in wanted], abs=1e-4)
    ours = sorted(found, key=lambda mask: sure((*mask.point, mask.crop[0], mask.crop[1]), mask.iou))
    theirs = sorted(wanted, key=lambda one: sure((*one["point_coords"][0], *one["crop_box"][:2]), one["predicted_iou"]))
    equal = []
    for mask, other in zip(ours, theirs, strict=True):
        pixels, right = rle.decode(mask.counts, size), amg.rle_to_mask(other["segmentation"])
        assert (pixels & right).sum() >= 0.99 * (pixels | right).sum()
        x, y, width, height = other["bbox"]
        assert np.abs(mask.box - (x, y, x + width, y + height)).max() <= 1
        assert mask.point == pytest.approx(other["point_coords"][0])
        assert mask.iou == pytest.approx(other["predicted_iou"], abs=1e-4)
        assert mask.stability == pytest.approx(other["stability_score"], abs=1e-4 + 1.5 / max(1, other["area"]))
        x, y, width, height = other["crop_box"]
        assert mask.crop[:2] == (x, y)
        equal.append(mask.counts.tolist() == other["segmentation"]["counts"])
    return float(np.mean(equal)) if equal else 1.0


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_a_full_set_is_that_of_meta(engine, models, meta):
    total, equal = 0, []
    # Masks of noise can be of four pixels, where rounding of one changes the score by a quarter; these photos have none
    # that stands so on the edge of a threshold.
    for seed, size in ((0, (96, 64)), (1, (64, 64)), (2, (61, 90)), (4, (200, 150)), (8, (96, 64))):
        rgb = photo(seed, *size)
        options = {"points_per_side": 16, "box_nms_thresh": 0.9}
        wanted = theirs(meta, rgb, **options)
        equal.append(same_masks(ours(models[engine], rgb, Everything(**options)), wanted, size))
        total += len(wanted)
    assert total >= 200
    assert np.mean(equal) >= 0.95


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"points_per_side": 5, "points_per_batch": 3},
        {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.8, "stability_score_offset": 3.0},
        {"pred_iou_thresh": 0.99},
        {"pred_iou_thresh": 9.0},
        {"crop_n_layers": 1, "crop_n_points_downscale_factor": 2, "crop_nms_thresh": 0.5, "crop_overlap_ratio": 0.4},
        {"min_mask_region_area": 12, "box_nms_thresh": 0.95},
        {"min_mask_region_area": 4, "crop_n_layers": 1},
    ],
    ids=lambda options: " ".join(options) or "defaults",
)
def test_every_option_means_what_it_means_to_meta(options, models, meta):
    rgb = photo(5, 130, 90)  # no mask of it stands on the edge of a threshold, where rounding decides
    options = {"points_per_side": 8} | options
    if "pred_iou_thresh" in options and options["pred_iou_thresh"] == 9.0:
        # Meta's own generator fails where no mask is left.
        assert ours(models["openvino"], rgb, Everything(**options)) == []
        return
    same_masks(ours(models["openvino"], rgb, Everything(**options)), theirs(meta, rgb, **options), (130, 90))


def test_judging_first_changes_no_mask(models):
    """The decoder that draws only what passes, against the plain one; a batch that is not full among them."""
    model, ctx = models["torch"], Context()
    decoder = model.decoder(ctx)
    scene, _ = model.scene(Image.of(photo(0)), ctx)
    points = np.random.default_rng(0).uniform(0, SIDE, (11, 2, 2)).astype(np.float32)
    labels = np.tile([1, -1], (11, 1))
    plain = decoder(scene, points, labels)
    best = plain.iou[:, 1:].max(axis=1)
    least = float(np.sort(best)[4:6].mean()) * 1.01
    found = decoder.promising(scene, points, labels, least)
    assert set(np.flatnonzero(best > least)) <= set(found.rows.tolist()) < set(range(11))
    np.testing.assert_allclose(found.low_res, plain.low_res[found.rows, 1:], atol=2e-2, rtol=1e-4)
    np.testing.assert_allclose(found.iou, plain.iou[found.rows, 1:], atol=1e-4)
    assert len(decoder.promising(scene, points, labels, 99.0).rows) == 0
    assert len(decoder.promising(scene, points, labels, -np.inf).rows) == 11


@pytest.mark.parametrize("engine", ["torch", "openvino"])
@pytest.mark.parametrize(
    ("used", "shape"), [((16, 16), (16, 16)), ((16, 9), (12, 16)), ((5, 4), (4, 8)), (None, (16, 16))]
)
def test_only_what_the_photo_depends_on_is_drawn(models, engine, used, shape):
    ctx = Context()
    decoder = models[engine].decoder(ctx)
    scene, _ = models[engine].scene(Image.of(photo(0)), ctx)
    points = np.random.default_rng(0).uniform(0, SIDE, (11, 2, 2)).astype(np.float32)
    asked = scene, points, np.tile([1, -1], (11, 1))
    least = float(np.median(decoder.promising(*asked, -np.inf).iou.max(axis=1)))
    whole = decoder.promising(*asked, least)
    some = decoder.promising(*asked, least, used)
    assert 0 < len(some.rows) < 11
    assert some.low_res.shape[2:] == shape
    np.testing.assert_array_equal(some.rows, whole.rows)
    np.testing.assert_allclose(some.low_res, whole.low_res[..., : shape[0], : shape[1]], atol=1e-2, rtol=1e-4)
    assert decoder.promising(*asked, 99.0, used).low_res.shape[2:] == shape


def test_every_group_of_parameters_is_noticed(folder, tmp_path):
    """What the picture's encoder and other prompts need is held in the family's own test."""

    def outputs(folder):
        model, ctx = kit.opened(folder), Context()
        embedding = np.random.default_rng(0).standard_normal((1, 4, 4, WIDTH)).astype(np.float32)
        points = np.random.default_rng(1).uniform(0, SIDE, (3, 2, 2)).astype(np.float32)
        found = model.decoder(ctx).promising({"embedding": embedding}, points, np.tile([1, -1], (3, 1)), -np.inf)
        model.close()
        return {"low_res": found.low_res, "iou": found.iou}

    # Keys' biases add the same to all scores of a query.
    assert kit.unnoticed(folder, tmp_path, outputs, 1e-3, skip=r"vision_encoder|mask_embed|k_proj\.bias") == []


def test_the_result_through_a_session(folder, tmp_path, monkeypatch):
    request = SegmentRequest.of(image=photo(0), mode="everything", points_per_side=6, threshold=0.9)
    with Session(home=tmp_path) as session:
        found = session.run(request, model=str(folder))
        monkeypatch.setattr(everything, "DENSE_BYTES", 1000)
        compact = session.run(request, model=str(folder))
    assert len(found) > 3
    assert (np.diff(found.confidence) <= 0).all()
    assert (found.confidence >= 0.9).all()
    assert found.mask.dtype == bool
    assert found.mask.shape[1:] == (64, 96)
    for mask, box in zip(found.mask, found.xyxy, strict=True):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert box.tolist() == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    assert set(found.data["object"]) <= set(range(36))
    assert set(found.data["level"]) <= {"whole", "part", "subpart"}
    assert not isinstance(compact.mask, np.ndarray)
    assert all((compact.mask[i] == found.mask[i]).all() for i in range(len(found)))


def test_crops_need_someone_to_encode_them(models):
    model, ctx = models["torch"], Context()
    scene, _ = model.scene(Image.of(photo(0)), ctx)
    with pytest.raises(PromptError, match="encodes no crops"):
        everything.all_masks(
            model.decoder(ctx), scene, Canvas.padded((96, 64), SIDE), Everything(2, crop_n_layers=1), ctx.check
        )


def test_it_can_be_stopped(models):
    def stop() -> None:
        raise KeyboardInterrupt

    model, ctx = models["torch"], Context()
    scene, _ = model.scene(Image.of(photo(0)), ctx)
    with pytest.raises(KeyboardInterrupt):
        everything.generate(model.decoder(ctx), scene, Canvas.padded((96, 64), SIDE), Everything(), stop)


# The parts, each against segment-anything's.


@given(st.integers(1, 40))
def test_the_grid_is_even(per_side):
    points = grid.points(per_side)
    np.testing.assert_allclose(points, amg.build_point_grid(per_side), atol=1e-12)
    assert ((points > 0) & (points < 1)).all()
    np.testing.assert_allclose(np.sort(points, axis=0), np.sort(1 - points, axis=0))
    cells = np.floor(points * per_side).astype(int)
    assert len({tuple(cell) for cell in cells}) == per_side**2


@given(st.integers(8, 500), st.integers(8, 500), st.integers(0, 3), st.floats(0, 0.9))
def test_crops(width, height, layers, ratio):
    boxes, levels = amg.generate_crop_boxes((height, width), layers, ratio)
    assert grid.crops((width, height), layers, ratio) == [(tuple(b), n) for b, n in zip(boxes, levels, strict=True)]


@given(arrays(np.int64, (6, 4), elements=st.integers(0, 120)), st.integers(0, 60), st.integers(0, 60))
def test_masks_that_a_crop_cuts_off(boxes, left, top):
    crop, size = (left, top, left + 60, top + 60), (120, 120)
    wanted = amg.is_box_near_crop_edge(torch.tensor(boxes), list(crop), [0, 0, *size])
    shifted = boxes.astype(np.float32) + np.array([left, top, left, top], np.float32)
    assert grid.cut_off(shifted, crop, size).tolist() == wanted.tolist()


masks = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(lambda shape: arrays(bool, shape))


@given(masks, st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3))
def test_run_lengths(window, left, top, right, bottom):
    rows, columns = window.shape
    size = (left + columns + right, top + rows + bottom)
    full = np.zeros(size[::-1], bool)
    full[top : top + rows, left : left + columns] = window
    counts = rle.encode(window, (left, top), size)
    assert counts.tolist() == amg.mask_to_rle_pytorch(torch.from_numpy(full)[None])[0]["counts"]
    assert (rle.decode(counts, size) == full).all()
    assert rle.area(counts) == full.sum()
    packed = coco.encode(np.asfortranarray(full.astype(np.uint8)))
    assert rle.to_coco(counts, size) == {"size": [size[1], size[0]], "counts": packed["counts"].decode()}
    assert (coco.decode(rle.to_coco(counts, size)) == full).all()


@given(arrays(bool, (9, 11)), st.integers(1, 12), st.sampled_from(["holes", "islands"]))
def test_small_regions(mask, least, kind):
    found, changed = everything.without_small(mask, least, kind)
    wanted, did = amg.remove_small_regions(mask, least, kind)
    assert changed == did
    assert (found == wanted).all()


logits = arrays(np.float32, (LOW, LOW), elements=st.integers(-12, 8).map(lambda n: n / 3))


@settings(max_examples=60)
@given(logits, st.integers(20, 150), st.integers(20, 150), st.floats(0, 1), st.booleans())
def test_stability_and_mask(logits, width, height, least, direct):
    canvas = (Canvas.filled if direct else Canvas.padded)((width, height), SIDE)
    enlarged = Enlarger(LOW, canvas, 0.0, 1.0)
    window = enlarged(logits)
    full = torch.from_numpy(logits)[None, None]
    if not direct:
        full = torch.nn.functional.interpolate(full, (SIDE, SIDE), mode="bilinear", align_corners=False)
        full = full[..., : canvas.inner[1], : canvas.inner[0]]
    full = torch.nn.functional.interpolate(full, (height, width), mode="bilinear", align_corners=False)[0]
    wanted = amg.calculate_stability_score(full, 0.0, 1.0).item()
    pixels = rle.decode(rle.encode(window.mask, window.corner, canvas.size), canvas.size)
    unsure = full[0].abs().numpy() < 1e-4  # rounding decides
    assert ((pixels == (full[0] > 0).numpy()) | unsure).all()
    on = [(full.abs() - 1).abs() < 1e-4, full > -1]
    slack = on[0].sum().item() / max(1, on[1].sum().item())
    if np.isnan(wanted):
        assert np.isnan(window.stability) or slack
    else:
        assert window.stability == pytest.approx(wanted, abs=slack + 1e-6)
        # What is given up early would not have been kept.
        assert not (enlarged.hopeless(logits, least) and wanted >= least + slack + 1e-6)
    if not unsure.any():
        assert list(window.box) == amg.batched_mask_to_box(full > 0)[0].tolist()
