"""What a SAM 2 checkpoint's config says, read without its network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from manylens.errors import WeightsError
from manylens.models import checkpoint, pixels
from manylens.models.processor import Processor

VIDEO = "sam2_video"
"""The ``model_type`` of a checkpoint with the memory of a video; the published ones are all of it."""


@dataclass(frozen=True)
class Spec:
    """The numbers that the code around the network goes by; defaults are those of transformers' config classes.

    Attributes:
        video: Whether the checkpoint has the memory of a video.
        side: Side of the square picture in pixels.
        cells: Side of the encoder's coarsest map.
        low_res: Side of the masks.
        stability_delta: Logits that a stable mask may be shifted by.
        stability_least: The least stability of mask 0 that it is still the answer of; None where it always is.
        memories: How many frames are remembered, the prompted ones not counted but one.
        pointers: How many frames' pointers are attended to, the current one counted.
        most_prompted: How many prompted frames are attended to; -1 for all.
        several: Whether the decoder may give several masks in a video at all.
        several_tracked: Whether it may where the object is followed, not prompted.
        several_points: The least and most points that it does for.
        processor: How pictures are prepared: they fill the square, their aspect not kept.
    """

    video: bool
    side: int
    cells: int
    low_res: int
    stability_delta: float
    stability_least: float | None
    memories: int
    pointers: int
    most_prompted: int
    several: bool
    several_tracked: bool
    several_points: tuple[int, int]
    processor: Processor

    @property
    def reach(self) -> int:
        """How many frames back anything of a frame is attended to."""
        return max(self.memories, self.pointers)


def read(files: Mapping[str, Path], name: str) -> Spec:
    """The spec of a checkpoint.

    Args:
        files: Its files by name.
        name: What to call it in an error.

    Raises:
        WeightsError: A config is missing, no JSON, or says what does not fit together.
    """
    about = checkpoint.config(files, name)
    side = _picture_side(about, name)
    seen = ((about.get("vision_config") or {}).get("backbone_config") or {}).get("image_size", side)
    if _side(seen, name) != side:
        raise WeightsError(
            f"{name}: its config has pictures of {seen} for the encoder and of {side} for prompts",
            "give another checkpoint",
        )
    processor = Processor.square(files, name, side, pixels.IMAGENET_MEAN, pixels.IMAGENET_STD)
    return of(about, about.get("model_type") == VIDEO, processor, name=name)


def of(about: Mapping[str, Any], video: bool, processor: Processor, *, name: str) -> Spec:
    """The spec that a config tells; SAM 3's tracker has one of the same form.

    Args:
        about: The config.
        video: Whether it is that of a checkpoint with the memory of a video.
        processor: How its pictures are prepared.
        name: What to call the checkpoint in an error.

    Raises:
        WeightsError: The config says what does not fit together.
    """
    prompt: Mapping[str, Any] = about.get("prompt_encoder_config") or {}
    decoder: Mapping[str, Any] = about.get("mask_decoder_config") or {}
    side = _picture_side(about, name)
    cells = side // _side(prompt.get("patch_size", 16), name)
    stable = decoder.get("dynamic_multimask_via_stability", True)
    return Spec(
        video=video,
        side=side,
        cells=cells,
        low_res=4 * cells,
        stability_delta=float(decoder.get("dynamic_multimask_stability_delta", 0.05)),
        stability_least=float(decoder.get("dynamic_multimask_stability_thresh", 0.98)) if stable else None,
        memories=int(about.get("num_maskmem", 7)),
        pointers=int(about.get("max_object_pointers_in_encoder", 16)),
        most_prompted=int(about.get("max_cond_frame_num", -1)),
        several=bool(about.get("multimask_output_in_sam", True)),
        several_tracked=bool(about.get("multimask_output_for_tracking", True)),
        several_points=(int(about.get("multimask_min_pt_num", 0)), int(about.get("multimask_max_pt_num", 1))),
        processor=processor,
    )


def prepared(rgb: np.ndarray, spec: Spec) -> np.ndarray:
    """uint8 ``(H, W, 3)`` as the encoder takes it: float32 ``(1, 3, side, side)``.

    The square is filled, the aspect not kept; bilinear with antialiasing on the uint8 pixels, as in transformers'
    ``Sam2ImageProcessor`` (which needs torchvision) and ``SAM2Transforms`` of Meta's package, up to the rounding of a
    grey level.
    """
    return spec.processor.normalised(spec.processor.pixels(rgb))[None]


def _picture_side(about: Mapping[str, Any], name: str) -> int:
    return _side((about.get("prompt_encoder_config") or {}).get("image_size", 1024), name)


def _side(value: Any, name: str) -> int:
    """A size that configs give as a number or as two equal ones."""
    sides = set(value) if isinstance(value, list | tuple) else {value}
    if len(sides) != 1 or not isinstance(side := sides.pop(), int) or side < 1:
        raise WeightsError(
            f"{name}: its config has the size {value!r}, not that of a square", "give another checkpoint"
        )
    return side
