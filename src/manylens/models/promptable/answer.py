"""A decoder's masks as the result of ``segment``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from manylens.models.promptable import masks as full
from manylens.models.promptable.decoder import Decoded
from manylens.models.promptable.prompts import Batch, Canvas
from manylens.tasks.results import detections

if TYPE_CHECKING:
    from supervision import Detections

LEVELS = ("whole", "part", "subpart")


def detections_of(
    found: Iterable[tuple[Batch, Decoded]], canvas: Canvas, threshold: float = 0.0, least: float | None = None
) -> Detections:
    """The masks of several objects at the photo's size, the best first.

    One click may mean a thing, a part of it or a part of the part: it gives all three masks, with ``level`` by their
    area among the three, whichever of them stay. All other prompts give the one mask that the decoder means for them.
    Masks without a pixel are left out.

    Args:
        found: What the decoder found for each batch.
        canvas: How the photo lies in the network's picture.
        threshold: Logit above which a pixel belongs to the mask.
        least: The least score of a mask that is kept; None keeps all.
    """
    side = 1
    logits, scores, objects, groups = [], [], [], []
    for batch, decoded in found:
        side = decoded.low_res.shape[-1]
        kept = slice(1, None) if batch.ambiguous and decoded.iou.shape[1] > 1 else slice(0, 1)
        for member, low_res, iou in zip(batch.members, decoded.low_res[:, kept], decoded.iou[:, kept], strict=True):
            # A model without a level for each of its masks gives none.
            named = len(iou) == len(LEVELS)
            logits.append(low_res)
            scores.append(np.clip(iou, 0, 1))
            objects += [member] * len(iou)
            groups += [named] * len(iou)
    low = np.concatenate(logits) if len(logits) > 1 else logits[0] if logits else np.zeros((0, side, side), np.float32)
    score = np.concatenate(scores) if scores else np.zeros(0, np.float32)
    # In their order from the start, and copied only where some are left out: masks are large.
    order = np.argsort(-score, kind="stable")
    low, score, of = low[order], score[order], np.array(objects, int)[order]
    grouped: np.ndarray = np.array(groups, bool)[order]
    masks = full.full_size(low, canvas, threshold)
    areas = masks.reshape(len(masks), canvas.size[0] * canvas.size[1]).sum(axis=1)
    levels = np.where(grouped, _levels(areas, of), "")
    some = (areas > 0) & (score >= (0.0 if least is None else least))
    if not some.all():
        low, score, of, levels = low[some], score[some], of[some], levels[some]
        masks = masks[some]
    return detections(full.boxes(masks), score, masks=masks, objects=of.tolist(), levels=levels.tolist(), low_res=low)


def _levels(areas: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """The level of each mask among those of its object: the largest is the whole."""
    levels = np.empty(len(areas), dtype="U8")
    for one in np.unique(objects):
        members = np.flatnonzero(objects == one)
        order = members[np.argsort(-areas[members], kind="stable")]
        levels[order] = [LEVELS[min(place, len(LEVELS) - 1)] for place in range(len(order))]
    return levels
