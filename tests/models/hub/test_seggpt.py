"""SegGPT against plain transformers, on noisy checkpoints of the true architecture at a small size."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import SegGptConfig, SegGptForImageSegmentation
from transformers.models.seggpt.image_processing_pil_seggpt import SegGptImageProcessorPil

from manylens.catalog import Catalog
from manylens.errors import ManylensError, MediaError, PromptError, UnsupportedError, WeightsError
from manylens.media import Image
from manylens.models.seggpt import colours
from manylens.models.seggpt.passes import Prompt, passes
from manylens.models.seggpt.video import track
from manylens.runtime.context import Context
from manylens.runtime.store import EmbeddingStore
from manylens.session import Session
from manylens.tasks.regions import SegmentRequest, TrackRequest
from tests.models.hub import kit

SIDE = 32
CONFIG = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "image_size": [2 * SIDE, SIDE],
    "patch_size": 8,
    "pretrain_image_size": 24,
    "decoder_hidden_size": 8,
    "merge_index": 1,
    "intermediate_hidden_state_indices": [1, 2, 3],
}
PROCESSOR = {
    "size": {"height": SIDE, "width": SIDE},
    "resample": 3,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "rescale_factor": 1 / 255,
}
EXAMPLES = Path(__file__).parents[3] / "examples"
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    model = kit.noisy(SegGptForImageSegmentation(SegGptConfig(**CONFIG)), seed=1)
    with torch.no_grad():  # so that what is painted fills the cube of colours, and not its middle only
        model.decoder.decoder_pred.head.weight *= 3
    return kit.save(model, tmp_path_factory.mktemp("seggpt"), preprocessor_config=PROCESSOR)


@pytest.fixture(scope="module")
def ours(folder):
    return kit.opened(folder)


@pytest.fixture(scope="module")
def reference(folder):
    return SegGptForImageSegmentation.from_pretrained(folder), SegGptImageProcessorPil(**PROCESSOR)


def picture(seed, size=(SIDE, SIDE)):
    """Smooth noise, ``size`` as ``(width, height)``."""
    from PIL import Image as Pil

    small = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return np.asarray(Pil.fromarray(small).resize(size, Pil.Resampling.BICUBIC))


def left(size=(SIDE, SIDE), share=0.5):
    mask = np.zeros(size[::-1], bool)
    mask[:, : max(1, round(size[0] * share))] = True
    return mask


def right(size=(SIDE, SIDE)):
    return ~left(size, 0.6)


def example(seed, mask=None, name=None, size=(SIDE, SIDE)):
    return {"image": picture(seed, size), "mask": left(size) if mask is None else mask, "name": name}


def painted_by_reference(reference, query, pictures, planes):
    """``pred_masks`` of transformers for painted masks uint8 ``(H, W, 3)``."""
    model, processor = reference
    count = len(pictures)
    prepared = processor(
        images=[query] * count, prompt_images=pictures, prompt_masks=planes, do_convert_rgb=False, return_tensors="pt"
    )
    with torch.no_grad():
        return model(**prepared, feature_ensemble=count > 1)


def painted_by_us(model, query, pictures, planes):
    networks = model._networks
    tokens = lambda rgb: networks.tokens([networks.processor.pixels(one) for one in rgb])  # noqa: E731
    return networks.paint(tokens(pictures), tokens(planes), tokens([query])[0])


def of_reference(found, processor):
    """What transformers' output says of the asked half, as colours of 0..255: ``(3, h, w)``."""
    half = found.pred_masks[0, :, found.pred_masks.shape[2] // 2 :]
    std, mean = (torch.tensor(values)[:, None, None] for values in (processor.image_std, processor.image_mean))
    return ((half * std + mean) * 255).clip(0, 255).numpy()


def planes_of(mask, colour=(255, 255, 255)):
    return (mask[..., None] * np.array(colour, np.uint8)).astype(np.uint8)


# ------------------------------------------------------------------ parity with transformers


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize(
    ("engine", "precision", "tolerance"),
    [("torch", "f32", 2e-3), ("openvino", "f32", 2e-3), ("torch", "bf16", 20), ("openvino", "bf16", 20)],
)
def test_what_is_painted_is_what_transformers_paints(folder, reference, engine, precision, tolerance, count):
    model = kit.opened(folder, engine=engine, precision=precision)
    query, pictures = picture(9), [picture(seed) for seed in range(count)]
    planes = [planes_of(left(share=0.2 + 0.1 * number), colours.palette(3)[number % 3]) for number in range(count)]
    expected = of_reference(painted_by_reference(reference, query, pictures, planes), reference[1])
    found = painted_by_us(model, query, pictures, planes)
    assert expected.std() > 50
    assert np.abs(found - expected).max() < tolerance  # of 255 levels
    model.close()


def test_no_group_of_parameters_is_without_effect(folder, tmp_path):
    query, pictures = picture(9), [picture(1), picture(2)]
    planes = [planes_of(left()), planes_of(right())]

    def outputs(path):
        model = kit.opened(path)
        return {
            "one": painted_by_us(model, query, pictures[:1], planes[:1]),
            "two": painted_by_us(model, query, pictures, planes),
        }

    # Semantic and instance are two embeddings of which each run has one: instance, the reference's default.
    assert kit.unnoticed(folder, tmp_path, outputs, 2e-3, skip="type_token_semantic") == []


@pytest.mark.parametrize("size", [(SIDE, SIDE), (50, 41), (20, 90)])
@pytest.mark.parametrize("count", [1, 3])
def test_pictures_are_prepared_as_transformers_prepares_them(ours, reference, size, count):
    processor = ours._networks.processor
    rgb = picture(3, size)
    expected = reference[1](images=rgb, return_tensors="np")["pixel_values"][0]
    assert np.abs(processor.normalised(processor.pixels(rgb)) - expected).max() < 1e-6
    masks = (left(size, 0.3), right(size), ~left(size, 0.3) & ~right(size))[:count]
    plane = colours.painted(Prompt(Image.of(rgb), masks), count, (SIDE, SIDE))
    coloured = np.zeros((*rgb.shape[:2], 3), np.uint8)
    for mask, colour in zip(masks, colours.palette(count), strict=True):
        coloured[mask] = colour
    expected = reference[1](
        images=rgb, prompt_images=rgb, prompt_masks=coloured, do_convert_rgb=False, return_tensors="np"
    )
    assert np.abs(processor.normalised(plane) - expected["prompt_masks"][0]).max() < 1e-6


def test_one_class_is_painted_as_transformers_palette_of_one(ours, reference):
    rgb, mask = picture(3), left()
    plane = colours.painted(Prompt(Image.of(rgb), (mask,)), 1, (SIDE, SIDE))
    expected = reference[1](
        images=rgb, prompt_images=rgb, prompt_masks=mask.astype(np.uint8), num_labels=1, return_tensors="np"
    )
    assert np.abs(ours._networks.processor.normalised(plane) - expected["prompt_masks"][0]).max() < 1e-6


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_mask_of_one_class_is_transformers_semantic_map(ours, reference, count):
    like = [example(seed, left(share=0.3 + 0.1 * seed)) for seed in range(count)]
    query = picture(20 + count)
    found = kit.run(ours, SegmentRequest.of(image=query, like=like))
    planes = [planes_of(one["mask"]) for one in like]
    outputs = painted_by_reference(reference, query, [one["image"] for one in like], planes)
    (expected, *_) = reference[1].post_process_semantic_segmentation(
        outputs, target_sizes=[(SIDE, SIDE)] * count, num_labels=1
    )
    expected = expected.numpy() == 1
    assert 0.02 < expected.mean() < 0.98
    assert (found.mask[0] == expected).mean() > 0.999  # a pixel midway may fall to either side
    assert len(found) == 1


@pytest.mark.parametrize("classes", [2, 3, 7, 13])
def test_several_classes_in_one_pass_are_transformers_with_the_same_colours(ours, reference, classes):
    rgb, query = picture(1), picture(30)
    bounds = np.linspace(0, SIDE, classes + 2).round().astype(int)
    masks = np.zeros((classes, SIDE, SIDE), bool)
    for number in range(classes):
        masks[number, :, bounds[number] : bounds[number + 1]] = True
    like = [{"image": rgb, "mask": mask, "name": f"class {number}"} for number, mask in enumerate(masks)]
    found = kit.run(ours, SegmentRequest.of(image=query, like=like))
    palette = colours.palette(classes)
    plane = sum(planes_of(mask, colour) for mask, colour in zip(masks, palette, strict=True))
    painted = of_reference(painted_by_reference(reference, query, [rgb], [plane]), reference[1])
    known = np.concatenate([np.zeros((1, 3)), palette])
    nearest = ((np.moveaxis(painted, 0, -1)[:, :, None] - known) ** 2).sum(-1).argmin(-1)
    present = [number for number in range(classes) if (nearest == number + 1).any()]
    assert len(present) >= 2
    assert sorted(found.class_id) == present
    for mask, number, name in zip(found.mask, found.class_id, found.data["class_name"], strict=True):
        assert name == f"class {number}"
        assert (mask == (nearest == number + 1)).mean() > 0.999
    assert found.mask.sum(axis=0).max() == 1
