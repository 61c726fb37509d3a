"""The methods by name, and what they can be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from manylens.errors import PromptError

Method = Literal["attention", "rollout", "heads", "grad-cam", "integrated-gradients", "occlusion", "rise"]
Baseline = Literal["mean", "black", "blur"]

METHODS: tuple[Method, ...] = get_args(Method)
ATTENTION: tuple[Method, ...] = ("attention", "rollout", "heads")
GRADIENT: tuple[Method, ...] = ("grad-cam", "integrated-gradients")
BLACK_BOX: tuple[Method, ...] = ("occlusion", "rise")


@dataclass(frozen=True)
class Options:
    """What a method can be told; each reads what is its own.

    Attributes:
        masks: RISE: random masks.
        grid: RISE: cells of a mask along a side.
        keep: RISE: the share of cells that stay seen.
        steps: Integrated gradients: points on the way from the baseline.
        window: Occlusion: side of the covered square, as a share of the picture's shorter side.
        stride: Occlusion: how far the square moves, as a share of its side. None takes a half; for a black box more,
            up to a whole side, where a half would ask the model more than 150 times.
        baseline: What stands for "nothing there": the picture's ``mean`` colour, ``black``, or the picture under a
            heavy ``blur``. None takes what each method's paper takes: black for integrated gradients, else the mean.
        layer: Grad-CAM: the tap to look at; None takes the last whose places the score still depends on.
        discard: Rollout: the share of each token's attention, the weakest first, that is set to nothing.
        mass: Heads: the share of a head's attention that its region holds.
        batch: Pictures that are looked at together; more costs memory.

    Raises:
        PromptError: A value is out of its range.
    """

    masks: int = 500
    grid: int = 7
    keep: float = 0.5
    steps: int = 64
    window: float = 1 / 6
    stride: float | None = None
    baseline: Baseline | None = None
    layer: str | None = None
    discard: float = 0.0
    mass: float = 0.6
    batch: int = 16

    def __post_init__(self) -> None:
        for name in ("masks", "grid", "steps", "batch"):
            if getattr(self, name) < 1:
                raise PromptError(f"{name}: {getattr(self, name)} is too few", "give 1 or more")
        for name in ("keep", "window", "stride", "mass"):
            share = getattr(self, name)
            if share is not None and not 0 < share <= 1:
                raise PromptError(f"{name}: {share:g} is no share", "give more than 0 and at most 1")
        if not 0 <= self.discard < 1:
            raise PromptError(f"discard: {self.discard:g} is no share", "give 0 or more and less than 1")
        if self.baseline is not None and self.baseline not in get_args(Baseline):
            raise PromptError(f"baseline: {self.baseline!r} is none", f"give one of {', '.join(get_args(Baseline))}")
