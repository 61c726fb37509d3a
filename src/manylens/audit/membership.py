"""Membership inference: can one tell from a model's scores which pictures it was trained on?

A model that learnt its training pictures by heart serves them better than others. The attack of Yeom et al. (2018)
tells a picture to be a member where its loss is below a threshold. How well that works is read as Carlini et al.
(2022) ask for: the true positive rate at few false alarms, beside the area under the curve, for an attack that is sure
of a few members does harm though it is no better than chance on most.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from manylens.audit.ranking import BoolArray, Ranking
from manylens.audit.writing import write
from manylens.data.problems import DataError, Problems
from manylens.evaluation.details import curve, table
from manylens.evaluation.intervals import RESAMPLES, Estimate, estimates
from manylens.evaluation.results import finite
from manylens.evaluation.tally import FloatArray, Tally, ratio
from manylens.version import __version__

LEAST = 20
"""Pictures that each group needs for a verdict."""

Level = Literal["too few", "unlike groups", "none", "weak", "strong"]

_RATES = {"TPR at 1 % FPR": 0.01, "TPR at 0.1 % FPR": 0.001}
_TAIL = "TPR at 1 % FPR"
_STRONG_AUC, _WEAK_TAIL, _STRONG_TAIL = 0.6, 0.05, 0.1
_EXPOSED = 12
_LOWEST = 1e-4  # where the curve of few false alarms begins
_POINTS = 60

ABOUT = {
    "AUC": "chance that a member looks more like one than another picture does; by chance 0.5",
    "TPR at 1 % FPR": "share of members told where at most 1 % of the others are taken for one; by chance 0.01",
    "TPR at 0.1 % FPR": "the same at 0.1 %: an attack that is sure of the few that it names",
    "advantage": "true less false positive rate of the best threshold",
    "balanced accuracy": "of the best threshold",
    "accuracy at mean": "balanced accuracy of the threshold at the mean of the members, which is not fitted to others",
    "gap": "by how much the mean loss of the others is higher, or their mean score lower",
}
"""What each figure says."""

CAVEATS = (
    "an AUC near 0.5 does not prove privacy: this is the simplest attack, and those that train models of their own "
    "(LiRA, Carlini et al. 2022) find more",
    "the figures mean what they say only where both groups were drawn alike, as by a random split: otherwise they tell "
    "the two kinds of pictures apart, not what was learnt by heart",
    "advantage and balanced accuracy take the best threshold of these very pictures, so chance alone lifts them "
    "somewhat above 0 and 0.5",
)
"""What a reader must know of every such audit."""


@dataclass(frozen=True, eq=False)
class MembershipTally(Tally):
    """Members and others, each with the number that the attack goes by.

    The interval of each figure knows how both groups were drawn.

    Attributes:
        member: bool ``(n,)``: whether the model was trained on it.
        signal: float64 ``(n,)``, finite: the score, or the loss with its sign turned; more speaks for a member.
        figure: What the signal is, such as ``accuracy`` or ``loss``.
    """

    measure: ClassVar[str] = "membership"
    main: ClassVar[str] = "AUC"
    lower_is_better: ClassVar[frozenset[str]] = frozenset(
        {"AUC", *_RATES, "advantage", "balanced accuracy", "accuracy at mean", "gap"}
    )

    member: BoolArray = field(default_factory=lambda: np.zeros(0, bool))
    signal: FloatArray = field(default_factory=lambda: np.zeros(0))
    figure: str = "score"

    def figures(self, weights: FloatArray) -> dict[str, FloatArray]:
        """What :data:`ABOUT` says; the threshold at the mean is that of Yeom et al.

        The gap is of the signal: by how much the loss of the others is higher, or their score lower.
        """
        ranking = Ranking.of(self.signal, self.member, weights)
        mean, others = (ratio(weights @ (self.signal * chosen), weights @ chosen) for chosen in self._groups())
        advantage = ranking.advantage()
        # Members that are all equal must not fall below their own mean, which is rounded.
        below = mean - 1e-12 * np.abs(self.signal).max(initial=0.0)
        return {
            "AUC": ranking.auc(),
            **{name: ranking.hit_rate_at(rate) for name, rate in _RATES.items()},
            "advantage": advantage,
            "balanced accuracy": (1 + advantage) / 2,
            "accuracy at mean": (1 + ranking.advantage_at(below)) / 2,
            "gap": mean - others,
        }

    def details(self) -> dict[str, Any]:
        """The curve, once more over the logarithm of the false positive rate, and the two groups."""
        if not (self.member.any() and (~self.member).any()):
            return {}
        ranking = Ranking.of(self.signal, self.member, np.ones((1, len(self.signal))))
        alarms, hits = ranking.alarm_rates[0], ranking.hit_rates[0]
        plain = np.linspace(0, 1, _POINTS + 1)
        low = np.geomspace(max(_LOWEST, 1 / float(ranking.negatives[0])), 1, _POINTS)
        values = self.values()
        at = {name: _reached(alarms, hits, rates) for name, rates in (("plain", plain), ("low", low))}
        rows = [
            [name, int(chosen.sum()), float(values[chosen].mean()), float(np.median(values[chosen]))]
            for name, chosen in (("members", self.member), ("others", ~self.member))
        ]
        return {
            "curve": curve(
                "Members told, by false alarms",
                "false positive rate",
                "true positive rate",
                {"attack": (plain.tolist(), at["plain"].tolist())},
                diagonal=True,
            ),
            "curve at few false alarms": curve(
                "Members told at few false alarms",
                "log10 of the false positive rate",
                "true positive rate",
                {
                    "attack": (np.log10(low).tolist(), at["low"].tolist()),
                    "chance": (np.log10(low).tolist(), low.tolist()),
                },
            ),
            "groups": table("The two groups", ["group", f"{self.units.kind}s", f"mean {self.figure}", "median"], rows),
        }

    def scores(self) -> FloatArray:
        """``(n,)``: the share of the others that look as much like a member, NaN for the others.

        It is the share of false alarms at which a member is told: 0 is the most exposed.
        """
        others = np.sort(self.signal[~self.member])
        if not len(others):
            return np.full(len(self.signal), np.nan)
        above = len(others) - np.searchsorted(others, self.signal, side="left")
        return np.where(self.member, above / len(others), np.nan)

    def values(self) -> FloatArray:
        """``(n,)``: the signal as it was given: a loss is a loss again."""
        return -self.signal if self.figure == "loss" else self.signal

    def exposed(self, most: int = _EXPOSED) -> list[Exposed]:
        """The members that are told the most surely, the first the most."""
        shares, values = self.scores(), self.values()
        order = sorted(
            np.flatnonzero(self.member).tolist(), key=lambda i: (shares[i], -self.signal[i], self.units.ids[i])
        )
        return [Exposed(self.units.ids[i].partition(":")[2], float(values[i]), float(shares[i])) for i in order[:most]]

    def clusters_of(self, member: bool) -> int:
        """How many pictures a group comes from."""
        return len({name for name, one in zip(self.units.clusters, self.member, strict=True) if bool(one) == member})

    def _groups(self) -> tuple[FloatArray, FloatArray]:
        return self.member.astype(np.float64), (~self.member).astype(np.float64)


def _reached(alarms: FloatArray, hits: FloatArray, rates: FloatArray) -> FloatArray:
    """The true positive rate at false positive rates, both as a threshold can have them."""
    return hits[np.searchsorted(alarms, rates + 1e-12, side="right") - 1]


@dataclass(frozen=True)
class Exposed:
    """A member that is easily told.

    Attributes:
        id: Of the unit.
        value: Its loss or score.
        alarms: Share of the others that look as much like a member.
    """

    id: str
    value: float
    alarms: float


@dataclass(frozen=True, eq=False)
class Membership:
    """The audit.

    Attributes:
        tally: What it rests on.
        figures: Every figure with its interval.
        model: Its id; empty where it is not known.
        members: Name of the data that the model was trained on.
        others: Name of the data that it was not.
        problems: What was left out.
        notes: What a reader should know, beside :data:`CAVEATS`.
    """

    tally: MembershipTally
    figures: Mapping[str, Estimate]
    model: str = ""
    members: str = "members"
    others: str = "others"
    problems: Problems = field(default_factory=Problems)
    notes: Sequence[str] = ()

    @property
    def level(self) -> Level:
        """How strong the evidence is that members can be told, by the intervals of AUC and of the TPR at 1 % FPR.

        Weak where the AUC lies above 0.5 or the rate above 5 %, strong where above 0.6 or 10 %, with all of the
        interval. Where less than 100 others allow no false alarm at 1 %, the rate is not looked at.
        """
        auc, tail = self.figures["AUC"], self.figures[_TAIL]
        if min(self.tally.clusters_of(True), self.tally.clusters_of(False)) < LEAST or math.isnan(auc.low):
            return "too few"
        told = tail.low if (~self.tally.member).sum() >= 1 / _RATES[_TAIL] else 0.0
        if auc.low >= _STRONG_AUC or told >= _STRONG_TAIL:
            return "strong"
        if auc.low > 0.5 or told >= _WEAK_TAIL:
            return "weak"
        return "unlike groups" if auc.high < 0.5 else "none"

    @property
    def verdict(self) -> str:
        """The outcome in a sentence."""
        auc, tail = self.figures["AUC"], self.figures[_TAIL]
        counts = f"{self.tally.clusters_of(True)} members and {self.tally.clusters_of(False)} others"
        told = f"AUC {auc}, {100 * tail.value:.1f} % of the members told at 1 % false alarms"
        match self.level:
            case "too few":
                return f"nothing can be said: {counts}, and each group needs {LEAST} pictures ({told})"
            case "unlike groups":
                return f"members come off worse than others ({told}): the two groups differ in more than membership"
            case "none":
                return f"no evidence that members can be told: {told}; this does not prove privacy"
        return f"{self.level} evidence that members can be told: {told}"

    def to_json(self) -> dict[str, Any]:
        """Plain, NaN as None."""
        plain: dict[str, Any] = finite(
            {
                "version": __version__,
                "model": self.model,
                "members": {"name": self.members, "units": int(self.tally.member.sum())},
                "others": {"name": self.others, "units": int((~self.tally.member).sum())},
                "signal": self.tally.figure,
                "kind": self.tally.units.kind,
                "level": self.level,
                "verdict": self.verdict,
                "figures": {name: one.to_json() for name, one in self.figures.items()},
                "exposed": [vars(one) for one in self.tally.exposed()],
                "details": self.tally.details(),
                "notes": [*self.notes, *CAVEATS],
                "problems": self.problems.to_json(),
            }
        )
        return plain

    def save(self, folder: str | Path) -> list[Path]:
        """Write ``membership.json``, the page ``membership.html`` and ``tally.npz``."""
        from manylens.audit.privacy_page import membership_page

        return write(folder, "membership", self.to_json(), membership_page(self), self.tally)


def audit(
    tally: MembershipTally,
    *,
    model: str = "",
    members: str = "members",
    others: str = "others",
    problems: Problems | None = None,
    notes: Sequence[str] = (),
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Membership:
    """The figures of a tally with their intervals; :mod:`manylens.audit.members` makes tallies.

    Args:
        tally: Members and others.
        model: Its id.
        members: Name of the data that the model was trained on.
        others: Name of the data that it was not.
        problems: What was left out.
        notes: What a reader should know.
        resamples: Of the bootstrap, over the pictures of both groups.
        seed: Of the drawing.

    Raises:
        DataError: A group is empty.
    """
    for name, there in ((members, tally.member), (others, ~tally.member)):
        if not there.any():
            raise DataError(f"{name}: no unit with a number to go by is left", "give data that the model can judge")
    few = int((~tally.member).sum())
    said = [
        f"{100 * rate:g} % of {few} others is less than one false alarm: {name} is the rate without any, and chance "
        f"lifts it; it needs {round(1 / rate)} others"
        for name, rate in _RATES.items()
        if few < 1 / rate
    ]
    found = estimates(tally, resamples=resamples, seed=seed)
    return Membership(tally, found, model, members, others, problems or Problems(), [*notes, *said])
