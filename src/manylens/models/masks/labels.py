"""The classes of a checkpoint: their names, and which of them are things."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any


@dataclass(frozen=True)
class Labels:
    """The closed set of a checkpoint.

    Attributes:
        names: By class number.
        stuff: Numbers of the classes that are not counted.
        known: Whether it is known which are; where it is not, all pass for things.
    """

    names: tuple[str, ...]
    stuff: frozenset[int]
    known: bool

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Labels:
        """Read from ``id2label`` of a config; where it has none, there are ``num_labels``: LABEL_0 and so on."""
        table = {int(number): str(name) for number, name in (config.get("id2label") or {}).items()}
        count = max(table) + 1 if table else int(config.get("num_labels") or 2)
        names = tuple(table.get(number, f"LABEL_{number}") for number in range(count))
        for one in _sets():
            if one["labels"] == len(names) and names[0].lower() == one["first"]:
                things = {number for low, high in one["things"] for number in range(low, high + 1)}
                return cls(names, frozenset(range(len(names))) - things, True)
        return cls(names, frozenset(), False)


@cache
def _sets() -> list[dict[str, Any]]:
    return tomllib.loads(resources.files(__package__).joinpath("stuff.toml").read_text("utf-8"))["set"]
