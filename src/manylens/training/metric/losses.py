"""Losses on unit vectors: near for one class, far for others. Functions on tensors, and modules that hold proxies.

A proxy is a vector that stands for a class of the training. It learns with the network and is then thrown away.
"""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from manylens.training.balance.names import check_name
from manylens.training.errors import TrainError

_LEAST = -1e9
"""A logit that counts for nothing; finite, so that a row of nothing else has a gradient."""

_SINE = 1e-6
"""Least square of a sine: at an angle of 0 the root has no slope."""


def supcon(vectors: Tensor, targets: Tensor, temperature: float = 0.1) -> Tensor:
    """Supervised contrastive loss (Khosla et al., 2020), with the mean over positives outside of the logarithm.

    Each picture is to be nearer to those of its class than to all others of the batch. One that is alone of its class
    is only what others shall be far from.

    Args:
        vectors: ``(B, D)`` of length 1.
        targets: int64 ``(B,)``.
        temperature: What cosines are divided by.

    Returns:
        The mean over the pictures that are not alone, a scalar; 0 where all are.
    """
    itself = torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
    logits = vectors @ vectors.T / temperature
    chances = logits - logits.masked_fill(itself, _LEAST).logsumexp(dim=1, keepdim=True)
    positive = (targets[:, None] == targets) & ~itself
    count = positive.sum(dim=1)
    means = (chances * positive).sum(dim=1) / count.clamp(min=1)
    return -means.sum() / (count > 0).sum().clamp(min=1)


def proxy_anchor(cosines: Tensor, targets: Tensor, alpha: float = 32.0, margin: float = 0.1) -> Tensor:
    """Proxy-Anchor loss (Kim et al., 2020): each proxy draws its class near, the hardest most, and pushes others away.

    Args:
        cosines: ``(B, C)`` of each picture with each proxy.
        targets: int64 ``(B,)``.
        alpha: How much more the hard ones count.
        margin: By how much a positive shall be above 0, and a negative below.

    Returns:
        A scalar: the positives' mean over proxies that have any in the batch, and the negatives' over all.
    """
    own = functional.one_hot(targets, cosines.shape[1]).bool()
    near = _softplus_of_sum(-alpha * (cosines - margin), own)
    far = _softplus_of_sum(alpha * (cosines + margin), ~own)
    return near.sum() / own.any(dim=0).sum().clamp(min=1) + far.mean()


def arcface(cosines: Tensor, targets: Tensor, scale: float = 64.0, margin: float = 0.5) -> Tensor:
    """ArcFace (Deng et al., 2019): cross-entropy in which the angle to the own class's proxy is enlarged by a margin.

    Args:
        cosines: ``(B, C)`` of each picture with each proxy.
        targets: int64 ``(B,)``.
        scale: What cosines are multiplied with.
        margin: Radians. Where the angle would pass a half turn, the cosine is lowered instead, as the authors do.

    Returns:
        The mean over pictures, a scalar.
    """
    rows = torch.arange(len(cosines), device=cosines.device)
    own = cosines[rows, targets]
    sine = (1 - own.square()).clamp(min=_SINE).sqrt()
    turned = own * math.cos(margin) - sine * math.sin(margin)
    harder = torch.where(own > -math.cos(margin), turned, own - margin * math.sin(margin))
    logits = cosines.index_put((rows, targets), harder)
    return functional.cross_entropy(scale * logits, targets)


class Criterion(nn.Module, ABC):
    """A loss of vectors ``(B, D)`` of length 1 and classes int64 ``(B,)``; what it has of parameters learns too.

    Args:
        classes: How many there are.
        width: Of the vectors.
    """

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.classes, self.width = classes, width

    @abstractmethod
    def forward(self, vectors: Tensor, targets: Tensor) -> Tensor:
        """The loss, a scalar."""


class SupCon(Criterion):
    """:func:`supcon`."""

    def __init__(self, classes: int, width: int, *, temperature: float = 0.1) -> None:
        super().__init__(classes, width)
        self.temperature = _above("temperature", temperature)

    def forward(self, vectors: Tensor, targets: Tensor) -> Tensor:
        """See :func:`supcon`."""
        return supcon(vectors, targets, self.temperature)


class WithProxies(Criterion):
    """A loss of cosines with one proxy for each class."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__(classes, width)
        # Short ones turn further in a step, ahead of the vectors; the paper raises their rate for that.
        self.proxies = nn.Parameter(0.1 * torch.randn(classes, width) / width**0.5)

    def cosines(self, vectors: Tensor) -> Tensor:
        """Of vectors ``(B, D)`` with each proxy: ``(B, C)``."""
        return vectors @ functional.normalize(self.proxies.to(vectors.dtype), dim=1).T


class ProxyAnchor(WithProxies):
    """:func:`proxy_anchor` on proxies of its own."""

    def __init__(self, classes: int, width: int, *, alpha: float = 32.0, margin: float = 0.1) -> None:
        super().__init__(classes, width)
        self.alpha, self.margin = _above("alpha", alpha), _above("margin", margin, least=True)

    def forward(self, vectors: Tensor, targets: Tensor) -> Tensor:
        """See :func:`proxy_anchor`."""
        return proxy_anchor(self.cosines(vectors), targets, self.alpha, self.margin)


class ArcFace(WithProxies):
    """:func:`arcface` on proxies of its own."""

    def __init__(self, classes: int, width: int, *, scale: float = 64.0, margin: float = 0.5) -> None:
        super().__init__(classes, width)
        self.scale, self.margin = _above("scale", scale), _above("margin", margin, least=True)

    def forward(self, vectors: Tensor, targets: Tensor) -> Tensor:
        """See :func:`arcface`."""
        return arcface(self.cosines(vectors), targets, self.scale, self.margin)


LOSSES: dict[str, type[Criterion]] = {"supcon": SupCon, "proxy_anchor": ProxyAnchor, "arcface": ArcFace}
"""By their name in ``options.loss``."""


def build(kind: str, classes: int, width: int, options: Mapping[str, Any]) -> Criterion:
    """Make a loss.

    Args:
        kind: A name of :data:`LOSSES`.
        classes: How many there are.
        width: Of the vectors.
        options: Of the loss: ``temperature`` of ``supcon``; ``alpha`` and ``margin`` of ``proxy_anchor``; ``scale`` and
            ``margin`` of ``arcface``.

    Raises:
        TrainError: There is no such loss or option, or a value is out of range.
    """
    check_name("options.loss", kind, LOSSES)
    known = [name for name, one in inspect.signature(LOSSES[kind]).parameters.items() if one.kind is one.KEYWORD_ONLY]
    for name in options:
        check_name(f"options.loss_options of {kind!r}", name, known)
    return LOSSES[kind](classes, width, **options)


def _softplus_of_sum(logits: Tensor, counts: Tensor) -> Tensor:
    """``log(1 + sum of exp)`` down each column of those that count, ``(C,)``."""
    held = logits.masked_fill(~counts, _LEAST)
    return torch.cat([held.new_zeros(1, held.shape[1]), held]).logsumexp(dim=0)


def _above(name: str, value: float, least: bool = False) -> float:
    """A number above 0, or, with ``least``, from 0 on."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 0 or (value == 0 and not least):
        raise TrainError(f"options.loss_options.{name}: {value!r} does not fit", "give a number above 0")
    return float(value)
