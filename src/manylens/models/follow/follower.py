"""One object, followed from frame to frame: looked for where it should be, and everywhere once it is lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from manylens.models.dense import matching
from manylens.models.dense.grids import cover, unit
from manylens.models.follow.memory import Memory, Seen
from manylens.models.follow.outline import refined
from manylens.models.follow.views import View

ROOM = 2.0
"""A view is so many times as wide and high as the object: it may move by half its size between frames."""

RADIUS = 0.35
"""How far a patch may move in a view, as a share of its side, while the object is in sight."""

LEAST_LIKE = 0.28
"""Share of the usual margin below which what is seen is taken for something else."""

LEAST_AREA = 0.05
"""Share of the area before below which the object is taken to be out of sight."""

_STEADY = 0.7  # how much of the last motion is expected again
_SHRINKING = 0.2  # how much of the area that is remembered comes from each new frame

Encoder = Callable[[np.ndarray], np.ndarray]
"""RGB uint8 ``(H, W, 3)`` to patch features float32 ``(rows, columns, D)`` over the whole of it."""


@dataclass(frozen=True, eq=False)
class Sight:
    """What a frame shows of an object.

    Attributes:
        soft: float32 ``(H, W)`` in 0..1: how surely each pixel is the object.
        score: 0..1: how like the object of the first frame it is.
    """

    soft: np.ndarray
    score: float


class Follower:
    """Follows one object through frames of one size, in either direction.

    Args:
        rgb: The frame where it is known, uint8 ``(H, W, 3)``.
        mask: Its mask there, bool ``(H, W)``, not empty.
        near: Encodes a view of a frame.
        wide: Encodes a whole frame, for a lost object.
        whole: What ``wide`` gave for the first frame.
        seed: Of GrabCut's colours.
    """

    def __init__(
        self, rgb: np.ndarray, mask: np.ndarray, *, near: Encoder, wide: Encoder, whole: np.ndarray, seed: int = 0
    ) -> None:
        self._near, self._wide, self._seed = near, wide, seed
        self._size = (rgb.shape[1], rgb.shape[0])
        self._view = View.around(mask, ROOM)
        x0, y0, x1, y1 = box = self._view.inside(self._size)
        features = near(rgb[y0:y1, x0:x1])
        grid = (features.shape[0], features.shape[1])
        share = cover(mask[y0:y1, x0:x1], grid)
        # A thing thinner than a patch covers none by half: the most that it covers then stands for all.
        most = float(share.max())
        self._thin = most < 0.8
        labels = np.minimum(share / most, 1).ravel() if self._thin else share.ravel()
        self._memory = Memory(Seen(unit(features), self._view.places(box, grid), labels))
        self._usual = max(self._memory.usual(), 1e-3)
        self._example = matching.Shown(whole, cover(mask, (whole.shape[0], whole.shape[1])))
        self._motion = (0.0, 0.0)
        self._area = float(mask.sum())
        self.lost = False

    def step(self, rgb: np.ndarray) -> Sight | None:
        """The object in the next frame; None where it is out of sight."""
        found = None
        if not self.lost:
            here = self._view.at(self._view.x + self._motion[0], self._view.y + self._motion[1])
            found = self._look(rgb, here, RADIUS)
        if found is None:
            again = self._search(rgb)
            found = self._look(rgb, again, None) if again is not None else None
        if found is None:
            self.lost, self._motion = True, (0.0, 0.0)
            return None
        sight, seen = found
        mask = sight.soft > 0.5
        view = View.around(mask, ROOM)
        if not self.lost:
            self._motion = (_STEADY * (view.x - self._view.x), _STEADY * (view.y - self._view.y))
        self.lost, self._view = False, view
        self._area += _SHRINKING * (float(mask.sum()) - self._area)
        self._memory.recent.append(seen)
        return sight

    def _look(self, rgb: np.ndarray, view: View, radius: float | None) -> tuple[Sight, Seen] | None:
        """What a view shows; None where that is not the object."""
        x0, y0, x1, y1 = box = view.inside(self._size)
        features = self._near(rgb[y0:y1, x0:x1])
        grid = (features.shape[0], features.shape[1])
        flat, places = unit(features), view.places(box, grid)
        labels = self._memory.labels(flat, places, radius)
        seen = Seen(flat, places, labels)
        likeness = self._memory.margin(seen.inside()) / self._usual
        if likeness < LEAST_LIKE:
            return None
        soft = np.zeros(rgb.shape[:2], np.float32)
        soft[y0:y1, x0:x1] = refined(rgb[y0:y1, x0:x1], labels.reshape(grid), thin=self._thin, seed=self._seed)
        if np.count_nonzero(soft > 0.5) < max(1.0, LEAST_AREA * self._area):
            return None
        return Sight(soft, float(np.clip(likeness, 0, 1))), seen

    def _search(self, rgb: np.ndarray) -> View | None:
        """Where in a whole frame the object may be: around the patches most like it in the first frame."""
        plane = matching.scores(self._wide(rgb), [[self._example]])[0]
        count, parts, _, middles = cv2.connectedComponentsWithStats((plane > 0.5).astype(np.uint8))
        if count < 2:
            return None
        weights = np.bincount(parts.ravel(), plane.ravel(), count)
        best = 1 + int(weights[1:].argmax())
        x, y = middles[best] + 0.5
        return self._view.at(x * self._size[0] / plane.shape[1], y * self._size[1] / plane.shape[0])
