"""What an evaluation found: the figures with their intervals, and all that is needed to judge or repeat them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from manylens.data.problems import DataError, Problems
from manylens.media import atomic_write
from manylens.version import __version__

if TYPE_CHECKING:
    import os

    from manylens.evaluation.intervals import Estimate
    from manylens.evaluation.page import Shown
    from manylens.evaluation.slices import Sliced
    from manylens.evaluation.tally import Tally

SCHEMA = 1
REPORT, TALLY, PAGE, PREDICTIONS = "report.json", "tally.npz", "report.html", "predictions.jsonl"
SAVED = "saved predictions"


@dataclass(frozen=True)
class ModelUsed:
    """What made the predictions.

    Attributes:
        id: Of the model; :data:`SAVED` where they were read from a file.
        weights: Their hash.
        engine: Empty for a composed model, which has none of its own.
        precision: Likewise.
        device: What it ran on.
        parts: The models that a composed model called.
        source: The file of predictions.
        notes: What else is known.
    """

    id: str
    weights: str = ""
    engine: str = ""
    precision: str = ""
    device: str = ""
    parts: tuple[str, ...] = ()
    source: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataUsed:
    """What the predictions were judged by.

    Attributes:
        name: Of the data set.
        fingerprint: Hash of its content; see :meth:`manylens.data.Dataset.fingerprint`.
        records: How many pictures were to be judged.
        judged: How many were.
        annotations: How many annotations the judged pictures have.
        split: The part that was taken; empty for all.
    """

    name: str
    fingerprint: str
    records: int
    judged: int
    annotations: int
    split: str = ""


class Example(NamedTuple):
    """A unit that came off badly: its id, its picture's id, its score (more is better) and the picture's file."""

    unit: str
    cluster: str
    score: float
    path: str


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A measured model.

    Attributes:
        task: The task that was measured.
        measure: The measure's name, such as ``detection`` or ``clicks``.
        model: What made the predictions.
        data: What they were judged by.
        options: What was asked for: prompt, thresholds, resamples, seed, ...
        figures: Value with its 95 % interval by name; the main one is ``tally.main_figure``.
        details: Tables and curves; see :mod:`manylens.evaluation.details`.
        slices: The figures by group, one for each field asked for.
        problems: What was wrong with labels and predictions, and how many rows were left out.
        worst: The units that came off worst, the worst first.
        seconds: Wall time of the run.
        machine: What it ran on; see :func:`manylens.runtime.machine.machine_report`.
        tally: The kept numbers, from which all figures can be computed again.
        stopped: Why it ended early, such as the cost cap; empty where everything was judged.
        cost: What the run was charged, in the money of the session's rates.
        notes: What a reader should know, such as why this measure was chosen.
        version: Of manylens.
        files: What :meth:`save` wrote.
    """

    task: str
    measure: str
    model: ModelUsed
    data: DataUsed
    options: Mapping[str, Any]
    figures: Mapping[str, Estimate]
    details: Mapping[str, Any]
    slices: Sequence[Sliced]
    problems: Problems
    worst: Sequence[Example]
    seconds: float
    machine: Mapping[str, Any]
    tally: Tally
    stopped: str = ""
    cost: float = 0.0
    notes: Sequence[str] = ()
    version: str = __version__
    files: Sequence[Path] = field(default=())

    @property
    def main_figure(self) -> str:
        """The figure that a reader looks at first."""
        return self.tally.main_figure

    def to_json(self) -> dict[str, Any]:
        """Everything but the tally, JSON-ready; what is not a number (NaN) is null."""
        body = {
            "schema": SCHEMA,
            "version": self.version,
            "task": self.task,
            "measure": self.measure,
            "main": self.main_figure,
            "model": asdict(self.model),
            "data": asdict(self.data),
            "options": dict(self.options),
            "units": {"kind": self.tally.units.kind, "count": len(self.tally.units)},
            "figures": {
                name: {**one.to_json(), "lower_is_better": self.tally.lower(name)} for name, one in self.figures.items()
            },
            "slices": [one.to_json() for one in self.slices],
            "details": dict(self.details),
            "problems": self.problems.to_json(),
            "worst": [one._asdict() for one in self.worst],
            "stopped": self.stopped,
            "cost": self.cost,
            "notes": list(self.notes),
            "seconds": self.seconds,
            "machine": dict(self.machine),
        }
        plain: dict[str, Any] = finite(body)
        return plain

    def save(self, folder: str | Path, worst: Sequence[Shown] = ()) -> Self:
        """Write ``report.json``, ``tally.npz`` and the page ``report.html`` into a folder.

        The predictions stand there already, as ``predictions.jsonl``: the run writes them as they come.

        Args:
            folder: Made where it is not there.
            worst: The worst examples as the page shows them.

        Returns:
            The same, with :attr:`files`.

        Raises:
            OutputError: The folder cannot be written.
        """
        from manylens.evaluation.page import page

        folder = Path(folder)
        text = json.dumps(self.to_json(), indent=1, ensure_ascii=False, allow_nan=False)
        files = [
            atomic_write(folder / REPORT, text.encode()),
            self.tally.save(folder / TALLY),
            atomic_write(folder / PAGE, page(self, worst).encode()),
        ]
        files += [path for path in (folder / PREDICTIONS,) if path.exists()]
        return replace(self, files=tuple(files))

    @classmethod
    def load(cls, folder: str | Path) -> Evaluation:
        """Read back what :meth:`save` wrote.

        Raises:
            DataError: The folder holds no evaluation of this version.
        """
        from manylens.evaluation.tally import Tally

        folder = Path(folder)
        try:
            body = json.loads((folder / REPORT).read_text(encoding="utf-8"))
            if body["schema"] != SCHEMA:
                raise ValueError(f"schema {body['schema']}")
            return _parsed(body, Tally.load(folder / TALLY))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{folder}: holds no evaluation ({error})", "evaluate again with -o") from error


def opened(source: Tally | Evaluation | str | os.PathLike[str]) -> tuple[Tally, Evaluation | None]:
    """The tally, and the evaluation where there is one.

    Args:
        source: A tally, an evaluation, the folder that it or an audit was saved in, or a tally's file.

    Raises:
        DataError: The folder holds no evaluation.
    """
    from manylens.evaluation.tally import Tally

    if isinstance(source, Tally):
        return source, None
    if isinstance(source, Evaluation):
        return source.tally, source
    path = Path(source)
    if path.is_dir() and not (path / REPORT).exists() and (path / TALLY).is_file():
        return Tally.load(path / TALLY), None  # of an audit
    if path.is_dir():
        evaluation = Evaluation.load(path)
        return evaluation.tally, evaluation
    if not path.exists():
        raise DataError(f"{path}: does not exist", "give the folder that manylens evaluate wrote with -o")
    return Tally.load(path), None


def finite(value: Any) -> Any:
    """The same as plain JSON: None for a float that is not finite (JSON knows no NaN), text for what is no value."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return value if value is None or isinstance(value, str | int) else str(value)


def _parsed(body: Mapping[str, Any], tally: Tally) -> Evaluation:
    from manylens.evaluation.intervals import Estimate

    return Evaluation(
        task=body["task"],
        measure=body["measure"],
        model=ModelUsed(**{**body["model"], **{name: tuple(body["model"][name]) for name in ("parts", "notes")}}),
        data=DataUsed(**body["data"]),
        options=body["options"],
        figures={name: Estimate.from_json(row) for name, row in body["figures"].items()},
        details=body["details"],
        slices=[_sliced(row) for row in body["slices"]],
        problems=Problems.from_json(body["problems"]),
        worst=[Example(row["unit"], row["cluster"], _number(row["score"]), row["path"]) for row in body["worst"]],
        seconds=body["seconds"],
        machine=body["machine"],
        tally=tally,
        stopped=body["stopped"],
        cost=body["cost"],
        notes=body["notes"],
        version=body["version"],
    )


def _sliced(row: Mapping[str, Any]) -> Sliced:
    from manylens.evaluation.intervals import Estimate
    from manylens.evaluation.slices import Gap, Group, Sliced

    groups = [
        Group(**{**group, "figures": {name: Estimate.from_json(one) for name, one in group["figures"].items()}})
        for group in row["groups"]
    ]
    gaps = {
        name: Gap(
            gap["figure"],
            gap["best"],
            gap["worst"],
            Estimate.from_json(gap["gap"]),
            _number(gap["ratio"]),
            _number(gap["p"]),
        )
        for name, gap in row["gaps"].items()
    }
    return Sliced(row["column"], row["main"], row["kind"], groups, gaps, row["unknown"], row["least"])


def _number(value: float | None) -> float:
    return math.nan if value is None else value
