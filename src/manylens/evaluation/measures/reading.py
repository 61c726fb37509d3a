"""Written text: character and word error rate, whole lines, and lines found by their boxes.

CER and WER are edits over the characters and words of the truth (jiwer counts them), summed over pictures, so a long
page weighs more than a short sign. Where the truth has boxes, lines are matched one to one at IoU 0.5 as the ICDAR
competitions do (Karatzas et al. 2015): ``found`` by place, ``spotted`` when the text is right too.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from manylens.data.records import Annotation, Record
from manylens.evaluation.measure import Measure
from manylens.evaluation.measures._extras import extra
from manylens.evaluation.measures.driving import Rows
from manylens.evaluation.tally import RatioTally
from manylens.tasks.results import Reading, TextLine

MATCHED = 0.5
_NAMES = ("CER", "WER", "exact lines", "found recall", "found precision", "found F1", "spotted F1")
_WITHOUT_BOXES = 3


@dataclass
class Text(Measure):
    """Judges :class:`manylens.tasks.results.Reading` against annotations with ``text``, or the column ``text``.

    Annotations that are ignored (illegible) are neither missed nor found, and neither is what was read inside them.

    Args:
        fold: Whether case and punctuation do not matter. Runs of white space never do.
    """

    name: ClassVar[str] = "reading"

    fold: bool = False

    def __post_init__(self) -> None:
        self._units = Rows("image", self.columns)
        self._rows: list[tuple[list[float], list[float]]] = []
        self._boxed = False

    def add(self, record: Record, prediction: Reading | None) -> None:
        """See :meth:`Measure.add`."""
        known = [one for one in record.annotations if one.columns.get("text") is not None]
        truth = [one for one in known if not one.ignore]
        lines = [str(one.columns["text"]) for one in truth]
        if not known and record.columns.get("text") is not None:
            lines = str(record.columns["text"]).splitlines()
        elif not known:
            self.problems.add("no text", record.id, f"{record.id}: no text is known to be there; left out")
            return
        ignored = [one.box for one in record.annotations if one.ignore and one.box is not None]
        read = [line for line in (prediction.lines if prediction else ()) if not _inside(line.box, ignored)]
        self._units.add(record.id, record.id, record, None, {})
        tops, bottoms = _text_counts(
            [normal(line, self.fold) for line in lines], [normal(line.text, self.fold) for line in read]
        )
        boxed = bool(known) and all(one.box is not None for one in known)
        self._boxed |= boxed
        more = self._box_counts(truth, read) if boxed else ([0.0] * 4, [0.0] * 4)
        self._rows.append((tops + more[0], bottoms + more[1]))

    def _box_counts(self, truth: Sequence[Annotation], read: Sequence[TextLine]) -> tuple[list[float], list[float]]:
        pairs = _matched([one.box for one in truth], [line.box for line in read])
        found = float(len(pairs))
        right = sum(
            normal(str(truth[i].columns["text"]), self.fold) == normal(read[j].text, self.fold) for i, j in pairs
        )
        both = float(len(truth) + len(read))
        return [found, found, 2 * found, 2.0 * right], [float(len(truth)), float(len(read)), both, both]

    def tally(self) -> RatioTally:
        """See :meth:`Measure.tally`; figures by box are left out where no truth has boxes."""
        table = np.array(self._rows, dtype=float).reshape(-1, 2, len(_NAMES))
        kept = list(range(len(_NAMES) if self._boxed else _WITHOUT_BOXES))
        return RatioTally(
            self._units.units(),
            names=[_NAMES[i] for i in kept],
            numerators=table[:, 0, kept],
            denominators=table[:, 1, kept],
            errors=["CER", "WER"],
            first="CER",
        )


def normal(text: str, fold: bool = False) -> str:
    """Text as it is compared: composed (NFC), runs of white space as one space; folded: NFKC, no case, no marks."""
    if fold:
        text = re.sub(r"[^\w\s]|_", "", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(unicodedata.normalize("NFC", text).split())


def _text_counts(truth: Sequence[str], read: Sequence[str]) -> tuple[list[float], list[float]]:
    """Edits of characters and of words and lines read exactly; characters, words and lines there are."""
    jiwer = extra("jiwer", "text", "reading")
    whole, said = (" ".join(line for line in lines if line) for lines in (truth, read))
    tops = []
    for process in (jiwer.process_characters, jiwer.process_words):
        edits = process(whole, said)
        tops.append(float(edits.substitutions + edits.insertions + edits.deletions))
    exact = (Counter(truth) & Counter(read)).total()
    return [*tops, float(exact)], [float(len(whole)), float(len(whole.split())), float(len(truth))]


def _matched(truth: Sequence[Any], read: Sequence[Any]) -> list[tuple[int, int]]:
    """Pairs of boxes that overlap enough, one to one, as many as can be and then as well as can be."""
    if not truth or not read:
        return []
    from scipy.optimize import linear_sum_assignment

    a, b = np.asarray(truth, float), np.asarray(read, float)
    shared = _shared(a, b)
    iou = shared / np.maximum(_area(a)[:, None] + _area(b)[None] - shared, 1e-12)
    good = iou >= MATCHED
    rows, columns = linear_sum_assignment(np.where(good, 1 + iou / (1 + len(a)), 0.0), maximize=True)
    return [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if good[i, j]]


def _inside(box: Any, regions: Sequence[Any]) -> bool:
    """Whether more than half of a box lies inside one of the regions."""
    if not regions:
        return False
    one = np.asarray([box], float)
    return bool((_shared(one, np.asarray(regions, float)) > MATCHED * _area(one)).any())


def _shared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    return np.clip(sides, 0, None).prod(axis=2)


def _area(boxes: np.ndarray) -> np.ndarray:
    return np.clip(boxes[:, 2:4] - boxes[:, :2], 0, None).prod(axis=1)
