"""Classification: accuracies, F1, ranking (AUROC) and calibration (ECE) of labels of whole pictures."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from manylens import tasks
from manylens.data.records import Record
from manylens.evaluation.details import bars, curve, matrix, table
from manylens.evaluation.measure import Measure
from manylens.evaluation.measures.driving import Rows
from manylens.evaluation.measures.per_class import cell, mean
from manylens.evaluation.tally import FloatArray, Tally, ratio

TOP = 5
BINS = 15
"""Of equal width over the score of the first label; Guo et al., On Calibration of Modern Neural Networks, 2017."""

_SHOWN = 60  # classes up to which the confusion matrix is shown
_CONFUSED = 20  # pairs in the table of confusions
_NOTHING = 1e-12  # share of the weights that is rounding

IntArray = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class ClassificationTally(Tally):
    """What was said of each picture.

    Scores are kept by class, without those that are 0: a model that gives five labels of a thousand takes five places.

    Attributes:
        names: Of the C classes.
        labels: int32 ``(n,)``: the true class.
        guesses: int32 ``(n,)``: the first label; C where it is no class of the data, or nothing was said. Where the
            true class shares the highest score with others, one of those: a tie is no knowledge.
        confidences: float64 ``(n,)``: score of the first label; 0 where nothing was said.
        ranks: int32 ``(n,)``: how many labels have a higher score than the true class; -1 where it is not among them.
        ties: int32 ``(n,)``: how many labels have the score of the true class, itself among them.
        starts: int64 ``(C + 1,)``: where the scores of each class begin in the next two.
        holders: int32 ``(m,)``: the unit that each score belongs to.
        values: float32 ``(m,)``: the scores.
    """

    measure: ClassVar[str] = "classification"
    main: ClassVar[str] = "accuracy"
    lower_is_better: ClassVar[frozenset[str]] = frozenset({"ECE"})
    recentred: ClassVar[frozenset[str]] = frozenset({"ECE"})
    limits: ClassVar[Mapping[str, tuple[float, float]]] = {"ECE": (0.0, 1.0)}

    names: Sequence[str] = ()
    labels: IntArray = field(default_factory=lambda: np.zeros(0, np.int32))
    guesses: IntArray = field(default_factory=lambda: np.zeros(0, np.int32))
    confidences: FloatArray = field(default_factory=lambda: np.zeros(0))
    ranks: IntArray = field(default_factory=lambda: np.zeros(0, np.int32))
    ties: IntArray = field(default_factory=lambda: np.zeros(0, np.int32))
    starts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64))
    holders: IntArray = field(default_factory=lambda: np.zeros(0, np.int32))
    values: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))

    def figures(self, weights: FloatArray) -> dict[str, FloatArray]:
        """Accuracies, F1, AUROC, ECE, and recall, precision and F1 by class.

        Balanced accuracy is the mean recall of the classes of the truth; macro F1 the mean over classes of the truth
        or among the first labels. AUROC is that of each class against the rest, averaged over the classes that have
        both; of two classes it is that of the second, as scikit-learn has it. Equal scores count half.

        Accuracy, top-5 and ECE count the true class among t labels of one score as often as it would be within the
        first k if those were put in a random order. The figures by class go by the one first label.

        ECE of few pictures is high even for a perfectly calibrated model (about 0.2 of 30, 0.1 of 100, 0.05 of 500): in
        each bin chance alone keeps the share that is right off the score. Its interval lies about the figure and says
        how it varies, not how far it is from 0; compare it at equal counts only.
        """
        across = np.ascontiguousarray(np.asarray(weights, np.float64).T)
        total = across.sum(axis=0)
        recall, precision, f1 = self._by_class(across)
        share = lambda hit: ratio(hit.astype(np.float64) @ across, total)  # noqa: E731
        auroc = self._auroc(across)
        result = {
            "accuracy": share(self._within(1)),
            f"top-{TOP}": share(self._within(TOP)),
            "balanced accuracy": mean(recall, ~np.isnan(recall)),
            "macro F1": mean(f1, ~np.isnan(f1)),
            "AUROC": auroc[:, 1] if len(self.names) == 2 else mean(auroc, ~np.isnan(auroc)),
            "ECE": ratio(np.abs(self._binned(self._within(1) - self.confidences, across)).sum(axis=0), total),
        }
        for figure, values in (("recall", recall), ("precision", precision), ("f1", f1)):
            result |= {f"{figure}/{name}": values[:, i] for i, name in enumerate(self.names)}
        return result

    def details(self) -> dict[str, Any]:
        """See :meth:`Tally.details`."""
        ones = np.ones((len(self.units), 1))
        weight, confidence, right = (
            self._binned(one, ones)[:, 0] for one in (ones[:, 0], self.confidences, self._within(1))
        )
        filled = weight > 0
        line = ((confidence[filled] / weight[filled]).tolist(), (right[filled] / weight[filled]).tolist())
        recall, precision, f1 = (values[0] for values in self._by_class(ones))
        auroc = self._auroc(ones)[0]
        number = np.bincount(self.labels, minlength=len(self.names))
        rows = [
            [name, int(number[i]), *(cell(values[i]) for values in (recall, precision, f1, auroc))]
            for i, name in enumerate(self.names)
        ]
        result = {
            "calibration": curve(
                "Calibration", "score of the first label", "share that is right", {"model": line}, diagonal=True
            ),
            "recall by class": bars(
                "Recall by class", "recall", {n: x for n, x in zip(self.names, recall, strict=True) if x == x}
            ),
            "classes": table("Classes", ["class", "pictures", "recall", "precision", "F1", "AUROC"], rows),
            "confusions": self._confusions(),
        }
        if len(self.names) <= _SHOWN:
            counts = np.zeros((len(self.names), len(self.names) + 1))
            np.add.at(counts, (self.labels, self.guesses), 1)
            result["confusion"] = matrix("Confusion", self.names, counts[:, : len(self.names)].tolist())
        return result

    def scores(self) -> FloatArray:
        """Score of the first label where it is right, minus that score where it is wrong: sure and wrong is worst."""
        return np.where(self.guesses == self.labels, self.confidences, -self.confidences)

    def _within(self, count: int) -> FloatArray:
        """Chance of the true class to be within the first labels when equal scores stand in a random order."""
        chance = np.clip(count - self.ranks, 0, self.ties) / np.maximum(self.ties, 1)
        return np.where(self.ranks >= 0, chance, 0.0)

    def _by_class(self, across: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Recall, precision, F1, each ``(R, C)``; ``across`` is ``(n, R)``."""
        true = _grouped(self.labels, len(self.names), across)
        said = _grouped(self.guesses, len(self.names) + 1, across)[:, :-1]
        right = (self.guesses == self.labels)[:, None]
        hits = _grouped(self.guesses, len(self.names) + 1, across * right)[:, :-1]
        return ratio(hits, true), ratio(hits, said), ratio(2 * hits, true + said)

    def _binned(self, values: FloatArray, across: FloatArray) -> FloatArray:
        """Weighted sums of values by bin of confidence, ``(BINS, R)``."""
        at = np.clip((self.confidences * BINS).astype(np.int64), 0, BINS - 1)
        return _grouped(at, BINS, across * values[:, None]).T

    def _auroc(self, across: FloatArray) -> FloatArray:
        """AUROC of each class against the rest, ``(R, C)``; class by class, so that memory stays at one class."""
        result = np.empty((across.shape[1], len(self.names)))
        total = across.sum(axis=0)
        order = np.argsort(self.labels, kind="stable")
        bounds = np.searchsorted(self.labels[order], np.arange(len(self.names) + 1))
        for c in range(len(self.names)):
            part = slice(self.starts[c], self.starts[c + 1])
            members = order[bounds[c] : bounds[c + 1]]
            result[:, c] = _auroc(self.holders[part], self.values[part], members, across, total)
        return result

    def _confusions(self) -> dict[str, Any]:
        wrong = self.guesses != self.labels
        pairs = Counter(zip(self.labels[wrong].tolist(), self.guesses[wrong].tolist(), strict=True))
        names = [*self.names, "(none of the classes)"]
        rows = [[names[true], names[guess], times] for (true, guess), times in pairs.most_common(_CONFUSED)]
        return table("Most frequent confusions", ["truth", "prediction", "pictures"], rows)


@dataclass
class Classification(Measure):
    """Judges :class:`manylens.tasks.Classification` against ``record.label``.

    A class that is not among the labels of a prediction has the score 0. Where no categories are given, every name
    that is met is a class.
    """

    name: ClassVar[str] = "classification"

    def __post_init__(self) -> None:
        self._at = {category.name: i for i, category in enumerate(self.categories)}
        self._open = not self._at
        self._strange: set[str] = set()
        self._rows = Rows("image", self.columns)
        self._units: list[tuple[int, int, float, int, int]] = []
        self._ends = array("q", [0])
        self._classes = array("i")
        self._values = array("f")

    def add(self, record: Record, prediction: tasks.Classification | None) -> None:
        """See :meth:`Measure.add`; None is wrong, with score 0."""
        label = self._place(record.label) if record.label else None
        if label is None:
            what = f"its label {record.label!r} is no category of the data" if record.label else "has no label"
            kind = "unknown category" if record.label else "no label"
            self.problems.add(kind, record.id, f"image {record.id}: {what}; left out")
            return
        said = sorted(prediction.labels, key=lambda one: -one.score) if prediction else []
        if any(one.score != one.score for one in said):
            name = f"prediction for image {record.id}: a score is not a number; left out"
            self.problems.add("NaN score", record.id, name)
            return
        if said and not 0 <= said[0].score <= 1:
            name = f"prediction for image {record.id}: its score {said[0].score:.4g} is no probability"
            self.problems.add("score out of range", record.id, name, left_out=False)
        places = [self._known(one.name, record) for one in said]
        rank, ties = -1, 0
        if label in places:
            own = said[places.index(label)].score
            rank = sum(one.score > own for one in said)
            ties = 1 + sum(one.score == own and place != label for place, one in zip(places, said, strict=True))
        best = [place for place, one in zip(places, said, strict=True) if one.score == said[0].score]
        guess = next((place for place in best if place != label), best[0] if best else None)
        self._units.append((label, -1 if guess is None else guess, said[0].score if said else 0.0, rank, ties))
        kept: dict[int, float] = {}
        for place, one in zip(places, said, strict=True):
            if place is not None and one.score:
                kept.setdefault(place, one.score)
        self._classes.extend(kept)
        self._values.extend(kept.values())
        self._ends.append(len(self._classes))
        self._rows.add(record.id, record.id, record, None, {})

    def tally(self) -> ClassificationTally:
        """See :meth:`Measure.tally`."""
        import scipy.sparse as sp

        count, names = len(self._units), list(self._at)
        units = np.array(self._units, np.float64).reshape(count, 5)
        labels, guesses, ranks, ties = (units[:, i].astype(np.int32) for i in (0, 1, 3, 4))
        flat = (np.array(self._values), np.array(self._classes), np.array(self._ends))
        by_class = sp.csr_array(flat, shape=(count, len(names))).tocsc()
        return ClassificationTally(
            units=self._rows.units(),
            names=names,
            labels=labels,
            guesses=np.where(guesses < 0, len(names), guesses).astype(np.int32),
            confidences=units[:, 2],
            ranks=ranks,
            ties=ties,
            starts=by_class.indptr.astype(np.int64),
            holders=by_class.indices.astype(np.int32),
            values=by_class.data,
        )

    def _place(self, name: str) -> int | None:
        return self._at.setdefault(name, len(self._at)) if self._open else self._at.get(name)

    def _known(self, name: str, record: Record) -> int | None:
        """Place of a predicted name; one that is no category is taken down once, and counts as wrong."""
        place = self._place(name)
        if place is None and name not in self._strange:
            self._strange.add(name)
            what = f"prediction {name!r} (first for image {record.id}): is no category of the data; counts as wrong"
            self.problems.add("unknown category", name, what, left_out=False)
        return place


def _grouped(groups: npt.NDArray[np.integer], count: int, across: FloatArray) -> FloatArray:
    """Sums of the rows of ``across`` ``(n, R)`` by group: ``(R, count)``."""
    import scipy.sparse as sp

    n = len(groups)
    table = sp.csc_array((np.ones(n), groups.astype(np.int64), np.arange(n + 1)), shape=(count, n))
    return (table @ across).T


def _auroc(
    holders: IntArray,
    values: npt.NDArray[np.float32],
    members: npt.NDArray[np.int64],
    across: FloatArray,
    total: FloatArray,
) -> FloatArray:
    """AUROC of one class under each weighting.

    The weight of the others is summed between the scores of the members, of which there are few; so the cost is one
    pass over the scores that are not 0, whatever the number of weightings.

    Args:
        holders: Units whose score is not 0.
        values: Their scores.
        members: Units of the class.
        across: ``(n, R)`` weights.
        total: ``(R,)`` their sums.
    """
    own = np.zeros(len(members), values.dtype)
    place = np.searchsorted(holders, members)  # holders ascend
    place[place == len(holders)] = 0
    held = holders[place] == members if len(holders) else np.zeros(len(members), bool)
    own[held] = values[place[held]]
    levels, level = np.unique(own, return_inverse=True)
    # Even bins lie below, between and above the levels of the members, odd ones on them.
    bins = 2 * len(levels) + 1
    weight = _grouped(_bin(values, levels), bins, across[holders]).T
    weight[_bin(np.zeros(1, values.dtype), levels)[0]] += total - weight.sum(axis=0)
    member = _grouped(level, len(levels), across[members]).T
    weight[1::2] -= member
    below = np.cumsum(weight, axis=0)[:-1:2] + weight[1::2] / 2
    positive = member.sum(axis=0)
    negative = total - positive
    negative[negative < _NOTHING * total] = 0.0
    return ratio((member * below).sum(axis=0), positive * negative)


def _bin(values: npt.NDArray[np.float32], levels: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    return np.searchsorted(levels, values, "left") + np.searchsorted(levels, values, "right")
