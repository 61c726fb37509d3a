"""Prompts as maps over the picture: where they are, and what looks like what was clicked.

SAM learnt what a click means from a billion masks. With a few hundred, a decoder does not learn from tokens alone that
an object lies around its click or within its box, and what frozen features know of likeness is lost on the way. These
maps say both from the first step on: discs around clicks and the inside of a box, as in interactive segmentation before
SAM (Sofiiuk et al., 2021, "Reviving iterative training with mask guidance"), and the likeness of each cell to those
that were clicked.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from manylens.models.promptable.prompts import BACKGROUND, BOTTOM_RIGHT, OBJECT, TOP_LEFT

MAPS = 7
_GAIN = 10.0
"""Logits are far larger than the weights of a layer: what hints are multiplied with, so that they learn as fast."""

_UNLIKE = -1.0
"""The likeness to a click where there is none."""


def keys(features: Tensor, finer: int) -> Tensor:
    """What cells are compared by: ``(B, D, finer * h, finer * w)``, of length 1, from a map ``(B, h, w, D)``.

    The picture's mean is taken away: all cells of a picture have much in common.
    """
    features = features.float()
    found = F.normalize(features - features.mean(dim=(1, 2), keepdim=True), dim=-1).permute(0, 3, 1, 2)
    if finer > 1:
        found = F.interpolate(found, scale_factor=float(finer), mode="bilinear", align_corners=False)
    return found


class Guides(nn.Module):
    """Maps of prompts, what is added to the embedding for them, and what they say of the masks by themselves.

    Args:
        width: Of the embedding.
        masks: How many a prompt is answered with.
    """

    def __init__(self, width: int, masks: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(MAPS, width // 2, 3, padding=1), nn.GELU(), nn.Conv2d(width // 2, width, 3, padding=1)
        )
        # At the start the maps say nothing of the masks; what they say then is the first that is learnt.
        self.hints = nn.Conv2d(MAPS, masks, 1)
        nn.init.zeros_(self.hints.weight)
        nn.init.zeros_(self.hints.bias)  # type: ignore[arg-type]

    def forward(self, keys: Tensor, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """``(P, C, h, w)``, to add to the embedding, and ``(P, masks, h, w)``, to add to the masks' logits.

        Args:
            keys: ``(P, D, h, w)``, of each prompt's picture.
            points: ``(P, N, 2)``, x and y in 0..1 of the picture, of the middles of pixels; N is not 0.
            labels: int64 ``(P, N)``, as of :class:`.promptable.Prompts`.
        """
        found = maps(keys, points, labels)
        return self.layers(found), _GAIN * self.hints(found)


def maps(keys: Tensor, points: Tensor, labels: Tensor) -> Tensor:
    """The maps, ``(P, MAPS, h, w)``: of the clicks on the object a disc and the likeness, of those beside it the
    same, the inside of the box, the likeness to what is in its middle, and whether there is a box.
    """
    height, width = keys.shape[-2:]
    places = points * points.new_tensor([width, height])  # in cells
    across, down = torch.arange(width, device=keys.device) + 0.5, torch.arange(height, device=keys.device) + 0.5
    x, y = places[..., 0, None, None], places[..., 1, None, None]
    discs = torch.exp(-((across - x) ** 2 + (down[:, None] - y) ** 2) / 2)  # (P, N, h, w)
    alike = likeness(keys, places)
    found = []
    for kind in (OBJECT, BACKGROUND):
        of_kind = (labels == kind)[..., None, None]
        found += [(discs * of_kind).amax(dim=1), torch.where(of_kind, alike, _UNLIKE).amax(dim=1)]
    low, high = (((labels == kind)[..., None] * places).sum(dim=1) for kind in (TOP_LEFT, BOTTOM_RIGHT))
    boxed = (labels == TOP_LEFT).any(dim=1).to(keys)[:, None, None]
    inside = boxed * _between(across, low[:, 0], high[:, 0])[:, None] * _between(down, low[:, 1], high[:, 1])[..., None]
    middle = likeness(keys, (low + high)[:, None] / 2)[:, 0]
    found += [inside, boxed * middle + (1 - boxed) * _UNLIKE, boxed.expand_as(inside)]
    return torch.stack(found, dim=1)


def likeness(keys: Tensor, places: Tensor) -> Tensor:
    """The cosine of each cell with the cell at each place ``(P, N, 2)``, in cells: ``(P, N, h, w)``."""
    height, width = keys.shape[-2:]
    cells = places.floor().long()
    column, row = cells[..., 0].clamp(0, width - 1), cells[..., 1].clamp(0, height - 1)
    flat = keys.flatten(2)
    asked = flat.gather(2, (row * width + column)[:, None].expand(-1, flat.shape[1], -1))
    return (asked.transpose(1, 2) @ flat).unflatten(2, (height, width))


def _between(middles: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """How much of each cell lies between two places: ``(P, cells)`` in 0..1."""
    start = torch.maximum(middles - 0.5, low[:, None])
    return (torch.minimum(middles + 0.5, high[:, None]) - start).clamp(0, 1)
