"""The runs of a folder, side by side: their figures, and what differs in their configs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manylens.catalog.trained import RUN
from manylens.training.record import CONFIG, told
from manylens.training.values import flat, read

_MOST_FIGURES = 4


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        folder: Of it.
        record: What its ``run.json`` says.
        config: All values of its config by dotted key.
    """

    folder: Path
    record: dict[str, Any]
    config: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {"folder": str(self.folder), "config": self.config, **self.record}

    @property
    def figures(self) -> dict[str, float]:
        """Of the best epoch; empty before there is one."""
        return self.record.get("figures") or {}


def found(folders: Iterable[Path]) -> list[Run]:
    """The runs in folders, those of folders inside too, by their start."""
    places: dict[Path, None] = {}
    for folder in folders:
        for path in [folder / RUN, *sorted(folder.glob(f"*/{RUN}")), *sorted(folder.glob(f"*/*/{RUN}"))]:
            if path.is_file():
                places[path.parent] = None
    runs = []
    for place in places:
        record = told(place)
        if record and (place / CONFIG).is_file():  # else it is being written, or is none of ours
            runs.append(Run(place, record, flat(read(place / CONFIG))))
    return sorted(runs, key=lambda run: str(run.record.get("started", "")))


def table(runs: Sequence[Run]) -> tuple[list[str], list[list[str]]]:
    """Columns and lines: state, figures, seconds, and each key of the config in which the runs differ."""
    names = list(dict.fromkeys(name for run in runs for name in run.figures))[:_MOST_FIGURES]
    keys = differing([run.config for run in runs])
    columns = ["run", "state", *names, "epochs", "seconds", *keys]
    lines = []
    for run in runs:
        figures = [f"{run.figures[name]:.4g}" if name in run.figures else "" for name in names]
        seconds = sum((run.record.get("seconds") or {}).values())
        values = [str(run.config.get(key, "")) for key in keys]
        told = [str(run.folder), str(run.record.get("state", "")), *figures]
        lines.append([*told, str(run.record.get("epochs", "")), f"{seconds:.0f}", *values])
    return columns, lines


def differing(configs: Sequence[dict[str, Any]]) -> list[str]:
    """Keys that have more than one value."""
    keys = dict.fromkeys(key for config in configs for key in config)
    return [key for key in keys if len({json.dumps(config.get(key), default=str) for config in configs}) > 1]
