"""Predictions in the forms of others: COCO results, panoptic, label pictures, CSV, captions, answers, features."""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.data.problems import DataError, Problems
from manylens.evaluation.measure import Regions
from manylens.evaluation.predictions import Known, Saved, take
from manylens.tasks.results import Answer, Caption, Classification, Label

if TYPE_CHECKING:
    from manylens.evaluation.panoptic import PanopticMap

_IMAGE = ("image", "image_id", "file", "file_name", "filename", "path", "id")
_LABEL = ("label", "class", "category", "prediction")
_SCORE = ("score", "confidence", "probability")
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
    body = json.loads(path.read_text(encoding="utf-8"))
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
    names = {category.id: category.name for category in known.categories}
    rows: dict[str, list[tuple[str, str, float, Any, Any]]] = defaultdict(list)
    for number, row in enumerate(body):
        id = str(row.get("id", number))
        what = f"prediction {id} of image {row.get('image_id')}"
        record = known.record(row.get("image_id"))
        category = row.get("category_id")
        box, mask = row.get("bbox"), row.get("segmentation")
        if record is None:
            problems.add("unknown image", id, f"{what}: the data has no such image; left out")
        elif category not in names:
            problems.add("unknown category", id, f"{what}: the data has no category {category}; left out")
        elif box is not None and not _is_box(box):
            problems.add("bad box", id, f"{what}: its box {box} is not four finite numbers; left out")
        elif mask is not None and not (isinstance(mask, Mapping) and {"size", "counts"} <= set(mask)):
            problems.add("bad mask", id, f"{what}: its mask is no run-length encoding; left out")
        elif box is None and mask is None:
            problems.add("broken row", id, f"{what}: has neither bbox nor segmentation; left out")
        elif not _is_score(row.get("score", math.nan)):
            problems.add("NaN score", id, f"{what}: its score {row.get('score')} is not a number; left out")
        else:
            rows[record].append((id, names[category], float(row["score"]), box, mask))
    return Saved({record: _gathered(some) for record, some in rows.items()}, form="regions", path=path)


def _gathered(rows: Sequence[tuple[str, str, float, Any, Any]]) -> Regions:
    boxes = [row[3] for row in rows]
    masks = [_compressed(row[4]) for row in rows if row[4] is not None]
    whole = [[x, y, x + width, y + height] for x, y, width, height in boxes] if None not in boxes else None
    return Regions(
        names=[row[1] for row in rows],
        scores=np.array([row[2] for row in rows], np.float32),
        boxes=None if whole is None else np.array(whole, np.float32),
        masks=masks if len(masks) == len(rows) else None,
        ids=[row[0] for row in rows],
    )


def _compressed(mask: Mapping[str, Any]) -> Mapping[str, Any]:
    """The mask with COCO's string of counts, where it has a list."""
    if not isinstance(mask["counts"], list):
        return mask
    from pycocotools import mask as coco

    height, width = mask["size"]
    packed = coco.frPyObjects({"size": [height, width], "counts": mask["counts"]}, height, width)
    return {"size": [height, width], "counts": packed["counts"].decode("ascii")}


def _is_box(box: Any) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(_is_score(side) for side in box)


def _is_score(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


# ---------------------------------------------------------------------- maps of classes and segments


def _class_maps(folder: Path, known: Known, problems: Problems) -> Saved:
    """A folder of PNGs named as the pictures, whose values are category ids."""
    rows: dict[str, Any] = {}
    files = sorted(folder.glob("*.png"))
    if not files:
        raise DataError(f"{folder}: holds no PNG", _FORMS)
    for file in files:
        take(rows, known, file.stem, partial(_class_map, file), problems)
    return Saved(rows, form="classes", path=folder)


def _class_map(file: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(file) as picture:
        values = np.asarray(picture)
    if values.ndim != 2:
        raise DataError(f"{file}: has colours, not one class a pixel", "give gray or palette PNGs of category ids")
    return values.astype(np.int32)


def _panoptic(path: Path, body: Mapping[str, Any], known: Known, problems: Problems) -> Saved:
    """COCO panoptic: ``annotations`` with ``segments_info``, and PNGs in the folder of the file's name."""
    if "annotations" not in body:
        raise DataError(f"{path}: has no 'annotations'", _FORMS)
    names = {category.id: category.name for category in known.categories}
    folder = next((place for place in (path.with_suffix(""), path.parent) if place.is_dir()), path.parent)
    rows: dict[str, Any] = {}
    for row in body["annotations"]:
        classes = {}
        for segment in row["segments_info"]:
            if segment["category_id"] in names:
                classes[int(segment["id"])] = names[segment["category_id"]]
            else:
                what = f"segment {segment['id']} of image {row['image_id']}"
                problems.add(
                    "unknown category", segment["id"], f"{what}: the data has no category {segment['category_id']}"
                )
        take(rows, known, row["image_id"], partial(_panoptic_map, folder / row["file_name"], classes), problems)
    return Saved(rows, form="panoptic", path=path)


def _panoptic_map(file: Path, names: Mapping[int, str]) -> PanopticMap:
    from PIL import Image

    from manylens.evaluation.panoptic import PanopticMap

    try:
        with Image.open(file) as picture:
            colours = np.asarray(picture.convert("RGB")).astype(np.int64)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error})", "give the PNGs beside the JSON") from error
    ids = colours @ np.array([1, 256, 65536])
    return PanopticMap(np.where(np.isin(ids, list(names)), ids, 0), names)


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
        for line, row in enumerate(table, 2):
            names = [str(row[label])] if label else classes
            values = [row[score] if score else "1"] if label else [row[name] for name in classes]
            _row(said, known, f"{path.name} line {line}", str(row[image]), names, values, bool(label), problems)
    rows = {id: Classification(labels=tuple(sorted(found, key=lambda one: -one.score))) for id, found in said.items()}
    return Saved(rows, form="labels", path=path)


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
    for row in body:
        take(rows, known, row["image_id"], Caption(text=str(row["caption"])), problems)
    return Saved(rows, form="texts", path=path)


def _answers(path: Path, body: Sequence[Mapping[str, Any]], known: Known, problems: Problems) -> Saved:
    """VQA: a list of ``question_id`` and ``answer``."""
    rows: dict[str, dict[str, Answer]] = defaultdict(dict)
    for row in body:
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
    features = np.load(path, allow_pickle=False, mmap_mode="r")
    if features.ndim != 2 or len(features) != len(known.order):
        shape = "x".join(map(str, features.shape))
        raise DataError(f"{path}: is {shape}, the data has {len(known.order)} records", "give a row for each record")
    return Saved({id: partial(np.array, features[i]) for i, id in enumerate(known.order)}, form="vectors", path=path)
