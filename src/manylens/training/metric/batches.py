"""An epoch's order in which pictures of a class come together, so that a step has some of each class that it has."""

from __future__ import annotations

import numpy as np

from manylens.models.dense.neighbours import IntArray

_WORD = 0x6B0F  # keeps these draws apart from others of the same seed and epoch


def grouped(order: IntArray, labels: IntArray, per_class: int, *, seed: int, epoch: int) -> IntArray:
    """The same things in an order in which so many of one class come together.

    The groups of a class are spread evenly over the epoch, so that those around a group are of other classes as far as
    there are others. The last group of a class may be smaller; a step that ends within a group parts it.

    Args:
        order: int64 ``(n,)``, numbers of pictures as they were drawn.
        labels: int64 ``(n,)``, the class of each of them.
        per_class: How many come together; 1 leaves the order as it is.
        seed: Of the run.
        epoch: Its number, from 0.

    Returns:
        int64 ``(n,)``.
    """
    if per_class == 1 or not len(order):
        return order
    random = np.random.default_rng((seed, epoch, _WORD))
    by_class = np.argsort(labels, kind="stable")  # within a class as drawn
    counts = np.bincount(labels)
    of = labels[by_class]
    group = (np.arange(len(order)) - (np.cumsum(counts) - counts)[of]) // per_class  # number within the class
    groups = -(-counts // per_class)
    # Each group has a place at random within its share of the epoch.
    first = np.cumsum(groups) - groups
    jitter = random.random(int(groups.sum()))[first[of] + group]
    return order[by_class][np.argsort((group + jitter) / groups[of], kind="stable")]
