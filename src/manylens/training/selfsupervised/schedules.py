"""How the numbers of a self-supervised training go, as pure functions of the step (Caron et al., 2021, appendix)."""

from __future__ import annotations

import math
from dataclasses import dataclass


def cosine(step: int, total: int, start: float, end: float) -> float:
    """From ``start`` at step 0 to ``end`` at step ``total``, along half a cosine; ``end`` from there on."""
    share = min(max(step / total, 0.0), 1.0) if total > 0 else 1.0
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * share))


def ramp(step: int, steps: int, start: float, end: float) -> float:
    """From ``start`` at step 0 straight to ``end`` at step ``steps``; ``end`` from there on."""
    return end if step >= steps else start + (end - start) * step / steps


def usual_momentum(total: int) -> float:
    """Of a teacher that remembers about a tenth of so many steps: 0.9 or more, and 0.996 from 2,500 steps on."""
    return min(max(0.9, 1 - 10 / max(total, 1)), 0.996)


@dataclass(frozen=True)
class Schedule:
    """What changes while a student follows a teacher that follows it.

    Attributes:
        total: Steps of the whole training.
        per_epoch: Steps of an epoch.
        momentum: Share of itself that the teacher keeps in a step, at first; it rises to 1 along a cosine.
        temperature: Of the teacher's softmax after the warm-up.
        first_temperature: The same at the first step; a higher one than ``temperature`` sharpens less.
        warmup_epochs: In which the temperature goes from the one to the other.
        weight_decay: At first.
        last_weight_decay: At last, along a cosine.
        freeze_last_epochs: In which the head's last layer does not learn.
    """

    total: int
    per_epoch: int
    momentum: float = 0.996
    temperature: float = 0.04
    first_temperature: float = 0.04
    warmup_epochs: float = 0.0
    weight_decay: float = 0.04
    last_weight_decay: float = 0.4
    freeze_last_epochs: float = 1.0

    def momentum_at(self, step: int) -> float:
        """Share of itself that the teacher keeps."""
        return cosine(step, self.total, self.momentum, 1.0)

    def temperature_at(self, step: int) -> float:
        """Temperature of the teacher's softmax."""
        return ramp(step, round(self.warmup_epochs * self.per_epoch), self.first_temperature, self.temperature)

    def weight_decay_at(self, step: int) -> float:
        """Weight decay of the student."""
        return cosine(step, self.total, self.weight_decay, self.last_weight_decay)

    def freezes_last_at(self, step: int) -> bool:
        """Whether the head's last layer does not learn."""
        return step < self.freeze_last_epochs * self.per_epoch
