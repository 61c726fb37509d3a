"""A light detection head: at each place of a simple feature pyramid, a score for each class and one box.

Anchor-free as FCOS (Tian et al., 2019): a box is the distances from its place to its four sides. A score is trained to
be the overlap of its box with the object, as in Generalized Focal Loss (Li et al., 2020), so no third answer (centre,
objectness) is needed. Which places answer for which object is the loss's business.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from manylens.models.adapted.heads.pyramid import Pyramid, conv, joined, total

_PRIOR = 0.01
"""The score that everything has before training: most places show nothing (Lin et al., 2017)."""

_LARGEST = 7.0
"""Of the logarithm of a distance in cells: no box is larger than any picture."""


class Detector(nn.Module):
    """Scores and boxes at each place of the levels.

    Args:
        widths: Channels by name of feature.
        labels: Number of classes C.
        features: Names of the maps that it sees, side by side: ``dense``, or some blocks.
        width: Channels of the levels.
        depth: Convolutions before the scores, and before the boxes.
        scales: Of the levels, by the patch grid; each 4, 2, 1 or 0.5.
        dropout: Share of the channels that are left out before the answers in training.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        labels: int,
        *,
        features: Sequence[str] = ("dense",),
        width: int = 128,
        depth: int = 2,
        scales: Sequence[float] = (2.0, 1.0, 0.5),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.needs = tuple(features)
        self.scales = tuple(float(scale) for scale in scales)
        self.pyramid = Pyramid({"joined": total(widths, self.needs)}, ("joined",), width, self.scales)
        self.what, self.where = (
            nn.Sequential(*(conv(width, width) for _ in range(depth)), nn.Dropout2d(dropout)) for _ in range(2)
        )
        self.classes, self.sides = nn.Conv2d(width, labels, 3, padding=1), nn.Conv2d(width, 4, 3, padding=1)
        # At the start a box is two cells wide; the levels differ only by this.
        self.reach = nn.Parameter(torch.zeros(len(self.scales)))
        for layer in (self.classes, self.sides):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.constant_(self.classes.bias, -math.log((1 - _PRIOR) / _PRIOR))  # type: ignore[arg-type]

    def forward(self, features: Mapping[str, Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
        """What stands at each of N places, level by level, row by row.

        Args:
            features: By name, ``(B, h, w, D)``.
            size: ``(H, W)`` of the pixels that went in.

        Returns:
            ``scores`` ``(B, N, C)``, logits; ``boxes`` ``(B, N, 4)``, xyxy in pixels, not cut off at the picture's end;
            ``points`` ``(N, 2)``, x and y of each place in pixels; ``cells`` ``(N, 2)``, width and height of its cell.
        """
        ground = joined(features, self.needs, self.classes.weight)
        scores, boxes, points, cells = [], [], [], []
        for number, level in enumerate(self.pyramid({"joined": ground.permute(0, 2, 3, 1)})):
            # In full precision even where the network is not: a pixel in 500 is lost in bfloat16.
            grid = (_number(side, ground) * self.scales[number] for side in (ground.shape[3], ground.shape[2]))
            cell = torch.stack([_number(side, ground) / count for side, count in zip(size[::-1], grid, strict=True)])
            centre = _centres(level.shape[2], level.shape[3], level) * cell
            far = (self.sides(self.where(level)).float() + self.reach[number]).clamp(max=_LARGEST)
            far = far.flatten(2).transpose(1, 2).exp() * torch.cat([cell, cell])
            boxes.append(torch.cat([centre - far[..., :2], centre + far[..., 2:]], dim=-1))
            scores.append(self.classes(self.what(level)).flatten(2).transpose(1, 2))
            points.append(centre)
            cells.append(cell.expand(centre.shape[0], -1))
        return {
            "scores": torch.cat(scores, dim=1),
            "boxes": torch.cat(boxes, dim=1),
            "points": torch.cat(points),
            "cells": torch.cat(cells),
        }


def _number(value: Any, like: Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float32, device=like.device)


def _centres(rows: int, columns: int, like: Tensor) -> Tensor:
    """The middles, x and y, of cells of side one, ``(rows * columns, 2)``."""
    y, x = (torch.arange(count, device=like.device, dtype=torch.float32) + 0.5 for count in (rows, columns))
    return torch.stack([x[None].expand(rows, -1), y[:, None].expand(-1, columns)], dim=-1).flatten(0, 1)
