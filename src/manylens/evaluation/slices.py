"""Slices: every figure for each group of a column, the gap between groups, and which groups are too small to judge."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from manylens.data.problems import DataError
from manylens.evaluation.intervals import LEVEL, RESAMPLES, Draws, Estimate, about, capped, interval
from manylens.evaluation.tally import FloatArray, Tally

LEAST_CLUSTERS = 20
_MOST_VALUES = 12
_BINS = 4
_SHUFFLES = 500
_MOST_NAMED = 8
_SIZES = ("small", "medium", "large")


@dataclass(frozen=True)
class Group:
    """The units that share a value of a column.

    Attributes:
        name: The value, or the range of a number.
        units: How many units.
        clusters: How many pictures they come from.
        figures: Every figure with its interval.
        judged: Whether the group is large enough to say anything of it.
    """

    name: str
    units: int
    clusters: int
    figures: Mapping[str, Estimate]
    judged: bool

    def to_json(self) -> dict[str, Any]:
        """Plain, NaN as None."""
        figures = {name: one.to_json() for name, one in self.figures.items()}
        return {
            "name": self.name,
            "units": self.units,
            "clusters": self.clusters,
            "judged": self.judged,
            "figures": figures,
        }


@dataclass(frozen=True)
class Gap:
    """How far the groups that can be judged lie apart in one figure.

    Attributes:
        figure: Its name.
        best: The group that is served best.
        worst: The group that is served worst.
        gap: Best less worst, at least 0, with the interval of the difference of these two groups.
        ratio: Worst by best (best by worst where less is better): 1 is equal.
        p: Chance of a gap as large were there none: unlike the interval it allows for best and worst having been
            picked because they lie far apart. Pictures are dealt out to the groups at random; where a picture has units
            of several groups, the resamples of each group are moved to a common figure instead, and NaN without any.
    """

    figure: str
    best: str
    worst: str
    gap: Estimate
    ratio: float
    p: float

    @property
    def real(self) -> bool:
        """Whether chance is an unlikely cause: p below 0.05."""
        return self.p < 1 - LEVEL

    @property
    def verdict(self) -> str:
        """Whether the gap is more than chance, in words; where the groups' names could not be dealt out, neither."""
        if math.isnan(self.p):
            return "not told from chance"
        return "more than chance" if self.real else "may be chance"

    @property
    def chance(self) -> str:
        """``p`` for people."""
        return "-" if math.isnan(self.p) else f"{self.p:.3g}"

    def to_json(self) -> dict[str, Any]:
        """Plain, NaN as None."""
        return {
            "figure": self.figure,
            "best": self.best,
            "worst": self.worst,
            "gap": self.gap.to_json(),
            "ratio": None if math.isnan(self.ratio) else self.ratio,
            "p": None if math.isnan(self.p) else self.p,
            "real": self.real,
        }


@dataclass(frozen=True)
class Sliced:
    """A tally, sliced by one column.

    Attributes:
        column: Its name.
        main: The figure that a reader looks at first.
        kind: What is counted: image, object, ...
        groups: By value, in order.
        gaps: By figure; per-class figures have none. Empty where fewer than two groups can be judged.
        unknown: Units without a value, left out.
        least: The number of pictures below which a group is not judged.
    """

    column: str
    main: str
    kind: str
    groups: Sequence[Group]
    gaps: Mapping[str, Gap]
    unknown: int
    least: int = LEAST_CLUSTERS

    @property
    def too_small(self) -> list[Group]:
        """The groups that cannot be judged."""
        return [group for group in self.groups if not group.judged]

    @property
    def not_judged(self) -> str:
        """Groups that are too small, with their main figure, for a sentence; empty where there are none."""
        return not_judged([(one.name, one.clusters, one.figures[self.main].value) for one in self.too_small])

    def to_json(self) -> dict[str, Any]:
        """Plain, NaN as None."""
        return {
            "column": self.column,
            "main": self.main,
            "kind": self.kind,
            "unknown": self.unknown,
            "least": self.least,
            "groups": [group.to_json() for group in self.groups],
            "gaps": {name: gap.to_json() for name, gap in self.gaps.items()},
        }


def not_judged(groups: Sequence[tuple[str, int, float | None]]) -> str:
    """Names the groups that no verdict is about: one of them may be served worse than those that are judged.

    Args:
        groups: Name, number of pictures and main figure of each.
    """
    said = [
        f"{name} ({count} picture{'' if count == 1 else 's'}, "
        f"{'-' if value is None or math.isnan(value) else f'{value:.3f}'})"
        for name, count, value in groups[:_MOST_NAMED]
    ]
    more = [f"{len(groups) - _MOST_NAMED} more"] if len(groups) > _MOST_NAMED else []
    return f"not judged: {', '.join(said + more)}" if groups else ""


def slice_by(
    tally: Tally,
    column: str,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
    least: int = LEAST_CLUSTERS,
) -> Sliced:
    """Every figure for each group of a column.

    Values that are lists put a unit into several groups; numbers with more than twelve different values are binned at
    their quartiles. The same drawn pictures serve all groups of a resample, so gaps between groups that share pictures
    are judged rightly.

    Args:
        tally: What was counted.
        column: A column of its units.
        resamples: Number of bootstrap resamples.
        seed: Of the drawing.
        level: Of the intervals.
        least: Groups of fewer pictures are shown but not judged.

    Raises:
        DataError: There is no such column, or no unit has a value in it.
    """
    members, unknown = groups_of(tally, column)
    return slice_with(tally, column, members, unknown=unknown, resamples=resamples, seed=seed, level=level, least=least)


def slice_with(
    tally: Tally,
    column: str,
    members: Mapping[str, npt.NDArray[np.bool_]],
    *,
    unknown: int = 0,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
    least: int = LEAST_CLUSTERS,
) -> Sliced:
    """As :func:`slice_by`, the groups given as bool ``(n,)`` by name."""
    clusters = np.asarray(tally.units.clusters, dtype=str)
    sizes = {name: len(set(clusters[inside])) for name, inside in members.items()}
    points = {name: tally.figures(inside[np.newaxis].astype(float)) for name, inside in members.items()}
    drawn = _resampled(tally, members, capped(tally, resamples), seed)
    for name, of_group in drawn.items():
        of_group.update({f: about(tally, f, float(points[name][f][0]), values) for f, values in of_group.items()})
    figures = {
        name: {
            figure: Estimate(
                float(values[0]),
                *(interval(drawn[name][figure], level, sizes[name]) if sizes[name] > 1 else (math.nan, math.nan)),
            )
            for figure, values in found.items()
        }
        for name, found in points.items()
    }
    groups = [
        Group(name, int(inside.sum()), sizes[name], figures[name], sizes[name] >= least)
        for name, inside in members.items()
    ]
    judged = [group.name for group in groups if group.judged]
    gaps = _gaps(tally, {name: members[name] for name in judged}, sizes, figures, drawn, seed, level)
    return Sliced(column, tally.main_figure, tally.units.kind, groups, gaps, unknown, least)


def groups_of(tally: Tally, column: str) -> tuple[dict[str, npt.NDArray[np.bool_]], int]:
    """The groups of a column as bool ``(n,)`` by name, and how many units have no value.

    Raises:
        DataError: There is no such column, or no unit has a value in it.
    """
    if column not in tally.units.columns:
        known = ", ".join(tally.units.columns) or "none"
        raise DataError(f"{column}: no such column to slice by", f"choose one of: {known}")
    values = [_empty_as_none(value) for value in tally.units.columns[column]]
    known_values = [value for value in values if value is not None]
    if not known_values:
        raise DataError(f"{column}: no {tally.units.kind} has a value in this column", "choose another column")
    names = _binned(values) if _is_scale(known_values) else [_names(value) for value in values]
    order = _ordered({name for some in names for name in some}, known_values)
    members = {name: np.array([name in some for some in names], dtype=bool) for name in order}
    return members, sum(not some for some in names)


def _resampled(
    tally: Tally, members: Mapping[str, npt.NDArray[np.bool_]], resamples: int, seed: int
) -> dict[str, dict[str, FloatArray]]:
    inside_any = np.any(list(members.values()), axis=0)
    draws = Draws([c for c, keep in zip(tally.units.clusters, inside_any, strict=True) if keep], resamples, seed)
    blocks: dict[str, list[dict[str, FloatArray]]] = {name: [] for name in members}
    for weights in draws.weights(tally.units.clusters, inside_any.astype(float)):
        for name, inside in members.items():
            blocks[name].append(tally.figures(weights * inside))
    return {
        name: {f: np.concatenate([block[f] for block in some]) for f in some[0]} if some else _Missing()
        for name, some in blocks.items()
    }


class _Missing(dict[str, FloatArray]):
    """No resamples were asked for: every figure has none."""

    def __missing__(self, key: str) -> FloatArray:
        return np.zeros(0)


def _gaps(
    tally: Tally,
    members: Mapping[str, npt.NDArray[np.bool_]],
    sizes: Mapping[str, int],
    figures: Mapping[str, Mapping[str, Estimate]],
    drawn: Mapping[str, Mapping[str, FloatArray]],
    seed: int,
    level: float,
) -> dict[str, Gap]:
    if len(members) < 2:
        return {}
    names = list(members)
    plain = [figure for figure in figures[names[0]] if "/" not in figure]
    shuffled = _shuffled_gaps(tally, members, plain, seed)
    gaps = {}
    for figure in plain:
        known = [name for name in names if not math.isnan(figures[name][figure].value)]
        if len(known) < 2:
            continue
        ordered = sorted(known, key=lambda name: figures[name][figure].value, reverse=not tally.lower(figure))
        best, worst = ordered[0], ordered[-1]
        high, low = figures[best][figure].value, figures[worst][figure].value
        sign = -1.0 if tally.lower(figure) else 1.0
        spread = sign * (drawn[best][figure] - drawn[worst][figure])
        top, bottom = (low, high) if tally.lower(figure) else (high, low)
        gap = abs(high - low)
        none = _moved_gaps([drawn[name][figure] for name in known]) if shuffled is None else shuffled[figure]
        chance = (np.count_nonzero(none >= gap - 1e-12) + 1) / (len(none) + 1) if len(none) else math.nan
        ratio = bottom / top if top else math.nan
        estimate = Estimate(gap, *interval(spread, level, min(sizes[best], sizes[worst])))
        gaps[figure] = Gap(figure, best, worst, estimate, ratio, float(chance))
    return gaps


def _moved_gaps(drawn: Sequence[FloatArray]) -> FloatArray:
    """Gaps of a figure over resamples, each group's moved to have the mean 0, ``(R,)``: those that chance makes."""
    values = np.stack(drawn)
    values = values[:, ~np.isnan(values).any(axis=0)]
    return np.asarray(np.ptp(values - values.mean(axis=1, keepdims=True), axis=0)) if values.size else np.zeros(0)


def _shuffled_gaps(
    tally: Tally, members: Mapping[str, npt.NDArray[np.bool_]], figures: Sequence[str], seed: int
) -> dict[str, FloatArray] | None:
    """Gaps of each figure when pictures are dealt out to the groups at random, ``(S,)``.

    None where a picture has units of several groups: units cannot be dealt out, for those of a picture are alike.
    """
    count = capped(tally, _SHUFFLES)
    rng = np.random.default_rng(seed + 1)
    table = np.array(list(members.values()))  # (G, n)
    inside = np.flatnonzero(table.any(axis=0))
    clusters, at = np.unique(np.asarray(tally.units.clusters, dtype=str)[inside], return_inverse=True)
    one_of_each = np.zeros((len(members), len(clusters)), dtype=bool)
    one_of_each[:, at] = table[:, inside]
    if (one_of_each[:, at] != table[:, inside]).any():
        return None
    rows: dict[str, list[float]] = {figure: [] for figure in figures}
    for _ in range(count):
        dealt = one_of_each[:, rng.permutation(len(clusters))]
        weights = np.zeros(table.shape)
        weights[:, inside] = dealt[:, at]
        found = tally.figures(weights)
        for figure in figures:
            known = found[figure][~np.isnan(found[figure])]
            rows[figure].append(float(np.ptp(known)) if len(known) > 1 else 0.0)
    return {figure: np.array(values) for figure, values in rows.items()}


def _empty_as_none(value: Any) -> Any:
    if isinstance(value, float | np.floating):
        return value if math.isfinite(value) else None
    empty = value is None or value == "" or value == []
    return None if empty else value


def _is_scale(values: Sequence[Any]) -> bool:
    numbers = all(isinstance(value, int | float | np.number) and not isinstance(value, bool) for value in values)
    return numbers and len(set(values)) > _MOST_VALUES


def _binned(values: Sequence[Any]) -> list[list[str]]:
    known = np.array([value for value in values if value is not None], dtype=float)
    edges = np.unique(np.quantile(known, np.linspace(0, 1, _BINS + 1)))
    digits = next((n for n in range(4, 17) if len({f"{edge:.{n}g}" for edge in edges}) == len(edges)), 17)
    labels = [f"{low:.{digits}g} to {high:.{digits}g}" for low, high in itertools.pairwise(edges)]
    places = np.clip(np.searchsorted(edges, known, side="right") - 1, 0, len(labels) - 1)
    named = iter(labels[place] for place in places)
    return [[] if value is None else [next(named)] for value in values]


def _names(value: Any) -> list[str]:
    if value is None:
        return []
    return [str(one) for one in value] if isinstance(value, list | tuple) else [str(value)]


def _ordered(names: set[str], values: Sequence[Any]) -> list[str]:
    if _is_scale(values):
        return sorted(names, key=lambda name: float(name.split(" to ")[0]))
    if names <= set(_SIZES):
        return sorted(names, key=_SIZES.index)
    try:
        return sorted(names, key=float)
    except ValueError:
        return sorted(names)
