"""Mask2Former and EoMT against plain transformers: queries, and what its processors make of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tests.models.hub import kit
from transformers import (
    EomtConfig,
    EomtForUniversalSegmentation,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
)

from manylens.errors import UnsupportedError, WeightsError
from manylens.media import Image
from manylens.models.masks import queries
from manylens.models.masks.labels import Labels
from manylens.models.masks.resizing import Resizing, bilinear
from manylens.session import Session
from manylens.tasks import SegmentRequest

EXAMPLES = Path(__file__).parents[3] / "examples"
KINDS = ("mask2former", "eomt")
LABELS = {0: "sky", 1: "cat", 2: "dog", 3: "cup"}
_PROCESSORS = {
    "mask2former": {"size": {"height": 64, "width": 64}, "size_divisor": 32},
    "eomt": {"size": {"shortest_edge": 64, "longest_edge": 64}, "do_pad": True},
}


def picture(seed: int, width: int = 90, height: int = 60) -> Image:
    return Image.of(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def made(kind: str, folder: Path, **processor) -> Path:
    torch.manual_seed(0)
    if kind == "mask2former":
        backbone = {
            "model_type": "swin",
            "image_size": 64,
            "patch_size": 4,
            "embed_dim": 8,
            "depths": [1, 1, 1, 1],
            "num_heads": [1, 1, 2, 2],
            "window_size": 4,
            "out_features": ["stage1", "stage2", "stage3", "stage4"],
        }
        config = Mask2FormerConfig(
            backbone_config=backbone,
            feature_size=64,
            mask_feature_size=64,
            hidden_dim=64,
            encoder_feedforward_dim=24,
            encoder_layers=1,
            decoder_layers=3,
            dim_feedforward=24,
            num_attention_heads=2,
            num_queries=9,
            id2label=LABELS,
        )
        model = Mask2FormerForUniversalSegmentation(config)
    else:
        config = EomtConfig(
            hidden_size=24,
            num_hidden_layers=4,
            num_attention_heads=3,
            image_size=64,
            patch_size=8,
            num_blocks=2,
            num_queries=9,
            num_register_tokens=2,
            num_upscale_blocks=1,
            id2label=LABELS,
        )
        model = EomtForUniversalSegmentation(config)
    kit.noisy(model, scale=1.6)
    with torch.no_grad():  # the gates of the masks stay shut or open by chance else
        for name, tensor in model.named_buffers():
            if name.endswith("attn_mask_probs"):
                tensor.fill_(1.0)
        for name, tensor in model.named_parameters():
            if name.startswith("class_predictor"):
                tensor.mul_(3)
    return kit.save(model, folder, preprocessor_config={**_PROCESSORS[kind], **processor})


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("masks")
    return {kind: made(kind, root / kind) for kind in KINDS}


def reference(kind: str, folder: Path, image: Image):
    """What transformers' own model says of what its own processor makes of a picture."""
    classes = {"mask2former": Mask2FormerForUniversalSegmentation, "eomt": EomtForUniversalSegmentation}
    model = classes[kind].from_pretrained(folder).eval()
    inputs = processor(kind)([image.array], return_tensors="pt")
    with torch.no_grad():
        return model(pixel_values=inputs["pixel_values"])


def raw(folder: Path, **settings) -> dict[str, np.ndarray]:
    (classes, masks), *_ = kit.opened(folder, **settings).raw(picture(1))
    return {"classes": classes, "masks": masks}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("settings", "tolerance"),
    [({}, 1e-5), ({"engine": "openvino"}, 2e-3), ({"engine": "openvino", "precision": "bf16"}, None)],
    ids=["torch", "openvino", "bf16"],
)
def test_queries_equal_those_of_transformers(kind, settings, tolerance, folders):
    own = reference(kind, folders[kind], picture(1))
    right = {"classes": own.class_queries_logits[0].numpy(), "masks": own.masks_queries_logits[0].numpy()}
    assert 0.05 < (right["masks"] > 0).mean() < 0.95
    found = raw(folders[kind], **settings)
    for name, values in right.items():
        scale = float(np.abs(values).max())
        if tolerance is not None:
            assert found[name] == pytest.approx(values, abs=tolerance * scale), name
        else:  # a gate of the masked attention may open elsewhere in half precision: alike, not equal
            assert np.corrcoef(found[name].ravel(), values.ravel())[0, 1] > 0.9, name


@pytest.mark.parametrize("kind", KINDS)
def test_no_parameter_can_change_unnoticed(kind, folders, tmp_path):
    # A bias of the keys adds the same to all of a query's scores, which the softmax takes out again; half of a fused
    # one counts. Swin's own classifier norm is not read, nor are EoMT's switches, all one.
    skip = r"(k_proj|key)\.bias|swin\.layernorm|encoder\.layernorm\.|criterion|attn_mask_probs"
    assert kit.unnoticed(folders[kind], tmp_path, raw, 1e-4, skip) == []


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_attention_that_training_masks_by_chance_is_masked_or_not(engine, folders, tmp_path):
    def found(share):
        tensors = load_file(folders["eomt"] / "model.safetensors")
        tensors["attn_mask_probs"] = torch.full_like(tensors["attn_mask_probs"], share)
        target = tmp_path / str(share)
        target.mkdir()
        for file in folders["eomt"].glob("*.json"):
            (target / file.name).write_bytes(file.read_bytes())
        save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
        return target, raw(target, engine=engine)

    folder, never = found(0.0)
    own = reference("eomt", folder, picture(1)).masks_queries_logits[0].numpy()
    assert never["masks"] == pytest.approx(own, abs=2e-3 * float(np.abs(own).max()))
    np.testing.assert_array_equal(found(0.4)[1]["masks"], never["masks"])
    always = raw(folders["eomt"], engine=engine)["masks"]
    np.testing.assert_array_equal(found(0.6)[1]["masks"], always)
    assert np.abs(always - never["masks"]).max() > 0.1


QUERIES = 9


def said(kind: str, image: Image, seed: int, windows: int = 1) -> list[tuple[np.ndarray, np.ndarray]]:
    """What a trained network might say: sure classes, smooth masks of which some overlap."""
    random = np.random.default_rng(seed)
    low, size = (4, 32) if kind == "mask2former" else (4, 16)
    found = []
    for _ in range(windows):
        classes = random.normal(0, 1, (QUERIES, len(LABELS) + 1)).astype(np.float32)
        classes[np.arange(QUERIES), random.integers(0, len(LABELS) + 1, QUERIES)] += 4
        masks = np.stack([bilinear(random.normal(0, 3, (low, low)).astype(np.float32), (size, size)) for _ in classes])
        found.append((classes, masks))
    return found


class Outputs(SimpleNamespace):
    """As transformers' models give them."""

    def __init__(self, parts, offsets=()):
        classes, masks = (torch.from_numpy(np.stack(values)) for values in zip(*parts, strict=True))
        super().__init__(class_queries_logits=classes, masks_queries_logits=masks, patch_offsets=list(offsets))


@pytest.fixture
def ours(folders, monkeypatch):
    """Our answer where the network says what it is told to."""

    def answer(kind: str, image: Image, parts, mode: str, threshold: float | None = None, folder: Path | None = None):
        model = kit.opened(folder or folders[kind])
        monkeypatch.setattr(model, "raw", lambda image: parts)
        return kit.run(model, SegmentRequest.of(image=image, mode=mode, threshold=threshold))

    return answer


def processor(kind: str, **config):
    names = {"mask2former": "Mask2FormerImageProcessorPil", "eomt": "EomtImageProcessorPil"}
    return getattr(transformers, names[kind])(**{**_PROCESSORS[kind], **config})


SIZES = [(90, 60), (60, 90), (64, 64), (33, 200), (700, 500)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_semantic_maps_equal_those_of_the_processor(kind, size, ours):
    image = picture(2, *size)
    parts = said(kind, image, seed=size[0])
    right = processor(kind).post_process_semantic_segmentation(Outputs(parts), target_sizes=[size[::-1]])[0].numpy()
    found = ours(kind, image, parts, "semantic")
    label = np.full(right.shape, -1)
    for mask, number in zip(found.mask, found.class_id, strict=True):
        assert (label[mask] == -1).all()
        label[mask] = number
    assert len(np.unique(right)) > 1
    assert (label == right).mean() > 0.999
    assert list(found.data["class_name"]) == [LABELS[number] for number in found.class_id]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("overlap", [0.3, 0.8])
def test_panoptic_regions_equal_those_of_the_processor(kind, size, overlap, ours, monkeypatch):
    monkeypatch.setattr(queries, "OVERLAP", overlap)  # masks drawn at random overlap more than a network's
    image, threshold = picture(3, *size), 0.6
    parts = said(kind, image, seed=size[1])
    how = {"label_ids_to_fuse": set()} if kind == "mask2former" else {"stuff_classes": []}
    right = processor(kind).post_process_panoptic_segmentation(
        Outputs(parts), threshold=threshold, target_sizes=[size[::-1]], overlap_mask_area_threshold=overlap, **how
    )[0]
    found = ours(kind, image, parts, "panoptic", threshold)
    infos = sorted(right["segments_info"], key=lambda info: -info["score"])
    assert len(infos) > 1 or overlap > 0.3
    assert [info["label_id"] for info in infos] == list(found.class_id)
    assert [info["score"] for info in infos] == pytest.approx(list(found.confidence), abs=1e-4)
    for info, mask in zip(infos, found.mask, strict=True):
        wanted = right["segmentation"].numpy() == info["id"]
        assert (wanted & mask).sum() / (wanted | mask).sum() > 0.99


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_instances_equal_those_of_the_processor(kind, size, ours):
    image, threshold = picture(4, *size), 0.25
    parts = said(kind, image, seed=sum(size))
    how = {"return_binary_maps": True} if kind == "mask2former" else {}
    right = processor(kind).post_process_instance_segmentation(
        Outputs(parts), threshold=threshold, target_sizes=[size[::-1]], **how
    )[0]
    found = ours(kind, image, parts, "instance", threshold)
    infos = right["segments_info"]
    order = sorted(range(len(infos)), key=lambda i: -infos[i]["score"])
    assert len(infos) > 1
    assert [infos[i]["label_id"] for i in order] == list(found.class_id)
    assert [infos[i]["score"] for i in order] == pytest.approx(list(found.confidence), abs=1e-4)
    if kind == "mask2former":
        wanted = right["segmentation"].numpy().astype(bool)
        for i, mask in zip(order, found.mask, strict=True):
            assert (wanted[i] == mask).all()
    else:  # the processor gives one map, in which later queries lie on earlier ones
        drawn = np.full(size[::-1], -1)
        for place, i in enumerate(np.argsort(order)):
            drawn[found.mask[i]] = place
        assert (drawn == right["segmentation"].numpy()).all()


def test_a_long_picture_is_cut_into_windows_and_stitched(ours, tmp_path):
    config = {"do_split_image": True, "do_pad": False, "size": {"shortest_edge": 64, "longest_edge": None}}
    folder, image = made("eomt", tmp_path / "windows", **config), picture(5, 150, 64)
    prepare = processor("eomt", **config)
    inputs = prepare([image.array], return_tensors="pt")
    offsets = [tuple(int(value) for value in one) for one in inputs["patch_offsets"]]
    model = kit.opened(folder)
    cut = np.stack([model.resizing.planes(image.array, window) for window in model.resizing.cut(image.size)])
    assert np.allclose(cut, inputs["pixel_values"].numpy(), atol=1e-5)
    parts = said("eomt", image, seed=1, windows=3)
    right = prepare.post_process_semantic_segmentation(Outputs(parts, offsets), target_sizes=[(64, 150)])[0].numpy()
    found = ours("eomt", image, parts, "semantic", folder=folder)
    label = sum(mask * number for mask, number in zip(found.mask, found.class_id, strict=True))
    assert len(offsets) == 3
    assert len(np.unique(right)) > 1
    assert (label == right).mean() > 0.999


@pytest.mark.parametrize(
    ("size", "config"),
    [
        ((640, 480), {"size": {"shortest_edge": 800, "longest_edge": 1333}, "size_divisor": 32}),
        ((480, 1640), {"size": {"shortest_edge": 800, "longest_edge": 1333}, "size_divisor": 32}),
        ((1333, 800), {"size": {"shortest_edge": 800, "longest_edge": 1333}}),
        ((7, 300), {"size": {"shortest_edge": 80, "longest_edge": 133}}),
        ((61, 40), {"size": {"height": 64, "width": 96}}),
    ],
)
def test_pictures_are_prepared_as_transformers_does(size, config):
    image = picture(6, *size)
    prepare = transformers.Mask2FormerImageProcessorPil(**config)
    right = prepare([image.array], return_tensors="np")["pixel_values"][0]
    resizing = Resizing.of({"size_divisor": 32, **config}, "x", square=False)
    (window,) = resizing.cut(image.size)
    assert np.allclose(resizing.planes(image.array, window), right, atol=1e-5)


def test_stuff_is_one_region_and_things_are_counted(folders, monkeypatch):
    image = picture(3)
    model = kit.opened(folders["eomt"])
    parts = said("eomt", image, seed=60)
    monkeypatch.setattr(model, "raw", lambda image: parts)
    monkeypatch.setattr(queries, "OVERLAP", 0.2)
    request = SegmentRequest.of(image=image, mode="panoptic", threshold=0.3)
    free = kit.run(model, request)
    monkeypatch.setattr(model, "labels", Labels(model.labels.names, frozenset(LABELS), True))
    fused = kit.run(model, request)
    assert len(set(free.class_id)) == len(fused) < len(free)
    assert not fused.data["is_thing"].any()
    assert (fused.mask.any(axis=0) == free.mask.any(axis=0)).all()


def test_the_usual_label_sets_are_known():
    coco = {0: "person", **{i: f"thing {i}" for i in range(1, 133)}}
    labels = Labels.of({"id2label": coco})
    assert labels.known
    assert labels.stuff == frozenset(range(80, 133))
    assert not Labels.of({"id2label": LABELS}).known
    assert Labels.of({}).names == ("LABEL_0", "LABEL_1")


def test_labels_without_names_are_as_many_as_the_config_says():
    config = {"num_labels": 5, "id2label": None}
    assert Labels.of(config).names == tuple(transformers.EomtConfig(num_labels=5).id2label.values())


def test_another_mode_does_not_run_the_network_again(folders, tmp_path):
    with Session(home=tmp_path) as session:
        hits = [
            session.run(SegmentRequest.of(image=EXAMPLES / "cat.jpg", mode=mode), model=str(folders["mask2former"]))
            .metadata["provenance"]
            .cache
            for mode in ("semantic", "panoptic", "instance")
        ]
    assert hits == ["miss", "memory", "memory"]


def test_nothing_above_the_threshold_is_said(folders):
    ctx = kit.Context()
    request = SegmentRequest.of(image=picture(1), mode="instance", threshold=1.0)
    (found,) = kit.opened(folders["eomt"]).run([request], ctx)
    assert len(found) == 0
    assert found.mask.shape == (0, 60, 90)
    assert "no region passes the threshold" in ctx.notes["notes"]


def test_squares_that_the_network_does_not_take_are_refused(tmp_path):
    folder = made("eomt", tmp_path / "odd", size={"shortest_edge": 96, "longest_edge": 96})
    with pytest.raises(WeightsError, match="makes squares of 96, its network takes 64"):
        kit.opened(folder)


@pytest.mark.parametrize("size", ["large", {"height": -3, "width": 4}, [3], {}])
def test_a_size_that_is_none_is_refused(size):
    with pytest.raises(WeightsError, match="has a size of"):
        Resizing.of({"size": size}, "x", square=False)


def test_a_resize_that_is_not_known_is_refused():
    with pytest.raises(UnsupportedError, match="resizes to"):
        Resizing.of({"size": {"max_height": 3}}, "x", square=False)
