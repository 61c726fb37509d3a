"""Folders that ``manylens train`` made: a run is a name for the model in it, and a model knows its base."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from manylens.errors import UnknownModelError

RUN, MODEL = "run.json", "model"
_MODEL_TYPE = "manylens-adapted"


def model_folder(folder: Path) -> Path:
    """The folder of the model: that of a run lies in it."""
    inner = folder / MODEL
    return inner if (folder / RUN).is_file() and inner.is_dir() else folder


def check_finished(folder: Path) -> None:
    """Refuse the folder of a run that has no model yet.

    Raises:
        UnknownModelError: Says how far the run is.
    """
    if not (folder / RUN).is_file() or (folder / MODEL).is_dir():
        return
    state = "unknown"
    with suppress(OSError, ValueError, AttributeError):
        state = json.loads((folder / RUN).read_text(encoding="utf-8")).get("state", state)
    raise UnknownModelError(f"{folder}: the run has no model yet (its state is {state})", "end it with --resume")


def base_of(folder: Path) -> str | None:
    """What the model in a folder was adapted from: an id, or a folder; None where it needs no other."""
    # Whoever reads the config next tells what is wrong with it.
    with suppress(OSError, ValueError, AttributeError, KeyError, TypeError):
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if values.get("model_type") == _MODEL_TYPE:
            return str(values["base"]["id"])
    return None
