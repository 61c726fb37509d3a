"""Clicks as a person makes them: first inside the object, then where the answer is most wrong.

Training draws places at random, so that a decoder takes a click anywhere; judging takes the middle, which is the same
each time.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

Place = Literal["anywhere", "middle"]
"""Where in a region a click falls: at random, or farthest from the region's edge."""


def depth(mask: np.ndarray) -> np.ndarray:
    """How far each pixel of a mask, bool ``(H, W)``, is from what is not the mask; beyond the picture is not.

    Returns:
        float32 ``(H, W)`` pixels, 0 outside the mask.
    """
    import cv2

    framed = np.pad(mask.astype(np.uint8), 1)
    return np.asarray(cv2.distanceTransform(framed, cv2.DIST_L2, 5)[1:-1, 1:-1], np.float32)


def middle(mask: np.ndarray) -> tuple[int, int]:
    """``(x, y)`` of the pixel deepest inside a mask, bool ``(H, W)``; the first in reading order of several."""
    y, x = np.unravel_index(int(depth(mask).argmax()), mask.shape)
    return int(x), int(y)


def first(masks: Tensor, place: Place, generator: torch.Generator | None = None) -> Tensor:
    """A click inside each object: float32 ``(P, 2)``, x and y of a pixel.

    At random, how deep it must lie at least is drawn first, from 0 to the deepest, then one of the pixels as deep: so
    clicks near the edge come, but more in the middle, where people click.

    Args:
        masks: bool ``(P, H, W)``; none of them is empty.
        place: Where in the object.
        generator: Of the random choice; torch's own by default.
    """
    depths = torch.from_numpy(np.stack([depth(mask) for mask in masks.cpu().numpy()])).to(masks.device)
    if place == "middle":
        return _coordinates(depths.flatten(1).argmax(dim=1), masks.shape[2])
    least = torch.rand(len(masks), generator=generator, device=masks.device) * depths.flatten(1).amax(dim=1)
    return anywhere((depths >= least[:, None, None]) & masks, generator)


def correcting(
    masks: Tensor, found: Tensor, place: Place, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """The next click on each object, in the largest region where the answer is wrong.

    Args:
        masks: bool ``(P, H, W)``, the objects; none of them is empty.
        found: bool ``(P, H, W)``, the answers.
        place: Where in that region.
        generator: Of the random choice; torch's own by default.

    Returns:
        float32 ``(P, 2)``, x and y of a pixel, and int64 ``(P,)``: 1 where it is missing from the answer, 0 where the
        answer goes beyond the object. Where nothing is wrong the click is inside the object.
    """
    wrong = masks != found
    wrong = torch.where(wrong.flatten(1).any(dim=1)[:, None, None], wrong, masks)
    largest = _largest(wrong & masks, wrong & ~masks)
    if place == "middle":
        points = torch.tensor([middle(one) for one in largest], dtype=torch.float32, device=masks.device)
    else:
        points = anywhere(torch.from_numpy(largest).to(masks.device), generator)
    rows = torch.arange(len(masks), device=masks.device)
    labels = masks[rows, points[:, 1].long(), points[:, 0].long()].long()
    return points, labels


def anywhere(masks: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """A pixel of each mask, all as likely: float32 ``(P, 2)``, x and y; of masks bool ``(P, H, W)`` with a pixel."""
    # The place of a uniform draw among the pixels that are set; multinomial allows no more than 2 ** 24.
    flat = masks.flatten(1)
    counts = flat.sum(dim=1)
    drawn = torch.rand(len(masks), generator=generator, device=masks.device, dtype=torch.float64)
    wanted = torch.minimum((drawn * counts).long() + 1, counts)
    places = torch.searchsorted(flat.long().cumsum(dim=1), wanted[:, None])[:, 0]
    return _coordinates(places, masks.shape[2])


def _largest(missing: Tensor, beyond: Tensor) -> np.ndarray:
    """The largest connected region of each pair of masks ``(P, H, W)``, bool; regions of the two never join."""
    import cv2

    found = np.zeros(missing.shape, bool)
    for number, kinds in enumerate(zip(missing.cpu().numpy(), beyond.cpu().numpy(), strict=True)):
        best = 0
        for kind in kinds:
            count, parts, stats, _ = cv2.connectedComponentsWithStats(kind.astype(np.uint8), connectivity=4)
            if count > 1:
                part = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
                if stats[part, cv2.CC_STAT_AREA] > best:
                    best = int(stats[part, cv2.CC_STAT_AREA])
                    found[number] = parts == part
    return found


def _coordinates(places: Tensor, width: int) -> Tensor:
    return torch.stack([places % width, places // width], dim=1).float()
