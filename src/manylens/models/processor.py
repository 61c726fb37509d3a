"""A checkpoint's own image pre-processing, read from its ``preprocessor_config.json``, without torchvision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from manylens.errors import UnsupportedError, WeightsError
from manylens.models import pixels
from manylens.models.pixels import How

_HOW: dict[int, How] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
"""By PIL's numbers, which the config files have."""

_MOST = 1 << 26
"""Pixels of a resized picture: of one that would have more, only the crop is made, right to a few levels."""


@dataclass(frozen=True)
class Processor:
    """Resize, crop and normalise as a checkpoint was trained; the picture stays uint8 until it is normalised.

    Attributes:
        exact: ``(width, height)`` that pictures are resized to, their aspect not kept; or None.
        edge: Length that the shorter side is resized to, its aspect kept; or None.
        crop: ``(width, height)`` of the middle that is kept; or None.
        how: The resampling.
        mean: Of each channel, 0..1.
        std: Of each channel.
        scale: What pixel values are multiplied with before the mean is taken off.
    """

    exact: tuple[int, int] | None
    edge: int | None
    crop: tuple[int, int] | None
    how: How
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float = 1 / 255

    @classmethod
    def of(cls, config: Mapping[str, Any], name: str, side: int, how: How = "bilinear") -> Processor:
        """Read it.

        Args:
            config: A ``preprocessor_config.json``; what it leaves out is as in the hub's processors.
            name: What to call the checkpoint in an error.
            side: Of the square that pictures are resized to where the config says nothing.
            how: The resampling where it says nothing.

        Raises:
            UnsupportedError: The config asks for a resize of another kind.
            WeightsError: A size, mean or deviation in it is none.
        """
        size = config.get("size", {"height": side, "width": side}) if config.get("do_resize", True) else None
        if isinstance(size, int):
            # The processors of CLIP and DINOv2 keep the aspect; an older ViT's plain number is a square.
            square = "crop_size" not in config
            size = {"height": size, "width": size} if square else {"shortest_edge": size}
        exact = edge = None
        if size and {"height", "width"} <= set(size):
            exact = (size["width"], size["height"])
        elif size and "shortest_edge" in size and "longest_edge" not in size:
            edge = size["shortest_edge"]
        elif size is not None:
            raise UnsupportedError(f"{name}: its preprocessor_config.json resizes to {size}, which is not known here")
        crop = config.get("crop_size") if config.get("do_center_crop", "crop_size" in config) else None
        if isinstance(crop, int):
            crop = {"height": crop, "width": crop}
        resample = config.get("resample")
        if resample is not None and not (isinstance(resample, int) and resample in _HOW):
            raise UnsupportedError(f"{name}: its preprocessor_config.json has resample {resample}, not known here")
        cut: Any = (crop.get("width"), crop.get("height")) if isinstance(crop, dict) and crop else crop or None
        normalises = config.get("do_normalize", True)
        mean = config.get("image_mean", pixels.IMAGENET_MEAN) if normalises else (0.0, 0.0, 0.0)
        std = config.get("image_std", pixels.IMAGENET_STD) if normalises else (1.0, 1.0, 1.0)
        scale = config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1.0
        for field, value, right in (
            ("size", size, _lengths(exact or edge)),
            ("crop_size", crop, _lengths(cut)),
            ("image_mean", mean, _numbers(mean)),
            ("image_std", std, _numbers(std) and all(std)),
            ("rescale_factor", scale, _numbers([scale] * 3)),
        ):
            if not right:
                raise WeightsError(
                    f"{name}: its preprocessor_config.json has {field} {value}", "fetch the checkpoint again"
                )
        return cls(
            exact=exact,
            edge=edge,
            crop=cut,
            how=how if resample is None else _HOW[resample],
            mean=tuple(mean),
            std=tuple(std),
            scale=scale,
        )

    @classmethod
    def square(
        cls, files: Mapping[str, Path], name: str, side: int, mean: Sequence[float], std: Sequence[float]
    ) -> Processor:
        """That of a network whose pictures fill a square, their aspect not kept, bilinear where no file says otherwise.

        Args:
            files: A checkpoint's files by name.
            name: What to call it in an error.
            side: Of the square that the network takes.
            mean: Of each channel, 0..1, where no file says it.
            std: Of each channel.

        Raises:
            WeightsError: The file makes pictures of another size, or has a value that is none.
            UnsupportedError: It asks for a resize of another kind.
        """
        from manylens.models import checkpoint

        known = {checkpoint.PROCESSOR, checkpoint.PREPROCESSOR} & set(files)
        told = checkpoint.preprocessing(files, name) if known else {}
        found = cls.of({"image_mean": mean, "image_std": std, "do_center_crop": False, **told}, name, side)
        if found.fixed(name) != (side, side):
            width, height = found.fixed(name)
            raise WeightsError(
                f"{name}: its {checkpoint.PREPROCESSOR} makes pictures of {width}x{height}, its network takes "
                f"{side}x{side}",
                "give a checkpoint whose files belong together",
            )
        return found

    def fixed(self, name: str) -> tuple[int, int]:
        """``(width, height)`` that every picture comes out at.

        Raises:
            UnsupportedError: Pictures come out at sizes of their own.
        """
        size = self.crop or self.exact
        if size is None:
            raise UnsupportedError(
                f"{name}: its preprocessor_config.json gives pictures no fixed size, and its network takes only one"
            )
        return size

    @property
    def levels(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and deviation of each channel for pixels in 0..1, whatever scale the checkpoint writes them for."""
        factor = 1 / (255 * self.scale)
        return tuple(one * factor for one in self.mean), tuple(one * factor for one in self.std)

    def pixels(self, rgb: np.ndarray) -> np.ndarray:
        """A picture uint8 ``(H, W, 3)`` as uint8 of the network's size."""
        if self.exact is not None:
            rgb = pixels.resized(rgb, self.exact, self.how)
        elif self.edge is not None:
            size = pixels.shortest_edge((rgb.shape[1], rgb.shape[0]), self.edge)
            if self.crop is not None and min(size) >= max(self.crop) and size[0] * size[1] > _MOST:
                return pixels.resized_middle(rgb, size, self.crop, self.how)
            rgb = pixels.resized(rgb, size, self.how)
        return pixels.centre_cropped(rgb, self.crop) if self.crop is not None else rgb

    def normalised(self, rgb: np.ndarray) -> np.ndarray:
        """uint8 ``(..., h, w, 3)`` to the network's float32 ``(..., 3, h, w)``."""
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        scaled = (rgb.astype(np.float32) * np.float32(self.scale) - mean) / std
        return np.ascontiguousarray(np.moveaxis(scaled, -1, -3))


def _lengths(value: Any) -> bool:
    """Whether it is one length in pixels, or several; or none is asked for."""
    values = value if isinstance(value, tuple) else (value,)
    return value is None or all(isinstance(one, int) and one > 0 for one in values)


def _numbers(value: Any) -> bool:
    """Whether it has a number for each channel."""
    return isinstance(value, list | tuple) and len(value) == 3 and all(isinstance(one, int | float) for one in value)
