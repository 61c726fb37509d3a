"""What a SAM checkpoint's own files say of it, read without transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from manylens.errors import UnsupportedError, WeightsError
from manylens.models import checkpoint, pixels
from manylens.models.promptable.prompts import Canvas

_PREPROCESSOR = "preprocessor_config.json"
_ACTIVATIONS = ("gelu", "relu")
_BILINEAR = 2


@dataclass(frozen=True)
class Vision:
    """The image encoder; the values of ``vision_config`` and of the image processor.

    Attributes:
        side: Side of the square picture in pixels.
        patch: Side of a patch in pixels.
        width: Channels.
        depth: Blocks.
        heads: Attention heads.
        channels: Of the embedding.
        window: Side of a window in patches; 0 for none.
        wide: Blocks that attend to the whole picture.
        epsilon: Of the blocks' layer norms.
        activation: Of the blocks' feed-forward part, as transformers names it.
        relative: Whether attention has relative positions.
        mean: Of each colour, in 0..255.
        deviation: Of each colour, in 0..255.
    """

    side: int
    patch: int
    width: int
    depth: int
    heads: int
    channels: int
    window: int
    wide: tuple[int, ...]
    epsilon: float
    activation: str
    relative: bool
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @property
    def grid(self) -> int:
        """Patches along each side."""
        return self.side // self.patch

    @property
    def low_res(self) -> int:
        """Side of the decoder's masks."""
        return 4 * self.grid

    def canvas(self, size: tuple[int, int]) -> Canvas:
        """How a photo of ``(width, height)`` lies in the picture."""
        return Canvas.padded(size, self.side)

    def picture(self, rgb: np.ndarray) -> np.ndarray:
        """A photo uint8 ``(H, W, 3)``, resized and padded to uint8 ``(S, S, 3)``."""
        high, wide = rgb.shape[:2]
        inner = pixels.resized(rgb, self.canvas((wide, high)).inner)
        square = np.zeros((self.side, self.side, 3), np.uint8)
        square[: inner.shape[0], : inner.shape[1]] = inner
        return square


def read(files: Mapping[str, Path], name: str) -> Vision:
    """The encoder of a checkpoint; what its files leave out is as in transformers' ``SamVisionConfig``.

    Raises:
        WeightsError: A file is missing, or its values do not fit together.
        UnsupportedError: It asks for what this version does not compute.
    """
    config = checkpoint.config(files, name)
    told = config.get("vision_config") or {}
    processor = _processor(files, name)
    side = told.get("image_size", 1024)
    if (activation := told.get("hidden_act", "gelu")) not in _ACTIVATIONS:
        raise UnsupportedError(f"{name}: its activation {activation!r} is not computed here")
    if (longest := processor.get("size", {}).get("longest_edge", side)) != side:
        raise WeightsError(
            f"{name}: its {_PREPROCESSOR} makes pictures of {longest} pixels but its config takes {side}",
            "give the two files of one checkpoint",
        )
    if processor.get("resample", _BILINEAR) != _BILINEAR:
        raise UnsupportedError(f"{name}: its {_PREPROCESSOR} asks for a resampling other than bilinear")
    scale = processor.get("rescale_factor", 1 / 255) if processor.get("do_rescale", True) else 1.0
    normalises = processor.get("do_normalize", True)
    mean = processor.get("image_mean", pixels.IMAGENET_MEAN) if normalises else (0.0,) * 3
    deviation = processor.get("image_std", pixels.IMAGENET_STD) if normalises else (1.0,) * 3
    return Vision(
        side=side,
        patch=told.get("patch_size", 16),
        width=told.get("hidden_size", 768),
        depth=told.get("num_hidden_layers", 12),
        heads=told.get("num_attention_heads", 12),
        channels=told.get("output_channels", 256),
        window=told.get("window_size", 14),
        wide=tuple(told.get("global_attn_indexes", (2, 5, 8, 11))),
        epsilon=told.get("layer_norm_eps", 1e-6),
        activation=activation,
        relative=told.get("use_rel_pos", True),
        mean=tuple(float(value) / scale for value in mean),
        deviation=tuple(float(value) / scale for value in deviation),
    )


def _processor(files: Mapping[str, Path], name: str) -> dict[str, Any]:
    """The image processor's values; newer checkpoints hold them within the whole processor's."""
    if _PREPROCESSOR not in files and "processor_config.json" in files:
        inner = checkpoint.config(files, name, "processor_config.json").get("image_processor")
        if isinstance(inner, dict):
            return inner
    return checkpoint.config(files, name, _PREPROCESSOR)


def has_plain_decoder(files: Mapping[str, Path], name: str) -> bool:
    """Whether the mask decoder is as in all published checkpoints: its tokens' half is then computed in NumPy."""
    told = checkpoint.config(files, name).get("mask_decoder_config") or {}
    return told.get("hidden_act", "relu") == "relu"
