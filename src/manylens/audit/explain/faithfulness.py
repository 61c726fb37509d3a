"""Does the score go where the map points? Deletion and insertion (Petsiuk et al., 2018)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from manylens.audit.explain.options import Baseline
from manylens.audit.explain.pictures import blended, emptied, resized
from manylens.audit.explain.score import Score
from manylens.media import Image


@dataclass(frozen=True)
class Curve:
    """Scores while pixels go, or come.

    Attributes:
        shares: The share of pixels that is taken away (deletion) or shown (insertion), 0..1.
        scores: The score at each.
    """

    shares: tuple[float, ...]
    scores: tuple[float, ...]

    @property
    def area(self) -> float:
        """The area under the curve: the mean score on the way."""
        return float(np.trapezoid(self.scores, self.shares))


@dataclass(frozen=True)
class Faithfulness:
    """How well a map tells which pixels the score rests on.

    Attributes:
        deletion: Strongest pixels taken first; a good map makes the score fall soon, so a small area is good.
        insertion: Strongest pixels shown first; a large area is good.
        random_deletion: The same with pixels in random order: what a map without knowledge gets.
        random_insertion: Likewise.
    """

    deletion: Curve
    insertion: Curve
    random_deletion: Curve
    random_insertion: Curve

    @property
    def better_than_random(self) -> bool:
        """Whether the map beats a random one in both."""
        return self.deletion.area < self.random_deletion.area and self.insertion.area > self.random_insertion.area

    @property
    def verdict(self) -> str:
        """What follows, in a line."""
        return "better than a random map" if self.better_than_random else "no better than a random map: do not trust it"

    def to_json(self) -> dict[str, Any]:
        """JSON-ready: areas and curves."""
        names = ("deletion", "insertion", "random_deletion", "random_insertion")
        return {name: {"area": getattr(self, name).area, **vars(getattr(self, name))} for name in names} | {
            "better_than_random": self.better_than_random,
            "verdict": self.verdict,
        }


def faithfulness(
    image: Image,
    values: np.ndarray,
    score: Score,
    *,
    steps: int = 24,
    batch: int = 16,
    seed: int = 0,
    progress: Callable[[float, str], None] | None = None,
) -> Faithfulness:
    """Measure a map, beside a random one.

    Args:
        image: The picture.
        values: The map, ``(h, w)`` of any size, higher for what counts more.
        score: What the map explains.
        steps: Steps from the whole picture to none.
        batch: Pictures scored together.
        seed: Of the random map, coarse like most maps are.
        progress: Told the fraction done.
    """
    chance = np.random.default_rng(seed).random((14, 14)).astype(np.float32)
    asked: list[tuple[np.ndarray, Literal["deletion", "insertion"]]] = [
        (one, kind) for one in (values, chance) for kind in ("deletion", "insertion")
    ]
    curves = []
    for number, (one, kind) in enumerate(asked):
        if progress is not None:
            progress(number / len(asked), f"check by {kind}, {len(asked) * (steps + 1)} calls in all")
        curves.append(curve(image, one, score, kind, steps=steps, batch=batch))
    return Faithfulness(*curves)


def curve(
    image: Image,
    values: np.ndarray,
    score: Score,
    kind: Literal["deletion", "insertion"],
    *,
    baseline: Baseline | None = None,
    steps: int = 24,
    batch: int = 16,
) -> Curve:
    """The score while pixels are taken away, or shown, in the order of a map.

    Args:
        image: The picture.
        values: The map, ``(h, w)``; ties go by place, from the top left.
        score: What the map explains.
        kind: ``deletion`` starts with the whole picture, ``insertion`` with nothing of it.
        baseline: What is seen where a pixel is not: default the mean colour for deletion, a blur for insertion, which
            leaves no edges that are not in the picture.
        steps: How many.
        batch: Pictures scored together.
    """
    empty = emptied(image, baseline or ("mean" if kind == "deletion" else "blur"))
    shape = (image.height, image.width)
    order = np.argsort(-resized(values, shape), axis=None, kind="stable")
    rank = np.empty(order.size, dtype=np.int64)
    rank[order] = np.arange(order.size)
    counts = np.linspace(0, order.size, steps + 1).round().astype(int)
    scores: list[float] = []
    for start in range(0, len(counts), batch):
        chosen = [(rank < count).reshape(shape) for count in counts[start : start + batch]]
        pictures = [blended(image, empty, ~mask if kind == "deletion" else mask) for mask in chosen]
        scores.extend(np.asarray(score(pictures), dtype=float).tolist())
    return Curve(tuple((counts / order.size).tolist()), tuple(scores))
