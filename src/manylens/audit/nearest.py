"""Nearest pictures by features: exact, in blocks, with memory bounded whatever the size of what is searched."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from manylens.data.problems import DataError, Problems
from manylens.data.records import Record
from manylens.evaluation.measures import driving
from manylens.evaluation.tally import FloatArray
from manylens.runtime.meter import Meter
from manylens.tasks.results import provenance_of

if TYPE_CHECKING:
    from manylens.session import Session

_SEARCHED, _QUERIES = 4096, 1024  # rows of a block of cosines, 16 MB
_DIGITS = 6  # of a distance: what float32 products agree on, however the blocks fall


@dataclass(eq=False)
class Encoder:
    """Turns pictures into unit vectors.

    Attributes:
        session: Runs ``embed``, and keeps vectors on disk: a run that was stopped does not encode them again.
        model: As in :meth:`manylens.session.Session.run`.
        seed: Likewise.
        meter: Of the cost of the whole audit.
        problems: Takes pictures that cannot be read; they are left out.
        used: Id of the model, once it has run.
    """

    session: Session
    model: str | None
    seed: int
    meter: Meter
    problems: Problems
    used: str = ""

    def vectors(
        self, records: Iterable[Record], what: str, progress: Callable[[float, str], None] | None = None
    ) -> Iterator[tuple[Record, npt.NDArray[np.float32]]]:
        """The records with their vectors float32 ``(D,)`` of length 1, streamed.

        Args:
            records: Whose pictures to read.
            what: To call them in problems, such as ``made picture``.
            progress: Called after each.
        """
        from manylens.runtime.executors import Failure

        waiting: deque[Record] = deque()

        def requests() -> Iterator[dict[str, object]]:
            for record in driving.watched(records, progress, lambda record: f"{what} {record.id}"):
                waiting.append(record)
                yield {"image": record.path}

        found = self.session.map(
            "embed", requests(), model=self.model, seed=self.seed, errors="return", cost_cap=self.meter
        )
        for result in found:
            record = waiting.popleft()
            if isinstance(result, Failure):
                driving.failed(self.problems, what, record.id, result.error, record)
                continue
            told = provenance_of(result)
            self.used = told.model if told is not None else self.used
            vector = np.asarray(result.vector, np.float32)
            length = float(np.linalg.norm(vector))
            if np.isfinite(length) and length > 0:
                yield record, vector / length
            else:
                self.problems.add("NaN features", record.id, f"{what} {record.id}: its vector is no direction")


class Neighbours:
    """The nearest of a stream of vectors to each query, by cosine distance.

    Args:
        queries: float32 ``(n, D)`` of length 1.
        count: How many neighbours to keep of each.
    """

    def __init__(self, queries: npt.NDArray[np.float32], count: int) -> None:
        self._queries, self._count = queries, count
        self._distances = np.full((len(queries), 0), np.inf)
        self._places = np.zeros((len(queries), 0), np.int64)
        self._block: list[npt.NDArray[np.float32]] = []
        self.searched = 0

    def add(self, vector: npt.NDArray[np.float32]) -> None:
        """Search one more vector ``(D,)`` of length 1.

        Raises:
            DataError: It is of another length than the queries.
        """
        if len(vector) != self._queries.shape[1]:
            raise DataError(
                f"vectors: of {len(vector)} and of {self._queries.shape[1]} numbers", "embed all with one model"
            )
        self._block.append(vector)
        if len(self._block) == _SEARCHED:
            self._search()

    def found(self, names: Sequence[str]) -> tuple[FloatArray, npt.NDArray[np.int64]]:
        """Distances ``(n, k)`` (1 - cosine, rising) and places ``(n, k)`` in the order of :meth:`add`.

        Args:
            names: Of the vectors that were searched; of equal distances the first name comes first.
        """
        self._search()
        rank = np.argsort(np.argsort(np.asarray(names, dtype=str), kind="stable"), kind="stable")
        ranks = rank[self._places] if len(names) else self._places
        order = np.lexsort((ranks, self._distances), axis=1)
        return np.take_along_axis(self._distances, order, axis=1), np.take_along_axis(self._places, order, axis=1)

    def _search(self) -> None:
        if not self._block:
            return
        block, self._block = np.stack(self._block), []
        own = min(self._count, len(block))
        kept = min(self._count, self._distances.shape[1] + own)
        distances = np.empty((len(self._queries), kept))
        nearest = np.empty((len(self._queries), kept), np.int64)
        for start in range(0, len(self._queries), _QUERIES):
            rows = slice(start, start + _QUERIES)
            cosines = self._queries[rows] @ block.T
            near = np.argpartition(-cosines, own - 1, axis=1)[:, :own]
            apart = 1.0 - np.take_along_axis(cosines, near, axis=1).astype(np.float64)
            joined = np.hstack([self._distances[rows], np.round(np.clip(apart, 0.0, 2.0), _DIGITS)])
            where = np.hstack([self._places[rows], near + self.searched])
            best = np.argpartition(joined, kept - 1, axis=1)[:, :kept]
            distances[rows] = np.take_along_axis(joined, best, axis=1)
            nearest[rows] = np.take_along_axis(where, best, axis=1)
        self._distances, self._places = distances, nearest
        self.searched += len(block)
