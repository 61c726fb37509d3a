"""Multi-crop: two large and several small views of each picture, changed at random (Caron et al., 2020 and 2021).

All that is random comes in as a table of numbers in 0..1, one row for each view of each picture. So a view depends on
its row alone, whatever batch, process or machine it is made in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from manylens.training.errors import TrainError
from manylens.training.selfsupervised.options import Options
from manylens.training.selfsupervised.pixels import GREY, gaussian_blur, hue, recoloured, resized

NUMBERS = 14
"""How many random numbers a view takes."""

_ASPECT = math.log(4 / 3)
# Which of a view's numbers is for what.
_AREA, _RATIO, _LEFT, _TOP, _FLIP, _JITTER, _GREYED, _BLUR, _SIGMA, _SOLAR = range(10)
_FACTORS = slice(10, 14)


class CropOptions(Options):
    """How views are made. Those that are not given are DINO's for photographs.

    Attributes:
        side: Side of the large views in pixels.
        local_side: Side of the small views in pixels.
        locals: How many small views there are of each picture; there are always two large ones.
        scale: Share of the picture's area that a large view covers, least and most.
        local_scale: The same of a small view.
        flip: Probability that a view is mirrored, left and right.
        jitter: Probability that a view's colours are changed.
        brightness: Factor is drawn from 1 ± this.
        contrast: Factor is drawn from 1 ± this.
        saturation: Factor is drawn from 1 ± this.
        hue: Turn of the hue, in whole turns, is drawn from ± this.
        grey: Probability that a view loses its colours.
        blur: Probability of blur for the first large view, the second one, and a small one.
        sigma: Standard deviation of the blur in pixels, least and most.
        solarise: Probability that levels above one half are inverted, in the second large view.
    """

    side: int = Field(default=224, ge=8)
    local_side: int = Field(default=96, ge=4)
    locals: int = Field(default=8, ge=0)
    scale: tuple[float, float] = (0.4, 1.0)
    local_scale: tuple[float, float] = (0.05, 0.4)
    flip: float = Field(default=0.5, ge=0, le=1)
    jitter: float = Field(default=0.8, ge=0, le=1)
    brightness: float = Field(default=0.4, ge=0, le=1)
    contrast: float = Field(default=0.4, ge=0, le=1)
    saturation: float = Field(default=0.2, ge=0, le=1)
    hue: float = Field(default=0.1, ge=0, le=0.5)
    grey: float = Field(default=0.2, ge=0, le=1)
    blur: tuple[float, float, float] = (1.0, 0.1, 0.5)
    sigma: tuple[float, float] = (0.1, 2.0)
    solarise: float = Field(default=0.2, ge=0, le=1)

    @model_validator(mode="after")
    def _ordered(self) -> CropOptions:
        for name, (least, most), limit in (
            ("scale", self.scale, 1.0),
            ("local_scale", self.local_scale, 1.0),
            ("sigma", self.sigma, math.inf),
        ):
            if not 0 < least <= most <= limit:
                raise ValueError(f"{name} is least and most, above 0" + (" and up to 1" if limit == 1 else ""))
        return self

    def fitted(self, side: int, patch: int) -> CropOptions:
        """The same for a network of another size: what is not set here scales with ``side``.

        Args:
            side: Of the large views; it is rounded to whole patches.
            patch: Side of a patch; small views are whole patches, at least two of them a side.
        """
        patch = max(patch, 1)
        large = max(side // patch, 1) * patch
        small = max(round(large * 96 / 224 / patch), min(2, large // patch)) * patch
        share = min(1.0, large / 224)
        found = {"side": large, "local_side": small, "sigma": (0.1 * share, 2.0 * share)}
        return self.model_copy(
            update={name: value for name, value in found.items() if name not in self.model_fields_set}
        )


class Crops(NamedTuple):
    """The views of B pictures, float32 in 0..1, one kind of view after the other (row ``v * B + i`` is of picture i).

    Attributes:
        large: ``(2 * B, 3, side, side)``.
        small: ``(locals * B, 3, local_side, local_side)``.
    """

    large: Tensor
    small: Tensor


@dataclass(frozen=True)
class MultiCrop:
    """Makes the views of pictures.

    Two things are other than in the first DINO, to be fast. A crop that does not fit takes another aspect and is not
    drawn again. And brightness, contrast, saturation, hue and grey become one affine map of colours for each view (the
    hue turns in the plane of YIQ), so that levels are clipped to 0..1 once at the end and not after each of them.
    """

    options: CropOptions = field(default_factory=CropOptions)

    @property
    def views(self) -> int:
        """How many views a picture has."""
        return 2 + self.options.locals

    def numbers(self, pictures: int, generator: torch.Generator | None = None) -> Tensor:
        """Random numbers for some pictures, float32 ``(pictures, views, NUMBERS)``, from one generator."""
        return torch.rand(pictures, self.views, NUMBERS, generator=generator)

    def seeded(self, *seed: int) -> np.ndarray:
        """Random numbers for one picture, float32 ``(views, NUMBERS)``, seeded by whole numbers: seed, epoch, index."""
        return np.random.default_rng(seed).random((self.views, NUMBERS), np.float32)

    def one(self, pictures: Tensor | Sequence[Tensor], numbers: Tensor) -> Tensor:
        """A single view of each picture, made as the second large one is: float32 ``(B, 3, side, side)`` in 0..1.

        Args:
            pictures: See :meth:`__call__`.
            numbers: In 0..1, ``(B, NUMBERS)``.
        """
        _check(pictures, numbers[:, None], 1)
        options = self.options
        return self._made(pictures, numbers.to(pictures[0].device), options.side, options.scale, options.blur[1], True)

    def __call__(self, pictures: Tensor | Sequence[Tensor], numbers: Tensor) -> Crops:
        """Make the views.

        Args:
            pictures: uint8, or float in 0..1: ``(B, 3, H, W)``, or ``(3, H, W)`` each where their sizes differ.
            numbers: As :meth:`numbers` gives.

        Raises:
            TrainError: A picture is of another type or shape.
        """
        _check(pictures, numbers, self.views)
        options, device = self.options, pictures[0].device
        numbers = numbers.to(device)
        large = [
            self._made(pictures, numbers[:, view], options.side, options.scale, options.blur[view], view == 1)
            for view in range(2)
        ]
        rows = numbers[:, 2:].transpose(0, 1).flatten(0, 1)
        side, scale = options.local_side, options.local_scale
        small = self._made(pictures, rows, side, scale, options.blur[2], False)
        return Crops(torch.cat(large), small)

    def _made(
        self,
        pictures: Tensor | Sequence[Tensor],
        numbers: Tensor,
        side: int,
        scale: tuple[float, float],
        blur: float,
        solarises: bool,
    ) -> Tensor:
        """One view for each row of numbers; the pictures take turns."""
        options = self.options
        if not len(numbers):
            return torch.empty(0, 3, side, side, device=numbers.device)
        sizes = torch.tensor([one.shape[-2:] for one in pictures], device=numbers.device)
        boxes = crop_boxes(numbers, sizes.repeat(len(numbers) // len(pictures), 1), scale)
        found = resized(pictures, boxes, numbers[:, _FLIP] < options.flip, side)
        found = recoloured(found, *self._colours(numbers, found.mean(dim=(2, 3))))
        blurred = (numbers[:, _BLUR] < blur).nonzero()[:, 0]
        if len(blurred):
            least, most = options.sigma
            sigmas = least + (most - least) * numbers[blurred, _SIGMA]
            found[blurred] = gaussian_blur(found[blurred], sigmas, most)
        if solarises:
            inverted = (numbers[:, _SOLAR] < options.solarise).nonzero()[:, 0]
            chosen = found[inverted]
            found[inverted] = torch.where(chosen >= 0.5, 1 - chosen, chosen)
        return found

    def _colours(self, numbers: Tensor, means: Tensor) -> tuple[Tensor, Tensor]:
        """The affine map of colours of each view: matrices ``(n, 3, 3)``, and what is added to all channels, ``(n,)``.

        The order of the changes, which the first DINO draws anew for each view, does not matter to it.

        Args:
            numbers: ``(n, NUMBERS)``.
            means: Mean colour of each view, ``(n, 3)``: contrast goes around its grey.
        """
        options = self.options
        spread = numbers.new_tensor([options.brightness, options.contrast, options.saturation, options.hue])
        changed = numbers[:, _JITTER, None] < options.jitter
        drawn = (2 * numbers[:, _FACTORS] - 1) * spread * changed
        bright, strong, full = (1 + drawn[:, :3]).unbind(1)
        full = full * (numbers[:, _GREYED] >= options.grey)
        grey = numbers.new_tensor(GREY)
        matrix = full[:, None, None] * hue(drawn[:, 3]) + (1 - full)[:, None, None] * grey
        return (bright * strong)[:, None, None] * matrix, bright * (1 - strong) * (means @ grey)


def crop_boxes(numbers: Tensor, sizes: Tensor, scale: tuple[float, float]) -> Tensor:
    """Boxes of a random area and aspect (3:4 to 4:3) at a random place, int64 xyxy ``(n, 4)``, max exclusive.

    Args:
        numbers: ``(n, NUMBERS)``.
        sizes: ``(n, 2)``, height and width of each picture.
        scale: Share of the area, least and most.
    """
    height, width = sizes.unbind(1)
    area = (scale[0] + (scale[1] - scale[0]) * numbers[:, _AREA]) * height * width
    # Where a box of this area and aspect does not fit into the picture, its aspect gives way.
    ratio = torch.exp((2 * numbers[:, _RATIO] - 1) * _ASPECT)
    ratio = ratio.maximum(area / height**2).minimum(width**2 / area)
    wide = (area * ratio).sqrt().round().long().clamp(min=1).minimum(width)
    high = (area / ratio).sqrt().round().long().clamp(min=1).minimum(height)
    left = (numbers[:, _LEFT] * (width - wide + 1)).long().minimum(width - wide)
    top = (numbers[:, _TOP] * (height - high + 1)).long().minimum(height - high)
    return torch.stack([left, top, left + wide, top + high], dim=1)


def _check(pictures: Tensor | Sequence[Tensor], numbers: Tensor, views: int) -> None:
    for number, one in enumerate(pictures):
        if one.ndim != 3 or len(one) != 3 or not (one.dtype == torch.uint8 or one.is_floating_point()):
            raise TrainError(
                f"picture {number}: is {one.dtype} of shape {tuple(one.shape)}",
                "give RGB (3, H, W), uint8 or float in 0..1",
            )
    if numbers.shape != (len(pictures), views, NUMBERS):
        raise TrainError(
            f"random numbers: are of shape {tuple(numbers.shape)}", f"give {(len(pictures), views, NUMBERS)}"
        )
