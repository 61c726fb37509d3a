"""Are copies told from likenesses here at all? Pictures that are no copies of training pictures say so.

Pixels tell a copy of a photograph; two drawings of one digit, on one black ground, agree as well. So pictures that are
none are held against the training data too: held-out ones, or training pictures against the others. Where these pass
for copies, only what lies far nearer than they do is called one.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from manylens.audit.copies import Likeness
from manylens.data.records import Record
from manylens.evaluation.tally import FloatArray

NEAR_EXACT = 0.15
"""Distance by pixels up to which a picture is another one for certain, whatever its kind."""
MOST_ALIKE = 0.05
"""Share of the control that may pass for copies where copies can be told."""

_LOW = 0.05  # quantile of the control's distances
_FAR_NEARER = 0.5  # as Carlini et al. ask of a nearest picture that stands out

Whose = Literal["held-out", "training"]


@dataclass(frozen=True)
class Control:
    """How near pictures that are no copies come to training pictures, by pixels.

    Attributes:
        whose: Which pictures they are.
        pictures: How many.
        alike: How many of them pass for copies.
        limit: Distance by pixels that a copy must not pass; infinite where copies can be told.
    """

    whose: Whose = "held-out"
    pictures: int = 0
    alike: int = 0
    limit: float = math.inf

    @classmethod
    def of(cls, whose: Whose, found: Sequence[Likeness]) -> Control:
        """Measure the control; near exact ones are copies (or twins in the training data) and take no part."""
        known = [one for one in found if not math.isnan(one.distance) and one.distance > NEAR_EXACT]
        alike = sum(one.copy for one in known)
        if alike <= MOST_ALIKE * len(known):
            return cls(whose, len(known), alike)
        low = float(np.quantile([one.distance for one in known], _LOW))
        return cls(whose, len(known), alike, max(NEAR_EXACT, _FAR_NEARER * low))

    @property
    def tells(self) -> bool:
        """Whether copies can be told from likenesses."""
        return math.isinf(self.limit)

    def copy(self, found: Likeness) -> bool:
        """Whether a made picture is a copy."""
        return found.copy and found.distance <= self.limit


def in_both(made: Sequence[Record], held: Sequence[Record], distances: FloatArray) -> int:
    """How many made pictures are held-out ones, byte for byte.

    Args:
        made: The made pictures.
        held: The held-out ones.
        distances: ``(n,)``, of each made picture's features to the nearest held-out one's.
    """
    near = [record for record, distance in zip(made, distances, strict=True) if distance < 1e-5]
    if not near:
        return 0
    known = {_digest(record) for record in held} - {""}
    return sum(_digest(record) in known for record in near)


def _digest(record: Record) -> str:
    try:
        return hashlib.sha256(Path(str(record.path)).read_bytes()).hexdigest()
    except OSError:
        return ""
