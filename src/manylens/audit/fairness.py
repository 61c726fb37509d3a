"""Fairness: how a model serves each group of a column, the gap between groups, and which are too small to judge.

Any tally can be audited; of a classifier fairlearn's measures are given too (:mod:`manylens.audit.parity`), and of
clicks the table of Segment Anything (Kirillov et al. 2023): mIoU at 1 and 3 points for each group, with its 95 %
interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.audit.parity import Parity, parity, rates
from manylens.data.problems import DataError
from manylens.errors import UnsupportedError
from manylens.evaluation.intervals import RESAMPLES, Estimate
from manylens.evaluation.measures.classification import ClassificationTally
from manylens.evaluation.results import Evaluation, opened
from manylens.evaluation.slices import LEAST_CLUSTERS, Group, Sliced, groups_of, slice_by
from manylens.evaluation.tally import Tally

if TYPE_CHECKING:
    import os

MOST_CLASSES = 50
"""Classes that are looked at when none is named: the most frequent."""

POINTS = {"IoU@1": "1 point", "IoU@3": "3 points"}
"""Columns of SAM's table by figure."""


@dataclass(frozen=True)
class Fairness:
    """The audit of one column.

    Attributes:
        measure: What was measured.
        sliced: Every figure for each group, and the gaps between those that can be judged.
        classes: Parity of each class, the least equal first; empty where it is no classifier, or where fewer than two
            groups can be judged.
    """

    measure: str
    sliced: Sliced
    classes: Sequence[Parity] = ()

    @property
    def column(self) -> str:
        """The column."""
        return self.sliced.column

    @property
    def verdict(self) -> str:
        """The main figure in a sentence."""
        one = self.sliced
        left = f"; {one.not_judged}" if one.too_small else ""
        if not one.gaps.get(one.main):
            judged = sum(group.judged for group in one.groups)
            few = f"{judged} of {len(one.groups)} groups can be judged (at least {one.least} pictures each)"
            return f"{self.column}: nothing can be said of {one.main}: {few}{left}"
        gap = one.gaps[one.main]
        return (
            f"{self.column}: {one.main} is worst for {gap.worst}, best for {gap.best}; gap {gap.gap}, ratio "
            f"{gap.ratio:.3f}: {gap.verdict} (p = {gap.chance}){left}"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain, NaN as None."""
        return {
            "measure": self.measure,
            "column": self.column,
            "verdict": self.verdict,
            "too_small": [group.name for group in self.sliced.too_small],
            "not_judged": [
                {"group": one.name, "pictures": one.clusters, **one.figures[self.sliced.main].to_json()}
                for one in self.sliced.too_small
            ],
            **self.sliced.to_json(),
            "classes": [one.to_json() for one in self.classes],
        }


def fairness(
    source: Tally | Evaluation | str | os.PathLike[str],
    column: str,
    *,
    positive: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    least: int = LEAST_CLUSTERS,
) -> Fairness:
    """Audit one column.

    Args:
        source: A tally, an evaluation, or the folder that it was saved in.
        column: A column of the units, or one that the evaluation was sliced by.
        positive: The class whose parity is asked for, with intervals; by default all (the 50 most frequent), without.
        resamples: Of the bootstrap.
        seed: Of every random step.
        least: Groups of fewer pictures are shown but not judged.

    Raises:
        DataError: There is no such column or class, or the folder holds no evaluation.
        UnsupportedError: A class is named but no classifier was measured; or fairlearn is not installed.
    """
    tally, evaluation = opened(source)
    if positive is not None and not isinstance(tally, ClassificationTally):
        raise UnsupportedError(
            f"positive {positive!r}: needs a classifier, and this is {tally.measure} of {tally.units.kind}s",
            "leave it away",
        )
    if column not in tally.units.columns:
        return Fairness(tally.measure, _saved(tally, evaluation, column))
    sliced = slice_by(tally, column, resamples=resamples, seed=seed, least=least)
    if not isinstance(tally, ClassificationTally):
        return Fairness(tally.measure, sliced)
    judged = {group.name for group in sliced.groups if group.judged}
    members = {name: inside for name, inside in groups_of(tally, column)[0].items() if name in judged}
    if len(members) < 2:
        return Fairness(tally.measure, sliced)
    if positive is None:
        found = [parity(tally, members, name, least=least) for name in _frequent(tally)]
        return Fairness(tally.measure, sliced, sorted(found, key=_unequal, reverse=True))
    one = parity(tally, members, positive, least=least)
    more = rates(tally, column, members, positive, resamples=resamples, seed=seed, least=least)
    return Fairness(tally.measure, sliced, [replace(one, rates=more)])


def _saved(tally: Tally, evaluation: Evaluation | None, column: str) -> Sliced:
    """A slice that the evaluation took when it ran: by annotations, where units are pictures."""
    for one in evaluation.slices if evaluation is not None else ():
        if one.column == column:
            return one
    known = ", ".join(tally.units.columns) or "none"
    raise DataError(
        f"{column}: no such column in this evaluation (there is: {known})", f"evaluate again with --slice {column}"
    )


def _frequent(tally: ClassificationTally) -> list[str]:
    counts = np.bincount(tally.labels, minlength=len(tally.names))
    order = np.argsort(-counts, kind="stable")[:MOST_CLASSES]
    return [tally.names[i] for i in order if counts[i]]


def _unequal(one: Parity) -> float:
    odds = math.nan if one.few else one.measures["equalized_odds_difference"]
    return odds if not math.isnan(odds) else one.measures["demographic_parity_difference"] - 1  # the unknown last


@dataclass(frozen=True)
class SamTable:
    """mIoU of groups at 1 and 3 points, as in Segment Anything.

    Attributes:
        slices: One for each column, in the order asked for.
    """

    slices: Sequence[Sliced]

    def text(self) -> str:
        """The table in per cent: mean and half the width of its 95 % interval."""
        width = max([len(one.column) for one in self.slices] + [len(g.name) + 2 for s in self.slices for g in s.groups])
        lines = [" " * width + "".join(f"  {title:>12}" for title in POINTS.values())]
        for one in self.slices:
            lines.append(one.column)
            for group in one.groups:
                cells = "".join(f"  {_cell(group.figures[figure]):>12}" for figure in POINTS)
                note = "" if group.judged else f"  (too small to judge: under {one.least} pictures)"
                lines.append(f"  {group.name:<{width - 2}}{cells}{note}")
        return "\n".join(lines)

    def to_json(self) -> list[dict[str, Any]]:
        """A row for each group; in 0..1, NaN as None."""
        return [
            {
                "column": one.column,
                "group": group.name,
                "objects": group.units,
                "pictures": group.clusters,
                "judged": group.judged,
                **{title: _json(group, figure) for figure, title in POINTS.items()},
            }
            for one in self.slices
            for group in one.groups
        ]


def sam_table(
    source: Tally | Evaluation | str | os.PathLike[str],
    columns: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    least: int = LEAST_CLUSTERS,
) -> SamTable:
    """The fairness table of Segment Anything (Kirillov et al. 2023, section 6) for any columns.

    Args:
        source: As for :func:`fairness`, of clicks on objects.
        columns: Columns of the objects, such as perceived gender presentation, age group and skin tone.
        resamples: Of the bootstrap, over pictures.
        seed: Of the drawing.
        least: Groups of fewer pictures are shown but not judged.

    Raises:
        DataError: Objects were not clicked on three times, or there is no such column.
    """
    tally, _ = opened(source)
    if not shows_points(tally):
        raise DataError(
            f"{tally.measure} of {tally.main_figure}: has no IoU@1 and IoU@3", "evaluate with --prompt click"
        )
    return SamTable(
        [slice_by(tally, column, resamples=resamples, seed=seed, least=least) for column in columns],
    )


def shows_points(tally: Tally) -> bool:
    """Whether SAM's table can be made of a tally."""
    return set(POINTS) <= set(getattr(tally, "names", ()))


def _half(one: Estimate) -> float:
    return (one.high - one.low) / 2


def _cell(one: Estimate) -> str:
    if math.isnan(one.value):
        return "-"
    half = _half(one)
    return f"{100 * one.value:.1f} ± " + ("?" if math.isnan(half) else f"{100 * half:.1f}")


def _json(group: Group, figure: str) -> dict[str, float | None]:
    one = group.figures[figure]
    half = _half(one)
    return {**one.to_json(), "half_width": None if math.isnan(half) else half}
