"""Single changes of a picture: where its pixels lie, and their colour. Pixels are float32 ``(3, H, W)`` in 0..1."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

_GRAY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in what is seen as brightness (ITU-R 601)."""


def flip(picture: Tensor) -> Tensor:
    """As in a mirror."""
    return picture.flip(-1)


def warp(picture: Tensor, matrix: tuple[float, float, float, float], shift: tuple[float, float] = (0, 0)) -> Tensor:
    """Each new pixel is taken from where an affine map of its place leads, bilinearly; the outside is mirrored in.

    Args:
        picture: ``(3, H, W)``.
        matrix: ``a, b, c, d``: ``x, y`` from the centre, in pixels, is taken from ``a x + b y, c x + d y``.
        shift: Added to that, in pixels.
    """
    height, width = picture.shape[-2:]
    a, b, c, d = matrix
    across = height / width
    rows = [[a, b * across, 2 * shift[0] / width], [c / across, d, 2 * shift[1] / height]]
    theta = torch.tensor(rows, dtype=picture.dtype)
    grid = functional.affine_grid(theta[None], [1, 3, height, width], align_corners=False)
    found = functional.grid_sample(picture[None], grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return found[0]


def rotate(picture: Tensor, degrees: float) -> Tensor:
    """About the centre, clockwise as it is seen."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return warp(picture, (cosine, sine, -sine, cosine))


def shear(picture: Tensor, x: float = 0.0, y: float = 0.0) -> Tensor:
    """Rows pushed along by ``x`` pixels a pixel, columns by ``y``."""
    return warp(picture, (1, x, y, 1))


def translate(picture: Tensor, x: float = 0.0, y: float = 0.0) -> Tensor:
    """Moved by shares of width and height."""
    height, width = picture.shape[-2:]
    return warp(picture, (1, 0, 0, 1), (-x * width, -y * height))


def crop(picture: Tensor, box: tuple[float, float, float, float], *, mirrored: bool = False) -> Tensor:
    """A part, enlarged to the size of the whole.

    Args:
        picture: ``(3, H, W)``.
        box: ``x0, y0, x1, y1`` as shares of width and height.
        mirrored: Whether it is flipped, too.
    """
    height, width = picture.shape[-2:]
    x0, y0, x1, y1 = box
    across = (x1 - x0) * (-1 if mirrored else 1)
    return warp(picture, (across, 0, 0, y1 - y0), ((x0 + x1 - 1) / 2 * width, (y0 + y1 - 1) / 2 * height))


def gray(picture: Tensor) -> Tensor:
    """Brightness as it is seen, ``(1, H, W)``."""
    red, green, blue = _GRAY
    return red * picture[0:1] + green * picture[1:2] + blue * picture[2:3]


def brightness(picture: Tensor, factor: float) -> Tensor:
    """1 is as it is, 0 black."""
    return (picture * factor).clamp_(0, 1)


def contrast(picture: Tensor, factor: float) -> Tensor:
    """1 is as it is, 0 the mean brightness everywhere."""
    return _between(gray(picture).mean(), picture, factor)


def saturation(picture: Tensor, factor: float) -> Tensor:
    """1 is as it is, 0 gray."""
    return _between(gray(picture), picture, factor)


def sharpness(picture: Tensor, factor: float) -> Tensor:
    """1 is as it is, 0 smoothed, more than 1 sharpened; the border stays (Pillow's ``Sharpness``)."""
    kernel = torch.full((3, 1, 3, 3), 1 / 13)
    kernel[:, :, 1, 1] = 5 / 13
    smooth = picture.clone()
    smooth[:, 1:-1, 1:-1] = functional.conv2d(picture[None], kernel, groups=3)[0]
    return _between(smooth, picture, factor)


def autocontrast(picture: Tensor) -> Tensor:
    """Each channel stretched over the whole range; a channel of one value stays."""
    low, high = picture.amin((1, 2), keepdim=True), picture.amax((1, 2), keepdim=True)
    span = high - low
    return torch.where(span > 0, (picture - low) / span.clamp(min=1e-6), picture)


def posterize(picture: Tensor, bits: int) -> Tensor:
    """Only the first ``bits`` of 8 are kept."""
    levels = (picture * 255).round_().to(torch.uint8)
    return (levels & (256 - 2 ** (8 - bits))).to(picture.dtype) / 255


def solarize(picture: Tensor, threshold: float) -> Tensor:
    """What is as bright as ``threshold`` or brighter is inverted."""
    return torch.where(picture < threshold, picture, 1 - picture)


def _between(zero: Tensor, one: Tensor, factor: float) -> Tensor:
    return torch.lerp(zero.expand_as(one), one, factor).clamp_(0, 1)
