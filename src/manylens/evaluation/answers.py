"""Answers to questions about pictures: VQA accuracy (Antol et al., ICCV 2015), each question a unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from manylens.data.records import Record
from manylens.evaluation.captions import texts_of
from manylens.evaluation.driving import Rows
from manylens.evaluation.measure import Measure
from manylens.evaluation.tally import RatioTally
from manylens.evaluation.vqa import accuracy
from manylens.tasks.results import Answer


@dataclass
class Answers(Measure):
    """Judges answers by annotation id against annotations with ``question`` and ``answers``.

    ``known=False`` or no answer counts as wrong and makes the figure ``unanswered``. Where annotations have a column
    ``kind``, each kind of question has its own ``accuracy/kind``.
    """

    name: ClassVar[str] = "answers"

    def __post_init__(self) -> None:
        self._units = Rows("question", self.columns)
        self._kinds: list[str] = []
        self._rows: list[tuple[float, float]] = []

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
            known = said is not None and said.known
            score = accuracy(said.text, answers) if said is not None and known else 0.0
            self._units.add(annotation.id, record.id, record, annotation, {})
            self._kinds.append(str(annotation.columns.get("kind") or ""))
            self._rows.append((score, float(not known)))
        for stray in given:
            self.problems.add("unknown question", stray, f"{stray}: an answer to no question of {record.id}; left out")

    def tally(self) -> RatioTally:
        """See :meth:`Measure.tally`: ``accuracy``, ``unanswered`` and ``accuracy/kind``."""
        scores, unanswered = np.array(self._rows).reshape(-1, 2).T
        values = {"accuracy": scores, "unanswered": unanswered}
        for kind in sorted(set(self._kinds) - {""}):
            values[f"accuracy/{kind}"] = np.where([one == kind for one in self._kinds], scores, np.nan)
        return RatioTally.of_values(self._units.units(), values, errors=["unanswered"], first="accuracy")
