"""``--ablate``: the same training with one switch after the other, over the same seeds, as a table with intervals."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manylens.runtime.paths import replacing
from manylens.training.balance.names import SWITCHES, check_name
from manylens.training.errors import TrainError
from manylens.training.record import bare, same, told
from manylens.training.run import Job, base_of

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

_SHARES = (
    *("accuracy", "balanced_accuracy", "worst_recall", "f1", "miou", "pixel_accuracy", "iou", "click", "click_2"),
    *("click_3", "best", "box", "map", "map50", "pq", "sq", "rq", "map_at_r", "recall_at_1", "knn_accuracy", "knn"),
)
"""Figures that lie in 0..1, whatever comes."""

_BY_COUNT = tuple(name for name in SWITCHES if name not in ("focal", "ldam", "ldam_deferred"))
"""Switches that only know how frequent classes are: where all are alike there is nothing to even out."""


@dataclass(frozen=True)
class Ablation:
    """What came of it.

    Attributes:
        seeds: Of the trainings.
        figures: By variant and figure: one value a seed, ``(seeds,)``.
        alike: Whether the classes are known to be as frequent as each other.
    """

    seeds: tuple[int, ...]
    figures: Mapping[str, Mapping[str, npt.NDArray[np.float64]]]
    alike: bool = False

    def rows(self, figure: str) -> list[tuple[str, str, str]]:
        """Variant, mean with its 95 % interval, and the difference from the baseline with its own, paired by seed."""
        base = self.figures[BASELINE][figure]
        found = []
        for name, values in self.figures.items():
            gain = "" if name == BASELINE else _interval(values[figure] - base, sign=True)
            found.append((name, _interval(values[figure], share=figure in _SHARES), gain))
        return found

    @property
    def notes(self) -> list[str]:
        """Which variants end with the very figures of the baseline, and why where it is known."""
        base = self.figures[BASELINE]
        idle = [
            name
            for name, values in self.figures.items()
            if name != BASELINE and all(np.array_equal(one, base[figure]) for figure, one in values.items())
        ]
        known = [name for name in idle if self.alike and (name in _BY_COUNT or name == ALL)]
        if ALL in known and not set(known) >= set(self.figures) - {BASELINE}:
            known.remove(ALL)
        return [
            f"{', '.join(names)}: {'change' if len(names) > 1 else 'changes'} nothing here: {why}"
            for names, why in (
                (known, "the classes are as frequent as each other"),
                ([name for name in idle if name not in known], "every figure is the baseline's"),
            )
            if names
        ]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "seeds": list(self.seeds),
            "figures": {name: {one: v.tolist() for one, v in values.items()} for name, values in self.figures.items()},
            "notes": self.notes,
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
        TrainError: There is no such switch, no validation split to judge by, or a run in the folder is of another
            config or other data.
    """
    chosen = variants(names)
    if not job.dataset.splits.get(job.config.data.val):
        raise TrainError("--ablate: there is no validation split to judge by", "set data.holdout above 0")
    numbers = tuple(range(job.config.seed, job.config.seed + seeds))
    base = base_of(job.session, job.config.model)
    runs: dict[tuple[str, int], tuple[Path, Job]] = {}
    for name, changes in chosen.items():
        for seed in numbers:
            # What all of them are depends on which are asked for.
            folder = out / ("+".join(sorted(names)) if name == ALL else name) / f"seed-{seed}"
            mine = job.changed({**changes, "seed": seed})
            mine.say = lambda line: None
            if told(folder).get("state") == "done" or (told(folder) and not bare(folder)):
                same(folder, mine.config, job.used, base)
            runs[name, seed] = folder, mine
    found: dict[str, dict[str, list[float]]] = {}
    for done, ((name, seed), (folder, mine)) in enumerate(runs.items(), 1):
        record = told(folder)
        if record.get("state") == "done":
            figures = dict(record["figures"])
        else:
            figures = mine.train(folder, resume=bool(record)).figures
        for figure, value in figures.items():
            found.setdefault(name, {}).setdefault(figure, []).append(value)
        job.progress(done / len(runs), f"{name}, seed {seed}")
    figures_of = {name: {one: np.array(v) for one, v in values.items()} for name, values in found.items()}
    made = Ablation(numbers, figures_of, _alike(job))
    with replacing(out / "ablation.json") as file:
        file.write(json.dumps(made.to_json(), indent=1).encode())
    return made


def _alike(job: Job) -> bool:
    """Whether all classes of the pictures to learn from are known to be as frequent as each other."""
    if job.config.task != "classify":
        return False
    counts = Counter(job.dataset.select(split=job.config.data.train).values("label"))
    return len(set(counts.values())) == 1


def _interval(values: npt.NDArray[np.float64], sign: bool = False, share: bool = False) -> str:
    """Mean and the 95 % interval of Student's t over the seeds, cut to 0..1 where it is of a share."""
    from scipy import stats

    mean = float(values.mean())
    form = "+.3f" if sign else ".3f"
    if len(values) < 2:
        return f"{mean:{form}}"
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
    low, high = mean - half, mean + half
    if share:
        low, high = max(low, 0.0), min(high, 1.0)
    return f"{mean:{form}} [{low:{form}}, {high:{form}}]"
