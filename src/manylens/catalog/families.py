"""Recognises the family of a model folder in the hub's format from its config."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from manylens.catalog.row import Row
from manylens.errors import UnsupportedError, WeightsError

CONFIG, PIPELINE = "config.json", "model_index.json"
"""The file that says what a folder holds: a model, or a pipeline of several."""


@dataclass(frozen=True)
class Family:
    """A family of checkpoints.

    Attributes:
        name: Its module in ``models/``.
        model_types: Values of ``model_type`` in ``config.json`` that belong to it.
        architectures: Values of ``architectures`` in ``config.json`` that it is limited to; empty for any.
        pipelines: Values of ``_class_name`` in ``model_index.json`` that belong to it.
        tasks: What its checkpoints can take in each task.
        engines: What can run them, the usual one first.
        planned: Whether it is declared only: no version of a loader is here yet.
    """

    name: str
    model_types: tuple[str, ...]
    architectures: tuple[str, ...]
    pipelines: tuple[str, ...]
    tasks: Mapping[str, frozenset[str]]
    engines: tuple[str, ...]
    planned: bool = False

    def loads(self, config: Mapping[str, Any], key: str) -> bool:
        """Whether it loads what a config says: ``model_type`` of a model, ``_class_name`` of a pipeline."""
        kinds = self.pipelines if key == "_class_name" else self.model_types
        named = config.get("architectures")
        built = {one for one in named if isinstance(one, str)} if isinstance(named, list | tuple) else set()
        return config.get(key) in kinds and (not self.architectures or bool(built & set(self.architectures)))


@cache
def families() -> tuple[Family, ...]:
    """All known families, from ``families.toml``."""
    data = tomllib.loads(Path(__file__).with_name("families.toml").read_text(encoding="utf-8"))
    return tuple(
        Family(
            name=table.get("family", name),
            model_types=tuple(table.get("model_types", ())),
            architectures=tuple(table.get("architectures", ())),
            pipelines=tuple(table.get("pipelines", ())),
            tasks={task: frozenset(words) for task, words in table["tasks"].items()},
            engines=tuple(table.get("engines", ("torch",))),
            planned=bool(table.get("planned", False)),
        )
        for name, table in data.items()
    )


def recognise(folder: Path, name: str) -> Family:
    """The family of a folder.

    Args:
        folder: A folder with ``config.json`` (a model) or ``model_index.json`` (a pipeline).
        name: What to call the folder in an error.

    Raises:
        WeightsError: It has neither file, or that file does not say what the folder holds.
        UnsupportedError: No family here loads what it holds.
    """
    for filename, key, known in ((PIPELINE, "_class_name", "pipelines"), (CONFIG, "model_type", "model_types")):
        if not (folder / filename).is_file():
            continue
        config = _read(folder / filename, name)
        kind = config.get(key)
        if not isinstance(kind, str):
            raise WeightsError(f"{name}: its {filename} has no {key}", "give a folder in the format of a model hub")
        for family in families():
            if family.loads(config, key):
                return family
        names = sorted({kind for family in families() if not family.planned for kind in getattr(family, known)})
        remedy = f"known are {', '.join(names)}" if names else "no pipeline of any kind loads in this version"
        raise UnsupportedError(f"{name}: no family here loads {key} {kind!r}", remedy)
    raise WeightsError(f"{name}: the folder has no {CONFIG}", "give a folder in the format of a model hub")


def with_family(row: Row, family: Family) -> Row:
    """The row, with what its family says about it; its memory is estimated from its size."""
    return replace(
        row,
        family=family.name,
        tasks=family.tasks,
        engines=family.engines,
        memory_mb=row.memory_mb or estimated_memory_mb(row.bytes),
    )


def estimated_memory_mb(weight_bytes: int) -> int:
    """MiB that weights of a size take when loaded, with activations; 0 where the size is not known.

    A rule of thumb for models that nobody measured: the weights, half as much again, and 200 MiB.
    """
    return round(weight_bytes * 1.5 / 2**20) + 200 if weight_bytes else 0


def _read(path: Path, name: str) -> Mapping[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise WeightsError(f"{name}: its {path.name} is not JSON ({error})", "fetch the folder again") from error
    if not isinstance(values, dict):
        raise WeightsError(f"{name}: its {path.name} is not a JSON object", "fetch the folder again")
    return values
