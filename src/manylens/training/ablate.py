"""``--ablate``: the same training with one switch after the other, over the same seeds, as a table with intervals."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manylens.runtime.paths import replacing
from manylens.training.balance.names import SWITCHES, check_name
from manylens.training.errors import TrainError
from manylens.training.record import told
from manylens.training.run import Job

BASELINE, ALL = "baseline", "all of them"

MORE: Mapping[str, Mapping[str, Any]] = {
    "mixup": {"regularise.mixup": 0.4},
    "label_smoothing": {"regularise.label_smoothing": 0.1},
    "dropout": {"regularise.dropout": 0.2},
    "ema": {"regularise.ema": 0.98},
    "augment": {"augment.policy": "light"},
    "augment_rare": {"augment.policy": "light", "augment.rare": 2.0},
}
"""Switches beside those of imbalance: what each sets."""


@dataclass(frozen=True)
class Ablation:
    """What came of it.

    Attributes:
        seeds: Of the trainings.
        figures: By variant and figure: one value a seed, ``(seeds,)``.
    """

    seeds: tuple[int, ...]
    figures: Mapping[str, Mapping[str, npt.NDArray[np.float64]]]

    def rows(self, figure: str) -> list[tuple[str, str, str]]:
        """Variant, mean with its 95 % interval, and the difference from the baseline with its own, paired by seed."""
        base = self.figures[BASELINE][figure]
        found = []
        for name, values in self.figures.items():
            gain = "" if name == BASELINE else _interval(values[figure] - base, sign=True)
            found.append((name, _interval(values[figure]), gain))
        return found

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "seeds": list(self.seeds),
            "figures": {name: {one: v.tolist() for one, v in values.items()} for name, values in self.figures.items()},
        }


def variants(names: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """What each variant changes: nothing, each switch alone, and all together where there are several.

    Raises:
        TrainError: There is no such switch.
    """
    known = {**SWITCHES, **MORE}
    for name in names:
        check_name("--ablate", name, known)
    found: dict[str, Mapping[str, Any]] = {BASELINE: {}} | {name: known[name] for name in names}
    if len(names) > 1:
        together: dict[str, Any] = {}
        for name in names:
            clash = [key for key, value in known[name].items() if together.get(key, value) != value]
            if clash:
                return found  # two losses cannot be had at once
            together |= known[name]
        found[ALL] = together
    return found


def ablate(job: Job, names: Sequence[str], out: Path, seeds: int = 5) -> Ablation:
    """Train every variant with every seed; those that are done are not trained again.

    Args:
        job: The baseline.
        names: Switches: of :data:`manylens.training.balance.names.SWITCHES` or :data:`MORE`.
        out: Folder; a run a variant and seed is written below it, and ``ablation.json``.
        seeds: How many: from the config's own upwards.

    Raises:
        TrainError: There is no such switch, or no validation split to judge by.
    """
    chosen = variants(names)
    if not job.dataset.splits.get(job.config.data.val):
        raise TrainError("--ablate: there is no validation split to judge by", "set data.holdout above 0")
    numbers = tuple(range(job.config.seed, job.config.seed + seeds))
    found: dict[str, dict[str, list[float]]] = {}
    total = len(chosen) * seeds
    for place, (name, changes) in enumerate(chosen.items()):
        for seed in numbers:
            folder = out / name.replace(" ", "-") / f"seed-{seed}"
            record = told(folder)
            if record.get("state") == "done":
                figures = dict(record["figures"])
            else:
                mine = job.changed({**changes, "seed": seed})
                mine.say = lambda line: None
                figures = mine.train(folder, resume=bool(record)).figures
            for figure, value in figures.items():
                found.setdefault(name, {}).setdefault(figure, []).append(value)
            done = place * seeds + seed - numbers[0] + 1
            job.progress(done / total, f"{name}, seed {seed}")
    made = Ablation(numbers, {name: {one: np.array(v) for one, v in values.items()} for name, values in found.items()})
    with replacing(out / "ablation.json") as file:
        file.write(json.dumps(made.to_json(), indent=1).encode())
    return made


def _interval(values: npt.NDArray[np.float64], sign: bool = False) -> str:
    """Mean and the 95 % interval of Student's t over the seeds."""
    from scipy import stats

    mean = float(values.mean())
    form = "+.3f" if sign else ".3f"
    if len(values) < 2:
        return f"{mean:{form}}"
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
    return f"{mean:{form}} [{mean - half:{form}}, {mean + half:{form}}]"
