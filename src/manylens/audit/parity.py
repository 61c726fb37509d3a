"""Parity of a classifier between groups, by fairlearn (Weerts et al., JMLR 2023): each class against the rest.

Demographic parity: every group is given the class equally often. Equal opportunity: of those that are of the class,
equally many are recognised (Hardt, Price & Srebro 2016). Equalised odds: that, and equally many false alarms.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from manylens.data.problems import DataError
from manylens.evaluation.intervals import RESAMPLES
from manylens.evaluation.measures._extras import extra
from manylens.evaluation.slices import Sliced, slice_with
from manylens.evaluation.tally import RatioTally

if TYPE_CHECKING:
    from manylens.evaluation.measures.classification import ClassificationTally

Members = Mapping[str, npt.NDArray[np.bool_]]

RATES = ("selection rate", "true positive rate", "false positive rate")
_OF_SELECTION = ("demographic_parity_difference", "demographic_parity_ratio")
_OF_ERRORS = ("equalized_odds_difference", "equalized_odds_ratio", "equal_opportunity_difference")
MEASURES = (*_OF_SELECTION, *_OF_ERRORS)


@dataclass(frozen=True)
class Parity:
    """How equally groups are given a class.

    Attributes:
        positive: The class.
        pictures: How many pictures of the judged groups are of it.
        measures: fairlearn's, by their name there; NaN where a group has no picture of the class, or only such.
            Differences are best at 0, ratios at 1.
        by_group: The rates of each group, by fairlearn's ``MetricFrame``; NaN where they are not defined.
        rates: The same with intervals and gaps, where they were asked for.
        few: Groups with too few pictures of the class, or of other classes, to judge errors by: their number in words.
            What fairlearn says of errors (equalised odds, equal opportunity) is not to be trusted then.
    """

    positive: str
    pictures: int
    measures: Mapping[str, float]
    by_group: Mapping[str, Mapping[str, float]]
    rates: Sliced | None = None
    few: Mapping[str, str] = field(default_factory=dict)

    @property
    def trusted(self) -> dict[str, float]:
        """:attr:`measures`, NaN where a group has too few pictures to say it."""
        return {name: math.nan if self.few and name in _OF_ERRORS else value for name, value in self.measures.items()}

    def to_json(self) -> dict[str, Any]:
        """Plain, NaN as None."""
        return {
            "positive": self.positive,
            "pictures": self.pictures,
            "measures": {name: _none(value) for name, value in self.measures.items()},
            "by_group": {
                group: {name: _none(value) for name, value in rates.items()} for group, rates in self.by_group.items()
            },
            "rates": None if self.rates is None else self.rates.to_json(),
            "too_few": dict(self.few),
        }


def parity(tally: ClassificationTally, members: Members, positive: str, *, least: int = 1) -> Parity:
    """What fairlearn says of one class.

    Args:
        tally: Of the classifier.
        members: The groups to compare, at least two, bool ``(n,)`` by name. A picture may be in several.
        positive: The class.
        least: Pictures of the class, and others, that a group needs for its errors to be judged.

    Raises:
        DataError: There is no such class.
        UnsupportedError: fairlearn is not installed.
    """
    metrics = extra("fairlearn.metrics", "audit", "fairness")
    number = class_number(tally, positive)
    truth, given = tally.labels == number, tally.guesses == number
    inside = list(members.values())
    true, said = (np.concatenate([values[part] for part in inside]).astype(int) for values in (truth, given))
    groups = np.repeat(list(members), [part.sum() for part in inside])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of groups without positives, which are dealt with here
        frame = metrics.MetricFrame(
            metrics={
                "selection rate": metrics.selection_rate,
                "true positive rate": metrics.true_positive_rate,
                "false positive rate": metrics.false_positive_rate,
            },
            y_true=true,
            y_pred=said,
            sensitive_features=groups,
        )
        found = {name: float(getattr(metrics, name)(true, said, sensitive_features=groups)) for name in MEASURES}
    table = {name: {rate: float(frame.by_group.loc[name, rate]) for rate in RATES} for name in members}
    for name, part in members.items():  # fairlearn writes 0 where there is nothing to divide by
        if not truth[part].any():
            table[name]["true positive rate"] = math.nan
        if truth[part].all():
            table[name]["false positive rate"] = math.nan
    if any(math.isnan(rates["true positive rate"]) for rates in table.values()):
        found |= dict.fromkeys(_OF_ERRORS, math.nan)
    elif any(math.isnan(rates["false positive rate"]) for rates in table.values()):
        found |= dict.fromkeys(_OF_ERRORS[:2], math.nan)
    if not said.any():
        found["demographic_parity_ratio"] = math.nan
    return Parity(positive, int(true.sum()), found, table, few=_few(truth, members, least))


def rates(
    tally: ClassificationTally,
    column: str,
    members: Members,
    positive: str,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    least: int,
) -> Sliced:
    """The rates of each group with intervals, and their gaps: fairlearn's differences with intervals and chance.

    The gap of the selection rate is the demographic parity difference, that of the true positive rate the equal
    opportunity difference, and the larger of the last two gaps the equalised odds difference.
    """
    number = class_number(tally, positive)
    truth, given = (values == number for values in (tally.labels, tally.guesses))
    counted = RatioTally(
        tally.units,
        names=list(RATES),
        numerators=np.stack([given, given & truth, given & ~truth], axis=1).astype(float),
        denominators=np.stack([np.ones_like(truth), truth, ~truth], axis=1).astype(float),
        errors=["false positive rate"],
    )
    asked: dict[str, Any] = {"resamples": resamples, "seed": seed, "least": least}
    whole = slice_with(counted, column, members, **asked)
    gaps = dict(whole.gaps)
    for rate, among in ((RATES[1], truth), (RATES[2], ~truth)):
        enough = {name: inside for name, inside in members.items() if among[inside].sum() >= least}
        if len(enough) < len(members):  # a gap to a rate of a handful of pictures says nothing
            gaps.pop(rate, None)
            others = slice_with(counted, column, enough, **asked).gaps if len(enough) > 1 else {}
            gaps |= {name: gap for name, gap in others.items() if name == rate}
    return replace(whole, gaps=gaps)


def _few(truth: npt.NDArray[np.bool_], members: Members, least: int) -> dict[str, str]:
    few = {}
    for name, inside in members.items():
        count, other = int(truth[inside].sum()), int((~truth[inside]).sum())
        if min(count, other) < least:
            number, what = (count, "positive") if count < least else (other, "negative")
            few[name] = f"{number} {what}{'' if number == 1 else 's'}"
    return few


def class_number(tally: ClassificationTally, name: str) -> int:
    """The place of a class.

    Raises:
        DataError: There is no such class.
    """
    names = list(tally.names)
    if name not in names:
        known = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        raise DataError(f"{name}: is no class of this evaluation", f"choose one of: {known}")
    return names.index(name)


def _none(value: float) -> float | None:
    return None if math.isnan(value) else value
