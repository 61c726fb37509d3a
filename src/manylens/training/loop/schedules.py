"""How the learning rate goes: pure functions of the step, so that a resumed run goes on where it was."""

from __future__ import annotations

import math

from manylens.training.config import ScheduleSection
from manylens.training.ensemble.snapshot import cyclic_share


def factor(section: ScheduleSection, step: int, total: int, steps_per_epoch: int) -> float:
    """Share of the full learning rate at a step.

    Args:
        section: Of the config.
        step: From 0.
        total: Steps of the whole training.
        steps_per_epoch: Of an epoch.
    """
    warm = math.ceil(section.warmup * total) if section.kind != "onecycle" else 0
    if step < warm:
        return (step + 1) / (warm + 1)
    share = min((step - warm) / max(total - warm, 1), 1.0)
    epoch = step // max(steps_per_epoch, 1)
    match section.kind:
        case "cosine":
            return _cosine(share, section.floor)
        case "cyclic":
            return cyclic_share(step - warm, total - warm, section.cycles, section.floor)
        case "step":
            return float(section.factor ** (epoch // section.every))
        case "multistep":
            return float(section.factor ** sum(epoch >= milestone for milestone in section.milestones))
        case "onecycle":
            return _onecycle(min(step / max(total - 1, 1), 1.0))
    return 1.0  # constant; a plateau moves by what validation says, see below


class Plateau:
    """Lowers the rate where validation makes no progress, for the schedule ``plateau``.

    Torch's own is stepped after the checkpoint of an epoch is written, so that a resumed run would miss a step.

    Attributes:
        scale: What the rate is multiplied with.
        best: The best figure so far.
        waited: Epochs since then.

    Args:
        section: Of the config.
        mode: Whether more of the figure is better.
    """

    def __init__(self, section: ScheduleSection, mode: str) -> None:
        self._section, self._sign = section, 1.0 if mode == "max" else -1.0
        self.scale, self.best, self.waited = 1.0, -math.inf, 0

    def take(self, figure: float) -> None:
        """Note the figure of an epoch."""
        if self._section.kind != "plateau":
            return
        if self._sign * figure > self.best:
            self.best, self.waited = self._sign * figure, 0
            return
        self.waited += 1
        if self.waited > self._section.patience:
            self.scale, self.waited = self.scale * self._section.factor, 0

    def state(self) -> dict[str, float]:
        """For a checkpoint."""
        return {"scale": self.scale, "best": self.best, "waited": self.waited}

    def load(self, state: dict[str, float]) -> None:
        """Go on from what :meth:`state` gave."""
        self.scale, self.best, self.waited = state["scale"], state["best"], int(state["waited"])


def _cosine(share: float, floor: float) -> float:
    return floor + (1 - floor) * (1 + math.cos(math.pi * share)) / 2


def _onecycle(share: float, peak: float = 0.3, start: float = 1 / 25, end: float = 1e-4) -> float:
    """Up to the full rate in three tenths of the training and down to almost nothing (Smith & Topin, 2018)."""
    if share < peak:
        return start + (1 - start) * (1 - math.cos(math.pi * share / peak)) / 2
    return start * end + (1 - start * end) * (1 + math.cos(math.pi * (share - peak) / (1 - peak))) / 2
