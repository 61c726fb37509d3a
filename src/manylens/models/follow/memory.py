"""What a tracker remembers of an object, and how a new view takes its labels from it.

The labels are carried as by Jabri et al. 2020 and DINO (Caron et al. 2021), in views that go with the object: the first
view says what the object is, the last ones how it looks now.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from manylens.models.dense.matching import likeness

NEIGHBOURS = 7
"""How many patches each patch takes its label from."""

TEMPERATURE = 0.07
"""A cosine ``c`` weighs ``exp(c / temperature)``."""

RECENT = 3
"""Views that are kept beside the first."""


@dataclass(frozen=True, eq=False)
class Seen:
    """The patches of a view.

    Attributes:
        features: float32 ``(n, D)`` of length 1.
        places: float32 ``(n, 2)``: where they lie in the view, see :meth:`manylens.models.follow.views.View.places`.
        labels: float32 ``(n,)``: how much of each is the object, 0..1.
    """

    features: np.ndarray
    places: np.ndarray
    labels: np.ndarray

    def inside(self) -> np.ndarray:
        """Patches of the object ``(k, D)``; none where it is not there."""
        return self.features[self.labels > 0.5]

    def beside(self) -> np.ndarray:
        """Patches of what is around it ``(k, D)``."""
        return self.features[self.labels < 0.05]


@dataclass
class Memory:
    """The first view of an object and the last few; its size does not grow with the video."""

    first: Seen
    recent: deque[Seen] = field(default_factory=lambda: deque(maxlen=RECENT))

    def labels(self, features: np.ndarray, places: np.ndarray, radius: float | None) -> np.ndarray:
        """How much of each patch of a new view is the object: float32 ``(m,)`` in 0..1.

        Args:
            features: float32 ``(m, D)`` of length 1.
            places: float32 ``(m, 2)``.
            radius: How far a patch may have moved in the view, as a share of its side; None for any way.
        """
        known = [self.first, *self.recent]
        there, marks = (np.concatenate([getattr(one, name) for one in known]) for name in ("features", "labels"))
        cosines = features @ there.T
        if radius is not None:
            before = np.concatenate([one.places for one in known])
            cosines[np.abs(places[:, None] - before[None]).max(axis=2) > radius] = -1  # as unlike as can be
        most = min(NEIGHBOURS, len(there))
        nearest = np.argpartition(-cosines, most - 1, axis=1)[:, :most]
        near = np.take_along_axis(cosines, nearest, axis=1)
        weights = np.exp((near - near.max(axis=1, keepdims=True)) / TEMPERATURE)
        return np.asarray((weights * marks[nearest]).sum(axis=1) / weights.sum(axis=1), np.float32)

    def margin(self, inside: np.ndarray) -> float:
        """How much more patches are like the object of the first view than like what was around it there.

        Args:
            inside: float32 ``(k, D)`` of length 1; with none, the answer is -1.
        """
        return self._margin(inside, 3) if len(inside) else -1.0

    def usual(self) -> float:
        """The margin of the object's own patches, each held against the others: what a sure sight is like."""
        return self._margin(self.first.inside(), 4)

    def _margin(self, asked: np.ndarray, neighbours: int) -> float:
        beside = self.first.beside()
        like = likeness(asked, self.first.inside(), neighbours)
        return float((like - likeness(asked, beside, 3)).mean() if len(beside) else like.mean())
