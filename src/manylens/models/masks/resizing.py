"""How a picture of any size becomes what the network takes, and its masks the picture's size again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from manylens.errors import MediaError, UnsupportedError
from manylens.models import checkpoint, pixels
from manylens.models.processor import Processor

_STAGE = 384
"""Mask2Former's masks go through this square on their way to the picture's size, in the authors' own code too."""

_WINDOWS = 32
"""Most windows of a picture; one of a single row would make thousands."""


@dataclass(frozen=True)
class Window:
    """A part of the resized picture: ``(x0, y0, x1, y1)`` in its pixels."""

    x0: int
    y0: int
    x1: int
    y1: int


@dataclass(frozen=True)
class Resizing:
    """The sizes that a picture goes through, read from ``preprocessor_config.json``.

    Attributes:
        exact: ``(width, height)`` of the network's input where the aspect is not kept; or None.
        edges: Shortest and longest side where it is; or None.
        divisor: What each side is a multiple of.
        square: Whether the network takes a square of ``edges`` (EoMT): filled up with zeros, or cut into windows.
        windows: Whether a long picture is cut into windows along its longer side.
        processor: Resampling and normalisation.
    """

    exact: tuple[int, int] | None
    edges: tuple[int, int] | None
    divisor: int
    square: bool
    windows: bool
    processor: Processor

    @classmethod
    def of(cls, config: Mapping[str, Any], name: str, *, square: bool) -> Resizing:
        """Read it; what the file leaves out is as in the hub's processors.

        Raises:
            UnsupportedError: The file asks for a resize of another kind.
        """
        if not config.get("do_resize", True) or config.get("pad_size"):
            asked = f"pads to {config['pad_size']}" if config.get("pad_size") else "does not resize"
            raise UnsupportedError(f"{name}: its preprocessor_config.json {asked}, which is not known here")
        if isinstance(config.get("size"), int):
            config = {**config, "size": {"shortest_edge": config["size"], "longest_edge": config.get("max_size", 1333)}}
        usual = {"shortest_edge": 640, "longest_edge": 640} if square else {"shortest_edge": 800, "longest_edge": 1333}
        size = checkpoint.sides(config, name, usual)
        exact = edges = None
        if {"height", "width"} <= size.keys() and not square:
            exact = (size["width"], size["height"])
        elif "shortest_edge" in size and (not square or size.get("longest_edge") in (None, size["shortest_edge"])):
            edges = (size["shortest_edge"], size.get("longest_edge") or (1 << 30))
        else:
            raise UnsupportedError(f"{name}: its preprocessor_config.json resizes to {size}, which is not known here")
        return cls(
            exact=exact,
            edges=edges,
            divisor=1 if square else int(config.get("size_divisor", 32) or 1),
            square=square,
            windows=square and bool(config.get("do_split_image")),
            processor=Processor.of({**config, "do_resize": False}, name, 0),
        )

    def resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """``(width, height)`` that a picture is resized to."""
        if self.exact is not None:
            width, height = self.exact
        else:
            assert self.edges is not None
            width, height = _within(size, *self.edges)
            if self.square and not self.windows:  # rounding may leave a pixel too many
                width, height = min(width, self.side()), min(height, self.side())
        return (
            math.ceil(width / self.divisor) * self.divisor,
            math.ceil(height / self.divisor) * self.divisor,
        )

    def side(self) -> int:
        """Side of the square that the network takes, where it takes one."""
        assert self.edges is not None
        return self.edges[0]

    def cut(self, size: tuple[int, int]) -> list[Window]:
        """The parts of the resized picture that the network sees, one where it sees the whole."""
        width, height = self.resized(size)
        if not self.windows:
            return [Window(0, 0, width, height)]
        if max(width, height) > _WINDOWS * self.side():
            raise MediaError(
                f"picture of {size[0]}x{size[1]} pixels: it is more than {_WINDOWS} times as long as it is narrow",
                "cut it into parts",
            )
        side, longer = self.side(), max(width, height)
        count = math.ceil(longer / side)
        overlap = (count * side - longer) / (count - 1) if count > 1 else 0.0
        starts = [int(i * (side - overlap)) for i in range(count)]
        if height > width:
            return [Window(0, start, width, start + side) for start in starts]
        return [Window(start, 0, start + side, height) for start in starts]

    def planes(self, rgb: np.ndarray, window: Window) -> np.ndarray:
        """A part of a picture as the network's float32 ``(3, h, w)``."""
        whole = pixels.resized(rgb, self.resized((rgb.shape[1], rgb.shape[0])), self.processor.how)
        part = whole[window.y0 : window.y1, window.x0 : window.x1]
        if self.square and part.shape[:2] != (self.side(), self.side()):
            # Filled up before the mean is taken off, as the authors do: the rim is black, not grey.
            filled = np.zeros((self.side(), self.side(), 3), np.uint8)
            filled[: part.shape[0], : part.shape[1]] = part
            part = filled
        return self.processor.normalised(part)

    def stage(self, logits: np.ndarray) -> np.ndarray:
        """Mask logits ``(Q, h, w)`` at the size that they are judged at before the picture's own."""
        side = (self.side(), self.side()) if self.square else (_STAGE, _STAGE)
        return np.stack([bilinear(plane, side) for plane in logits])

    def unpadded(self, planes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Planes ``(N, side, side)`` without the part that was filled up."""
        if not self.square:
            return planes
        width, height = self.resized(size)
        return planes[:, :height, :width]


def bilinear(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """float32 ``(h, w)`` at ``size`` ``(width, height)``: half-pixel centres, no antialias, as torch interpolates."""
    found = cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR)
    return found.reshape(size[1], size[0])


def nearest(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """``(h, w)`` at ``size``: the pixel that torch's ``nearest`` takes, ``floor(i * old / new)``."""
    width, height = size
    rows = (np.arange(height) * plane.shape[0] // height).clip(0, plane.shape[0] - 1)
    columns = (np.arange(width) * plane.shape[1] // width).clip(0, plane.shape[1] - 1)
    return plane[rows[:, None], columns]


def _within(size: tuple[int, int], shortest: int, longest: int) -> tuple[int, int]:
    """``(width, height)``: the shorter side ``shortest``, unless the longer one would pass ``longest``."""
    width, height = size
    short, long = min(size), max(size)
    exact = float(shortest)
    if long / short * shortest > longest:
        exact = longest * short / long
        shortest = max(1, round(exact))
    if short == shortest and exact >= 0.5:
        return width, height
    other = max(1, int(exact * long / short))
    return (shortest, other) if width < height else (other, shortest)
