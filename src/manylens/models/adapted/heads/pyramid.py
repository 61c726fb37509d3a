"""Maps of several sizes from the one size that a plain ViT has: a simple feature pyramid.

Li et al., Exploring Plain Vision Transformer Backbones for Object Detection (ViTDet), 2022: each level is made from the
patch map alone, by transposed convolutions or pooling; no level needs another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_UP = {4.0: 2, 2.0: 1, 1.0: 0, 0.5: 0}
"""Doublings by scale."""

SCALES = tuple(_UP)
"""Sides of a level's map by those of the patch grid that a pyramid can make."""


def as_map(features: Mapping[str, Tensor], name: str, like: Tensor) -> Tensor:
    """A feature ``(B, h, w, D)`` as a map ``(B, D, h, w)`` of the type of ``like``; kept features may be float16."""
    return features[name].to(like.dtype).permute(0, 3, 1, 2)


def joined(features: Mapping[str, Tensor], names: Sequence[str], like: Tensor) -> Tensor:
    """Several features as one map, one after the other along the channels; of several sizes at that of the last."""
    maps = [as_map(features, name, like) for name in names]
    if len(maps) == 1:
        return maps[0]
    return torch.cat([*(resized(one, maps[-1]) for one in maps[:-1]), maps[-1]], dim=1)


def resized(x: Tensor, like: Tensor) -> Tensor:
    """A map at the sides of another, bilinear."""
    if x.shape[-2:] == like.shape[-2:]:
        return x
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


def total(widths: Mapping[str, int], names: Sequence[str]) -> int:
    """Channels of several features together."""
    return sum(widths[name] for name in names)


def spread(depth: int, count: int) -> tuple[str, ...]:
    """Names of ``count`` blocks of an encoder of ``depth`` blocks, evenly spaced up to the last; ``dense`` for one."""
    if count < 2 or depth < count:
        return ("dense",)
    return tuple(f"block.{depth * (i + 1) // count - 1}" for i in range(count))


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each place of a map ``(B, D, h, w)``, as in ViTDet."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """The map, each place of mean 0 and variance 1 before gain and shift."""
        normed: Tensor = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return normed


def conv(inner: int, outer: int, kernel: int = 3) -> nn.Sequential:
    """A convolution that keeps the sides, with a group norm (which knows no batch) and GELU."""
    groups = next(one for one in (32, 16, 8, 4, 2, 1) if outer % one == 0)
    return nn.Sequential(
        nn.Conv2d(inner, outer, kernel, padding=kernel // 2, bias=False), nn.GroupNorm(groups, outer), nn.GELU()
    )


class Level(nn.Module):
    """One level: the patch map at another scale and of another width.

    The map is brought to ``width`` before it grows, not after it as in ViTDet, which spares most of the work.

    Args:
        inner: Channels of the patch map.
        width: Channels of the level.
        scale: One of :data:`SCALES`.
    """

    def __init__(self, inner: int, width: int, scale: float) -> None:
        super().__init__()
        layers: list[nn.Module] = [ChannelNorm(inner), nn.Conv2d(inner, width, 1)]
        for _ in range(_UP[scale]):
            layers += [ChannelNorm(width), nn.GELU(), nn.ConvTranspose2d(width, width, 2, stride=2)]
        if scale == 0.5:
            # An odd side keeps its last row: the level's cells begin at the same corner and are twice as large.
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        self.layers = nn.Sequential(*layers, conv(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, D, h, w)`` to ``(B, width, h * scale, w * scale)``, halves rounded up."""
        made: Tensor = self.layers(x)
        return made


class Pyramid(nn.Module):
    """Levels of a patch map, or of the maps of several blocks.

    Args:
        widths: Channels by name of feature.
        names: The feature of all levels, or one for each level.
        width: Channels of every level.
        scales: Of the levels, the largest first; each one of :data:`SCALES`.
    """

    def __init__(self, widths: Mapping[str, int], names: Sequence[str], width: int, scales: Sequence[float]) -> None:
        super().__init__()
        self.names = tuple(names) if len(names) == len(scales) else (names[0],) * len(scales)
        self.levels = nn.ModuleList(
            Level(widths[name], width, scale) for name, scale in zip(self.names, scales, strict=True)
        )

    def forward(self, features: Mapping[str, Tensor]) -> list[Tensor]:
        """The levels' maps ``(B, width, h_i, w_i)``, in the order of the scales."""
        like = next(self.parameters())
        return [level(as_map(features, name, like)) for level, name in zip(self.levels, self.names, strict=True)]
