"""Heads that say of what class each pixel is: a linear one, and one like UPerNet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from manylens.models.adapted.heads.pyramid import Pyramid, conv, joined, resized, total

_SCALES = (4.0, 2.0, 1.0, 0.5)
_POOLS = (1, 2, 3, 6)


class LinearSemantic(nn.Module):
    """Batch norm and a 1x1 convolution on the patch map, as in the linear evaluation of DINOv2 (Oquab et al., 2023).

    Args:
        widths: Channels by name of feature.
        labels: Number of classes C.
        features: Names of the maps that it sees, side by side: ``dense``, or the last blocks.
        dropout: Share of the channels that are left out in training.
    """

    def __init__(
        self, widths: Mapping[str, int], labels: int, *, features: Sequence[str] = ("dense",), dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.needs = tuple(features)
        width = total(widths, self.needs)
        self.norm = nn.BatchNorm2d(width)
        self.drop = nn.Dropout2d(dropout)
        self.classes = _classifier(width, labels)

    def forward(self, features: Mapping[str, Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
        """``logits`` ``(B, C, h, w)`` on the patch grid."""
        return {"logits": self.of_embedded(self.embedded(features))}

    def embedded(self, features: Mapping[str, Tensor]) -> Tensor:
        """What the last layer sees, ``(B, D, h, w)``."""
        return self.norm(joined(features, self.needs, self.classes.weight))

    def of_embedded(self, embedded: Tensor) -> Tensor:
        """Logits of what :meth:`embedded` gave."""
        return self.classes(self.drop(embedded))


class UPerNet(nn.Module):
    """UPerNet (Xiao et al., 2018) on a simple feature pyramid (Li et al., 2022) of one block or of four.

    Pooled looks at the whole picture (a pyramid pooling module) join the coarsest level; each finer one takes up what
    is above it; all levels together, at the finest one's size, say the class. Group norms in place of batch norms, so
    that few pictures at a time will do.

    Args:
        widths: Channels by name of feature.
        labels: Number of classes C.
        features: Name of the map that all levels are made from, or four names, one for each, the finest level first.
        width: Channels of the levels.
        dropout: Share of the channels that are left out before the classes in training.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        labels: int,
        *,
        features: Sequence[str] = ("dense",),
        width: int = 128,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.needs = tuple(dict.fromkeys(features))
        self.pyramid = Pyramid(widths, tuple(features), width, _SCALES)
        part = max(width // len(_POOLS), 1)
        self.pools = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(side), nn.Conv2d(width, part, 1), nn.GELU()) for side in _POOLS
        )
        self.pooled = conv(width + part * len(_POOLS), width)
        self.smooth = nn.ModuleList(conv(width, width) for _ in _SCALES[:-1])
        self.fuse = conv(width * len(_SCALES), width)
        self.drop = nn.Dropout2d(dropout)
        self.classes = _classifier(width, labels)

    def forward(self, features: Mapping[str, Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
        """``logits`` ``(B, C, 4 h, 4 w)`` for a patch grid of ``(h, w)``."""
        return {"logits": self.of_embedded(self.embedded(features))}

    def embedded(self, features: Mapping[str, Tensor]) -> Tensor:
        """What the last layer sees, ``(B, width, 4 h, 4 w)``."""
        levels = self.pyramid(features)
        top = levels[-1]
        looks = [resized(pool(top), top) for pool in self.pools]
        levels[-1] = self.pooled(torch.cat([top, *looks], dim=1))
        for i in reversed(range(len(levels) - 1)):
            levels[i] = levels[i] + resized(levels[i + 1], levels[i])
        smooth = [layer(level) for layer, level in zip(self.smooth, levels, strict=False)]
        all_of_them = [resized(level, smooth[0]) for level in (*smooth, levels[-1])]
        fused: Tensor = self.fuse(torch.cat(all_of_them, dim=1))
        return fused

    def of_embedded(self, embedded: Tensor) -> Tensor:
        """Logits of what :meth:`embedded` gave."""
        return self.classes(self.drop(embedded))


def _classifier(width: int, labels: int) -> nn.Conv2d:
    """Starts out with all classes alike, as in DINOv2."""
    layer = nn.Conv2d(width, labels, 1)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.constant_(layer.bias, 0.0)  # type: ignore[arg-type]
    return layer
