"""Predictions on disk: our own form, written as a run goes and read back lazily, so that nothing must be run twice.

``predictions.jsonl`` is one JSON object a line: first a head with the task, the measure and the model, then for each
record ``{"record": id, "prediction": ...}``. Masks are COCO RLE; maps (depth, classes) are ``.npz`` files in a folder
``predictions`` beside it. :mod:`manylens.evaluation.foreign` reads the forms of others.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

import numpy as np

from manylens.data.problems import DataError, Problems
from manylens.data.records import Category
from manylens.errors import OutputError
from manylens.evaluation.measure import Regions
from manylens.evaluation.results import SAVED, ModelUsed
from manylens.media import atomic_write

if TYPE_CHECKING:
    from manylens.data import Dataset

HEAD = "manylens-predictions"
_MEASURES = {
    ("regions", "detect"): "detection",
    ("regions", "segment"): "instance",
    ("classes", "segment"): "semantic",
    ("panoptic", "segment"): "panoptic",
    ("vectors", "embed"): "retrieval",
}
_MAPS = "predictions"


@dataclass(frozen=True)
class Known:
    """What predictions may speak of: the pictures and classes of a data set.

    Attributes:
        order: Ids of all records, as they are stored.
        ids: The same, to look up.
        names: Record id by what else a file may call a picture: its file's path, name or stem, where only one is so.
        questions: Record id by annotation id, for answers.
        categories: Of the data set.
    """

    order: tuple[str, ...]
    ids: frozenset[str]
    names: Mapping[str, str]
    questions: Mapping[str, str]
    categories: tuple[Category, ...]

    @classmethod
    def of(cls, dataset: Dataset) -> Known:
        """Go through the records of a data set once, without opening a picture."""
        ids: list[str] = []
        questions: dict[str, str] = {}
        names: dict[str, str | None] = {}
        for record in dataset.records():
            ids.append(record.id)
            path = Path(record.path)
            for name in {str(path), path.name, path.stem}:
                names[name] = None if name in names else record.id  # two pictures of one name: neither is meant
            questions |= {one.id: record.id for one in record.annotations if "question" in one.columns}
        alone = {name: id for name, id in names.items() if id is not None}
        return cls(tuple(ids), frozenset(ids), alone, questions, tuple(dataset.categories))

    def told(self) -> str:
        """What ids there are, for a remedy."""
        said = f"the images of the data are called {', '.join(self.order[:3])}"
        if self.questions:
            said += f"; its questions {', '.join(list(self.questions)[:3])}"
        if self.categories:
            said += "; its categories " + ", ".join(f"{one.id} {one.name}" for one in self.categories[:3])
        return said

    def record(self, said: Any) -> str | None:
        """The id of the record that a file calls ``said``: by id, then by file name."""
        name = str(int(said)) if isinstance(said, float) and said.is_integer() else str(said)
        return name if name in self.ids else self.names.get(name)


@dataclass(frozen=True)
class Saved(Mapping[str, Any]):
    """Predictions by record id.

    Attributes:
        rows: Id of a record to its prediction, or to a function that reads it when it is asked for.
        head: What the file says of itself: task, measure, model; empty for the forms of others.
        form: What they are: ``regions``, ``prompted`` (regions by annotation), ``labels``, ``classes``, ``panoptic``,
            ``texts``, ``answers``, ``readings``, ``depths`` or ``vectors``.
        path: Of the file.
    """

    rows: Mapping[str, Any]
    head: Mapping[str, Any] = field(default_factory=dict)
    form: str = ""
    path: Path | None = None

    def measure(self, task: str) -> str | None:
        """The measure that fits the form, or that the file names; None where the task alone decides."""
        named = self.head.get("measure") if self.head.get("task") == task else None
        return str(named) if named else _MEASURES.get((self.form, task))

    def used(self) -> ModelUsed:
        """What made them, as far as the file says."""
        made: Mapping[str, Any] = self.head.get("model") or {}
        return ModelUsed(
            SAVED,
            str(made.get("weights", "")),
            str(made.get("engine", "")),
            str(made.get("precision", "")),
            source=str(self.path or ""),
            notes=(f"made by {made['id']}",) if made.get("id") else (),
        )

    def __getitem__(self, id: str) -> Any:
        row = self.rows[id]
        return row() if callable(row) else row

    def __iter__(self) -> Iterator[str]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class _Place:
    """Where a prediction stands in ``predictions.jsonl``."""

    path: Path
    offset: int

    def __call__(self) -> Any:
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return decoded(json.loads(file.readline())["prediction"], self.path.parent)


class Spool:
    """Writes predictions as they come; the file gets its name when the run is over.

    Args:
        path: ``predictions.jsonl`` of the folder of the evaluation.
        head: What the file says of itself, asked for at the first prediction: only then the model is known.
    """

    def __init__(self, path: Path, head: Callable[[], Mapping[str, Any]]) -> None:
        self.path = path
        self._head: Callable[[], Mapping[str, Any]] | None = head
        self._part = path.with_name(f".{path.name}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: TextIO = self._part.open("w", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{path}: cannot be written ({error.strerror})", "choose another folder") from error

    def add(self, record: str, prediction: Any) -> None:
        """Write the prediction for a record."""
        if self._head is not None:
            self._line({"form": HEAD, "version": 1, **self._head()})
            self._head = None
        self._line({"record": record, "prediction": encoded(prediction, self.path.parent, record)})

    def close(self) -> None:
        """Give the file its name; where nothing was written, there is no file."""
        try:
            self._file.close()
            if self._head is None:
                self._part.replace(self.path)
            else:
                self._part.unlink()
        except OSError as error:  # what waited is written only now
            self._part.unlink(missing_ok=True)
            raise OutputError(f"{self.path}: cannot be written ({error.strerror})", "free some space") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self._file.close()
            self._part.unlink(missing_ok=True)

    def _line(self, row: Mapping[str, Any]) -> None:
        try:
            self._file.write(json.dumps(row, ensure_ascii=False) + "\n")
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror})", "free some space") from error


def read(path: str | Path, known: Known, problems: Problems) -> Saved:
    """Read saved predictions of any form.

    Args:
        path: ``predictions.jsonl`` or the folder of an evaluation; COCO results JSON; a CSV of labels; panoptic JSON;
            a folder of label PNGs; caption or VQA results JSON; ``.npy`` features in the order of the records.
        known: What they may speak of.
        problems: Takes rows that speak of something else, or twice of the same.

    Raises:
        DataError: The file is not there, or no predictions, or none that speaks of the data.
    """
    path = Path(path)
    if (path / "predictions.jsonl").is_file():
        path = path / "predictions.jsonl"
    if not path.exists():
        raise DataError(f"{path}: no such file", "give a file of predictions")
    before = problems.counts.copy()
    try:
        if path.suffix == ".jsonl":
            saved = _own(path, known, problems)
        else:
            from manylens.evaluation import foreign

            saved = foreign.read(path, known, problems)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: cannot be read as predictions ({why})", "see manylens evaluate --help") from error
    faults = problems.counts - before
    if faults and not saved.rows:
        firsts = [f"{one.kind} {one.id}" for one in problems if one.kind in faults][:3]
        what = f"{path}: none of its {faults.total()} rows can be used (first: {', '.join(firsts)})"
        raise DataError(what, known.told())
    return saved


def _own(path: Path, known: Known, problems: Problems) -> Saved:
    rows: dict[str, Any] = {}
    with path.open("rb") as file:
        head = json.loads(file.readline())
        if head.get("form") != HEAD:
            raise ValueError("its first line is not that of predictions.jsonl")
        offset = file.tell()
        for number, line in enumerate(file, 2):
            place, offset = _Place(path, offset), offset + len(line)
            if not line.strip():
                continue
            try:
                said = json.loads(line)["record"]
            except (ValueError, KeyError, TypeError):
                problems.add("broken row", f"line {number}", f"{path.name} line {number}: not a prediction; left out")
                continue
            take(rows, known, said, place, problems)
    from manylens.evaluation.protocols import PROTOCOLS

    measure = PROTOCOLS.get(str(head.get("measure")))
    return Saved(rows, head, measure.forms[0] if measure and measure.forms else "", path)


def take(rows: dict[str, Any], known: Known, said: Any, prediction: Any, problems: Problems) -> None:
    """Keep a prediction by record id, unless its picture is unknown or has one already."""
    id = known.record(said)
    if id is None:
        problems.add("unknown image", said, f"prediction for image {said}: the data has no such image; left out")
    elif id in rows:
        problems.add("duplicate prediction", said, f"prediction for image {said}: there is one already; left out")
    else:
        rows[id] = prediction


def encoded(prediction: Any, folder: Path, name: str) -> Any:
    """JSON of a prediction; float maps go to ``.npz`` files in the folder.

    Args:
        prediction: None, text, Regions, a result of a task, an array, or a mapping of these.
        folder: Where ``predictions.jsonl`` stands.
        name: The record, for file names.
    """
    from manylens.evaluation.measures.retrieval import Found
    from manylens.tasks.results import Depth, Result, to_json

    if prediction is None or isinstance(prediction, str):
        return prediction
    if isinstance(prediction, Regions):
        return _regions(prediction)
    if isinstance(prediction, Depth):
        return {
            "type": "depth",
            "scale": prediction.scale,
            "inverse": prediction.inverse,
            "map": encoded(prediction.map, folder, name),
        }
    if isinstance(prediction, Result):
        body = to_json(prediction)
        return {key: value for key, value in body.items() if key != "provenance"}
    if isinstance(prediction, np.ndarray) and prediction.ndim < 2:
        return {"type": "vector", "values": prediction.tolist()}
    if isinstance(prediction, np.ndarray):
        buffer = io.BytesIO()
        np.savez_compressed(buffer, values=prediction)
        safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)[:100]
        target = folder / _MAPS / f"{safe}-{_short(name)}.npz"
        atomic_write(target, buffer.getvalue())
        return {"type": "array", "file": f"{_MAPS}/{target.name}"}
    if isinstance(prediction, Found):
        parts = {"image": prediction.image, "texts": prediction.texts}
        return {"type": "found"} | {key: None if one is None else one.tolist() for key, one in parts.items()}
    if isinstance(prediction, Mapping):
        items = {str(key): encoded(one, folder, f"{name}-{key}") for key, one in prediction.items()}
        return {"type": "mapping", "items": items}
    raise TypeError(f"{type(prediction).__name__} has no form on disk")


def decoded(body: Any, folder: Path) -> Any:
    """What :func:`encoded` made JSON of."""
    from manylens.evaluation.measures.retrieval import Found
    from manylens.tasks.parse import from_json
    from manylens.tasks.results import Depth

    if body is None or isinstance(body, str):
        return body
    kind = body["type"]
    if kind == "regions":
        return Regions(
            body["names"],
            np.array([math.nan if score is None else score for score in body["scores"]], np.float32),
            None if body["boxes"] is None else np.array(body["boxes"], np.float32).reshape(-1, 4),
            body["masks"],
            body["ids"],
        )
    if kind == "depth":
        return Depth(map=decoded(body["map"], folder), scale=body["scale"], inverse=body.get("inverse", False))
    if kind == "found":
        return Found(*(None if body[key] is None else np.array(body[key], np.float32) for key in ("image", "texts")))
    if kind == "vector":
        return np.array(body["values"])
    if kind == "array":
        with np.load(folder / body["file"], allow_pickle=False) as file:
            return file["values"]
    if kind == "mapping":
        return {key: decoded(one, folder) for key, one in body["items"].items()}
    return from_json(body)


def _regions(found: Regions) -> dict[str, Any]:
    return {
        "type": "regions",
        "names": [str(name) for name in found.names],
        "scores": [float(score) if math.isfinite(score) else None for score in found.scores],
        "boxes": None if found.boxes is None else np.asarray(found.boxes, float).tolist(),
        "masks": None if found.masks is None else [dict(mask) for mask in found.masks],
        "ids": [str(id) for id in found.ids],
    }


def _short(name: str) -> str:
    import hashlib

    return hashlib.sha256(name.encode()).hexdigest()[:8]
