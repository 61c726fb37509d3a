"""The losses by name, from the counts of the classes. What they take and give stands at :mod:`.terms`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from manylens.training.balance import names
from manylens.training.balance.focal import Focal, SigmoidFocal
from manylens.training.balance.terms import (
    CrossEntropy,
    LogitAdjusted,
    Loss,
    Margin,
    PostHoc,
    along,
    within,
)
from manylens.training.balance.weights import FloatArray, checked, effective, inverse, log_prior, margins
from manylens.training.errors import TrainError

Form = Literal["softmax", "sigmoid"]
Weighing = Literal["none", "inverse", "effective"]

_COMMON = ("smoothing", "ignore_index")


def build(kind: str, counts: Any, **options: Any) -> Loss:
    """Make a loss.

    Options of all: ``smoothing`` of labels (0), ``ignore_index`` (-100). Of one each:

    - ``cross_entropy``: none.
    - ``weighted``: cross-entropy by inverse frequency, of mean 1 over the data; ``power`` (1), ``deferred`` (0).
    - ``focal``: Lin et al., 2017; ``gamma`` (2), ``form`` (``softmax`` or ``sigmoid``), ``alpha`` (of the sigmoid form:
      weight of yes, none by default; the paper has 0.25), ``weights`` (``none``, ``inverse`` or ``effective``).
    - ``class_balanced``: by effective number, Cui et al., 2019; ``beta`` (0.999), ``gamma`` (0; more is focal),
      ``form``, ``deferred`` (0).
    - ``ldam``: Cao et al., 2019; ``margin`` (0.5: the largest), ``scale`` (1; the paper has 30, for logits that are
      cosines), ``deferred`` (none: no weights; the paper has 0.8), ``beta`` (0.9999: of those weights).
    - ``logit_adjusted``: Menon et al., 2021, in the loss; ``tau`` (1).
    - ``post_hoc``: cross-entropy in training, and their adjustment in :meth:`Loss.answer`; ``tau`` (1).

    ``deferred`` is the share of the training after which the weights begin to count.

    Args:
        kind: One of :data:`manylens.training.balance.names.LOSSES`.
        counts: Examples (or pixels) of each class in the training data, ``(C,)``; 0 is allowed.
        **options: Of the loss.

    Raises:
        TrainError: There is no such loss or option, a value is out of range, or no class has an example.
    """
    names.check_name("loss", kind, names.LOSSES)
    make = _KINDS[kind]
    held = checked(counts)
    own = [name for name, one in inspect.signature(make).parameters.items() if one.kind is one.KEYWORD_ONLY]
    for name in options:
        names.check_name(f"option of the loss {kind!r}", name, [*own, *_COMMON])
    return make(held, **options)


def adjusted(logits: Tensor, counts: Any, *, tau: float = 1.0) -> Tensor:
    """Logits less ``tau`` times the logarithm of each class's share, for a model trained without (Menon et al., 2021).

    Args:
        logits: ``(B, C, ...)``.
        counts: Examples of each class in the training data, ``(C,)``.
        tau: 1 makes the classes equally likely beforehand.

    Returns:
        ``(B, C, ...)``.
    """
    prior = torch.as_tensor(log_prior(counts), dtype=logits.dtype, device=logits.device)
    return logits - tau * along(prior, logits)


def _cross_entropy(counts: FloatArray, **common: Any) -> Loss:
    return CrossEntropy(len(counts), **common)


def _weighted(counts: FloatArray, *, power: float = 1.0, deferred: float = 0.0, **common: Any) -> Loss:
    return CrossEntropy(len(counts), weights=inverse(counts, power=power), deferred=deferred, **common)


def _focal(
    counts: FloatArray,
    *,
    gamma: float = 2.0,
    form: Form = "softmax",
    alpha: float | None = None,
    weights: Weighing = "none",
    **common: Any,
) -> Loss:
    names.check_name("weights", weights, _WEIGHTS)
    return _formed(form, len(counts), gamma=gamma, alpha=alpha, weights=_WEIGHTS[weights](counts), **common)


def _class_balanced(
    counts: FloatArray,
    *,
    beta: float = 0.999,
    gamma: float = 0.0,
    form: Form = "softmax",
    deferred: float = 0.0,
    **common: Any,
) -> Loss:
    weights = effective(counts, beta=beta)
    return _formed(form, len(counts), gamma=gamma, alpha=None, weights=weights, deferred=deferred, **common)


def _ldam(
    counts: FloatArray,
    *,
    margin: float = 0.5,
    scale: float = 1.0,
    deferred: float | None = None,
    beta: float = 0.9999,
    **common: Any,
) -> Loss:
    weights = None if deferred is None else effective(counts, beta=beta)
    within("margin", margin, 0)
    return Margin(margins(counts, largest=margin), scale=scale, weights=weights, deferred=deferred or 0.0, **common)


def _logit_adjusted(counts: FloatArray, *, tau: float = 1.0, **common: Any) -> Loss:
    return LogitAdjusted(log_prior(counts), tau=tau, **common)


def _post_hoc(counts: FloatArray, *, tau: float = 1.0, **common: Any) -> Loss:
    return PostHoc(log_prior(counts), tau=tau, **common)


def _formed(form: str, classes: int, *, gamma: float, alpha: float | None, **options: Any) -> Loss:
    names.check_name("form", form, ("softmax", "sigmoid"))
    if form == "sigmoid":
        return SigmoidFocal(classes, gamma=gamma, alpha=alpha, **options)
    if alpha is not None:
        raise TrainError(f"alpha: {alpha:g} has no meaning in the softmax form", "give form: sigmoid, or weights")
    return Focal(classes, gamma=gamma, **options) if gamma else CrossEntropy(classes, **options)


_WEIGHTS: dict[str, Callable[[FloatArray], FloatArray | None]] = {
    "none": lambda counts: None,
    "inverse": inverse,
    "effective": effective,
}

_KINDS: dict[str, Callable[..., Loss]] = {
    "cross_entropy": _cross_entropy,
    "weighted": _weighted,
    "focal": _focal,
    "class_balanced": _class_balanced,
    "ldam": _ldam,
    "logit_adjusted": _logit_adjusted,
    "post_hoc": _post_hoc,
}
