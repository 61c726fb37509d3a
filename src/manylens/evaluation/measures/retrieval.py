"""Retrieval: how high the right thing stands among all things, when they are ordered by cosine.

Text to picture, picture to text (Karpathy & Fei-Fei 2015: recall at 1, 5, 10 and the median rank) and picture to
picture by label, each picture left out of its own search (Musgrave et al. 2020). Every query is a unit. Weights choose
among queries; what is searched stays whole, so a slice or a resample does not make the search easier. A tie counts
against the model: equal vectors find nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from manylens.data.records import Record
from manylens.evaluation.measure import Measure
from manylens.evaluation.measures.captions import texts_of
from manylens.evaluation.measures.driving import Rows
from manylens.evaluation.tally import FloatArray, Tally, Units, ratio

AT = (1, 5, 10)
TO_TEXT, TO_IMAGE, TO_LIKE = "image to text", "text to image", "image to image"
_CHUNK_VALUES = 8_000_000  # cosines at a time: 32 MB
_TIE = 1e-6  # cosines of float32 vectors that are nearer than this are equal

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Found:
    """The vectors of one record.

    Attributes:
        image: float32 ``(D,)``, or None.
        texts: float32 ``(k, D)``, one for each caption of the record, or None.
    """

    image: np.ndarray | None = None
    texts: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class RetrievalTally(Tally):
    """Figures of queries.

    Attributes:
        ways: What is searched with what, such as ``text to image``.
        way: int ``(n,)``: which of them each query is.
        rank: float64 ``(n,)``: of the best right answer, from 1; NaN where nothing in the search is right.
        precision: float64 ``(n,)``: average precision of each query, likewise.
    """

    measure: ClassVar[str] = "retrieval"

    ways: Sequence[str] = ()
    way: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    rank: FloatArray = field(default_factory=lambda: np.zeros(0))
    precision: FloatArray = field(default_factory=lambda: np.zeros(0))

    def figures(self, weights: FloatArray) -> dict[str, FloatArray]:
        """See :meth:`Tally.figures`; ``R@1 text to image`` and so on."""
        found: dict[str, FloatArray] = {}
        for number, way in enumerate(self.ways):
            here = np.flatnonzero((self.way == number) & ~np.isnan(self.rank))
            part, ranks = weights[:, here], self.rank[here]
            total = part.sum(axis=1)
            for at in AT:
                found[f"R@{at} {way}"] = ratio(part @ (ranks <= at), total)
            found[f"mAP {way}"] = ratio(part @ self.precision[here], total)
            found[f"median rank {way}"] = weighted_median(ranks, part)
        return found

    def lower(self, figure: str) -> bool:
        """See :meth:`Tally.lower`."""
        return figure.startswith("median rank")

    @property
    def main_figure(self) -> str:
        """Recall at 1 of the first way."""
        return f"R@1 {self.ways[0]}"

    def scores(self) -> FloatArray:
        """Average precision of each query."""
        return self.precision


def weighted_median(values: FloatArray, weights: FloatArray) -> FloatArray:
    """The median of values under each weighting; a whole weight k is the value k times.

    Args:
        values: ``(n,)``.
        weights: ``(R, n)``.

    Returns:
        ``(R,)``, NaN where all weights are 0.
    """
    if not len(values):
        return np.full(len(weights), np.nan)
    order = np.argsort(values, kind="stable")
    sums = np.cumsum(weights[:, order], axis=1)
    half = sums[:, -1:] / 2
    low = (sums < half - 1e-9).sum(axis=1)
    high = np.minimum((sums <= half + 1e-9).sum(axis=1), len(values) - 1)
    middle = (values[order][np.minimum(low, len(values) - 1)] + values[order][high]) / 2
    return np.where(sums[:, -1] > 0, middle, np.nan)


def ranks(
    queries: Vectors, gallery: Vectors, right: Sequence[Any], names: Sequence[Any], *, itself: bool = False
) -> tuple[FloatArray, FloatArray]:
    """The rank of the best right answer and the average precision of each query.

    Args:
        queries: ``(q, D)`` unit vectors.
        gallery: ``(g, D)`` unit vectors.
        right: ``(q,)``: what a gallery entry must be named to be right.
        names: ``(g,)``.
        itself: Queries and gallery are the same: each is left out of its own search.

    Returns:
        Two ``(q,)``; NaN where no entry is right.
    """
    known = {name: i for i, name in enumerate(dict.fromkeys(names))}
    numbers = np.array([known[name] for name in names], dtype=np.int64)
    wanted = np.array([known.get(name, -1) for name in right], dtype=np.int64)
    places = np.argsort(numbers, kind="stable")
    starts = np.searchsorted(numbers[places], np.arange(len(known) + 1))
    rank, precision = np.full(len(queries), np.nan), np.full(len(queries), np.nan)
    for at, cosines in _products(queries, gallery):
        for row, line in enumerate(cosines):
            query = at + row
            if wanted[query] < 0:
                continue
            positives = places[starts[wanted[query]] : starts[wanted[query] + 1]]
            scores = line[positives] if not itself else line[positives[positives != query]]
            if not len(scores):
                continue
            scores = np.sort(scores)[::-1]
            line[positives] = -np.inf
            wrong = np.sort(line[line >= scores[-1] - _TIE])  # those that stand as high as the last right one
            above = len(wrong) - np.searchsorted(wrong, scores - _TIE, side="left")
            order = np.arange(1, len(scores) + 1)
            rank[query] = 1 + above[0]
            precision[query] = float(np.mean(order / (order + above)))
    return rank, precision


def _products(queries: Vectors, gallery: Vectors) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    rows = max(1, _CHUNK_VALUES // max(len(gallery), 1))
    for start in range(0, len(queries), rows):
        yield start, queries[start : start + rows] @ gallery.T


@dataclass
class Retrieval(Measure):
    """Judges :class:`Found`: with texts both ways between pictures and captions, else between pictures by label."""

    name: ClassVar[str] = "retrieval"

    def __post_init__(self) -> None:
        self._units = Rows("image", self.columns)
        self._labels: list[str] = []
        self._images: list[np.ndarray] = []
        self._texts: list[np.ndarray] = []
        self._owners: list[int] = []

    def add(self, record: Record, prediction: Found | None) -> None:
        """See :meth:`Measure.add`; a record without vectors is left out of queries and search, and said to be."""
        if prediction is None or prediction.image is None:
            self.problems.add("missing prediction", record.id, f"{record.id}: has no vector; left out")
            return
        image = np.asarray(prediction.image, np.float32).reshape(-1)
        texts = np.asarray([] if prediction.texts is None else prediction.texts, np.float32).reshape(-1, len(image))
        captions = texts_of(record.columns.get("captions"))
        if captions and len(texts) and len(captions) != len(texts):
            what = f"{record.id}: {len(texts)} vectors for {len(captions)} captions; left out"
            self.problems.add("wrong number of texts", record.id, what)
            return
        if not (np.isfinite(image).all() and np.isfinite(texts).all()):
            self.problems.add("NaN vector", record.id, f"{record.id}: a vector has NaN or inf; left out")
            return
        if self._images and len(self._images[0]) != len(image):
            what = f"{record.id}: a vector of {len(image)} numbers among vectors of {len(self._images[0])}; left out"
            self.problems.add("another space", record.id, what)
            return
        self._owners += [len(self._labels)] * len(texts)
        self._texts.extend(_unit(texts))
        self._images.append(_unit(image[None])[0])
        self._units.add(record.id, record.id, record, None, {})
        self._labels.append(record.label)

    def tally(self) -> RetrievalTally:
        """See :meth:`Measure.tally`."""
        images = np.array(self._images, np.float32)
        pictures, everyone = self._units.units(), range(len(self._labels))
        parts: list[tuple[str, Sequence[int], tuple[FloatArray, FloatArray]]] = []
        if self._owners:
            texts, owners = np.array(self._texts, np.float32), self._owners
            parts.append((TO_TEXT, everyone, ranks(images, texts, everyone, owners)))
            parts.append((TO_IMAGE, owners, ranks(texts, images, owners, everyone)))
        if any(self._labels) or not parts:
            labels = [label or i for i, label in enumerate(self._labels)]  # without a label it is like no other
            parts.append((TO_LIKE, everyone, ranks(images, images, labels, labels, itself=True)))
        asked = [owner for _, owners, _ in parts for owner in owners]
        ids = [f"{pictures.ids[o]} {way} {i}" for way, owners, _ in parts for i, o in enumerate(owners)]
        columns = {name: [values[owner] for owner in asked] for name, values in pictures.columns.items()}
        return RetrievalTally(
            Units("query", ids, [pictures.ids[owner] for owner in asked], columns),
            ways=[way for way, _, _ in parts],
            way=np.concatenate([np.full(len(owners), i, dtype=np.int64) for i, (_, owners, _) in enumerate(parts)]),
            rank=np.concatenate([found[0] for _, _, found in parts]),
            precision=np.concatenate([found[1] for _, _, found in parts]),
        )


def _unit(vectors: np.ndarray) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), dtype=np.float32)
