"""Two models on the same pictures: a paired bootstrap says whether their difference is real."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.data.problems import DataError
from manylens.evaluation.intervals import LEVEL, RESAMPLES, Draws, Estimate, about, capped, enough, interval, narrowed
from manylens.evaluation.results import Evaluation, opened
from manylens.evaluation.tally import FloatArray, Tally

_ROUNDING = 1e-9  # share of a difference below which its spread is none
_PARTS = ("split", "limit", "ids", "where")  # options that take a part of the data
_HARMLESS = frozenset({"resamples", "seed", "slices", "strict", "max_cost"})

if TYPE_CHECKING:
    import os

    Source = Tally | Evaluation | str | os.PathLike[str]


@dataclass(frozen=True)
class Difference:
    """One figure of two models.

    Attributes:
        figure: Its name.
        a: Of the first model.
        b: Of the second.
        difference: ``b - a`` with its paired interval.
        p: Two-sided bootstrap p-value; for per-class figures corrected for their number (Holm 1979). Where no resample
            changes the sign, what a distribution of their mean and spread has beyond 0, for their number says only
            that it is small. NaN where the figure rests on three pictures or fewer.
        real: Whether ``p`` is below 1 - level.
        better: ``a`` or ``b`` where the difference is real, else empty.
    """

    figure: str
    a: float
    b: float
    difference: Estimate
    p: float
    real: bool
    better: str

    def to_json(self) -> dict[str, Any]:
        """Plain, NaN as None."""
        plain = {name: _none(getattr(self, name)) for name in ("figure", "a", "b", "p", "real", "better")}
        return plain | {"difference": self.difference.to_json()}


@dataclass(frozen=True)
class Comparison:
    """Two tallies compared.

    Attributes:
        main: The figure that a reader looks at first.
        differences: By figure.
        units: How many units both have.
        clusters: How many pictures these come from.
        only_a: Units that only the first has, left out.
        only_b: Units that only the second has, left out.
        level: Of the intervals.
        notes: What else than the model differs.
    """

    main: str
    differences: Mapping[str, Difference]
    kind: str
    units: int
    clusters: int
    only_a: int
    only_b: int
    level: float = LEVEL
    notes: Sequence[str] = ()

    @property
    def verdict(self) -> str:
        """The main figure in a sentence."""
        main = self.differences[self.main]
        if math.isnan(main.difference.value):
            return f"{self.main} is not defined for both"
        what = f"{self.main}: a {main.a:.3f}, b {main.b:.3f}, difference {main.difference}"
        if math.isnan(main.difference.low):
            return f"{what}: too few pictures to tell whether it is real"
        return f"{what} (p = {main.p:.3g}): " + (f"real, {main.better} is better" if main.real else "may be chance")

    def to_json(self) -> dict[str, Any]:
        """Plain, NaN as None."""
        return {
            "main": self.main,
            "verdict": self.verdict,
            "differences": {name: one.to_json() for name, one in self.differences.items()},
            "kind": self.kind,
            "units": self.units,
            "clusters": self.clusters,
            "only_a": self.only_a,
            "only_b": self.only_b,
            "level": self.level,
            "notes": list(self.notes),
        }


def compare(a: Source, b: Source, *, resamples: int = RESAMPLES, seed: int = 0, level: float = LEVEL) -> Comparison:
    """Compare two models on the units that both were judged on; each resample draws the same pictures for both.

    Args:
        a: The first model: an evaluation, the folder that it was saved in, or a tally.
        b: The second, of the same measure on the same data.
        resamples: Number of bootstrap resamples.
        seed: Of the drawing.
        level: Of the intervals.

    Raises:
        DataError: They are of different measures, or share no unit.
    """
    (tally_a, evaluation_a), (tally_b, evaluation_b) = opened(a), opened(b)
    found = _compared(tally_a, tally_b, resamples, seed, level)
    if evaluation_a is None or evaluation_b is None:
        return found
    return replace(found, notes=_unlike(evaluation_a, evaluation_b))


def _unlike(a: Evaluation, b: Evaluation) -> tuple[str, ...]:
    """What else than the model differs: it may be the cause of a difference."""
    sides = [{**one.options, "split": one.data.split or one.options.get("split")} for one in (a, b)]
    names = sorted({*sides[0], *sides[1]} - _HARMLESS)
    notes = [_differs(name, *(side.get(name) for side in sides)) for name in names]
    same_part = all(sides[0].get(name) == sides[1].get(name) for name in _PARTS)
    if a.data.fingerprint != b.data.fingerprint and same_part:  # else it is of other pictures in any case
        notes.insert(0, "the data are not the same: labels or pictures changed in between")
    runs = ("weights", "engine", "precision") if a.model.id == b.model.id else ("engine", "precision")
    pairs = [(name, getattr(a.model, name), getattr(b.model, name)) for name in runs]
    notes += [_differs(*pair) for pair in pairs if pair[1] and pair[2]]  # saved predictions know of neither
    return tuple(filter(None, notes))


def _differs(name: str, a: Any, b: Any) -> str:
    """A note, empty where there is no difference."""
    return "" if (a or None) == (b or None) else f"{name} is not the same: {_said(a)} in a, {_said(b)} in b"


def _said(value: Any) -> str:
    return "not set" if value in (None, "") else str(value)


def _compared(a: Tally, b: Tally, resamples: int, seed: int, level: float) -> Comparison:
    if a.measure != b.measure or a.units.kind != b.units.kind or a.main_figure != b.main_figure:
        raise DataError(
            f"{a.measure} of {a.main_figure} and {b.measure} of {b.main_figure} cannot be compared",
            "evaluate both models with the same measure",
        )
    keys_a, keys_b = (list(zip(one.units.clusters, one.units.ids, strict=True)) for one in (a, b))
    shared = set(keys_a) & set(keys_b)
    if not shared:
        raise DataError(f"the two evaluations share no {a.units.kind}", "evaluate both models on the same data")
    base_a, base_b = (np.array([key in shared for key in keys], float) for keys in (keys_a, keys_b))
    drawn = [cluster for cluster, keep in zip(a.units.clusters, base_a, strict=True) if keep]
    draws = Draws(drawn, capped(b, capped(a, resamples)), seed)
    points_a, points_b = a.figures(base_a[np.newaxis]), b.figures(base_b[np.newaxis])
    names = [name for name in points_a if name in points_b]
    blocks: list[dict[str, FloatArray]] = []
    if len(draws.names) > 1:
        for counts in draws.counts(len(a.units) + len(b.units)):
            figures_a = a.figures(counts[:, np.maximum(draws.index(a.units.clusters), 0)] * base_a)
            figures_b = b.figures(counts[:, np.maximum(draws.index(b.units.clusters), 0)] * base_b)
            blocks.append({name: figures_b[name] - figures_a[name] for name in names})
    rows = {name: np.concatenate([block[name] for block in blocks]) if blocks else np.zeros(0) for name in names}
    gains = {name: float(points_b[name][0] - points_a[name][0]) for name in names}
    rows = {name: about(a, name, gains[name], rows[name], difference=True) for name in names}
    chance = {name: _p_value(rows[name], len(draws.names)) for name in names}
    chance |= _holm({name: p for name, p in chance.items() if "/" in name})
    found = {}
    for name in names:
        left, right = float(points_a[name][0]), float(points_b[name][0])
        real = bool(chance[name] < 1 - level)
        ahead = "b" if (right > left) != a.lower(name) else "a"
        estimate = Estimate(right - left, *interval(rows[name], level, len(draws.names)))
        found[name] = Difference(name, left, right, estimate, chance[name], real, ahead if real else "")
    return Comparison(
        main=a.main_figure,
        differences=found,
        kind=a.units.kind,
        units=len(shared),
        clusters=len(draws.names),
        only_a=len(a.units) - len(shared),
        only_b=len(b.units) - len(shared),
        level=level,
    )


def _p_value(differences: FloatArray, clusters: int) -> float:
    known = enough(differences)
    if not len(known):
        return math.nan
    crossed = min(np.count_nonzero(known <= 0), np.count_nonzero(known >= 0))
    tail = min(0.5, (crossed + 1) / (len(known) + 1))
    middle, spread = abs(float(known.mean())), float(known.std())
    if not crossed and spread > _ROUNDING * middle:
        tail = min(tail, math.erfc(middle / spread / math.sqrt(2)) / 2)
    return 2 * narrowed(tail, clusters)


def _holm(chance: Mapping[str, float]) -> dict[str, float]:
    known = sorted((p, name) for name, p in chance.items() if not math.isnan(p))
    corrected, least = dict(chance), 0.0
    for rank, (p, name) in enumerate(known):
        least = max(least, min(1.0, p * (len(known) - rank)))
        corrected[name] = least
    return corrected


def _none(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
