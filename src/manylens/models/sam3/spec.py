"""What a SAM 3 checkpoint's config says, read without its network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manylens.errors import WeightsError
from manylens.models import checkpoint, pixels
from manylens.models.processor import Processor

VIDEO = "sam3_video"
"""The ``model_type`` of a checkpoint with detector and tracker, as the published one is; ``sam3`` is the detector."""


@dataclass(frozen=True)
class Spec:
    """The numbers that the code around the network goes by; defaults are those of transformers' config classes.

    Attributes:
        detector: The detector's config.
        tracker: The tracker's config; None where the checkpoint is a detector alone.
        side: Side of the square picture in pixels.
        cells: Side of the grid of patches.
        depth: Channels of a patch token.
        width: Channels of the maps and prompts.
        tokens: The most tokens that the text tower reads, those of start and end counted.
        bins: Rows and columns that the box of an example is pooled to.
        threshold: The least score of what counts as found.
        processor: Prepares pictures.
    """

    detector: Mapping[str, Any]
    tracker: Mapping[str, Any] | None
    side: int
    cells: int
    depth: int
    width: int
    tokens: int
    bins: int
    threshold: float
    processor: Processor


def read(files: Mapping[str, Path], name: str) -> Spec:
    """The spec of a checkpoint.

    Args:
        files: Its files by name.
        name: What to call it in an error.

    Raises:
        WeightsError: A config is missing, no JSON, or says what does not fit together.
    """
    about = checkpoint.config(files, name)
    video = about.get("model_type") == VIDEO
    detector = _part(about, "detector_config") if video else about
    vision = _part(detector, "vision_config")
    backbone = _part(vision, "backbone_config")
    side = square(backbone.get("image_size", 1008), name)
    return Spec(
        detector=detector,
        tracker=_part(about, "tracker_config") if video else None,
        side=side,
        cells=side // square(backbone.get("patch_size", 14), name),
        depth=int(backbone.get("hidden_size", 1024)),
        width=int(vision.get("fpn_hidden_size", 256)),
        tokens=int(_part(detector, "text_config").get("max_position_embeddings", 32)),
        bins=int(_part(detector, "geometry_encoder_config").get("roi_size", 7)),
        threshold=float(about.get("score_threshold_detection", 0.5)),
        processor=Processor.square(files, name, side, pixels.HALF, pixels.HALF),
    )


def square(value: Any, name: str) -> int:
    """A size that configs give as a number or as two equal ones.

    Raises:
        WeightsError: It is not that of a square.
    """
    sides = set(value) if isinstance(value, list | tuple) else {value}
    if len(sides) != 1 or not isinstance(side := sides.pop(), int) or side < 1:
        raise WeightsError(
            f"{name}: its config has the size {value!r}, not that of a square", "give another checkpoint"
        )
    return side


def _part(about: Mapping[str, Any], part: str) -> Mapping[str, Any]:
    """A nested config; what it leaves out is as in the classes."""
    return about.get(part) or {}
