"""Which pictures an epoch shows, and how often: a function of the labels, the seed and the number of the epoch alone.

Each rule gives every picture a number of appearances in an epoch. A draw rounds these numbers up or down by chance, to
the length of the epoch exactly and true to them in the mean (systematic sampling). The pictures of one class lie side
by side in this, so the sum of a class, too, is within one of what is owed to it. Then the draw is shuffled.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from manylens.training.balance import names
from manylens.training.balance.weights import FloatArray
from manylens.training.errors import TrainError

IntArray = npt.NDArray[np.int64]
Labels = Sequence[Any] | npt.NDArray[Any]
"""A class for each picture; or for each the classes it holds (of its instances), of which there may be none."""

NOTHING = None
"""The class of pictures that hold nothing."""

_FINE = 2**20  # steps of the number that decides the rounding; it is never so near to 0 or 1 that a sum's last bit does
_WORD = 0x5A3  # keeps these draws apart from others of the same seed and epoch


def draw(
    kind: str, labels: Labels, *, seed: int, epoch: int, size: int | None = None, **options: Any
) -> npt.NDArray[np.int64]:
    """The pictures of one epoch, shuffled.

    - ``shuffle``: each once.
    - ``balanced``: each class as often as any other; ``square_root``: by the square root of its frequency. A picture
      of several classes appears for each.
    - ``repeat_factor``: a picture ``max(1, sqrt(threshold / f))`` times, f the share of pictures that hold the rarest
      of its classes (Gupta et al., 2019). ``threshold``: by default the mean share of a class; the paper has 0.001.
    - ``oversample``: each class as often as the largest; ``undersample``: as the smallest, none twice. A picture of
      several classes goes by its rarest.

    Args:
        kind: One of :data:`manylens.training.balance.names.SAMPLINGS`.
        labels: Of the pictures. Where each is a set, a list or a tuple, these are the classes that it holds; pictures
            that hold nothing are a class of their own, except that ``repeat_factor`` never repeats them.
        seed: Of the run.
        epoch: Its number, from 0.
        size: Pictures in the epoch; by default what the rule gives, the same in every epoch.
        **options: Of the rule.

    Returns:
        int64 ``(size,)``, numbers of pictures.

    Raises:
        TrainError: There is no such rule or option, there is no picture, or the size is less than 1.
    """
    held = _Held.of(labels)
    owed = _owed(kind, held, size, options)
    rng = np.random.default_rng([seed, epoch, _WORD])
    places, ranks = rng.random(len(owed)), rng.random(len(held.classes))
    order = np.lexsort((places, ranks[held.rarest]))
    start = (rng.integers(_FINE) + 0.5) / _FINE
    ends = np.floor(np.cumsum(owed[order]) + start).astype(np.int64)
    shown = np.repeat(order, np.diff(ends, prepend=0))
    return shown[np.argsort(rng.random(len(shown)), kind="stable")].astype(np.int64)


def expected(kind: str, labels: Labels, *, size: int | None = None, **options: Any) -> FloatArray:
    """How often each picture appears in an epoch in the mean: float64 ``(pictures,)``, of the epoch's length in sum.

    A draw shows it that often, rounded down or up. Arguments as in :func:`draw`.
    """
    return _owed(kind, _Held.of(labels), size, options)


def shares(kind: str, labels: Labels, *, size: int | None = None, **options: Any) -> dict[Any, float]:
    """The share of an epoch's pictures that hold each class, in the mean; :data:`NOTHING` is the class of the empty.

    Shares of classes that a picture holds together sum to more than 1. Arguments as in :func:`draw`.
    """
    held = _Held.of(labels)
    owed = _owed(kind, held, size, options)
    of_classes = np.bincount(held.codes, owed[held.rows], len(held.classes)) / owed.sum()
    return dict(zip(held.classes, of_classes.tolist(), strict=True))


@dataclass(frozen=True, eq=False)
class _Held:
    """Which picture holds which class.

    Attributes:
        classes: Of the labels, in a fixed order.
        rows: int64 ``(pairs,)``, pictures.
        codes: int64 ``(pairs,)``, their classes, numbers in ``classes``.
        counts: float64 ``(classes,)``, pictures of each.
        rarest: int64 ``(pictures,)``, the class of each that fewest pictures hold.
    """

    classes: tuple[Any, ...]
    rows: IntArray
    codes: IntArray
    counts: FloatArray
    rarest: IntArray

    @classmethod
    def of(cls, labels: Labels) -> _Held:
        if not len(labels):
            raise TrainError("sampling: there is no picture", "give labels of one or more")
        if hasattr(labels, "tolist"):  # an array, or a tensor, of which each item would be a class
            if np.ndim(labels) != 1:
                raise TrainError(f"sampling: labels have {np.ndim(labels)} dimensions", "give a class or set a picture")
            labels = labels.tolist()
        several = any(isinstance(one, set | frozenset | list | tuple) for one in labels)
        held: list[Collection[Any]] = [set(one) or {NOTHING} for one in labels] if several else [(x,) for x in labels]
        names = sorted({name for one in held for name in one}, key=repr)
        numbers = {name: number for number, name in enumerate(names)}
        sizes = np.fromiter(map(len, held), np.int64, len(held))
        rows = np.repeat(np.arange(len(held)), sizes)
        codes = np.fromiter((numbers[name] for one in held for name in one), np.int64, len(rows))
        counts = np.bincount(codes, minlength=len(names))
        order = np.lexsort((codes, counts[codes], rows))
        firsts = order[np.concatenate([[0], np.cumsum(sizes)[:-1]])]
        return cls(tuple(names), rows, codes, counts.astype(np.float64), codes[firsts])


def _owed(kind: str, held: _Held, size: int | None, options: dict[str, Any]) -> FloatArray:
    names.check_name("sampling", kind, names.SAMPLINGS)
    rule = _RULES[kind]
    for name in options:
        names.check_name(f"option of the sampling {kind!r}", name, [*inspect.signature(rule).parameters][1:])
    if size is not None and size < 1:
        raise TrainError(f"size: an epoch of {size} pictures is none", "give 1 or more")
    owed = rule(held, **options)
    length = max(1, round(float(owed.sum()))) if size is None else size
    return owed * (length / owed.sum())


def _shuffle(held: _Held) -> FloatArray:
    return np.ones(len(held.rarest))


def _by_power(held: _Held, power: float) -> FloatArray:
    """Each class by this power of its frequency, its pictures alike; as many appearances as there are pictures."""
    each = held.counts ** (power - 1)
    owed = np.bincount(held.rows, each[held.codes]).astype(np.float64)
    return owed * (len(owed) / owed.sum())


def _balanced(held: _Held) -> FloatArray:
    return _by_power(held, 0.0)


def _square_root(held: _Held) -> FloatArray:
    return _by_power(held, 0.5)


def _repeat_factor(held: _Held, threshold: float | None = None) -> FloatArray:
    share = held.counts / len(held.rarest)
    real = np.array([name is not NOTHING for name in held.classes])
    if threshold is None:
        threshold = float(share[real].mean()) if real.any() else 0.0
    if not 0 <= threshold <= 1:
        raise TrainError(f"threshold: {threshold:g} is out of range", "give a share of the pictures, 0 to 1")
    factors = np.where(real, np.maximum(1.0, np.sqrt(threshold / share)), 1.0)
    return factors[held.rarest]


def _oversample(held: _Held) -> FloatArray:
    return (held.counts.max() / held.counts)[held.rarest]


def _undersample(held: _Held) -> FloatArray:
    return (held.counts.min() / held.counts)[held.rarest]


_RULES: dict[str, Callable[..., FloatArray]] = {
    "shuffle": _shuffle,
    "balanced": _balanced,
    "square_root": _square_root,
    "repeat_factor": _repeat_factor,
    "oversample": _oversample,
    "undersample": _undersample,
}
