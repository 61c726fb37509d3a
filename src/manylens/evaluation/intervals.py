"""Bootstrap intervals of any tally (Efron & Tibshirani 1993): pictures drawn with replacement, percentiles read.

Percentiles of few pictures lie too close together: 30 pictures give 92 % where 95 % are promised. So they are read a
little farther out, as far as Student's t lies beyond the normal distribution (Hesterberg, What Teachers Should Know
About the Bootstrap, The American Statistician 2015); for hundreds of pictures that is nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from manylens.evaluation.tally import FloatArray, Tally

RESAMPLES = 1000
LEVEL = 0.95
_AT_ONCE = 4_000_000  # weights held in memory at a time, 32 MB


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval; NaN where it is not defined."""

    value: float
    low: float = math.nan
    high: float = math.nan

    def to_json(self) -> dict[str, float | None]:
        """Plain, NaN as None."""
        parts = {"value": self.value, "low": self.low, "high": self.high}
        return {name: None if math.isnan(part) else float(part) for name, part in parts.items()}

    @staticmethod
    def from_json(body: Mapping[str, float | None]) -> Estimate:
        """What :meth:`to_json` gave."""
        return Estimate(
            *(math.nan if body[name] is None else float(body[name] or 0.0) for name in ("value", "low", "high"))
        )

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "not defined"
        if math.isnan(self.low):
            return f"{self.value:.3f}"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


class Draws:
    """Resamples of clusters, the same for every tally that has the same clusters and seed, whatever their order.

    Args:
        clusters: The clusters that are drawn, in any order, repeats allowed.
        resamples: How many times.
        seed: Of the drawing.
    """

    def __init__(self, clusters: Sequence[str], resamples: int = RESAMPLES, seed: int = 0) -> None:
        self.names = sorted(set(clusters))
        self.resamples, self.seed = resamples, seed
        self._at = {name: i for i, name in enumerate(self.names)}

    def index(self, clusters: Sequence[str]) -> npt.NDArray[np.int64]:
        """``(n,)``: the place of each unit's cluster; -1 where it is not drawn at all."""
        return np.array([self._at.get(name, -1) for name in clusters], dtype=np.int64)

    def counts(self, width: int = 0) -> Iterator[FloatArray]:
        """How often each cluster was drawn: blocks ``(r, K)``, together ``resamples`` rows.

        Args:
            width: Columns of what the caller makes of a block, to bound its memory.
        """
        if not self.names:
            return
        total = len(self.names)
        rng = np.random.default_rng(self.seed)
        rows = max(1, _AT_ONCE // max(total, width, 1))
        even = np.full(total, 1 / total)
        for start in range(0, self.resamples, rows):
            yield rng.multinomial(total, even, size=min(rows, self.resamples - start)).astype(np.float64)

    def weights(self, clusters: Sequence[str], base: FloatArray | None = None) -> Iterator[FloatArray]:
        """Weights of the units of a tally under each resample: blocks ``(r, n)``."""
        at = self.index(clusters)
        keep = (at >= 0) * (1.0 if base is None else base)
        for block in self.counts(len(at)):
            yield block[:, np.maximum(at, 0)] * keep


def estimates(
    tally: Tally,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
    base: FloatArray | None = None,
    progress: Callable[[float], None] | None = None,
) -> dict[str, Estimate]:
    """Every figure of a tally with its percentile interval.

    Args:
        tally: What was counted.
        resamples: Number of bootstrap resamples; 0 for no intervals. A tally whose figures are costly may lower it.
        seed: Of the drawing.
        level: Of the interval, such as 0.95.
        base: ``(n,)`` weights of the units, such as 0/1 for a slice; None for 1 each.
        progress: Called with the share done.
    """
    base = np.ones(len(tally.units)) if base is None else np.asarray(base, float)
    points = {name: float(values[0]) for name, values in tally.figures(base[np.newaxis]).items()}
    resamples = capped(tally, resamples)
    drawn = [name for name, weight in zip(tally.units.clusters, base, strict=True) if weight > 0]
    draws = Draws(drawn, resamples, seed)
    if resamples == 0 or len(draws.names) < 2:  # one picture says nothing of how pictures vary
        return {name: Estimate(value) for name, value in points.items()}
    blocks, done = [], 0
    for weights in draws.weights(tally.units.clusters, base):
        blocks.append(tally.figures(weights))
        done += len(weights)
        if progress is not None:
            progress(done / resamples)
    joined = {name: np.concatenate([block[name] for block in blocks]) for name in points}
    return {
        name: Estimate(points[name], *interval(about(tally, name, points[name], values), level, len(draws.names)))
        for name, values in joined.items()
    }


def capped(tally: Tally, resamples: int) -> int:
    """The number of resamples that a tally allows: fewer where one costs much."""
    most: int | None = getattr(tally, "resamples", None)
    return resamples if most is None else min(resamples, most)


def about(tally: Tally, figure: str, point: float, values: FloatArray, *, difference: bool = False) -> FloatArray:
    """Resampled values, moved so that their median is the point where the tally asks for that.

    Args:
        tally: What was counted.
        figure: Its name.
        point: The figure itself.
        values: ``(R,)``.
        difference: Whether they are differences of the figure, which may be below what the figure can be.
    """
    plain = figure.split("/")[0]
    if plain not in tally.recentred or bool(np.isnan(values).all()):
        return values
    moved = values + (point - float(np.nanmedian(values)))
    return moved if difference else np.clip(moved, *tally.limits.get(plain, (-np.inf, np.inf)))


def enough(values: FloatArray, level: float = LEVEL) -> FloatArray:
    """The resampled values that are defined; none where too few are to say how the figure varies.

    A resample without any picture of a class has no figure of it. Where more resamples than a tail holds are of that
    kind, the class stands in three pictures or fewer, and the others only repeat these.
    """
    known = values[~np.isnan(values)]
    return known if len(known) >= max(2, (1 + level) / 2 * len(values)) else known[:0]


def interval(values: FloatArray, level: float = LEVEL, clusters: int | None = None) -> tuple[float, float]:
    """The percentile interval of resampled values.

    Args:
        values: ``(R,)``.
        level: Of the interval.
        clusters: How many pictures were drawn from; None for so many that it does not matter.

    Returns:
        Low and high; NaN where :func:`enough` are not defined.
    """
    known = enough(values, level)
    if not len(known):
        return math.nan, math.nan
    tail = widened((1 - level) / 2, clusters)
    low, high = np.quantile(known, [tail, 1 - tail])
    return float(low), float(high)


def widened(tail: float, clusters: int | None) -> float:
    """The share of resamples to leave out on a side, so that a tail of the figure is left out; see the module."""
    if clusters is None or clusters < 2:
        return tail
    from scipy.special import ndtr, stdtrit

    return float(ndtr(math.sqrt(clusters / (clusters - 1)) * stdtrit(clusters - 1, tail)))


def narrowed(tail: float, clusters: int) -> float:
    """The tail of the figure that a share of resamples stands for: what undoes :func:`widened`."""
    from scipy.special import ndtri, stdtr

    return float(stdtr(clusters - 1, math.sqrt((clusters - 1) / clusters) * ndtri(tail)))
