"""How wrong masks are: focal, dice, and the IoU that they were thought to have; of several masks the best counts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


def focal(logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """The focal loss of masks (Lin et al., 2017), its mean over their pixels: ``(...)``.

    Args:
        logits: ``(..., H, W)``.
        targets: 0 or 1, of the same shape or one that spreads to it.
        alpha: Weight of pixels on the object; those beside it have ``1 - alpha``.
        gamma: How much less a pixel counts that is nearly right.
    """
    targets = targets.to(logits).expand_as(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    likely = torch.exp(-entropy)  # of the right answer
    weight = alpha * targets + (1 - alpha) * (1 - targets)
    return (weight * (1 - likely) ** gamma * entropy).mean(dim=(-2, -1))


def dice(logits: Tensor, targets: Tensor, smooth: float = 1.0) -> Tensor:
    """The dice loss of masks (Milletari et al., 2016): ``(...)``.

    Args:
        logits: ``(..., H, W)``.
        targets: 0 or 1, of the same shape or one that spreads to it.
        smooth: Pixels added to both sides of the ratio, so that an empty mask has one.
    """
    shares, targets = logits.sigmoid(), targets.to(logits)
    common = (shares * targets).sum(dim=(-2, -1))
    return 1 - (2 * common + smooth) / (shares.sum(dim=(-2, -1)) + targets.sum(dim=(-2, -1)) + smooth)


def iou(masks: Tensor, targets: Tensor) -> Tensor:
    """The IoU of masks, bool ``(..., H, W)`` each: float32 ``(...)``; 1 where both are empty."""
    common = (masks & targets).sum(dim=(-2, -1)).float()
    union = (masks | targets).sum(dim=(-2, -1)).float()
    return torch.where(union > 0, common / union.clamp(min=1), torch.ones_like(union))


@dataclass(frozen=True)
class Weights:
    """What the parts of the loss weigh; as for SAM.

    Attributes:
        focal: Of the focal loss.
        dice: Of the dice loss.
        iou: Of the squared error of the predicted IoU.
        alpha: Of the focal loss; see :func:`focal`.
        gamma: The same.
        others: Share of the loss of masks that is the mean of those that are not the best: they learn a little, too, so
            that none is left behind for good (Rupprecht et al., 2017, "Learning in an uncertain world"); 0 is as SAM.
    """

    focal: float = 20.0
    dice: float = 1.0
    iou: float = 1.0
    alpha: float = 0.25
    gamma: float = 2.0
    others: float = 0.05


@dataclass(frozen=True, eq=False)
class Judged:
    """How wrong the answers to ``P`` prompts are.

    Attributes:
        loss: ``(P,)``, to step down.
        focal: ``(P,)``, of the mask that counted.
        dice: The same.
        quality: ``(P,)``, the squared error of the predicted IoU.
        best: int64 ``(P,)``: which of the masks counted.
        iou: ``(P, M)``: of each mask with its object, without a gradient.
    """

    loss: Tensor
    focal: Tensor
    dice: Tensor
    quality: Tensor
    best: Tensor
    iou: Tensor


def judge(logits: Tensor, predicted: Tensor, targets: Tensor, weights: Weights | None = None) -> Judged:
    """Judge answers of one mask or of several, of which only the best one learns to be a better mask.

    With several masks for a prompt that is not clear, a loss of all of them would make each the mean of what may be
    meant; that of the best lets them part. What IoU each has is learnt of all, or the others could not be told from it.

    Args:
        logits: ``(P, M, h, w)``, brought to the targets' size here.
        predicted: ``(P, M)``, the IoU that they were thought to have.
        targets: bool ``(P, H, W)``.
        weights: Of the parts.
    """
    weights = weights or Weights()
    logits = enlarged(logits, targets.shape[-2:])
    wanted = targets[:, None]
    parts = torch.stack([focal(logits, wanted, weights.alpha, weights.gamma), dice(logits, wanted)])
    total = weights.focal * parts[0] + weights.dice * parts[1]
    best = total.detach().argmin(dim=1)
    rows = torch.arange(len(best), device=best.device)
    found = iou(logits.detach() > 0, wanted)
    quality = (predicted.float() - found).square().mean(dim=1)
    counted = total[rows, best]
    if weights.others > 0 and total.shape[1] > 1:
        rest = (total.sum(dim=1) - counted) / (total.shape[1] - 1)
        counted = (1 - weights.others) * counted + weights.others * rest
    return Judged(
        loss=counted + weights.iou * quality,
        focal=parts[0][rows, best],
        dice=parts[1][rows, best],
        quality=quality,
        best=best,
        iou=found,
    )


def enlarged(logits: Tensor, size: tuple[int, ...] | torch.Size) -> Tensor:
    """Logits ``(P, M, h, w)`` at another size ``(H, W)``, bilinear between the middles of cells; float32."""
    logits = logits.float()
    if logits.shape[-2:] == tuple(size):
        return logits
    return F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)
