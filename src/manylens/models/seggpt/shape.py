"""What a SegGPT checkpoint's config says of its sizes, read without loading the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from manylens.errors import UnsupportedError, WeightsError

_CANVAS = (896, 448)
_PATCH = 16
_WIDTH = 1024
"""Of the class ``SegGptConfig``, for a config that leaves them out."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a network.

    The network sees one canvas: the example above, the asked picture below, each of half the canvas's height.

    Attributes:
        height: Of a picture in pixels: half the canvas.
        width: Of a picture, and of the canvas, in pixels.
        patch: Side of a patch in pixels.
        channels: Of a token.
    """

    height: int
    width: int
    patch: int
    channels: int

    @property
    def rows(self) -> int:
        """Rows of patches in a picture."""
        return self.height // self.patch

    @property
    def columns(self) -> int:
        """Columns of patches in a picture."""
        return self.width // self.patch

    @classmethod
    def of(cls, config: Mapping[str, Any], name: str) -> Shape:
        """Read a ``config.json``.

        Raises:
            WeightsError: Its sizes are no sizes.
            UnsupportedError: The canvas does not fall into two halves of whole patches.
        """
        canvas, patch = config.get("image_size", _CANVAS), config.get("patch_size", _PATCH)
        sides = [canvas, canvas] if isinstance(canvas, int) else list(canvas)
        channels = config.get("hidden_size", _WIDTH)
        values = (*sides, patch, channels)
        if len(sides) != 2 or not all(isinstance(value, int) and value > 0 for value in values):
            raise WeightsError(
                f"{name}: its config.json has image_size {canvas}, patch_size {patch}, hidden_size {channels}",
                "give a checkpoint of SegGPT",
            )
        if sides[0] % (2 * patch) or sides[1] % patch:
            raise UnsupportedError(
                f"{name}: its canvas of {sides[0]}x{sides[1]} pixels is not two halves of whole patches of {patch}"
            )
        return cls(sides[0] // 2, sides[1], patch, channels)
