"""Answers to questions about pictures: VQA accuracy (Antol et al., ICCV 2015), each question a unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from manylens.data.records import Record
from manylens.evaluation.measure import Measure
from manylens.evaluation.measures.captions import texts_of
from manylens.evaluation.measures.driving import Rows
from manylens.evaluation.measures.vqa import accuracy
from manylens.evaluation.tally import RatioTally
from manylens.tasks.results import Answer


@dataclass
class Answers(Measure):
    """Judges answers by annotation id against annotations with ``question`` and ``answers``.

    ``accuracy`` is that of the challenge: the whole answer must be what people said, so a sentence is wrong even where
    it is true. ``contains`` is the same but that what people said need only stand in the answer, as words; it forgives
    "It is a cat", and also "not a cat". ``known=False`` or no answer counts as wrong and makes the figure
    ``unanswered``. Where annotations have a column ``kind``, each kind of question has its own ``accuracy/kind``.
    """

    name: ClassVar[str] = "answers"

    def __post_init__(self) -> None:
        self._units = Rows("question", self.columns)
        self._kinds: list[str] = []
        self._rows: list[tuple[float, float, float]] = []

    def add(self, record: Record, prediction: Mapping[str, Answer | None] | None) -> None:
        """See :meth:`Measure.add`; the prediction maps annotation ids to answers."""
        given = dict(prediction or {})
        for annotation in record.annotations:
            said = given.pop(annotation.id, None)
            if annotation.ignore or "question" not in annotation.columns:
                continue
            answers = texts_of(annotation.columns.get("answers"))
            if not answers:
                self.problems.add("no answers", annotation.id, f"{annotation.id}: a question without answers; left out")
                continue
            text = said.text if said is not None and said.known else None
            exact, inside = (0.0 if text is None else accuracy(text, answers, contained=way) for way in (False, True))
            self._units.add(annotation.id, record.id, record, annotation, {})
            self._kinds.append(str(annotation.columns.get("kind") or ""))
            self._rows.append((exact, inside, float(text is None)))
        for stray in given:
            self.problems.add("unknown question", stray, f"{stray}: an answer to no question of {record.id}; left out")

    def tally(self) -> RatioTally:
        """See :meth:`Measure.tally`: ``accuracy``, ``contains``, ``unanswered`` and ``accuracy/kind``."""
        scores, inside, unanswered = np.array(self._rows).reshape(-1, 3).T
        values = {"accuracy": scores, "contains": inside, "unanswered": unanswered}
        for kind in sorted(set(self._kinds) - {""}):
            values[f"accuracy/{kind}"] = np.where([one == kind for one in self._kinds], scores, np.nan)
        return RatioTally.of_values(self._units.units(), values, errors=["unanswered"], first="accuracy")
