"""The losses as modules; :mod:`manylens.training.balance.losses` makes them by name.

All take logits ``(B, C)`` or ``(B, C, H, W)`` with targets that are numbers of classes, int64 ``(B,)`` or
``(B, H, W)``, or soft: floating and of the shape of the logits (mixup). A target that is ``ignore_index`` does not
count, nor does a soft target of nothing but zeros, except in the sigmoid form, where that is an example of no class.

The mean is taken over what counts and is not divided by the weights met in the batch: so the mean of the gradients of
two halves is the gradient of the whole, on two devices or in two accumulated steps.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from manylens.training.balance.weights import FloatArray
from manylens.training.errors import TrainError


class Loss(nn.Module):
    """Base of the losses: which targets count, and weights of classes that may begin late.

    Args:
        classes: How many there are.
        weights: Of the classes, ``(C,)``; None weighs all alike.
        deferred: Share of the training after which the weights count (Cao et al., 2019); 0 is from the start.
        smoothing: Of labels: this share of each target goes to all classes alike.
        ignore_index: Number of no class in integer targets.

    Raises:
        TrainError: ``deferred`` or ``smoothing`` is out of range.
    """

    weights: Tensor | None
    offset: Tensor | None

    def __init__(
        self,
        classes: int,
        *,
        weights: FloatArray | None = None,
        deferred: float = 0.0,
        smoothing: float = 0.0,
        ignore_index: int = -100,
    ) -> None:
        super().__init__()
        within("deferred", deferred, 0, 1)
        within("smoothing", smoothing, 0, 1)
        self.classes, self.deferred, self.smoothing, self.ignore_index = classes, deferred, smoothing, ignore_index
        self.scale = 1.0
        self._hold("weights", weights)
        self._hold("offset", None)

    def forward(self, logits: Tensor, target: Tensor, *, progress: float = 0.0) -> Tensor:
        """The mean over all targets that count; 0 where none does.

        Args:
            logits: ``(B, C, ...)``.
            target: int64 ``(B, ...)`` or floating ``(B, C, ...)``.
            progress: Share of the training that is done, 0 to 1.

        Returns:
            A scalar.
        """
        losses = self.each(logits, target, progress=progress)
        return losses.sum() / self.counted(target).sum().clamp(min=1)

    def each(self, logits: Tensor, target: Tensor, *, progress: float = 0.0) -> Tensor:
        """The loss of each picture or pixel ``(B, ...)``; 0 where none counts. Arguments as in :meth:`forward`."""
        raise NotImplementedError

    def counted(self, target: Tensor) -> Tensor:
        """Which targets count: bool ``(B, ...)``."""
        return target.sum(dim=1) > 0 if target.is_floating_point() else target != self.ignore_index

    def answer(self, logits: Tensor) -> Tensor:
        """The logits that a trained model answers with: ``logits * scale + offset``, both of the loss."""
        if self.offset is None:
            return logits * self.scale
        return logits * self.scale + along(self.offset.to(logits.dtype), logits)

    def _hold(self, name: str, values: FloatArray | None) -> None:
        # Not in the checkpoint: they are made anew from the counts.
        self.register_buffer(name, None if values is None else torch.from_numpy(values).float(), persistent=False)

    def _weights_at(self, progress: float, logits: Tensor) -> Tensor | None:
        if self.weights is None or progress < self.deferred:
            return None
        return self.weights.to(logits.dtype)

    def _classes(self, target: Tensor) -> Tensor:
        """Integer targets with class 0 where none counts, so that they can index."""
        return torch.where(self.counted(target), target, 0)


class CrossEntropy(Loss):
    """Softmax cross-entropy with weights, smoothing and soft targets."""

    def each(self, logits: Tensor, target: Tensor, *, progress: float = 0.0) -> Tensor:
        """See :meth:`Loss.each`."""
        logits = self._shifted(precise(logits), target)
        soft = target.is_floating_point()
        return F.cross_entropy(
            logits,
            target.to(logits.dtype) if soft else target,
            weight=self._weights_at(progress, logits),
            ignore_index=-100 if soft else self.ignore_index,
            label_smoothing=self.smoothing,
            reduction="none",
        ) * self.counted(target)

    def _shifted(self, logits: Tensor, target: Tensor) -> Tensor:
        return logits


class LogitAdjusted(CrossEntropy):
    """Cross-entropy of logits to which ``tau`` times the logarithm of each class's share is added.

    Menon et al., 2021. What the network learns are logits for classes that are equally likely.

    Args:
        prior: Logarithms of the shares, ``(C,)``.
        tau: How much of them.
        smoothing: See :class:`Loss`.
        ignore_index: See :class:`Loss`.
    """

    shift: Tensor

    def __init__(self, prior: FloatArray, *, tau: float, smoothing: float = 0.0, ignore_index: int = -100) -> None:
        super().__init__(len(prior), smoothing=smoothing, ignore_index=ignore_index)
        self._hold("shift", tau * prior)

    def _shifted(self, logits: Tensor, target: Tensor) -> Tensor:
        return logits + along(self.shift.to(logits.dtype), logits)


class PostHoc(CrossEntropy):
    """Plain cross-entropy in training; :meth:`Loss.answer` takes the logarithm of the shares off (Menon et al., 2021).

    Args: as of :class:`LogitAdjusted`.
    """

    def __init__(self, prior: FloatArray, *, tau: float, smoothing: float = 0.0, ignore_index: int = -100) -> None:
        super().__init__(len(prior), smoothing=smoothing, ignore_index=ignore_index)
        self._hold("offset", -tau * prior)


class Margin(CrossEntropy):
    """Label-distribution-aware margins (LDAM; Cao et al., 2019).

    The logit of the true class is lowered by its margin, then all are multiplied by ``scale``. A soft target lowers
    each logit by its share of the margin.

    Args:
        margins: Of the classes, ``(C,)``.
        scale: Of the logits; 30 in the paper, whose logits are cosines.
        weights: See :class:`Loss`.
        deferred: See :class:`Loss`.
        smoothing: See :class:`Loss`.
        ignore_index: See :class:`Loss`.
    """

    margins: Tensor

    def __init__(
        self,
        margins: FloatArray,
        *,
        scale: float,
        weights: FloatArray | None = None,
        deferred: float = 0.0,
        smoothing: float = 0.0,
        ignore_index: int = -100,
    ) -> None:
        super().__init__(
            len(margins), weights=weights, deferred=deferred, smoothing=smoothing, ignore_index=ignore_index
        )
        above("scale", scale, 0)
        self.scale = scale
        self._hold("margins", margins)

    def _shifted(self, logits: Tensor, target: Tensor) -> Tensor:
        margins = self.margins.to(logits.dtype)
        if target.is_floating_point():
            lowered = logits - target.to(logits.dtype) * along(margins, logits)
        else:
            own = self._classes(target)
            lowered = logits.scatter_add(1, own.unsqueeze(1), -margins[own].unsqueeze(1))
        return lowered * self.scale


def along(values: Tensor, logits: Tensor) -> Tensor:
    """Values of classes ``(C,)`` in the shape in which they meet logits ``(B, C, ...)``."""
    return values.view(1, -1, *[1] * (logits.ndim - 2))


def precise(logits: Tensor) -> Tensor:
    """Logits in float32 at least, so that half precision does not round the loss."""
    return logits if logits.dtype == torch.float64 else logits.float()


def within(name: str, value: float, low: float, high: float = math.inf) -> None:
    """Raise a :class:`TrainError` where an option is not in ``[low, high]``."""
    if not low <= value <= high:
        raise TrainError(
            f"{name}: {value:g} is out of range", f"give {low:g} {f'to {high:g}' if high < math.inf else 'or more'}"
        )


def above(name: str, value: float, low: float) -> None:
    """Raise a :class:`TrainError` where an option is not more than ``low``."""
    if not value > low:
        raise TrainError(f"{name}: {value:g} is out of range", f"give more than {low:g}")
