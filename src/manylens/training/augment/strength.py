"""How strongly pictures of a class are changed: the rarer it is, the more."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def strengths(counts: Sequence[int], strength: float, rare: float) -> npt.NDArray[np.float64]:
    """The strength of each class: ``strength`` for the most frequent, ``rare`` times as much for the rarest.

    Between them it goes with the logarithm of the count; it is at most 1, the full range of every operation.

    Args:
        counts: Training examples of each class; classes without any count as the rarest.
        strength: 0..1.
        rare: 1 or more.

    Returns:
        ``(classes,)``.
    """
    found = np.maximum(np.asarray(counts, np.float64), 1)
    if not len(found):
        return found
    depth = np.log(found.max() / found)
    share = depth / depth.max() if depth.max() > 0 else depth
    return np.minimum(strength * rare**share, 1.0)
