"""The loss of a set of queries: each object is matched to one query, and the others shall find nothing.

Carion et al., DETR, 2020; costs, weights and points are those of Mask2Former (Cheng et al., 2022).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from manylens.training.dense.losses import counted, dice_loss
from manylens.training.dense.points import at_points, unsure_points


@dataclass(frozen=True)
class Objects:
    """What a picture holds, as a head shall find it.

    Attributes:
        classes: int64 ``(k,)``.
        masks: bool or float ``(k, H, W)``, at any resolution; None where only boxes are asked for.
        boxes: float32 ``(k, 4)`` xyxy in pixels of what the network sees.
        void: float32 ``(v, 4)``: boxes in which nothing that is found counts as wrong.
    """

    classes: Tensor
    masks: Tensor | None
    boxes: Tensor
    void: Tensor

    def to(self, device: torch.device) -> Objects:
        """The same on a device."""
        masks = None if self.masks is None else self.masks.to(device)
        return Objects(self.classes.to(device), masks, self.boxes.to(device), self.void.to(device))


@dataclass(frozen=True)
class SetWeights:
    """Weights of the parts of the loss, which are those of the matching too.

    Attributes:
        classes: Of the class.
        masks: Of binary cross-entropy at points.
        dice: Of dice at points.
        nothing: Of a query that shall find nothing, in the mean over queries.
        points: How many points each mask is looked at in.
    """

    classes: float = 2.0
    masks: float = 5.0
    dice: float = 5.0
    nothing: float = 0.1
    points: int = 2048


def assigned(costs: Tensor) -> tuple[Tensor, Tensor]:
    """The cheapest way to give each object a query of its own (the Hungarian method).

    Args:
        costs: ``(Q, k)``; where one is no number, it is taken to be very dear.

    Returns:
        Queries and objects, int64, ``min(Q, k)`` of each; the queries ascend.
    """
    from scipy.optimize import linear_sum_assignment

    known = torch.nan_to_num(costs.detach().double().cpu(), nan=1e9, posinf=1e9, neginf=-1e9)
    rows, columns = linear_sum_assignment(known.numpy())
    return tuple(torch.as_tensor(one, dtype=torch.int64, device=costs.device) for one in (rows, columns))  # type: ignore[return-value]


@torch.no_grad()
def costs(classes: Tensor, masks: Tensor, true: Objects, weights: SetWeights) -> Tensor:
    """What it costs to give each object to each query: ``(Q, k)``.

    Args:
        classes: Logits ``(Q, C + 1)`` of a picture.
        masks: Logits ``(Q, h, w)``.
        true: Its objects.
        weights: Of the parts.
    """
    assert true.masks is not None
    points = torch.rand(1, weights.points, 2, device=masks.device)
    found, there = at_points(masks, points), at_points(true.masks, points)
    # Cross-entropy is linear in what is true: all pairs are two products.
    yes, no = F.softplus(-found), F.softplus(found)
    crossed = (yes @ there.T + no @ (1 - there).T) / weights.points
    chance = found.sigmoid()
    common = 2 * chance @ there.T
    dice = 1 - (common + 1) / (chance.sum(dim=1)[:, None] + there.sum(dim=1)[None] + 1)
    named = -classes.float().softmax(dim=-1)[:, true.classes]
    return weights.classes * named + weights.masks * crossed + weights.dice * dice


def set_loss(
    found: Mapping[str, Tensor],
    true: Sequence[Objects],
    weights: SetWeights | None = None,
    class_weights: Tensor | None = None,
) -> dict[str, Tensor]:
    """The loss of a batch; every stage of the decoder is judged alike, with a matching of its own.

    Args:
        found: What :class:`manylens.models.adapted.heads.queries.MaskQueries` gives.
        true: Objects of each picture, with masks.
        weights: Of the parts; Mask2Former's by default.
        class_weights: Of the classes ``(C,)``, so that rare ones count for more; 1 by default.

    Returns:
        ``loss``, the weighted sum over parts and stages; and ``classes``, ``masks``, ``dice`` of the last stage.
    """
    weights = weights or SetWeights()
    if "stage_classes" in found:
        # Unbound at once: the gradient of each by itself would be as large as that of all.
        stages = list(zip(found["stage_classes"].unbind(), found["stage_masks"].unbind(), strict=True))
    else:
        stages = [(found["classes"], found["masks"])]
    count = counted(torch.tensor(float(sum(len(one.classes) for one in true)), device=found["classes"].device))
    total = found["classes"].new_zeros((), dtype=torch.float32)
    parts: dict[str, Tensor] = {}
    for classes, masks in stages:
        parts = _stage(classes.float(), masks.float(), true, weights, class_weights, count)
        total = total + sum(getattr(weights, name) * one for name, one in parts.items())
    return {"loss": total, **{name: one.detach() for name, one in parts.items()}}


def _stage(
    classes: Tensor,
    masks: Tensor,
    true: Sequence[Objects],
    weights: SetWeights,
    class_weights: Tensor | None,
    count: Tensor,
) -> dict[str, Tensor]:
    nothing = classes.shape[-1] - 1
    wanted = torch.full(classes.shape[:2], nothing, dtype=torch.int64, device=classes.device)
    matched: list[tuple[Tensor, Tensor]] = []
    for number, objects in enumerate(true):
        queries, places = assigned(costs(classes[number], masks[number], objects, weights))
        wanted[number, queries] = objects.classes[places]
        matched.append((queries, places))
    of_class = classes.new_ones(nothing) if class_weights is None else class_weights.to(classes)
    each = torch.cat([of_class, of_class.new_tensor([weights.nothing])])
    named = F.cross_entropy(classes.flatten(0, 1), wanted.flatten(), weight=each)
    rows = torch.cat([torch.full_like(queries, number) for number, (queries, _) in enumerate(matched)])
    logits = masks[rows, torch.cat([queries for queries, _ in matched])]
    points = unsure_points(logits, weights.points)
    parts = points.split([len(places) for _, places in matched])
    there = torch.cat(
        [
            at_points(objects.masks[places], part)
            for objects, (_, places), part in zip(true, matched, parts, strict=True)
            if objects.masks is not None
        ]
    )
    looked = at_points(logits, points)
    crossed = F.binary_cross_entropy_with_logits(looked, there, reduction="none").mean(dim=-1)
    return {
        "classes": named,
        "masks": crossed.sum() / count,
        "dice": dice_loss(looked.sigmoid(), there).sum() / count,
    }
