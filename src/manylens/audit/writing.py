"""How an audit is written: its numbers as JSON, its page, and its tally where it has one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from manylens.evaluation.results import TALLY
from manylens.evaluation.tally import Tally
from manylens.media import atomic_write


def write(folder: str | Path, name: str, body: Mapping[str, Any], html: str, tally: Tally | None = None) -> list[Path]:
    """Write ``NAME.json``, ``NAME.html`` and ``tally.npz`` into a folder.

    Args:
        folder: Made where it is missing.
        name: Of the audit.
        body: JSON-ready, NaN as None.
        html: The page.
        tally: For ``manylens compare``.

    Raises:
        OutputError: The folder cannot be written.
    """
    text = json.dumps(body, indent=1, ensure_ascii=False, allow_nan=False)
    files = [
        atomic_write(Path(folder) / f"{name}.json", text.encode()),
        atomic_write(Path(folder) / f"{name}.html", html.encode()),
    ]
    return files if tally is None else [*files, tally.save(Path(folder) / TALLY)]
