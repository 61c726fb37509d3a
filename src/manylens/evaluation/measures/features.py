"""Features without fine-tuning: k nearest neighbours and a linear classifier on the vectors of pictures.

What self-supervised encoders are compared by; :mod:`manylens.evaluation.measures.probing` has the two classifiers.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from manylens.data.problems import DataError, Problems
from manylens.data.records import Record
from manylens.evaluation.measures import driving
from manylens.evaluation.measures.driving import Progress, Rows
from manylens.evaluation.measures.probing import PENALTIES, IntArray, Probe, voted
from manylens.evaluation.tally import FloatArray, Tally, ratio

if TYPE_CHECKING:
    from manylens.session import Session

NEIGHBOURS = (20, 10)


def run(
    dataset: Iterable[Record],
    session: Session,
    *,
    model: str | None = None,
    seed: int = 0,
    columns: Sequence[str] = (),
    problems: Problems,
    progress: Progress | None = None,
    train: str = "train",
    val: str = "val",
    neighbours: Sequence[int] = NEIGHBOURS,
    penalties: Sequence[float] = PENALTIES,
) -> FeaturesTally:
    """Embed the pictures of two splits, and say the classes of the one by those of the other.

    Vectors are kept in the session's embedding store: a run that was stopped does not encode them again.

    Args:
        dataset: Records with a label and a split.
        session: Runs the model's ``embed``.
        model: As in :meth:`manylens.session.Session.run`.
        seed: Of the model; and of the part of train that the penalty is chosen on.
        columns: Columns of records to keep for slices, beside ``class``.
        problems: Takes pictures that cannot be judged, and those that the model failed on; they are left out.
        progress: Called after each picture.
        train: The split to learn from.
        val: The split to judge.
        neighbours: How many vote; the first is the main one.
        penalties: Weights of the L2 penalty that are tried, strong to weak.

    Returns:
        Units are pictures of ``val``. Figures: ``k-NN accuracy`` (and ``k-NN accuracy (k=10)`` for each further k),
        ``linear accuracy``, and each as ``balanced ...``, the mean over classes.

    Raises:
        UnsupportedError: The model gives no vectors of pictures.
        DataError: A split has no labelled picture, or train has one class only.
    """
    found: dict[str, list[tuple[Record, np.ndarray]]] = {train: [], val: []}
    for record, vector in _embedded(dataset, session, (train, val), model, seed, problems, progress):
        found[record.split].append((record, vector))
    found[train].sort(key=lambda pair: pair[0].id)  # sums of floats depend on their order
    for split, pairs in found.items():
        if not pairs:
            raise DataError(f"split {split}: no labelled picture", "give a data set with the splits; see Dataset.split")
    names, targets = np.unique([record.label for record, _ in found[train]], return_inverse=True)
    if len(names) < 2:
        raise DataError(f"split {train}: all its pictures are {names[0]}", "give at least two classes")
    judged = [pair for pair in found[val] if _learnt(pair[0], set(names.tolist()), problems)]
    if not judged:
        raise DataError(f"split {val}: no picture of a class of {train}", "split by picture, not by class")
    rows = Rows("image", columns)
    for record, _ in judged:
        rows.add(record.id, record.id, record, None, {"class": record.label})
    truth = np.searchsorted(names, [record.label for record, _ in judged])
    learnt, asked = (np.stack([vector for _, vector in pairs]) for pairs in (found[train], judged))

    said = {
        f"k-NN accuracy{f' (k={k})' if i else ''}": voted(learnt, targets, asked, k) for i, k in enumerate(neighbours)
    }
    probe = Probe.chosen(learnt, targets, [record.id for record, _ in found[train]], seed=seed, penalties=penalties)
    chances = probe.probabilities(asked)
    said["linear accuracy"] = chances.argmax(axis=1)
    return FeaturesTally(
        units=rows.units(),
        correct=np.stack([answer == truth for answer in said.values()], axis=1).astype(np.float64),
        category=truth.astype(np.int64),
        certainty=chances[np.arange(len(truth)), truth],
        said=list(said),
        penalty=probe.penalty,
    )


@dataclass(frozen=True, eq=False)
class FeaturesTally(Tally):
    """Which pictures were said rightly.

    Attributes:
        correct: float64 ``(n, F)``, 1 where a picture's class was found.
        category: int64 ``(n,)``, number of the true class.
        certainty: float64 ``(n,)``, what the linear classifier gives the true class.
        said: Names of the F accuracies.
        penalty: Of the linear classifier, as it was chosen.
    """

    measure: ClassVar[str] = "features"
    main: ClassVar[str] = "k-NN accuracy"

    correct: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))
    category: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))
    certainty: FloatArray = field(default_factory=lambda: np.zeros(0))
    said: Sequence[str] = ()
    penalty: float = math.nan

    def figures(self, weights: FloatArray) -> dict[str, FloatArray]:
        """See :meth:`Tally.figures`."""
        shares = ratio(weights @ self.correct, weights.sum(axis=1, keepdims=True) * np.ones(len(self.said)))
        total, classes = np.zeros_like(shares), np.zeros((len(weights), 1))
        for number in np.unique(self.category):
            at = self.category == number
            there = weights[:, at].sum(axis=1, keepdims=True)
            recall = ratio(weights[:, at] @ self.correct[at], there * np.ones(len(self.said)))
            total += np.nan_to_num(recall)
            classes += there > 0
        balanced = ratio(total, classes * np.ones(len(self.said)))
        plain = {name: shares[:, i] for i, name in enumerate(self.said)}
        return plain | {f"balanced {name}": balanced[:, i] for i, name in enumerate(self.said)}

    def scores(self) -> FloatArray:
        """What the linear classifier gives the true class."""
        return self.certainty


# ---------------------------------------------------------------------- the data


def _embedded(
    dataset: Iterable[Record],
    session: Session,
    splits: Sequence[str],
    model: str | None,
    seed: int,
    problems: Problems,
    progress: Progress | None,
) -> Iterator[tuple[Record, np.ndarray]]:
    """The labelled pictures of some splits with their vectors, float32 ``(D,)``."""
    from manylens.runtime.executors import Failure

    waiting: deque[Record] = deque()

    def requests() -> Iterator[dict[str, Any]]:
        for record in driving.watched(dataset, progress, lambda record: record.id):
            if record.split not in splits:
                continue
            if not record.label:
                problems.add("no label", record.id, f"image {record.id}: has no label to judge by")
                continue
            waiting.append(record)
            yield {"image": record.path}

    for result in session.map("embed", requests(), model=model, seed=seed, errors="return"):
        record = waiting.popleft()
        if isinstance(result, Failure):
            driving.failed(problems, "image", record.id, result.error, record)
        elif not np.isfinite(result.vector).all():
            problems.add("NaN features", record.id, f"image {record.id}: its vector holds what is not a number")
        else:
            yield record, np.asarray(result.vector, np.float32)


def _learnt(record: Record, names: set[str], problems: Problems) -> bool:
    """Whether a picture is of a class that was learnt."""
    if record.label not in names:
        problems.add("unknown category", record.id, f"image {record.id}: no training picture is a {record.label}")
    return record.label in names
