"""How a picture becomes what a network takes: as its own processor says, or the whole of it at some size."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from manylens.errors import WeightsError
from manylens.models import checkpoint, pixels
from manylens.models.dino.plan import Plan
from manylens.models.processor import Processor

PREPROCESSOR = "preprocessor_config.json"

SIDE = 224
"""The embedded network takes the whole picture as this square, its aspect not kept: nothing is cut off."""

FINE = 480
"""Side of the square with as many pixels as a picture has for masks; DINO's own demonstration and DAVIS use 480."""

# What the processor that a folder's file names (else that of the kind) does where the file does not say.
_LEFT_OUT: dict[str, dict[str, Any]] = {
    "ViT": {
        "size": {"height": 224, "width": 224},
        "do_center_crop": False,
        "resample": 2,
        "image_mean": pixels.HALF,
        "image_std": pixels.HALF,
    },
    "Bit": {
        "size": {"shortest_edge": 224},
        "crop_size": {"height": 224, "width": 224},
        "resample": 3,
        "image_mean": pixels.CLIP_MEAN,
        "image_std": pixels.CLIP_STD,
    },
    "DINOv3ViT": {"size": {"height": 224, "width": 224}, "do_center_crop": False, "resample": 2},
}
_PROCESSORS = {"vit": "ViT", "dinov2": "Bit", "dinov2_with_registers": "Bit", "dinov3_vit": "DINOv3ViT"}

# What is done where a folder has no file for it: as the published checkpoints of a kind say.
_USUAL: dict[str, dict[str, Any]] = {
    "vit": _LEFT_OUT["ViT"],
    "dinov2": {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}, "resample": 3},
    "dinov3_vit": _LEFT_OUT["DINOv3ViT"],
}
_USUAL["dinov2_with_registers"] = _USUAL["dinov2"]


@dataclass(frozen=True, eq=False)
class View:
    """One way to see a picture.

    Attributes:
        tag: Names it in the keys of what is kept; "" for the embedded network's only one.
        prepare: uint8 RGB ``(H, W, 3)`` to the network's ``(h, w, 3)``: uint8, or float32 levels of 0..255.
    """

    tag: str
    prepare: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Views:
    """The views of a checkpoint.

    Attributes:
        seen: As its own processor prepares pictures, crop and all: for vectors and classes.
        whole: The whole picture at the same size, its aspect not kept: for patches and regions. The same object as
            ``seen`` where the processor cuts nothing off.
        fine: The whole picture with its aspect kept, about :data:`FINE` squared pixels in whole patches: for masks.
        processor: How pixels become numbers, the same for all views.
    """

    seen: View
    whole: View
    fine: View
    processor: Processor

    @property
    def levels(self) -> tuple[tuple[float, ...], tuple[float, ...], float]:
        """Mean and deviation of each channel, and what pixels are multiplied with before."""
        return self.processor.mean, self.processor.std, self.processor.scale


def of_folder(files: Mapping[str, Path], plan: Plan, name: str) -> Views:
    """The views of a checkpoint in the hub's format.

    Raises:
        WeightsError: Its ``preprocessor_config.json`` is no JSON object, or does not fit the network.
        UnsupportedError: That file asks for a resize that is not known here.
    """
    from manylens.catalog.row import short_hash

    known = PREPROCESSOR in files
    config = _completed(checkpoint.config(files, name, PREPROCESSOR), plan.kind) if known else _USUAL[plan.kind]
    # All of these were trained at 224 pixels or tell their size.
    processor = Processor.of(config, name, side=224)
    digest, prepare = short_hash(repr(processor)), processor.pixels
    if plan.fractions:
        digest, prepare = f"fractions-{digest}", lambda rgb: _with_fractions(rgb, processor)
    size = processor.crop or processor.exact or (processor.edge or SIDE,) * 2
    if min(size) < plan.patch:
        raise WeightsError(
            f"{name}: its {PREPROCESSOR} makes pictures of {size[0]}x{size[1]}, less than a patch of {plan.patch}",
            "give a checkpoint whose files belong together",
        )
    seen = View(f"seen-{digest}", prepare)
    whole = View(f"whole-{digest}", lambda rgb: pixels.resized(rgb, size, processor.how))
    fine = View(
        f"fine-{digest}",
        lambda rgb: pixels.resized(rgb, fine_size((rgb.shape[1], rgb.shape[0]), plan.patch), processor.how),
    )
    cuts = processor.exact is None or processor.crop not in (None, processor.exact)
    return Views(seen, whole if cuts else seen, fine, processor)


def _completed(config: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """What a ``preprocessor_config.json`` says, and what its processor does where it does not."""
    told = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    processor = re.sub(r"(ImageProcessor|FeatureExtractor)(Fast|Pil)?$", "", told)
    return _LEFT_OUT.get(processor, _LEFT_OUT[_PROCESSORS[kind]]) | dict(config)


def embedded(plan: Plan) -> Views:
    """The views of the embedded network, which was trained on ImageNet's means."""
    square = View("", lambda rgb: pixels.squeezed(rgb, (SIDE, SIDE)))
    fine = View("fine", lambda rgb: pixels.squeezed(rgb, fine_size((rgb.shape[1], rgb.shape[0]), plan.patch)))
    processor = Processor((SIDE, SIDE), None, None, "bicubic", pixels.IMAGENET_MEAN, pixels.IMAGENET_STD)
    return Views(square, square, fine, processor)


def fine_size(size: tuple[int, int], patch: int) -> tuple[int, int]:
    """``(width, height)`` in whole patches, of about :data:`FINE` squared pixels and the picture's aspect."""
    width, height = size
    scale = FINE / (width * height) ** 0.5
    return max(1, round(width * scale / patch)) * patch, max(1, round(height * scale / patch)) * patch


def _with_fractions(rgb: np.ndarray, processor: Processor) -> np.ndarray:
    """As the processor of DINOv3 does, which resizes numbers and not bytes: float32 levels ``(h, w, 3)``."""
    from PIL import Image

    if processor.exact is None:
        return processor.pixels(rgb)
    how = getattr(Image.Resampling, processor.how.upper())
    planes = [Image.fromarray(rgb[..., channel].astype(np.float32)) for channel in range(3)]
    levels = np.stack([np.asarray(plane.resize(processor.exact, how)) for plane in planes], axis=-1)
    return pixels.centre_cropped(levels, processor.crop) if processor.crop is not None else levels
