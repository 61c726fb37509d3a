"""How well a number tells two groups apart: operating curve and rank test, under any weighting of the units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from manylens.evaluation.tally import FloatArray, ratio

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Ranking:
    """Both groups counted from the highest value down, units of equal value in one step.

    Attributes:
        values: float64 ``(U,)``, the distinct values, falling.
        hits: float64 ``(R, U + 1)``: weight of the positives among the first u steps, from 0.
        alarms: Likewise of the negatives.
    """

    values: FloatArray
    hits: FloatArray
    alarms: FloatArray

    @classmethod
    def of(cls, values: FloatArray, positive: BoolArray, weights: FloatArray) -> Ranking:
        """Rank units.

        Args:
            values: ``(n,)``, finite; more speaks for positive.
            positive: ``(n,)``.
            weights: ``(R, n)``, at least 0.
        """
        order = np.argsort(-values, kind="stable")
        ranked = values[order]
        ends = np.flatnonzero(np.diff(ranked, append=np.nan))  # nan is unequal to all, so the last one is an end
        hits, alarms = (
            np.cumsum(weights[:, order] * chosen[order], axis=1)[:, ends] for chosen in (positive, ~positive)
        )
        start = np.zeros((len(weights), 1))
        return cls(ranked[ends], np.hstack([start, hits]), np.hstack([start, alarms]))

    @property
    def positives(self) -> FloatArray:
        """``(R,)``: their weight."""
        return self.hits[:, -1]

    @property
    def negatives(self) -> FloatArray:
        """``(R,)``: their weight."""
        return self.alarms[:, -1]

    @property
    def hit_rates(self) -> FloatArray:
        """True positive rate ``(R, U + 1)``; NaN where a weighting has no positive."""
        return ratio(self.hits, np.broadcast_to(self.positives[:, None], self.hits.shape))

    @property
    def alarm_rates(self) -> FloatArray:
        """False positive rate ``(R, U + 1)``; NaN where a weighting has no negative."""
        return ratio(self.alarms, np.broadcast_to(self.negatives[:, None], self.alarms.shape))

    def auc(self) -> FloatArray:
        """``(R,)``: chance that a positive has the higher value than a negative, equal ones half; NaN without both."""
        middle = (self.hits[:, 1:] + self.hits[:, :-1]) / 2
        return ratio((np.diff(self.alarms, axis=1) * middle).sum(axis=1), self.positives * self.negatives)

    def z(self) -> FloatArray:
        """``(R,)``: the Mann-Whitney U of the positives as a normal deviate, corrected for ties; NaN without both."""
        pairs, total = self.positives * self.negatives, self.positives + self.negatives
        ties = np.diff(self.hits + self.alarms, axis=1)
        tied = ratio((ties**3 - ties).sum(axis=1), total * (total - 1))
        variance = pairs / 12 * (total + 1 - tied)
        return ratio(pairs * (self.auc() - 0.5), np.sqrt(np.maximum(variance, 0)))

    def hit_rate_at(self, alarm_rate: float) -> FloatArray:
        """``(R,)``: the highest true positive rate of a threshold whose false positive rate is at most ``alarm_rate``.

        Between two thresholds nothing is interpolated: it is what an attack reaches that can be run.
        """
        allowed = self.alarms <= alarm_rate * self.negatives[:, None] + 1e-9
        last = allowed.sum(axis=1) - 1
        reached = ratio(np.take_along_axis(self.hits, last[:, None], axis=1)[:, 0], self.positives)
        return np.where(self.negatives > 0, reached, np.nan)

    def advantage(self) -> FloatArray:
        """``(R,)``: the greatest true less false positive rate of any threshold."""
        return np.max(self.hit_rates - self.alarm_rates, axis=1)  # NaN stays NaN

    def advantage_at(self, thresholds: FloatArray) -> FloatArray:
        """``(R,)``: true less false positive rate where values from ``thresholds`` ``(R,)`` on are told positive."""
        steps = np.searchsorted(-self.values, -np.nan_to_num(thresholds), side="right")
        apart = self.hit_rates - self.alarm_rates
        return np.take_along_axis(apart, steps[:, None], axis=1)[:, 0]
