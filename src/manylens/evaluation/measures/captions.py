"""Captions against what people wrote: CIDEr-D, BLEU-4 and chrF.

CIDEr-D is our own (:mod:`~manylens.evaluation.measures.cider`); BLEU (Papineni et al. 2002) and chrF (Popović 2015) are
counted by sacrebleu. CIDEr-D is the mean over pictures, with the rarity of words fixed by all pictures measured; BLEU
is that of the corpus, from summed n-gram counts; chrF is the mean over captions. All but CIDEr-D (0 to 10) are 0 to
100.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from manylens.data.records import Record
from manylens.evaluation.measure import Measure
from manylens.evaluation.measures._extras import extra
from manylens.evaluation.measures.cider import cider_d
from manylens.evaluation.measures.driving import Rows
from manylens.evaluation.tally import FloatArray, Tally, ratio
from manylens.tasks.results import Caption

_ORDERS = 4


@dataclass(frozen=True, eq=False)
class CaptionTally(Tally):
    """Figures of captions.

    Attributes:
        cider: float64 ``(n,)`` CIDEr-D of each picture.
        chrf: float64 ``(n,)``.
        grams: float64 ``(n, 10)``: n-grams of orders 1 to 4 found, n-grams written, words written, words of the
            reference nearest in length: what BLEU sums.
    """

    measure: ClassVar[str] = "captions"
    main: ClassVar[str] = "CIDEr-D"

    cider: FloatArray = field(default_factory=lambda: np.zeros(0))
    chrf: FloatArray = field(default_factory=lambda: np.zeros(0))
    grams: FloatArray = field(default_factory=lambda: np.zeros((0, 2 * _ORDERS + 2)))

    def figures(self, weights: FloatArray) -> dict[str, FloatArray]:
        """See :meth:`Tally.figures`."""
        total = weights.sum(axis=1)
        return {
            "CIDEr-D": ratio(weights @ self.cider, total),
            "BLEU-4": np.where(total > 0, bleu(weights @ self.grams), np.nan),
            "chrF": ratio(weights @ self.chrf, total),
        }

    def scores(self) -> FloatArray:
        """CIDEr-D of each picture."""
        return self.cider


def bleu(sums: FloatArray) -> FloatArray:
    """BLEU-4 from summed counts, smoothed as sacrebleu does (``exp``, Chen & Cherry 2014).

    Args:
        sums: ``(R, 10)`` as :attr:`CaptionTally.grams`, summed.

    Returns:
        ``(R,)`` in 0..100.
    """
    found, written = sums[:, :_ORDERS], sums[:, _ORDERS : 2 * _ORDERS]
    length, wanted = sums[:, -2], sums[:, -1]
    logs, halvings = np.zeros(len(sums)), np.zeros(len(sums))
    for order in range(_ORDERS):  # an order without a match counts half as much as the last one that had none
        halvings += found[:, order] == 0
        matches = np.where(found[:, order] > 0, found[:, order], 0.5**halvings)
        logs += np.log(np.maximum(ratio(matches, written[:, order]), 1e-300))
    brevity = np.where(length < wanted, np.exp(1 - wanted / np.maximum(length, 1e-300)), 1.0)
    nothing = (written == 0).any(axis=1) | (found == 0).all(axis=1)
    return np.where(nothing, 0.0, 100.0 * brevity * np.exp(logs / _ORDERS))


@dataclass
class Captions(Measure):
    """Judges :class:`manylens.tasks.results.Caption` against ``record.columns["captions"]``; none counts as empty."""

    name: ClassVar[str] = "captions"

    def __post_init__(self) -> None:
        self._units = Rows("image", self.columns)
        self._texts: list[str] = []
        self._references: list[list[str]] = []
        self._counts: list[tuple[float, list[float]]] = []

    def add(self, record: Record, prediction: Caption | None) -> None:
        """See :meth:`Measure.add`."""
        references = texts_of(record.columns.get("captions"))
        if not references:
            self.problems.add("no captions", record.id, f"{record.id}: has no captions to compare with; left out")
            return
        text = " ".join(prediction.text.split()) if prediction is not None else ""
        self._units.add(record.id, record.id, record, None, {})
        self._texts.append(text)
        self._references.append(references)
        self._counts.append(_overlap(text, references))

    def tally(self) -> CaptionTally:
        """See :meth:`Measure.tally`."""
        return CaptionTally(
            self._units.units(),
            cider=cider_d(self._texts, self._references),
            chrf=np.array([score for score, _ in self._counts]),
            grams=np.array([counts for _, counts in self._counts]).reshape(-1, 2 * _ORDERS + 2),
        )


def texts_of(value: Any) -> list[str]:
    """A column of texts as a list without empty ones; a single text is a list of one."""
    several = [value] if isinstance(value, str) else value if value is not None else []
    return [" ".join(str(text).split()) for text in several if str(text).strip()]


def _overlap(text: str, references: Sequence[str]) -> tuple[float, list[float]]:
    bleu_metric, chrf_metric = _metrics()
    one = bleu_metric.sentence_score(text, list(references))
    return chrf_metric.sentence_score(text, list(references)).score, [
        *one.counts,
        *one.totals,
        one.sys_len,
        one.ref_len,
    ]


@lru_cache(maxsize=1)
def _metrics() -> tuple[Any, Any]:
    metrics = extra("sacrebleu.metrics", "text", "captions")
    return metrics.BLEU(lowercase=True, effective_order=True), metrics.CHRF()
