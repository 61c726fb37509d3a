"""The focal losses as modules: of one class among all, and of a yes or no for each."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from manylens.training.balance.terms import Loss, along, precise, within
from manylens.training.balance.weights import FloatArray

_TINY = 1e-12  # below it (1 - p) ** gamma has no finite slope for a gamma under 1


class Focal(Loss):
    """Softmax focal loss, ``-(1 - p) ** gamma * log p`` of the true class (Lin et al., 2017).

    Of a soft target it is the mean over classes by their share.

    Args:
        classes: How many there are.
        gamma: 0 is cross-entropy.
        weights: See :class:`Loss`.
        deferred: See :class:`Loss`.
        smoothing: See :class:`Loss`.
        ignore_index: See :class:`Loss`.
    """

    def __init__(
        self,
        classes: int,
        *,
        gamma: float,
        weights: FloatArray | None = None,
        deferred: float = 0.0,
        smoothing: float = 0.0,
        ignore_index: int = -100,
    ) -> None:
        super().__init__(classes, weights=weights, deferred=deferred, smoothing=smoothing, ignore_index=ignore_index)
        within("gamma", gamma, 0)
        self.gamma = gamma

    def each(self, logits: Tensor, target: Tensor, *, progress: float = 0.0) -> Tensor:
        """See :meth:`Loss.each`."""
        logs = F.log_softmax(precise(logits), dim=1)
        weights = self._weights_at(progress, logs)
        if target.is_floating_point() or self.smoothing:
            soft = smoothed(self._soft(target).to(logs.dtype), self.smoothing)
            if weights is not None:
                soft = soft * along(weights, logs)
            return (soft * self._focused(logs)).sum(dim=1) * self.counted(target)
        own = self._classes(target)
        losses = self._focused(logs.gather(1, own.unsqueeze(1)).squeeze(1))
        if weights is not None:
            losses = losses * weights[own]
        return losses * self.counted(target)

    def _focused(self, logs: Tensor) -> Tensor:
        return -((1 - logs.exp()).clamp(min=_TINY) ** self.gamma) * logs

    def _soft(self, target: Tensor) -> Tensor:
        return target if target.is_floating_point() else one_hot(self._classes(target), self.classes)


class SigmoidFocal(Focal):
    """Focal loss of a yes or no for each class, summed over them (Lin et al., 2017); also for several classes at once.

    An integer target is yes for its class and no for all others. With ``gamma`` 0 and no ``alpha`` it is the binary
    cross-entropy. The weight of an example is that of its class, as Cui et al. (2019) have it; of several, their mean.

    Args:
        classes: How many there are.
        gamma: 0 does not focus.
        alpha: Weight of yes, and 1 less it that of no; None weighs both by 1.
        weights: See :class:`Loss`.
        deferred: See :class:`Loss`.
        smoothing: See :class:`Loss`; here between yes and no.
        ignore_index: See :class:`Loss`.
    """

    def __init__(
        self,
        classes: int,
        *,
        gamma: float,
        alpha: float | None = None,
        weights: FloatArray | None = None,
        deferred: float = 0.0,
        smoothing: float = 0.0,
        ignore_index: int = -100,
    ) -> None:
        super().__init__(
            classes, gamma=gamma, weights=weights, deferred=deferred, smoothing=smoothing, ignore_index=ignore_index
        )
        if alpha is not None:
            within("alpha", alpha, 0, 1)
        self.alpha = alpha

    def each(self, logits: Tensor, target: Tensor, *, progress: float = 0.0) -> Tensor:
        """See :meth:`Loss.each`."""
        logits = precise(logits)
        hot = self._soft(target).to(logits.dtype)
        yes = hot * (1 - self.smoothing) + self.smoothing / 2
        losses = F.binary_cross_entropy_with_logits(logits, yes, reduction="none")
        missed = torch.sigmoid(logits) * (1 - yes) + torch.sigmoid(-logits) * yes
        losses = losses * missed.clamp(min=_TINY) ** self.gamma
        if self.alpha is not None:
            losses = losses * (self.alpha * yes + (1 - self.alpha) * (1 - yes))
        summed = losses.sum(dim=1)
        weights = self._weights_at(progress, logits)
        if weights is not None:
            held = hot.sum(dim=1)
            of_classes = (hot * along(weights, logits)).sum(dim=1) / held.clamp(min=_TINY)
            summed = summed * torch.where(held > 0, of_classes, 1)
        return summed * self.counted(target)

    def counted(self, target: Tensor) -> Tensor:
        """Which targets count: bool ``(B, ...)``; a soft one always does."""
        if target.is_floating_point():
            return torch.ones_like(target[:, 0], dtype=torch.bool)
        return super().counted(target)


def one_hot(target: Tensor, classes: int) -> Tensor:
    """Numbers of classes ``(B, ...)`` as float32 ``(B, C, ...)``."""
    shape = (target.shape[0], classes, *target.shape[1:])
    return torch.zeros(shape, device=target.device).scatter_(1, target.unsqueeze(1), 1.0)


def smoothed(soft: Tensor, share: float) -> Tensor:
    """Soft targets ``(B, C, ...)`` of which this share goes to all classes alike."""
    return soft * (1 - share) + share / soft.shape[1] if share else soft
