"""The loss of the detection head: which places answer for which object, and how wrong they are.

Places are assigned by how well they already do (task-aligned assignment, Feng et al., TOOD, 2021), so no object's size
needs a level of its own; scores are trained to be the quality of the box (Li et al., 2020), boxes by generalized IoU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from manylens.training.dense.losses import box_areas, counted, giou_pairs, iou_pairs, quality_focal_loss
from manylens.training.dense.sets import Objects


@dataclass(frozen=True)
class BoxWeights:
    """How places are assigned and parts weighed.

    Attributes:
        scores: Weight of the scores' loss.
        boxes: Of the boxes'.
        most: Places that answer for one object, at most.
        by_score: Power of a place's score in how well it does.
        by_iou: Power of its box's overlap.
    """

    scores: float = 1.0
    boxes: float = 2.0
    most: int = 15
    by_score: float = 0.5
    by_iou: float = 2.0


@dataclass(frozen=True)
class Assigned:
    """Who answers for what in a picture.

    Attributes:
        objects: int64 ``(N,)``: the object that a place answers for, -1 for none.
        quality: float32 ``(N,)``: what its score shall be, 0 for none.
        judged: bool ``(N,)``: False where a place is of no object but within a void box.
    """

    objects: Tensor
    quality: Tensor
    judged: Tensor


@torch.no_grad()
def assign(scores: Tensor, boxes: Tensor, points: Tensor, true: Objects, weights: BoxWeights) -> Assigned:
    """Give places to objects.

    A place can answer for an object only if it lies within its box; of a box too small for any, the nearest place does.
    A place within several objects answers for the one that its box overlaps most, of equal ones the smallest. The best
    place of an object shall score its overlap, the others as much less as they do less well.

    Args:
        scores: Logits ``(N, C)`` of a picture.
        boxes: ``(N, 4)``.
        points: ``(N, 2)``.
        true: Its objects.
        weights: See there.
    """
    count, places = len(true.classes), len(points)
    void = _within(points, true.void).any(dim=1)
    if not count:
        nothing = torch.zeros(places, device=points.device)
        return Assigned(nothing.long() - 1, nothing, ~void)
    overlap = iou_pairs(boxes[:, None].float(), true.boxes[None])
    chance = scores.float().sigmoid()[:, true.classes]
    may = _within(points, true.boxes)
    middle = (true.boxes[:, :2] + true.boxes[:, 2:]) / 2
    apart = (points[:, None] - middle[None]).square().sum(dim=-1)
    nearest = apart.argmin(dim=0)
    small = ~may.any(dim=0)
    may[nearest[small], small.nonzero()[:, 0]] = True
    does = chance**weights.by_score * overlap**weights.by_iou
    does = torch.where(may, does.clamp(min=torch.finfo(does.dtype).tiny), -1.0)
    best = does.topk(min(weights.most, places), dim=0)
    taken = torch.zeros_like(may).scatter_(0, best.indices, best.values > 0)
    # The smaller of two objects that a place would do equally well for has fewer places to go to.
    rank = overlap - 1e-6 * box_areas(true.boxes)[None] / box_areas(true.boxes).max().clamp(min=1e-6)
    chosen = torch.where(taken, rank, -torch.inf).max(dim=1)
    objects = torch.where(taken.any(dim=1), chosen.indices, -1)
    own = torch.nn.functional.one_hot(objects + 1, count + 1)[:, 1:].bool()
    mine = torch.where(own, does, 0.0)
    top_does, top_overlap = mine.max(dim=0).values, torch.where(own, overlap, 0.0).max(dim=0).values
    quality = (mine / top_does.clamp(min=torch.finfo(mine.dtype).tiny) * top_overlap).sum(dim=1)
    return Assigned(objects, quality, ~void | (objects >= 0))


def box_loss(
    found: Mapping[str, Tensor],
    true: Sequence[Objects],
    weights: BoxWeights | None = None,
    class_weights: Tensor | None = None,
) -> dict[str, Tensor]:
    """The loss of a batch.

    Args:
        found: What :class:`manylens.models.adapted.heads.detection.Detector` gives.
        true: Objects of each picture.
        weights: See there.
        class_weights: Of the classes ``(C,)``, so that rare ones count for more; 1 by default.

    Returns:
        ``loss``, the weighted sum; and ``scores`` and ``boxes``, its parts.
    """
    weights = weights or BoxWeights()
    scores, boxes = found["scores"].float(), found["boxes"].float()
    wanted = torch.zeros_like(scores)
    judged = torch.ones(scores.shape[:2], dtype=torch.bool, device=scores.device)
    pairs: list[tuple[Tensor, Tensor, Tensor]] = []
    for number, objects in enumerate(true):
        given = assign(scores[number], boxes[number], found["points"], objects, weights)
        judged[number] = given.judged
        on = given.objects >= 0
        classes = objects.classes[given.objects[on]]
        wanted[number, on, classes] = given.quality[on]
        heavier = given.quality[on] if class_weights is None else given.quality[on] * class_weights.to(scores)[classes]
        pairs.append((boxes[number, on], objects.boxes[given.objects[on]], heavier))
    count = counted(wanted.sum())
    each = quality_focal_loss(scores, wanted) * judged.unsqueeze(-1)
    if class_weights is not None:
        each = each * class_weights.to(each)
    near, right, share = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    parts = {"scores": each.sum() / count, "boxes": ((1 - giou_pairs(near, right)) * share).sum() / count}
    total = weights.scores * parts["scores"] + weights.boxes * parts["boxes"]
    return {"loss": total, **{name: one.detach() for name, one in parts.items()}}


def _within(points: Tensor, boxes: Tensor) -> Tensor:
    """Whether points ``(N, 2)`` lie within boxes ``(k, 4)``: bool ``(N, k)``."""
    low, high = points[:, None] - boxes[None, :, :2], boxes[None, :, 2:] - points[:, None]
    return (torch.minimum(low, high) > 0).all(dim=-1)
