"""Memorisation: does a generative model give its training pictures back?

Each made picture is held against its nearest training pictures, by features (Somepalli et al. 2023) and then by pixels,
which tell a copy from a likeness. A nearest one much nearer than the next stands out (Carlini et al. 2023). Real
pictures that the model never saw are the control: are made pictures nearer to the training data than these are (the
three-sample test of Meehan, Chaudhuri and Dasgupta 2020, in one cell)?
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from manylens.audit.control import Control
from manylens.audit.ranking import BoolArray, Ranking
from manylens.audit.writing import write
from manylens.data.problems import Problems
from manylens.evaluation.details import curve
from manylens.evaluation.intervals import Estimate
from manylens.evaluation.results import finite
from manylens.evaluation.tally import FloatArray, Tally, ratio
from manylens.version import __version__

LEAST = 20
"""Made pictures, and held-out ones, below which little can be said."""

Kind = Literal["copy", "likeness", ""]
Level = Literal["copies", "closer", "alike", "none"]

CLOSER, NEAREST, Z = "closer than held-out", "nearest is training", "Mann-Whitney z"
_STANDS_OUT = 0.5  # as Carlini et al. weigh the mean of the next neighbours
_UNLIKELY = -3.0  # the z below which Meehan et al. speak of copying
_AT_ONCE = 4_000_000
_POINTS = 50

ABOUT = {
    "copies": "share of made pictures whose pixels are those of a training picture, as those of others are not",
    "stand out": "share less than half as far from the nearest training picture as from the next ones on average",
    "too close": "share closer to a training picture than all but a few of the held-out ones are",
    "likenesses": "share that is too close, but no copy by pixels",
    NEAREST: "share whose nearest of all real pictures is a training one",
    CLOSER: "chance that a made picture is nearer to the training data than a held-out one is; by chance 0.5",
    Z: "the same as a normal deviate; below -3 is copying, as Meehan et al. read it",
    "distance": "mean distance (1 - cosine) to the nearest training picture",
}
"""What each figure says."""

CAVEATS = (
    "what was looked at are these made pictures: a model may give back others when it is asked for them",
    "a copy is told by all of its pixels: a part of a training picture, pasted into another, is a likeness at most",
)
"""What a reader must know of every such audit."""


@dataclass(frozen=True, eq=False)
class MemorisationTally(Tally):
    """Made pictures with what is nearest to them; the control is fixed, so intervals know nothing of how it was drawn.

    Attributes:
        distance: float64 ``(n,)``: 1 - cosine to the nearest training picture.
        ratio: float64 ``(n,)``: that by the mean distance of the next neighbours; NaN where there are none.
        copied: bool ``(n,)``: whether pixels say that it is a copy.
        other: float64 ``(n,)``: distance to the nearest held-out picture; empty where there is no control.
        held: float64 ``(m,)``: distance of each held-out picture to its nearest training picture.
        threshold: Distance below which a picture is too close; NaN where there is no control.
        trained: How many training pictures there are.
    """

    measure: ClassVar[str] = "memorisation"
    main: ClassVar[str] = "copies"
    lower_is_better: ClassVar[frozenset[str]] = frozenset(
        {"copies", "stand out", "too close", "likenesses", CLOSER, NEAREST}
    )

    distance: FloatArray = field(default_factory=lambda: np.zeros(0))
    ratio: FloatArray = field(default_factory=lambda: np.zeros(0))
    copied: BoolArray = field(default_factory=lambda: np.zeros(0, bool))
    other: FloatArray = field(default_factory=lambda: np.zeros(0))
    held: FloatArray = field(default_factory=lambda: np.zeros(0))
    threshold: float = math.nan
    trained: int = 0

    def figures(self, weights: FloatArray) -> dict[str, FloatArray]:
        """What :data:`ABOUT` says; those that need a control are left away where there is none."""
        total, known = weights.sum(axis=1), ~np.isnan(self.ratio)
        found = {
            "copies": ratio(weights @ self.copied.astype(float), total),
            "stand out": ratio(weights @ (known & (self.ratio < _STANDS_OUT)).astype(float), weights @ known),
        }
        if len(self.held):
            nearer = (self.distance < self.other) + 0.5 * (self.distance == self.other)
            closer, z = self._against_held(weights)
            found |= {
                "too close": ratio(weights @ self.close.astype(float), total),
                "likenesses": ratio(weights @ (self.close & ~self.copied).astype(float), total),
                NEAREST: ratio(weights @ nearer, total),
                CLOSER: closer,
                Z: z,
            }
        return found | {"distance": ratio(weights @ self.distance, total)}

    def details(self) -> dict[str, Any]:
        """How far made and held-out pictures lie from the training data."""
        if not len(self.units):
            return {}
        top = max(float(self.distance.max()), float(self.held.max(initial=0.0)), 1e-6)
        at = np.linspace(0, top, _POINTS + 1)
        lines = {
            name: (at.tolist(), (np.searchsorted(np.sort(values), at, side="right") / len(values)).tolist())
            for name, values in (("made", self.distance), ("held-out", self.held))
            if len(values)
        }
        title = "Distance to the nearest training picture"
        return {"distances": curve(title, "distance (1 - cosine)", "share of pictures within", lines)}

    def scores(self) -> FloatArray:
        """Distance to the nearest training picture; 1 less for a copy, so that copies come first."""
        return self.distance - self.copied

    @property
    def close(self) -> BoolArray:
        """``(n,)``: whether a picture is too close."""
        return self.distance < (self.threshold if not math.isnan(self.threshold) else -math.inf)

    @property
    def chance(self) -> float:
        """Share of made pictures whose nearest real picture would be a training one if that were a matter of number."""
        total = self.trained + len(self.held)
        return self.trained / total if total else math.nan

    def kind(self, place: int) -> Kind:
        """What a made picture is."""
        return "copy" if self.copied[place] else "likeness" if self.close[place] else ""

    def _against_held(self, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
        made, held = len(self.distance), len(self.held)
        values = -np.concatenate([self.distance, self.held])
        member = np.arange(made + held) < made
        rows = max(1, _AT_ONCE // (made + held))
        closer, z = np.empty(len(weights)), np.empty(len(weights))
        for start in range(0, len(weights), rows):
            part = slice(start, start + rows)
            block = weights[part]
            ranking = Ranking.of(values, member, np.hstack([block, np.ones((len(block), held))]))
            closer[part], z[part] = ranking.auc(), -ranking.z()
        return closer, z


@dataclass(frozen=True)
class Pair:
    """A made picture beside the training picture that it is a copy of, or else the nearest one.

    Attributes:
        made: Id of the made picture.
        train: Id of the training picture.
        made_path: Its file.
        train_path: Its file.
        distance: 1 - cosine of their features.
        ratio: See :class:`MemorisationTally`.
        pixels: Distance by pixels, NaN where one cannot be read; see :class:`manylens.audit.copies.Likeness`.
        bits: Of 64, how many differ in their hashes.
        mirrored: Whether one is mirrored.
        kind: ``copy`` by pixels; ``likeness``, too close by features alone; or neither.
    """

    made: str
    train: str
    made_path: str
    train_path: str
    distance: float
    ratio: float
    pixels: float
    bits: int
    mirrored: bool
    kind: Kind


@dataclass(frozen=True, eq=False)
class Memorisation:
    """The audit.

    Attributes:
        tally: What it rests on.
        figures: Every figure with its interval.
        pairs: The worst first: all copies and likenesses, and some more.
        model: That made the features.
        made: Name of the made pictures.
        train: Name of the training data.
        problems: What was left out.
        notes: What a reader should know, beside :data:`CAVEATS`.
        control: Whether pixels tell copies from likenesses here.
    """

    tally: MemorisationTally
    figures: Mapping[str, Estimate]
    pairs: Sequence[Pair]
    model: str
    made: str
    train: str
    problems: Problems = field(default_factory=Problems)
    notes: Sequence[str] = ()
    control: Control = field(default_factory=Control)

    @property
    def level(self) -> Level:
        """``copies``; ``closer``: nearer to the training data than chance has it; ``alike``: no telling; or ``none``.

        Pictures of a model that makes the typical only lie near to all data. So they must be nearer to the training
        data than held-out ones are, and have their nearest real picture there more often than its size explains.
        """
        if self.tally.copied.any():
            return "copies"
        other: Level = "none" if self.control.tells else "alike"
        if not len(self.tally.held) or min(len(self.tally.units), len(self.tally.held)) < LEAST:
            return other
        near = self.figures[Z].value <= _UNLIKELY
        return "closer" if near and self.figures[NEAREST].low > self.tally.chance else other

    @property
    def verdict(self) -> str:
        """The outcome in a sentence."""
        copies, count = int(self.tally.copied.sum()), len(self.tally.units)
        whole = f"{count} made picture{'' if count == 1 else 's'}"
        if self.level == "copies":
            said = "is a copy of a training picture" if copies == 1 else "are copies of training pictures"
            return f"{copies} of {whole} {said} (share {self.figures['copies']})"
        none = f"no copy of a training picture among {whole}"
        if not self.control.tells:
            none = (
                f"the pictures of this kind are too alike to tell copies ({self.control.alike} of "
                f"{self.control.pictures} {self.control.whose} pictures would pass for one); "
                f"none of {whole} is near exact"
            )
        if not len(self.tally.held):
            return f"{none}; without held-out pictures nothing more can be said"
        near = f"{CLOSER} {self.figures[CLOSER]}, z {self.figures[Z].value:.1f}"
        if self.level == "closer":
            return f"{none}, but they lie closer to the training pictures than held-out ones do ({near})"
        return f"{none}, and no evidence that they lie closer to the training data than held-out ones do ({near})"

    def to_json(self) -> dict[str, Any]:
        """Plain, NaN as None."""
        plain: dict[str, Any] = finite(
            {
                "version": __version__,
                "model": self.model,
                "made": {"name": self.made, "pictures": len(self.tally.units)},
                "train": {"name": self.train, "pictures": self.tally.trained},
                "held_out": {"pictures": len(self.tally.held)},
                "control": {**vars(self.control), "tells": self.control.tells},
                "threshold": self.tally.threshold,
                "chance": self.tally.chance,
                "level": self.level,
                "verdict": self.verdict,
                "figures": {name: one.to_json() for name, one in self.figures.items()},
                "pairs": [vars(one) for one in self.pairs],
                "details": self.tally.details(),
                "notes": [*self.notes, *CAVEATS],
                "problems": self.problems.to_json(),
            }
        )
        return plain

    def save(self, folder: str | Path) -> list[Path]:
        """Write ``memorisation.json``, the page ``memorisation.html`` and ``tally.npz``."""
        from manylens.audit.privacy_page import memorisation_page

        return write(folder, "memorisation", self.to_json(), memorisation_page(self), self.tally)
