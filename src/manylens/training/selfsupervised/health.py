"""Whether a self-supervised training has collapsed: all pictures alike, which the loss does not tell."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

_LEAST_SPREAD = 0.2  # deviation of unit vectors, where 1 is that of vectors in all directions
_LEAST_RANK = 2.0  # directions
_ONE_PROTOTYPE = 0.1  # entropy of the mean answer, as a share of that of all prototypes alike
_ALL_PROTOTYPES = 0.99  # entropy of single answers, likewise
_FEW = 8  # fewer pictures tell nothing


@dataclass(frozen=True)
class Health:
    """What tells a collapse.

    Attributes:
        pictures: How many it was judged by.
        spread: Standard deviation of the features of unit vectors, times the root of their number: near 1 where they
            point in all directions, 0 where all are the same.
        rank: In how many directions they point: the exponential of the entropy of the singular values of what is left
            when their mean is taken off (Roy & Vetterli, 2007); 0 where nothing is left.
        mean_entropy: Entropy of the teacher's mean answer as a share of the greatest; 1 where it was not asked.
        entropy: Mean entropy of its single answers, likewise; 0 where it was not asked.
    """

    pictures: int
    spread: float
    rank: float
    mean_entropy: float = 1.0
    entropy: float = 0.0

    def figures(self) -> dict[str, float]:
        """The numbers by name, for a log."""
        return {
            "spread": self.spread,
            "rank": self.rank,
            "mean_entropy": self.mean_entropy,
            "entropy": self.entropy,
        }

    def sentence(self) -> str:
        """What is wrong, with the remedy; empty where nothing is."""
        if self.pictures < _FEW:
            return ""
        if not all(map(math.isfinite, (self.spread, self.rank, self.mean_entropy, self.entropy))):
            return "the vectors of pictures are no numbers any more; lower the learning rate"
        if self.entropy > _ALL_PROTOTYPES:
            return (
                "collapsed: the teacher says the same of every picture, a bit of all prototypes "
                f"({self.entropy:.0%} of the greatest entropy); lower its temperature, or its warm-up"
            )
        if self.mean_entropy < _ONE_PROTOTYPE:
            return (
                "collapsed: the teacher votes for the same few prototypes whatever the picture "
                f"({self.mean_entropy:.0%} of the greatest entropy); switch centring on, or raise its temperature"
            )
        if self.spread < _LEAST_SPREAD or self.rank < _LEAST_RANK:
            return (
                "collapsed: the vectors of different pictures are nearly the same "
                f"(spread {self.spread:.2f} of 1, {self.rank:.1f} directions); "
                "lower the learning rate, raise the teacher's momentum, or add koleo"
            )
        return ""


@torch.no_grad()
def health(vectors: Tensor, mean_entropy: float = 1.0, entropy: float = 0.0) -> Health:
    """Judge the vectors of different pictures.

    Args:
        vectors: float ``(n, D)``.
        mean_entropy: See :class:`Health`.
        entropy: See :class:`Health`.
    """
    if len(vectors) < 2:
        return Health(len(vectors), 1.0, float(len(vectors)), mean_entropy, entropy)
    unit = functional.normalize(vectors.double(), dim=-1)
    left = unit - unit.mean(dim=0)
    spread = float(left.square().mean(dim=0).mean().sqrt()) * math.sqrt(unit.shape[1])
    return Health(len(vectors), spread, effective_rank(left), mean_entropy, entropy)


def effective_rank(table: Tensor) -> float:
    """The exponential of the entropy of the singular values of ``(n, D)`` as shares (Roy & Vetterli, 2007)."""
    if not torch.isfinite(table).all():
        return math.nan
    values = torch.linalg.svdvals(table)
    if float(values.sum()) < 1e-9 * max(len(table), 1):
        return 0.0
    return float(torch.special.entr(values / values.sum()).sum().exp())
