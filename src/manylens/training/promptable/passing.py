"""Which masks pass where all of a picture are looked for: what a trained decoder's own numbers are worth.

A decoder that learnt from few masks is neither as sure of them as SAM nor are its logits as far apart, so SAM's
thresholds would drop all it finds. What its numbers are on objects that are known says which to take in their place.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from manylens.training.promptable import boxes, clicks
from manylens.training.promptable.rounds import Asking, Head, Objects

SHARE = 0.75
"""Of the answers to clicks on known objects, those that pass."""

_OFFSET = 0.1
"""By how much the threshold of logits is moved for the stability, of what they mostly are inside a mask."""


@torch.no_grad()
def passing(head: Head, shown: Iterable[tuple[Any, Objects]]) -> dict[str, float]:
    """Thresholds for all masks of a picture, by their names in
    :class:`manylens.models.promptable.everything.Everything`.

    Each object is clicked in its middle; what the best mask by its own word says of itself counts.

    Args:
        head: The decoder, trained.
        shown: Embeddings of pictures, as the head made them, with their objects.

    Returns:
        Empty where no object is answered with a mask.
    """
    sure: list[Tensor] = []
    logits: list[Tensor] = []
    for embedding, objects in shown:
        if not len(objects):
            continue
        asking = Asking(objects)
        unboxed = torch.zeros(len(objects), dtype=torch.bool, device=objects.masks.device)
        asking.box_or_click(unboxed, boxes.around(objects.masks), clicks.first(objects.masks, "middle"))
        answer = head.decode(embedding, objects.size, asking.prompts())
        chosen = answer["iou"][:, 1:].argmax(dim=1)
        rows = torch.arange(len(chosen), device=chosen.device)
        masks = answer["masks"][rows, 1 + chosen].float().cpu()
        some = (masks > 0).flatten(1).any(dim=1)
        sure.append(answer["iou"][rows, 1 + chosen].float().cpu()[some])
        logits.append(masks[some])
    if not sum(len(one) for one in sure):
        return {}
    maps = torch.cat(logits).flatten(1)
    inside = torch.where(maps > 0, maps, 0).sum(dim=1) / (maps > 0).sum(dim=1)
    offset = _OFFSET * float(inside.median())
    stable = (maps > offset).sum(dim=1) / (maps > -offset).sum(dim=1)
    return {
        "pred_iou_thresh": float(torch.cat(sure).quantile(1 - SHARE)),
        "stability_score_offset": offset,
        "stability_score_thresh": float(stable.quantile(1 - SHARE)),
    }
