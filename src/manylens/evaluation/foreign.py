"""Predictions in the forms of others: COCO results, panoptic, label pictures, CSV, captions, answers, features."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.data import rle
from manylens.data.formats import masks, shared
from manylens.data.problems import DataError, Problems
from manylens.evaluation.measure import Regions
from manylens.evaluation.predictions import Known, Saved, take
from manylens.tasks.results import Answer, Caption, Classification, Label

if TYPE_CHECKING:
    from manylens.evaluation.measures.panoptic import PanopticMap

_IMAGE = ("image", "image_id", "file", "file_name", "filename", "path", "id")
_LABEL = ("label", "class", "category", "prediction")
_SCORE = ("score", "confidence", "probability")
_LARGEST = 1e38  # two of them may be added, as 32-bit numbers
_FORMS = (
    "give COCO results JSON, panoptic JSON, captions or answers JSON, a CSV of labels, a folder of label PNGs, "
    ".npy features, or predictions.jsonl of manylens"
)


def read(path: Path, known: Known, problems: Problems) -> Saved:
    """Predictions of any form but our own; see :func:`manylens.evaluation.predictions.read`.

    Raises:
        DataError: It is of no form that is known.
    """
    if path.is_dir():
        return _class_maps(path, known, problems)
    kind = path.suffix.lower()
    if kind in (".csv", ".tsv"):
        return _labels(path, known, problems)
    if kind == ".npy":
        return _vectors(path, known)
    if kind != ".json":
        raise DataError(f"{path}: {kind or 'a file without suffix'} is no form of predictions", _FORMS)
    body = shared.read_json(path)
    if isinstance(body, Mapping):
        return _panoptic(path, body, known, problems)
    if not isinstance(body, list) or not all(isinstance(row, Mapping) for row in body):
        raise DataError(f"{path}: is no list of predictions", _FORMS)
    if any("question_id" in row for row in body):
        return _answers(path, body, known, problems)
    if any("caption" in row for row in body):
        return _captions(path, body, known, problems)
    return _regions(path, body, known, problems)


# ---------------------------------------------------------------------- boxes and masks


def _regions(path: Path, body: Sequence[Mapping[str, Any]], known: Known, problems: Problems) -> Saved:
    """COCO results: a list of ``image_id``, ``category_id``, ``score`` and ``bbox`` or ``segmentation``."""
    names = _names(known)
    rows: dict[str, list[tuple[str, str, float, Any, Any]]] = defaultdict(list)
    for number, row in enumerate(body):
        id = str(row.get("id", number))
        what = f"prediction {id} of image {row.get('image_id')}"
        record = known.record(row.get("image_id"))
        category = names.get(shared.id_of(row.get("category_id")) or "")
        box, mask = row.get("bbox"), row.get("segmentation")
        fault = None if mask is None else _mask_fault(mask)
        if record is None:
            problems.add("unknown image", id, f"{what}: the data has no such image; left out")
        elif category is None:
            said = row.get("category_id")
            problems.add("unknown category", id, f"{what}: the data has no category {said}; left out")
        elif box is not None and not _is_box(box):
            problems.add("bad box", id, f"{what}: its box {box} is not four finite numbers; left out")
        elif fault is not None:
            problems.add("bad mask", id, f"{what}: its mask {fault}; left out")
        elif box is None and mask is None:
            problems.add("broken row", id, f"{what}: has neither bbox nor segmentation; left out")
        elif not _is_score(row.get("score", math.nan)):
            problems.add("NaN score", id, f"{what}: its score {row.get('score')} is not a number; left out")
        else:
            rows[record].append((id, category, float(row["score"]), box, mask))
    return Saved({record: _gathered(some) for record, some in rows.items()}, form="regions", path=path)


def _gathered(rows: Sequence[tuple[str, str, float, Any, Any]]) -> Regions:
    """The predictions for a picture; where only some have a mask, the others have an empty one, and so with boxes."""
    boxes = [_corners(box, mask) for *_, box, mask in rows] if any(row[3] is not None for row in rows) else None
    masks = [{} if row[4] is None else rle.packed(row[4]) for row in rows]
    return Regions(
        names=[row[1] for row in rows],
        scores=np.array([row[2] for row in rows], np.float32),
        boxes=None if boxes is None else np.array(boxes, np.float32),
        masks=masks if any(masks) else None,
        ids=[row[0] for row in rows],
    )


def _corners(box: Sequence[float] | None, mask: Mapping[str, Any] | None) -> tuple[float, float, float, float]:
    """A box of ``x, y, width, height``, else the one around the mask."""
    if box is None:
        lengths = rle.runs(mask or {})
        return rle.bounds(mask or {}, lengths) if rle.area(lengths) else (0.0, 0.0, 0.0, 0.0)
    x, y, width, height = box
    return x, y, x + width, y + height


def _names(known: Known) -> dict[str, str]:
    """Names of the categories by their ids as text, so that a file may write them as numbers or as text."""
    return {str(category.id): category.name for category in known.categories}


def _mask_fault(mask: Any) -> str | None:
    """What is wrong with a mask; None where nothing is."""
    if not isinstance(mask, Mapping):
        return "is no run-length encoding"
    try:
        rle.runs(mask)
    except ValueError as error:
        return str(error)
    return None


def _is_box(box: Any) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(map(_is_score, box))


def _is_score(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -_LARGEST < value < _LARGEST


# ---------------------------------------------------------------------- maps of classes and segments


def _class_maps(folder: Path, known: Known, problems: Problems) -> Saved:
    """A folder of PNGs named as the pictures, whose values are category ids, read as those of the truth are."""
    rows: dict[str, Any] = {}
    files = sorted(folder.glob("*.png"))
    if not files:
        raise DataError(f"{folder}: holds no PNG", _FORMS)
    binary = masks.is_binary(known.categories)
    ids = {category.id for category in known.categories}
    silent = [id for id in (0, 255) if id not in ids and not (binary and id)]  # nothing is there, or nobody says
    for file in files:
        stem = file.stem if known.record(file.stem) else file.stem.removesuffix("_mask")
        take(rows, known, stem, partial(_class_map, file, binary, silent), problems)
    return Saved(rows, form="classes", path=folder)


def _class_map(file: Path, binary: bool, silent: Sequence[int]) -> np.ndarray:
    """int32 ``(H, W)`` of category ids, -1 where one of the silent values is."""
    ids = masks.numbered(masks.read_values(file), binary).astype(np.int32)
    return np.where(np.isin(ids, silent), np.int32(-1), ids)


def _panoptic(path: Path, body: Mapping[str, Any], known: Known, problems: Problems) -> Saved:
    """COCO panoptic: ``annotations`` with ``segments_info``, and PNGs in the folder of the file's name."""
    if "annotations" not in body:
        raise DataError(f"{path}: has no 'annotations'", _FORMS)
    names = _names(known)
    folder = next((place for place in (path.with_suffix(""), path.parent) if place.is_dir()), path.parent)
    rows: dict[str, Any] = {}
    for number, row in enumerate(body["annotations"]):
        try:
            image, file = row["image_id"], folder / row["file_name"]
            segments = [(int(each["id"]), shared.id_of(each["category_id"])) for each in row["segments_info"]]
        except (KeyError, OverflowError, TypeError, ValueError):
            what = f"{path.name} annotations[{number}]: not a panoptic prediction; left out"
            problems.add("broken row", f"annotations[{number}]", what)
            continue
        classes: dict[int, str | None] = {}
        for id, category in segments:
            name = f"segment {id} of image {image}"
            if id in classes:
                problems.add("duplicate id", id, f"{name}: there is one already; left out")
                continue
            classes[id] = names.get(category or "")
            if classes[id] is None:
                problems.add("unknown category", id, f"{name}: the data has no category {category}; left out")
        take(rows, known, image, partial(_panoptic_map, file, classes), problems)
    return Saved(rows, form="panoptic", path=path)


def _panoptic_map(file: Path, classes: Mapping[int, str | None]) -> PanopticMap:
    """The map of a PNG; a segment whose class is None is nothing, one that is not listed is the measure's to refuse."""
    from PIL import Image

    from manylens.evaluation.measures.panoptic import PanopticMap

    try:
        with Image.open(file) as picture:
            colours = np.asarray(picture.convert("RGB")).astype(np.int64)
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{file}: cannot be read ({error})", "give the PNGs beside the JSON") from error
    ids = colours @ np.array([1, 256, 65536])
    refused = [id for id, name in classes.items() if name is None]
    names = {id: name for id, name in classes.items() if name is not None}
    return PanopticMap(np.where(np.isin(ids, refused), 0, ids), names)


# ---------------------------------------------------------------------- labels, texts, vectors


def _labels(path: Path, known: Known, problems: Problems) -> Saved:
    """A CSV with a picture a row and either ``label`` (and ``score``) or a column of scores for each class."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        table = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        columns = list(table.fieldnames or ())
        image = next((name for name in _IMAGE if name in columns), None)
        label = next((name for name in _LABEL if name in columns), None)
        score = next((name for name in _SCORE if name in columns), None)
        if image is None:
            raise DataError(f"{path}: has no column that names the picture", f"name it {_IMAGE[0]!r}")
        classes = [] if label else [name for name in columns if name in {one.name for one in known.categories}]
        if label is None and not classes:
            raise DataError(f"{path}: has neither a column 'label' nor one for each class", "add one of these")
        said: dict[str, list[Label]] = {}
        for line, row in enumerate(_rows_of(table, path), 2):
            if None in row or None in row.values():
                what = f"{path.name} line {line}: has more or fewer cells than the header; left out"
                problems.add("broken row", f"line {line}", what)
                continue
            names = [str(row[label])] if label else classes
            values = [row[score] if score else "1"] if label else [row[name] for name in classes]
            _row(said, known, f"{path.name} line {line}", str(row[image]), names, values, bool(label), problems)
    rows = {id: Classification(labels=tuple(sorted(found, key=lambda one: -one.score))) for id, found in said.items()}
    return Saved(rows, form="labels", path=path)


def _rows_of(table: csv.DictReader[str], path: Path) -> Iterator[dict[str | Any, str | Any]]:
    try:
        yield from table
    except csv.Error as error:
        raise DataError(f"{path}: cannot be read as a table ({error})", "save it as CSV again") from error


def _row(
    said: dict[str, list[Label]],
    known: Known,
    what: str,
    image: str,
    names: Sequence[str],
    values: Sequence[str | None],
    several: bool,
    problems: Problems,
) -> None:
    """Take the labels of a row; of several rows for one picture, each may give another label."""
    record = known.record(image)
    try:
        scores = [float(value or "nan") for value in values]
    except ValueError:
        scores = [math.nan]
    if record is None:
        problems.add("unknown image", image, f"{what}: the data has no image {image}; left out")
    elif not all(map(math.isfinite, scores)):
        problems.add("NaN score", image, f"{what}: a score of image {image} is not a number; left out")
    elif record in said and (not several or names[0] in {one.name for one in said[record]}):
        problems.add("duplicate prediction", image, f"{what}: image {image} has one already; left out")
    else:
        found = [Label(name, value) for name, value in zip(names, scores, strict=True)]
        said.setdefault(record, []).extend(found)


def _captions(path: Path, body: Sequence[Mapping[str, Any]], known: Known, problems: Problems) -> Saved:
    """COCO captions: a list of ``image_id`` and ``caption``."""
    rows: dict[str, Any] = {}
    for number, row in enumerate(body):
        if row.get("image_id") is None or row.get("caption") is None:
            what = f"{path.name} row {number}: has no image_id or no caption; left out"
            problems.add("broken row", f"row {number}", what)
            continue
        take(rows, known, row["image_id"], Caption(text=str(row["caption"])), problems)
    return Saved(rows, form="texts", path=path)


def _answers(path: Path, body: Sequence[Mapping[str, Any]], known: Known, problems: Problems) -> Saved:
    """VQA: a list of ``question_id`` and ``answer``."""
    rows: dict[str, dict[str, Answer]] = defaultdict(dict)
    for number, row in enumerate(body):
        if row.get("question_id") is None or row.get("answer") is None:
            what = f"{path.name} row {number}: has no question_id or no answer; left out"
            problems.add("broken row", f"row {number}", what)
            continue
        id = str(row["question_id"])
        record = known.questions.get(id)
        if record is None:
            problems.add("unknown question", id, f"answer to question {id}: the data has no such question; left out")
        elif id in rows[record]:
            problems.add("duplicate prediction", id, f"answer to question {id}: there is one already; left out")
        else:
            rows[record][id] = Answer(text=str(row["answer"]))
    return Saved(dict(rows), form="answers", path=path)


def _vectors(path: Path, known: Known) -> Saved:
    """Features ``(records, D)`` in the order of the records."""
    try:
        features = np.load(path, allow_pickle=False, mmap_mode="r")
    except (EOFError, OSError, ValueError) as error:
        raise DataError(f"{path}: is no whole .npy file of numbers", "write it with numpy.save") from error
    if not isinstance(features, np.ndarray) or features.dtype.kind not in "fiub" or not features.size:
        raise DataError(f"{path}: holds no numbers", "give a row of numbers for each record")
    if features.ndim != 2 or len(features) != len(known.order):
        shape = "x".join(map(str, features.shape))
        raise DataError(f"{path}: is {shape}, the data has {len(known.order)} records", "give a row for each record")
    return Saved({id: partial(np.array, features[i]) for i, id in enumerate(known.order)}, form="vectors", path=path)
