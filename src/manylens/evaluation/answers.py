"""Answers to questions about pictures: VQA accuracy (Antol et al., ICCV 2015), each question a unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from manylens.data.records import Record
from manylens.evaluation.captions import texts_of
from manylens.evaluation.measure import Measure
from manylens.evaluation.tally import RatioTally, Units
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
        self._rows: list[tuple[str, str, str, float, bool, dict[str, Any]]] = []

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
            kind = annotation.columns.get("kind")
            columns = {name: annotation.columns.get(name, record.columns.get(name)) for name in self.columns}
            self._rows.append((annotation.id, record.id, str(kind or ""), score, not known, columns))
        for stray in given:
            self.problems.add("unknown question", stray, f"{stray}: an answer to no question of {record.id}; left out")

    def tally(self) -> RatioTally:
        """See :meth:`Measure.tally`: ``accuracy``, ``unanswered`` and ``accuracy/kind``."""
        rows = self._rows
        units = Units(
            "question",
            [row[0] for row in rows],
            [row[1] for row in rows],
            {name: [row[5][name] for row in rows] for name in self.columns},
        )
        scores = np.array([row[3] for row in rows])
        values = {"accuracy": scores, "unanswered": np.array([float(row[4]) for row in rows])}
        for kind in sorted({row[2] for row in rows} - {""}):
            values[f"accuracy/{kind}"] = np.where([row[2] == kind for row in rows], scores, np.nan)
        return RatioTally.of_values(units, values, errors=["unanswered"], first="accuracy")  # type: ignore[arg-type]
