"""What a run keeps of itself, so that it can be done again: ``config.yaml``, ``run.json``, ``history.jsonl``."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from manylens.catalog.trained import MODEL, RUN
from manylens.errors import OutputError
from manylens.runtime.machine import library_version
from manylens.runtime.paths import replacing
from manylens.training.config import Config
from manylens.training.errors import TrainError
from manylens.training.processes import processes
from manylens.training.values import differences, read, write
from manylens.version import __version__

if TYPE_CHECKING:
    from manylens.training.check import Report

CONFIG, CHECKPOINT = "config.yaml", "checkpoints/last.ckpt"
_LIBRARIES = (
    "torch",
    "lightning",
    "torchmetrics",
    "transformers",
    "numpy",
    "peft",
    "kornia",
    "imbalanced-learn",
    "openvino",
)


class Record:
    """A run's folder and what stands in its ``run.json``.

    Args:
        folder: Of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.values: dict[str, Any] = {}
        self.writes = processes().first

    @property
    def model(self) -> Path:
        """Folder of the trained model."""
        return self.folder / MODEL

    @classmethod
    def begin(
        cls, folder: Path, config: Config, data: Mapping[str, Any], base: Mapping[str, str], resume: bool
    ) -> Record:
        """Make a run's folder, or take up the one that stands there.

        Args:
            folder: Of the run.
            config: Of the training.
            data: Name, hash and counts of the data set.
            base: Of the base model.
            resume: Whether a run that stands there goes on.

        Raises:
            TrainError: A run stands there and may not go on: it was not asked for, or something differs.
            OutputError: The folder cannot be made.
        """
        made = cls(folder)
        if not made.writes:  # the first process looks and writes
            return made
        if (folder / RUN).is_file():
            made.values = told(folder)
            if not made.values:
                raise TrainError(f"{folder}: the run there cannot go on, its {RUN} is broken", "name another folder")
            if bare(folder):  # it stopped at a mistake before anything was learnt: there is nothing to go on with
                made.values = {}
                (folder / CONFIG).unlink(missing_ok=True)
            elif not resume:
                raise TrainError(
                    f"{folder}: a run is there already ({made.values.get('state')})",
                    "go on with --resume, or name another folder",
                )
            else:
                same(folder, config, data, base)
        elif folder.exists() and any(folder.iterdir()):
            raise TrainError(f"{folder}: is not empty, and is no run", "name another folder")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / CONFIG).exists():
                write(config.to_json(), folder / CONFIG)
        except OSError as error:
            raise OutputError(
                f"{folder}: cannot be written ({error.strerror or error})", "name another folder"
            ) from error
        made.values |= {
            "state": "running",
            "task": config.task,
            "data": dict(data),
            "base": dict(base),
            "seed": config.seed,
            "versions": versions(),
            "git": git_state(),
            "machine": {"system": platform.platform(), "processor": platform.processor() or platform.machine()},
            "command": sys.argv,
            "started": made.values.get("started", _now()),
            "resumed": [*made.values.get("resumed", []), _now()] if resume and made.values else [],
        }
        made.save()
        return made

    def write_check(self, report: Report) -> None:
        """Keep what the check of the data found, as ``check.json``."""
        if not self.writes:
            return
        with replacing(self.folder / "check.json") as file:
            file.write(json.dumps(report.to_json(), indent=1, ensure_ascii=False, default=str).encode())

    def save(self, **more: Any) -> None:
        """Write ``run.json`` with more values.

        Raises:
            OutputError: The disk is full; what stood there is untouched.
        """
        self.values |= more
        if not self.writes:
            return
        try:
            with replacing(self.folder / RUN) as file:
                file.write(json.dumps(self.values, indent=1, ensure_ascii=False, default=str).encode())
        except OSError as error:
            raise OutputError(
                f"{self.folder / RUN}: cannot be written ({error.strerror or error})", "make room"
            ) from error


def bare(folder: Path) -> bool:
    """Whether a run that stands in a folder has learnt nothing yet: no checkpoint, no model, no members."""
    return not any((folder / name).exists() for name in (CHECKPOINT, MODEL, "members"))


def same(folder: Path, config: Config, data: Mapping[str, Any], base: Mapping[str, str]) -> None:
    """See that a run may go on, or be taken as it is, for a config, data and a base model.

    Args:
        folder: Of the run.
        config: Of the training.
        data: Name, hash and counts of the data set.
        base: Of the base model.

    Raises:
        TrainError: Something differs.
    """
    values = told(folder)
    found = differences(config.to_json(), read(folder / CONFIG))
    if data["hash"] != values["data"]["hash"]:
        found.append(f"the data's hash is {data['hash'][:12]}, was {values['data']['hash'][:12]}")
    if base["weights"] != values["base"]["weights"]:
        found.append(f"the base's weights are {base['weights']}, were {values['base']['weights']}")
    if found:
        raise TrainError(
            f"{folder}: cannot go on with another config: {'; '.join(found)}",
            "give what was given before, or name another folder",
        )


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """A run's folder for this training alone, among all processes of the machine.

    Raises:
        TrainError: Another training is at work there.
        OutputError: Nothing can be written beside the folder.
    """
    if not processes().first:  # of several processes of one training the first holds it for all
        yield
        return
    lock = FileLock(folder.absolute().with_name(f".{folder.name}.lock"), timeout=0)
    try:
        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise TrainError(
            f"{folder}: another training is at work there", "wait for it, or name another folder"
        ) from None
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror or error})", "name another folder") from error
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def told(folder: Path) -> dict[str, Any]:
    """What a run says of itself in its ``run.json``; empty where there is none, or none that can be read."""
    try:
        values = json.loads((folder / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def versions() -> dict[str, str]:
    """Of Python, manylens and what the training rests on."""
    found = {"python": platform.python_version(), "manylens": __version__}
    return found | {name: library_version(name) for name in _LIBRARIES}


def git_state() -> dict[str, Any]:
    """Commit and whether something is changed, of the folder that the command was given in; empty where it is none."""
    try:
        commit = _git("rev-parse", "HEAD")
        return {"commit": commit, "changed": bool(_git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return {}


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
