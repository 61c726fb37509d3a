"""A checkpoint of noise of each family's published shape, and what its user writes with plain transformers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

WORDS = ("cat", "red cup")
_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}

Peer = Callable[[np.ndarray], Any]
"""A photo uint8 ``(H, W, 3)`` to the answer."""


@dataclass(frozen=True)
class Family:
    """One family's task, and its peer.

    Attributes:
        task: Of manylens.
        asked: Gives the request's arguments beside the picture.
        model: Makes transformers' model; every tensor is filled with noise afterwards.
        processor: The ``preprocessor_config.json``.
        peer: Of the model, in evaluation mode, and the checkpoint's folder: what a user of transformers runs.
        large: Measured with ``--full`` only.
    """

    task: str
    asked: Callable[[], Mapping[str, Any]]
    model: Callable[[], Any]
    processor: Mapping[str, Any]
    peer: Callable[[Any, Path], Peer]
    large: bool = False


def _sam2() -> Any:
    from transformers import Sam2Config, Sam2Model

    return Sam2Model(Sam2Config())


def _sam2_peer(model: Any, folder: Path) -> Peer:
    """Transformers prepares pictures for SAM 2 with torchvision only: the resize is PIL's here."""
    import torch
    from PIL import Image

    side = model.config.vision_config.image_size if hasattr(model.config.vision_config, "image_size") else 1024
    mean, std = (torch.tensor(_IMAGENET[name])[:, None, None] for name in ("image_mean", "image_std"))

    def run(rgb: np.ndarray) -> Any:
        height, width = rgb.shape[:2]
        small = np.array(Image.fromarray(rgb).resize((side, side), Image.Resampling.BILINEAR))
        pixels = (torch.from_numpy(small).permute(2, 0, 1).float() / 255 - mean) / std
        points = torch.tensor([[[[320.0 * side / width, 240.0 * side / height]]]])
        found = model(pixel_values=pixels[None], input_points=points)
        masks = torch.nn.functional.interpolate(found.pred_masks[0], (height, width), mode="bilinear")
        return (masks > 0).numpy(), found.iou_scores

    return run


def _vit() -> Any:
    from transformers import ViTConfig, ViTModel

    return ViTModel(ViTConfig())


def _dinov3() -> Any:
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    return DINOv3ViTModel(DINOv3ViTConfig(num_register_tokens=4))


def _clip() -> Any:
    from transformers import CLIPConfig, CLIPModel

    return CLIPModel(CLIPConfig())


def _siglip() -> Any:
    from transformers import SiglipConfig, SiglipModel

    return SiglipModel(SiglipConfig())


def _clipseg() -> Any:
    from transformers import CLIPSegConfig, CLIPSegForImageSegmentation

    return CLIPSegForImageSegmentation(CLIPSegConfig())


def _mask2former() -> Any:
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

    config = Mask2FormerConfig(num_labels=133)
    config.backbone_config.depths = [2, 2, 6, 2]  # Swin-T
    return Mask2FormerForUniversalSegmentation(config)


def _eomt() -> Any:
    from transformers import EomtConfig, EomtForUniversalSegmentation

    config = EomtConfig(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, num_blocks=3, num_labels=133)
    return EomtForUniversalSegmentation(config)


def _trained(model: Any) -> Any:
    """As noise cannot be: EoMT's training ends without masks of attention."""
    if hasattr(model, "attn_mask_probs"):
        model.attn_mask_probs.fill_(0.0)
    return model


def _depth_anything() -> Any:
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation

    config = DepthAnythingConfig()
    config.backbone_config.out_indices = [3, 6, 9, 12]
    config.backbone_config.reshape_hidden_states = False
    return DepthAnythingForDepthEstimation(config)


def _dpt() -> Any:
    from transformers import DPTConfig, DPTForDepthEstimation

    return DPTForDepthEstimation(DPTConfig())


def _seggpt() -> Any:
    from transformers import SegGptConfig, SegGptForImageSegmentation

    return SegGptForImageSegmentation(SegGptConfig())


def _prepared(name: str, **inputs: Any) -> Callable[[Path], Callable[..., Any]]:
    """Transformers' own processor of a folder, without torchvision."""

    def make(folder: Path) -> Callable[..., Any]:
        import transformers

        processor = getattr(transformers, name).from_pretrained(folder)
        return lambda *pictures, **more: processor(*pictures, return_tensors="pt", **inputs, **more)

    return make


def _vector(processor: str, method: str = "") -> Callable[[Any, Path], Peer]:
    """The vector of a picture, by a vision model or by a method of one with two towers."""

    def peer(model: Any, folder: Path) -> Peer:
        prepare = _prepared(processor)(folder)

        def run(rgb: np.ndarray) -> Any:
            pixels = prepare(rgb)["pixel_values"]
            return getattr(model, method)(pixel_values=pixels) if method else model(pixels).last_hidden_state[:, 0]

        return run

    return peer


def _clipseg_peer(model: Any, folder: Path) -> Peer:
    import torch
    from transformers import PreTrainedTokenizerFast

    prepare = _prepared("ViTImageProcessorPil")(folder)
    tokens = PreTrainedTokenizerFast.from_pretrained(folder)

    def run(rgb: np.ndarray) -> Any:
        ids = tokens(list(WORDS), return_tensors="pt", padding=True)
        pixels = prepare([rgb] * len(WORDS))["pixel_values"]
        logits = model(input_ids=ids["input_ids"], attention_mask=ids["attention_mask"], pixel_values=pixels).logits
        return torch.nn.functional.interpolate(logits[:, None], rgb.shape[:2], mode="bilinear").sigmoid().numpy() > 0.5

    return run


def _panoptic(processor: str) -> Callable[[Any, Path], Peer]:
    def peer(model: Any, folder: Path) -> Peer:
        import transformers

        own = getattr(transformers, processor).from_pretrained(folder)

        def run(rgb: np.ndarray) -> Any:
            found = model(pixel_values=own([rgb], return_tensors="pt")["pixel_values"])
            return own.post_process_panoptic_segmentation(found, target_sizes=[rgb.shape[:2]])

        return run

    return peer


def _depth_peer(model: Any, folder: Path) -> Peer:
    import transformers

    own = transformers.DPTImageProcessorPil.from_pretrained(folder)

    def run(rgb: np.ndarray) -> Any:
        found = model(pixel_values=own([rgb], return_tensors="pt")["pixel_values"])
        return own.post_process_depth_estimation(found, target_sizes=[rgb.shape[:2]])

    return run


def example() -> tuple[np.ndarray, np.ndarray]:
    """A picture uint8 ``(H, W, 3)`` and its mask bool ``(H, W)`` that SegGPT is shown."""
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (480, 640, 3), dtype=np.uint8)
    mask = np.zeros((480, 640), bool)
    mask[120:360, 160:480] = True
    return rgb, mask


def _seggpt_peer(model: Any, folder: Path) -> Peer:
    import transformers

    own = transformers.SegGptImageProcessorPil.from_pretrained(folder)
    shown, mask = example()

    def run(rgb: np.ndarray) -> Any:
        inputs = own(
            images=rgb, prompt_images=shown, prompt_masks=mask.astype(np.uint8), num_labels=1, return_tensors="pt"
        )
        found = model(**inputs)
        return own.post_process_semantic_segmentation(found, target_sizes=[rgb.shape[:2]], num_labels=1)

    return run


def _exact(side: int, resample: int = 2, **more: Any) -> dict[str, Any]:
    return {"size": {"height": side, "width": side}, "resample": resample, **_IMAGENET, **more}


_DEPTH = {"keep_aspect_ratio": True, "ensure_multiple_of": 14}

FAMILIES: dict[str, Family] = {
    "SAM 2 tiny, a click": Family("segment", lambda: {"points": [(320, 240)]}, _sam2, _exact(1024), _sam2_peer),
    "ViT-B/16": Family("embed", dict, _vit, _exact(224), _vector("ViTImageProcessorPil")),
    "DINOv3 ViT-S/16": Family("embed", dict, _dinov3, _exact(224), _vector("ViTImageProcessorPil")),
    "CLIP ViT-B/32": Family(
        "embed",
        dict,
        _clip,
        {"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}, "resample": 3},
        _vector("CLIPImageProcessorPil", "get_image_features"),
    ),
    "SigLIP base": Family(
        "embed", dict, _siglip, _exact(224, 3), _vector("SiglipImageProcessorPil", "get_image_features")
    ),
    "CLIPSeg rd64, two words": Family(
        "segment", lambda: {"text": ", ".join(WORDS)}, _clipseg, _exact(352, 3), _clipseg_peer
    ),
    "Mask2Former Swin-T, panoptic": Family(
        "segment",
        lambda: {"mode": "panoptic"},
        _mask2former,
        {"size": {"shortest_edge": 800, "longest_edge": 1333}, "size_divisor": 32, "num_labels": 133, **_IMAGENET},
        _panoptic("Mask2FormerImageProcessorPil"),
    ),
    "EoMT base, panoptic": Family(
        "segment",
        lambda: {"mode": "panoptic"},
        _eomt,
        {"size": {"shortest_edge": 640, "longest_edge": 640}, "do_pad": True, **_IMAGENET},
        _panoptic("EomtImageProcessorPil"),
    ),
    "Depth Anything V2 small": Family("depth", dict, _depth_anything, _exact(518, 3, **_DEPTH), _depth_peer),
    "DPT base": Family("depth", dict, _dpt, _exact(384, 3), _depth_peer),
    "SegGPT large, one example": Family(
        "segment", lambda: {"like": [example()]}, _seggpt, _exact(448), _seggpt_peer, large=True
    ),
}


def checkpoint(family: Family, folder: Path) -> Path:
    """The folder of a family's checkpoint in the hub's format, every tensor noise by its fan-in."""
    from benchmarks._baselines import words
    from benchmarks._baselines.noise import noisy

    _trained(noisy(family.model())).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(dict(family.processor)))
    words.write(folder)
    return folder
