"""Region hierarchies: superpixels merged step by step, weakest boundary first (UCM; Arbelaez et al., TPAMI 2011).

A boundary's weight joins the mean edge probability along it with the distance of the two regions' mean patch
features; the weight of small regions is lowered so that specks are absorbed early.
"""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np

from manylens.models.regions.superpixels import Adjacency


class Tree(NamedTuple):
    """A binary merge tree over N superpixels; nodes 0..N-1 are the leaves, node 2N-2 is the whole picture.

    Attributes:
        parent: int32 (2N-1,), the node each node is merged into, -1 for the root.
        rank: int32 (N,), place of each leaf in an order in which every node is one run of leaves.
        span: int32 (2N-1, 2), that run of each node, end exclusive.
    """

    parent: np.ndarray
    rank: np.ndarray
    span: np.ndarray

    def members(self, nodes: np.ndarray) -> np.ndarray:
        """Superpixels of the given nodes, bool (len(nodes), N)."""
        start, stop = self.span[nodes, 0, None], self.span[nodes, 1, None]
        return (self.rank[None] >= start) & (self.rank[None] < stop)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sum of a value per superpixel (N,) over every node, float64 (2N-1,)."""
        ordered = np.empty(len(values))
        ordered[self.rank] = values
        cumulative = np.concatenate([[0.0], np.cumsum(ordered)])
        return cumulative[self.span[:, 1]] - cumulative[self.span[:, 0]]

    def cut(self, count: int) -> np.ndarray:
        """The partition into ``count`` regions on the way up, as int32 (N,): region 0..count-1 of each leaf."""
        leaves = len(self.rank)
        last = 2 * leaves - min(count, leaves)  # nodes from here on do not exist yet
        above = np.where((self.parent >= 0) & (self.parent < last), self.parent, np.arange(len(self.parent)))
        top = above[:leaves]
        while not np.array_equal(above[top], top):
            top = above[top]
        return np.unique(top, return_inverse=True)[1].astype(np.int32)

    def ancestors(self, leaf: int) -> np.ndarray:
        """The leaf and all nodes above it, from small to large."""
        path = [leaf]
        while self.parent[path[-1]] >= 0:
            path.append(int(self.parent[path[-1]]))
        return np.array(path)


def merge_tree(
    graph: Adjacency, sizes: np.ndarray, features: np.ndarray, *, feature_weight: float, size_power: float
) -> Tree:
    """Merge touching regions greedily; the cost of a pair is
    ``(mean edge + feature_weight * feature distance) * (smaller size / picture size) ** size_power``.

    Args:
        graph: the superpixels' adjacency.
        sizes: float32 (N,) pixels of each superpixel.
        features: float32 (N, D), mean feature of each superpixel; means are kept up while merging.
        feature_weight: weight of the Euclidean feature distance against the edge probability (0..1).
        size_power: 0 ignores size; larger values merge small regions earlier.
    """
    count = len(sizes)
    area = np.concatenate([sizes, np.zeros(count - 1)]) / sizes.sum()
    mean = np.concatenate([features, np.zeros((count - 1, features.shape[1]), np.float32)]).astype(np.float32)
    neighbours: list[dict[int, tuple[float, float]]] = [{} for _ in range(count)]
    for (a, b), length, strength in zip(
        graph.pairs.tolist(), graph.length.tolist(), graph.strength.tolist(), strict=True
    ):
        neighbours[a][b] = neighbours[b][a] = (length, length * strength)

    def costs(edge: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        difference = mean[one] - mean[other]
        distance = np.sqrt(np.einsum("ij,ij->i", difference, difference)) if feature_weight else 0.0
        return (edge + feature_weight * distance) * np.minimum(area[one], area[other]) ** size_power

    pairs = graph.pairs
    queue = list(zip(costs(graph.strength, pairs[:, 0], pairs[:, 1]).tolist(), *pairs.T.tolist(), strict=True))
    heapq.heapify(queue)
    alive = [True] * count + [False] * (count - 1)
    children: list[tuple[int, int]] = []
    node = count
    while queue and node < 2 * count - 1:
        _, a, b = heapq.heappop(queue)
        if not (alive[a] and alive[b]):
            continue
        alive[a] = alive[b] = False
        alive[node] = True
        children.append((a, b))
        area[node] = area[a] + area[b]
        mean[node] = (mean[a] * area[a] + mean[b] * area[b]) / area[node]
        joined, rest = neighbours[a], neighbours[b]
        del joined[b], rest[a]
        if len(joined) < len(rest):
            joined, rest = rest, joined
        for other, (length, total) in rest.items():
            if other in joined:
                length, total = length + joined[other][0], total + joined[other][1]
            joined[other] = (length, total)
        neighbours.append(joined)
        for other, link in joined.items():
            near = neighbours[other]
            near.pop(a, None)
            near.pop(b, None)
            near[node] = link
        if joined:
            others = np.fromiter(joined, np.int64, len(joined))
            link_table = np.array(list(joined.values()))
            cost = costs(link_table[:, 1] / link_table[:, 0], np.full(len(others), node), others)
            for c, other in zip(cost.tolist(), others.tolist(), strict=True):
                heapq.heappush(queue, (c, other, node))
        node += 1
    return _layout(count, children)


def _layout(count: int, children: list[tuple[int, int]]) -> Tree:
    """Parents, leaf order and spans from the list of merges (the i-th merge made node ``count + i``)."""
    total = 2 * count - 1
    parent = np.full(total, -1, np.int32)
    width = [1] * count
    for i, (a, b) in enumerate(children):
        parent[a] = parent[b] = count + i
        width.append(width[a] + width[b])
    start = [0] * total
    for i in range(len(children) - 1, -1, -1):  # parents before children
        a, b = children[i]
        start[a], start[b] = start[count + i], start[count + i] + width[a]
    span = np.array([start, np.add(start, width)], np.int32).T
    return Tree(parent, span[:count, 0].copy(), np.ascontiguousarray(span))
