"""Values of a config before they are validated: read, written, and changed and compared by dotted key."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from manylens.runtime.paths import replacing
from manylens.training.errors import TrainError


def read(path: Path) -> dict[str, Any]:
    """The values of a YAML or JSON file.

    Raises:
        TrainError: It cannot be read, or is no mapping.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TrainError(f"config {path}: cannot be read ({reason})", "give a YAML or JSON file") from error
    except (ValueError, yaml.YAMLError) as error:
        raise TrainError(f"config {path}: is neither YAML nor JSON ({error})", "mend the file") from error
    if not isinstance(values, dict):
        raise TrainError(f"config {path}: holds no keys", "write it as task: classify, and so on")
    return values


def write(values: Mapping[str, Any], path: Path) -> None:
    """Write values as YAML."""
    import yaml

    with replacing(path) as file:
        file.write(yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True).encode())


def assignments(words: Iterable[str]) -> dict[str, Any]:
    """``a.b=c`` as values by dotted key; values are read as YAML, so 1e-3 is a number and [1, 2] a list.

    Raises:
        TrainError: A word has no ``=``.
    """
    import yaml

    found: dict[str, Any] = {}
    for word in words:
        key, mark, text = word.partition("=")
        if not mark or not key.strip():
            raise TrainError(f"--set {word!r}: is no assignment", "write it as --set optimiser.lr=0.001")
        try:
            value = yaml.safe_load(text) if text.strip() else ""
        except yaml.YAMLError as error:
            raise TrainError(f"--set {word!r}: its value cannot be read", "put it in quotes") from error
        found[key.strip()] = _number(value)
    return found


def with_changes(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values with others by dotted key.

    Raises:
        TrainError: A key goes through something that is no section.
    """
    made: dict[str, Any] = json.loads(json.dumps(values))
    for key, value in changes.items():
        *sections, last = key.split(".")
        place = made
        for number, section in enumerate(sections):
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise TrainError(
                    f"config {key!r}: {'.'.join(sections[: number + 1])} has no parts", "see docs/train.md"
                )
        place[last] = value
    return made


def keys(section: type[BaseModel], above: str = "") -> list[str]:
    """All dotted keys of a config or of a section of it."""
    found: list[str] = []
    for name, info in section.model_fields.items():
        found.append(f"{above}{name}")
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            found += keys(info.annotation, f"{above}{name}.")
    return found


def differences(one: Mapping[str, Any], other: Mapping[str, Any], above: str = "") -> list[str]:
    """What differs between two configs, each as ``key: a, was b``."""
    found: list[str] = []
    for key in sorted({*one, *other}):
        a, b = one.get(key), other.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{above}{key}.")
        elif a != b:
            found.append(f"{above}{key} is {a!r}, was {b!r}")
    return found


def flat(values: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Nested values by dotted key."""
    made: dict[str, Any] = {}
    for key, value in values.items():
        made |= flat(value, f"{above}{key}.") if isinstance(value, dict) and value else {f"{above}{key}": value}
    return made


def nearest(key: str, known: Sequence[str]) -> str:
    """The key that looks most like a mistaken one; empty where none does."""
    last = key.rpartition(".")[2]
    exact = [name for name in known if name.rpartition(".")[2] == last]  # the right name in the wrong section
    found = exact[:1] or difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if not found:
        ends = {name.rpartition(".")[2]: name for name in known}
        found = [ends[one] for one in difflib.get_close_matches(last, list(ends), n=1, cutoff=0.7)]
    return found[0] if found else ""


def _number(value: Any) -> Any:
    """YAML 1.1 reads 1e-3 as text."""
    if isinstance(value, str):
        try:
            return float(value) if any(mark in value for mark in ".e") and value[-1].isdigit() else value
        except ValueError:
            return value
    return [_number(one) for one in value] if isinstance(value, list) else value
