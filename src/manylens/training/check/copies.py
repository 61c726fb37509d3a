"""Pictures that are there twice: within a split they waste time, across splits they flatter the figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from manylens.data import duplicates
from manylens.data.looks import CELLS, Look
from manylens.training.check.findings import EXAMPLES, Finding, Findings, many

ALLOWED = 0.01
"""Share of a held-out split that may stand in another one pixel for pixel before it is an error."""
_EDGES = 1 << 20

Cells = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Leak:
    """Pictures of a split that stand in another one, too.

    Attributes:
        seen: The split that they are known from: the training's, or the earlier one.
        split: The split whose figures they flatter.
        exact: How many stand there pixel for pixel.
        near: How many more but for size, compression, brightness or a mirror.
        of: How many pictures the split has.
        examples: Some: id in ``split``, id in ``seen``, and their distance (0 is the same).
    """

    seen: str
    split: str
    exact: int
    near: int
    of: int
    examples: tuple[tuple[str, str, float], ...]


@dataclass(frozen=True)
class Copies:
    """All that is there twice.

    Attributes:
        limit: The distance up to which two pictures count as one, see :mod:`manylens.data.duplicates`.
        leaks: Between splits.
        exact: Within each split, pictures beyond the first of equal pixels.
        near: Within each split, further pictures beyond the first of each group of near ones.
        conflicts: Sets of equal pictures with different labels: their ids, some of them.
        conflicting: How many such sets there are.
        blank: Pictures of one colour; they are no leak.
    """

    limit: float
    leaks: tuple[Leak, ...]
    exact: Mapping[str, int]
    near: Mapping[str, int]
    conflicts: tuple[tuple[str, ...], ...]
    conflicting: int
    blank: int

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            **vars(self),
            "leaks": [vars(one) | {"examples": [list(pair) for pair in one.examples]} for one in self.leaks],
            "exact": dict(self.exact),
            "near": dict(self.near),
            "conflicts": [list(ids) for ids in self.conflicts],
        }

    def lines(self) -> Iterator[str]:
        """For people."""
        exact, near = sum(self.exact.values()), sum(self.near.values())
        yield f"copies within a split: {exact} of equal pixels, {near} near (distance at most {self.limit:.2f})"


@dataclass
class Seen:
    """Looks as records come by: about a kilobyte a picture.

    Attributes:
        ids: Of the records.
    """

    ids: list[str] = field(default_factory=list)
    _splits: list[str] = field(default_factory=list)
    _labels: list[str] = field(default_factory=list)
    _digests: list[bytes] = field(default_factory=list)
    _cells: bytearray = field(default_factory=bytearray)

    def add(self, id: str, split: str, label: str, look: Look) -> None:
        """Take a picture."""
        self.ids.append(id)
        self._splits.append(split)
        self._labels.append(label)
        self._digests.append(look.digest)
        self._cells += look.cells.tobytes()

    def copies(self, train: str, progress: Callable[[float], None] | None = None) -> Copies:
        """Search all of them.

        Args:
            train: Name of the split that is learned from.
            progress: Called with the share done.
        """
        cells = np.frombuffer(bytes(self._cells), np.uint8).reshape(-1, CELLS, CELLS, 3)
        # From what is learned from to what is looked at last: a picture flatters the later one.
        names = sorted({*self._splits}, key=lambda name: (name != train, name.startswith("test"), name))
        number = {name: i for i, name in enumerate(names)}
        split = np.fromiter((number[name] for name in self._splits), np.int64, len(self._splits))
        first = duplicates.first_of(self._digests)
        blank = (cells == cells[:, :1, :1]).all(axis=(1, 2, 3)) if len(cells) else np.zeros(0, bool)
        # A unit stands for all pictures of equal pixels in one split.
        _, rows, weight = np.unique(first * max(len(names), 1) + split, return_index=True, return_counts=True)
        table = _Table(len(names), split[rows], first[rows], weight)
        table.exact(blank[rows])
        # Equal ones of two splits would stand for no distance at all, and the usual one would come out too small.
        alone = np.unique(first[~blank[first]]) if len(first) else first
        limit = duplicates.limit_of(cells[alone[~duplicates.flat(cells[alone])]])
        for pairs in duplicates.near(cells[rows], limit, progress):
            table.near(pairs)
        return Copies(
            limit,
            tuple(self._leaks(table, names, rows, np.bincount(split, minlength=len(names)))),
            {name: int((weight[table.split == i] - 1).sum()) for i, name in enumerate(names)},
            {name: table.redundant(i) for i, name in enumerate(names)},
            *self._conflicts(first),
            int(blank.sum()),
        )

    def _leaks(self, table: _Table, names: Sequence[str], rows: Rows, sizes: Rows) -> Iterator[Leak]:
        for later in range(1, len(names)):
            ours = table.split == later
            for earlier in range(later):
                distance = np.where(ours, table.distance[:, earlier], np.inf)
                exact = ours & (table.same[:, earlier] >= 0)
                near = ~exact & np.isfinite(distance)
                if not (exact.any() or near.any()):
                    continue
                other = np.where(exact, table.same[:, earlier], table.other[:, earlier])
                apart = np.where(exact, 0.0, distance)
                order = np.argsort(apart, kind="stable")[: min(EXAMPLES, int((exact | near).sum()))]
                yield Leak(
                    names[earlier],
                    names[later],
                    int(table.weight[exact].sum()),
                    int(table.weight[near].sum()),
                    int(sizes[later]),
                    tuple((self.ids[rows[u]], self.ids[rows[other[u]]], round(float(apart[u]), 4)) for u in order),
                )

    def _conflicts(self, first: Rows) -> tuple[tuple[tuple[str, ...], ...], int]:
        """Sets of equal pictures that have several labels."""
        labels: dict[int, set[str]] = {}
        for i, label in zip(first.tolist(), self._labels, strict=True):
            if label:
                labels.setdefault(i, set()).add(label)
        torn = [i for i, found in labels.items() if len(found) > 1]
        shown = [tuple(self.ids[row] for row in np.flatnonzero(first == i)[:EXAMPLES]) for i in torn[:EXAMPLES]]
        return tuple(shown), len(torn)


class _Table:
    """What is known of units: the pictures of equal pixels in one split."""

    def __init__(self, splits: int, split: Rows, first: Rows, weight: Rows) -> None:
        self.split, self.first, self.weight = split, first, weight
        shape = (len(split), max(splits, 1))
        self.same = np.full(shape, -1, np.int64)
        self.distance = np.full(shape, np.inf, np.float32)
        self.other = np.full(shape, -1, np.int64)
        self._group = np.arange(len(split))
        self._edges: list[Rows] = []
        self._waiting = 0

    def exact(self, blank: npt.NDArray[np.bool_]) -> None:
        """Find units of equal pixels in other splits; blank ones tell nothing."""
        order = np.argsort(self.first, kind="stable")
        order = order[~blank[order]]
        for group in np.split(order, np.flatnonzero(np.diff(self.first[order])) + 1):
            if len(group) > 1:
                for unit in group:
                    self.same[group, self.split[unit]] = unit

    def near(self, pairs: duplicates.Pairs) -> None:
        """Take pairs of units that are near."""
        apart = self.split[pairs.one] != self.split[pairs.other]
        inside = ~apart
        if inside.any():
            self._edges.append(np.stack([pairs.one[inside], pairs.other[inside]]))
            self._waiting += int(inside.sum())
            if self._waiting > _EDGES:
                self._merge()
        for unit, other in ((pairs.one, pairs.other), (pairs.other, pairs.one)):
            u, o, d = unit[apart], other[apart], pairs.distance[apart]
            better = d < self.distance[u, self.split[o]]
            u, o, d = u[better], o[better], d[better]
            falling = np.argsort(-d, kind="stable")  # so that the nearest is written last
            u, o, d = u[falling], o[falling], d[falling]
            self.distance[u, self.split[o]] = d
            self.other[u, self.split[o]] = o

    def redundant(self, split: int) -> int:
        """Units of a split beyond the first of each group that is linked by nearness."""
        self._merge()
        ours = self._group[self.split == split]
        return len(ours) - len(np.unique(ours))

    def _merge(self) -> None:
        if not self._edges:
            return
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        edges = self._group[np.concatenate(self._edges, axis=1)]
        self._edges, self._waiting = [], 0
        count = len(self._group)
        graph = coo_array((np.ones(edges.shape[1], bool), (edges[0], edges[1])), shape=(count, count))
        _, found = connected_components(graph, directed=False)
        self._group = found[self._group]


def judge(copies: Copies, findings: Findings, train: str) -> None:
    """Say what copies spoil."""
    for leak in copies.leaks:
        ids = tuple(f"{one} is {other}" for one, other, _ in leak.examples)
        if leak.exact:
            found = Finding(
                "leak",
                f"split {leak.split!r}: {many(leak.exact, 'picture')} of {leak.of} "
                f"{'stands' if leak.exact == 1 else 'stand'} in split {leak.seen!r} too, pixel for pixel",
                "take them out of one of the two, or split again by a column that holds them together (data.group)",
                leak.exact,
                ids,
            )
            (findings.error if leak.exact > ALLOWED * leak.of else findings.warn)(found)
        if leak.near:
            findings.warn(
                Finding(
                    "near-leak",
                    f"split {leak.split!r}: {many(leak.near, 'picture')} of {leak.of} "
                    f"{'is' if leak.near == 1 else 'are'} nearly the same as one of split {leak.seen!r}",
                    "look at them; where they are copies, the figures flatter",
                    leak.near,
                    ids,
                )
            )
    if copies.conflicting:
        ids = tuple(" = ".join(one[:3]) for one in copies.conflicts)
        count = copies.conflicting
        what = f"labels: {many(count, 'set')} of equal pictures {'has' if count == 1 else 'have'} several labels"
        findings.warn(Finding("conflict", what, "settle which one is right", count, ids))
    twice = copies.exact.get(train, 0)
    if twice:
        what = f"split {train!r}: {many(twice, 'picture')} {'is' if twice == 1 else 'are'} there more than once"
        findings.warn(Finding("copies", what, "leave the copies out, or they count more than others", twice))
    if copies.blank:
        what = f"pictures: {copies.blank} {'is' if copies.blank == 1 else 'are'} of one colour"
        findings.warn(Finding("blank", what, "leave them out unless they are meant", copies.blank))
