"""What a model card says of its data: how much of what, and whose it is."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manylens.errors import ManylensError

if TYPE_CHECKING:
    from manylens.data import Dataset
    from manylens.training.config import DataSection

_ROWS = 60
_LARGEST = 50_000_000
"""Bytes of an annotation file that is read once more for what it says of licences."""

_COLUMNS = ("licence", "license", "rights")
_FILE = re.compile(r"(licen[cs]e|copying)", re.IGNORECASE)
NOT_STATED = "not stated: say it here, before you pass the model on."


def counts(data: Dataset) -> dict[str, Any]:
    """Pictures of each class in each split.

    Returns:
        ``what`` is counted, ``splits``, ``rows`` of a class and a number for each split, the most frequent first, and
        how many classes ``more`` there are; ``by_class``, the numbers of all by split.
    """
    labels = data.values("label")
    if any(labels):
        what, held = "Pictures with each label", [[label] if label else [] for label in labels]
    else:
        what, held = "Pictures that hold each class", [sorted(names) for names in data.categories_of()]
    by_class: dict[str, Counter[str]] = {}
    for split, names in zip(data.values("split"), held, strict=True):
        for name in names:
            by_class.setdefault(name, Counter())[split or ""] += 1
    splits = [name for name in data.splits if name] or [""]
    order = sorted(by_class, key=lambda name: (-by_class[name].total(), name))
    rows = [[name, *(by_class[name][split] for split in splits)] for name in order]
    return {
        "what": what,
        "splits": [split or "all" for split in splits],
        "rows": rows[:_ROWS],
        "more": max(0, len(rows) - _ROWS),
        "by_class": {name: dict(found) for name, found in by_class.items()},
    }


def rights(section: DataSection, data: Dataset) -> str:
    """What the data set says of its licence; where it says nothing, that."""
    said = [*_of_columns(data), *_of_folder(section, data), *_of_coco(section)]
    return "; ".join(dict.fromkeys(said)) + "." if said else NOT_STATED


def _of_columns(data: Dataset) -> list[str]:
    for name in _COLUMNS:
        if name in data.columns:
            with suppress(ManylensError):
                found = Counter(str(one) for one in data.values(name) if one)
                if found:
                    shown = ", ".join(f"{one} ({times} pictures)" for one, times in found.most_common(5))
                    return [f"by picture, {shown}"]
    return []


def _of_folder(section: DataSection, data: Dataset) -> list[str]:
    """The first line of a licence file."""
    place = Path(section.source) if section.source else data.root
    if place is None:
        return []
    folder = place if place.is_dir() else place.parent
    with suppress(OSError, UnicodeDecodeError):
        for path in sorted(one for one in folder.iterdir() if _FILE.match(one.name) and one.is_file()):
            line = next((one.strip() for one in path.read_text(encoding="utf-8").splitlines() if one.strip()), "")
            return [f"its file {path.name} begins: {line[:200]}"]
    return []


def _of_coco(section: DataSection) -> list[str]:
    """What a COCO file says of the licences of its pictures."""
    path = Path(section.source or "")
    with suppress(OSError, ValueError, TypeError, AttributeError):
        if path.suffix == ".json" and path.stat().st_size <= _LARGEST:
            body = json.loads(path.read_text(encoding="utf-8"))
            rows = body.get("licenses") or [] if isinstance(body, Mapping) else []
            named = [row for row in rows if row.get("name")]
            return [row["name"] + (f" ({row['url']})" if row.get("url") else "") for row in named]
    return []
