"""Losses of dense heads: of class maps, of masks and of boxes, which are xyxy.

Cross-entropy of pixels and its kin are those of :mod:`manylens.training.balance.losses`, which take maps too.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

VOID = -1
"""The class of pixels that are not judged."""


def class_dice(logits: Tensor, labels: Tensor) -> Tensor:
    """Dice loss of a class map, the mean over the classes that the batch shows (Milletari et al., 2016).

    Args:
        logits: ``(B, C, h, w)``; brought to the labels' size.
        labels: int64 ``(B, H, W)``, :data:`VOID` where not judged.
    """
    chances = enlarged(logits, labels).softmax(dim=1)
    judged = (labels != VOID).unsqueeze(1)
    true = F.one_hot(labels.clamp(min=0), chances.shape[1]).movedim(-1, 1) * judged
    each = dice_loss((chances * judged).movedim(1, 0).flatten(1), true.movedim(1, 0).flatten(1), squared=True)
    shown = true.sum(dim=(0, 2, 3)) > 0
    return (each * shown).sum() / shown.sum().clamp(min=1)


def dice_loss(chances: Tensor, true: Tensor, *, squared: bool = False) -> Tensor:
    """One less the dice coefficient of each mask.

    Args:
        chances: Probabilities ``(n, P)`` of points, or of pixels.
        true: What is there, 0..1, ``(n, P)``.
        squared: Whether the sums below the line are of squares (Milletari et al., 2016); else plain, and smoothed by
            one (Cheng et al., 2022).

    Returns:
        ``(n,)`` in 0..1.
    """
    true = true.to(chances.dtype)
    common = 2 * (chances * true).sum(dim=-1)
    if squared:
        both = chances.square().sum(dim=-1) + true.square().sum(dim=-1)
        return 1 - common / both.clamp(min=1e-6)
    return 1 - (common + 1) / (chances.sum(dim=-1) + true.sum(dim=-1) + 1)


def quality_focal_loss(logits: Tensor, quality: Tensor, *, beta: float = 2.0) -> Tensor:
    """Focal loss of scores that are to be a quality in 0..1 (Li et al., Generalized Focal Loss, 2020), each for itself.

    Args:
        logits: Of any shape.
        quality: What the scores shall be, 0 where nothing is.
        beta: How much less counts what is nearly right.
    """
    quality = quality.to(logits.dtype)
    apart = (quality - logits.sigmoid()).abs() ** beta
    return F.binary_cross_entropy_with_logits(logits, quality, reduction="none") * apart


def box_areas(boxes: Tensor) -> Tensor:
    """Areas ``(...)`` of boxes ``(..., 4)``; 0 where one is turned inside out."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(dim=-1)


def iou_pairs(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union of boxes ``(..., 4)`` with others of a shape that fits: ``(...)`` in 0..1."""
    common, union = _overlap(one, other)
    return common / union.clamp(min=1e-7)


def giou_pairs(one: Tensor, other: Tensor) -> Tensor:
    """Generalized IoU (Rezatofighi et al., 2019) of boxes ``(..., 4)`` with others: ``(...)`` in -1..1."""
    common, union = _overlap(one, other)
    low, high = torch.minimum(one[..., :2], other[..., :2]), torch.maximum(one[..., 2:], other[..., 2:])
    around = (high - low).clamp(min=0).prod(dim=-1)
    return common / union.clamp(min=1e-7) - (around - union) / around.clamp(min=1e-7)


def counted(count: Tensor, least: float = 1.0) -> Tensor:
    """How many things a loss is the mean of: the mean of the number over all processes, never less than ``least``.

    So that the gradients of several processes, once averaged, are those of one process with the whole batch.

    Args:
        count: A scalar, on the device.
        least: So that nothing is divided by 0.
    """
    number = count.detach().float()
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        number = number.clone()
        distributed.all_reduce(number)
        number = number / distributed.get_world_size()
    return number.clamp(min=least)


def enlarged(logits: Tensor, labels: Tensor) -> Tensor:
    """Logits ``(B, C, h, w)`` as float32 at the size of labels ``(B, H, W)``, bilinear."""
    if logits.shape[-2:] == labels.shape[-2:]:
        return logits.float()
    return F.interpolate(logits.float(), size=labels.shape[-2:], mode="bilinear", align_corners=False)


def _overlap(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    low, high = torch.maximum(one[..., :2], other[..., :2]), torch.minimum(one[..., 2:], other[..., 2:])
    common = (high - low).clamp(min=0).prod(dim=-1)
    return common, box_areas(one) + box_areas(other) - common
