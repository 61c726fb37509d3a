"""The runs of a folder, side by side: their figures, and what differs in their configs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from manylens.catalog.trained import RUN
from manylens.training.errors import TrainError
from manylens.training.recipes import usual
from manylens.training.record import CONFIG, told
from manylens.training.values import flat, nearest, read

_KEYS = 5
"""Most columns of keys where none are named."""

_LONG = 32
"""Of a longer value the table shows the end."""

_SEVERAL = ("study.sqlite", "ablation.json", RUN)
"""Files of a folder whose runs are parts of one thing: a search, an ablation, an ensemble."""

_TOLD = ("task", "recipe")
"""Keys that the column of the recipe tells."""


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        folder: Of it.
        record: What its ``run.json`` says.
        config: All values of its config by dotted key.
        part: Whether it is a trial of a search, or a training of an ablation or an ensemble.
    """

    folder: Path
    record: dict[str, Any]
    config: dict[str, Any]
    part: bool = False

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {"folder": str(self.folder), "config": self.config, **self.record}

    @property
    def figures(self) -> dict[str, float]:
        """Of the best epoch; empty before there is one."""
        return self.record.get("figures") or {}

    @cached_property
    def history(self) -> list[dict[str, Any]]:
        """One row an epoch, as far as it can be read."""
        rows = []
        with suppress(OSError, ValueError):
            for line in (self.folder / "history.jsonl").read_text(encoding="utf-8").splitlines():
                rows.append(json.loads(line))
        return [row for row in rows if isinstance(row, dict)]

    @property
    def epochs(self) -> int:
        """That it has done."""
        return int(self.record.get("epochs") or len({row.get("epoch") for row in self.history}))

    @property
    def seconds(self) -> float:
        """That it took; of one that is not done those of its epochs."""
        parts = self.record.get("seconds") or {}
        return float(sum(parts.values()) or sum(row.get("seconds") or 0 for row in self.history))

    @property
    def idle(self) -> bool:
        """Whether it stopped before anything was trained."""
        return self.record.get("state") in ("failed", "stopped") and not self.epochs

    @property
    def recipe(self) -> str:
        """Task and recipe; one word where they are the same."""
        task = str(self.config.get("task", ""))
        name = str(self.record.get("recipe") or self.config.get("recipe") or usual(task).name)
        return task if name in ("", task) else f"{task}/{name}"

    def chosen(self) -> tuple[str, float | None]:
        """The figure that the best epoch is chosen by and its value, of one that is not done that of the best so far.

        None where there is no value yet.
        """
        recipe = self.recipe.rpartition("/")[2]
        name = str(self.config.get("loop.monitor") or usual(str(self.config.get("task", "")), recipe).figure)
        if self.figures:
            if name not in self.figures:  # of one of the recipe's other kinds, the first decides; else the loss
                name = next((one for one in self.figures if one != "loss"), "loss")
            return name, self.figures.get(name)
        values = [row[f"val/{name}"] for row in self.history if isinstance(row.get(f"val/{name}"), int | float)]
        least = (self.config.get("loop.mode") or ("min" if "loss" in name else "max")) == "min"
        return name, (min(values) if least else max(values)) if values else None


def found(folders: Iterable[Path]) -> list[Run]:
    """The runs in folders, those of folders inside too, by their start."""
    places: dict[Path, bool] = {}
    for folder in folders:
        deep = (path for stars in ("*", "*/*", "*/*/*") for path in sorted(folder.glob(f"{stars}/{RUN}")))
        for path in [folder / RUN, *deep]:
            if path.is_file():
                # What is named itself is shown for itself.
                places[path.parent] = places.get(path.parent, True) and _is_part(path.parent, folder)
    runs = []
    for place, part in places.items():
        record = told(place)
        if record and (place / CONFIG).is_file():  # else it is being written, or is none of ours
            runs.append(Run(place, record, flat(read(place / CONFIG)), part))
    return sorted(runs, key=lambda run: str(run.record.get("started", "")))


def _is_part(place: Path, root: Path) -> bool:
    """Whether a run belongs to a search, an ablation or an ensemble in a folder."""
    between = [one for one in place.parents if root in one.parents]
    seeded = len(between) > 1 and place.name.startswith("seed-")  # of an ablation that is not at its end
    return seeded or any((one / name).is_file() for one in between for name in _SEVERAL)


def shown(runs: Sequence[Run]) -> tuple[list[Run], str]:
    """The runs that a list shows, and a line on the others; empty where there are none."""
    idle = sum(run.idle for run in runs if not run.part)
    parts = sum(run.part for run in runs)
    said = [f"{idle} that trained nothing"] if idle else []
    said += [f"{parts} of searches, ablations and ensembles"] if parts else []
    line = f"not shown: {' and '.join(said)} (--all shows them)" if said else ""
    return [run for run in runs if not (run.part or run.idle)], line


def table(
    runs: Sequence[Run], keys: Sequence[str] | None = None, width: int | None = None
) -> tuple[list[str], list[list[str]], list[str]]:
    """Columns and lines: state, recipe, the figure chosen by, epochs, seconds, and keys of the config.

    Args:
        runs: At least one.
        keys: Of the config; by default those in which most runs differ, few enough for a terminal.
        width: Letters of a line, in which keys that are not named shall fit; at least one is shown.

    Returns:
        Columns, lines, and the keys that differ and have no column.

    Raises:
        TrainError: No run has such a key.
    """
    differ = [key for key in differing([run.config for run in runs]) if key not in _TOLD]
    columns = differ[:_KEYS] if keys is None else list(keys)
    known = list(dict.fromkeys(key for run in runs for key in run.config))
    for key in columns:
        if key not in known:
            near = nearest(key, known)
            raise TrainError(
                f"--keys {key!r}: no run has such a key", f"did you mean {near}?" if near else "see --json"
            )
    chosen = [run.chosen() for run in runs]
    names = {name for name, value in chosen if value is not None}
    figure = names.pop() if len(names) == 1 else "figure"
    lines = []
    for run, (name, value) in zip(runs, chosen, strict=True):
        number = "" if value is None else f"{value:.4g}"
        lines.append(
            [
                str(run.folder),
                str(run.record.get("state", "")),
                run.recipe,
                f"{name} {number}" if number and figure == "figure" else number,
                str(run.epochs or ""),
                f"{run.seconds:.0f}" if run.seconds else "",
                *(_cell(run.config.get(key)) for key in columns),
            ]
        )
    header = ["run", "state", "recipe", figure, "epochs", "seconds", *columns]
    if keys is not None:
        return header, lines, []
    wide = [max(map(len, column)) + 2 for column in zip(header, *lines, strict=True)]
    kept = len(columns)
    while width is not None and kept > 1 and sum(wide) > width:
        wide.pop()
        kept -= 1
    end = len(header) - len(columns) + kept
    return header[:end], [line[:end] for line in lines], differ[kept:]


def differing(configs: Sequence[dict[str, Any]]) -> list[str]:
    """Keys that have more than one value, those in which most configs differ from what is usual first."""
    counts: dict[str, int] = {}
    for key in dict.fromkeys(key for config in configs for key in config):
        values = Counter(json.dumps(_unset(config.get(key)), default=str) for config in configs)
        counts[key] = len(configs) - max(values.values())
    return sorted((key for key, count in counts.items() if count), key=lambda key: -counts[key])


def _unset(value: Any) -> Any:
    """None for all that says nothing."""
    return None if value in ("", [], {}) else value


def _cell(value: Any) -> str:
    """A value in a few letters; none for one that is not set."""
    if _unset(value) is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.4g}"
    text = ",".join(map(_cell, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= _LONG else f"...{text[3 - _LONG :]}"
