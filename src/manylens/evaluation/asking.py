"""What a model is asked about a record, and what a measure is given of its results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.data.problems import DataError
from manylens.evaluation.measure import Regions
from manylens.evaluation.measures.captions import texts_of

if TYPE_CHECKING:
    from manylens.data.records import Record
    from manylens.evaluation.measures.retrieval import Found

Fields = Mapping[str, Any]
Ask = Callable[["Record", "Setup"], Mapping[str, Fields]]

ONLY = ""
"""The key of a record's only request."""

LOW_THRESHOLD = 0.01
"""Average precision needs the doubtful detections too: they are the tail of its curve."""


@dataclass(frozen=True)
class Setup:
    """What holds for all requests of a run.

    Attributes:
        names: Class names to ask for; None for the model's own.
        threshold: The least score of a detection.
        words: Whether masks are asked for by words, for a model without a closed set.
    """

    names: tuple[str, ...] | None = None
    threshold: float = LOW_THRESHOLD
    words: bool = False


def picture(record: Record, setup: Setup) -> Mapping[str, Fields]:
    """Just the picture."""
    return {ONLY: {"image": record.path}}


def labels(record: Record, setup: Setup) -> Mapping[str, Fields]:
    """All labels with their probabilities, of the given names or of the model's own."""
    most = 1000 if setup.names is None else len(setup.names)
    return {ONLY: {"image": record.path, "names": setup.names, "top": most}}


def boxes(record: Record, setup: Setup) -> Mapping[str, Fields]:
    """All detections above the threshold."""
    return {ONLY: {"image": record.path, "names": setup.names, "threshold": setup.threshold}}


def instances(record: Record, setup: Setup) -> Mapping[str, Fields]:
    """Masks of all things: by the model's closed set, or by the words for them."""
    if setup.words:
        return {ONLY: {"image": record.path, "text": ", ".join(setup.names or ())}}
    return {ONLY: {"image": record.path, "mode": "instance"}}


def mode(name: str) -> Ask:
    """A mode of ``segment``."""

    def ask(record: Record, setup: Setup) -> Mapping[str, Fields]:
        return {ONLY: {"image": record.path, "mode": name}}

    return ask


def questions(record: Record, setup: Setup) -> Mapping[str, Fields]:
    """A request for each question, by the id of its annotation."""
    return {
        one.id: {"image": record.path, "question": one.columns["question"]}
        for one in record.annotations
        if one.columns.get("question") and not one.ignore
    }


def only(record: Record, results: Mapping[str, Any], setup: Setup) -> Any:
    """The result as it is."""
    return results.get(ONLY)


def by_key(record: Record, results: Mapping[str, Any], setup: Setup) -> Any:
    """All results by key."""
    return dict(results)


def regions(record: Record, results: Mapping[str, Any], setup: Setup) -> Regions | None:
    """Detections as regions, rounded as their JSON is: a result from a journal counts the same as a fresh one."""
    found = results.get(ONLY)
    if found is None:
        return None
    from manylens.tasks import to_json

    rows = to_json(found)["detections"]
    masks = [row["mask"] for row in rows]
    return Regions(
        names=[row.get("class_name", "") for row in rows],
        scores=np.array([1.0 if row["score"] is None else row["score"] for row in rows], np.float32),
        boxes=np.array([row["box"] for row in rows], np.float32).reshape(-1, 4),
        masks=masks if masks and all(mask is not None for mask in masks) else None if rows else [],
    )


def vectors(record: Record, setup: Setup) -> Mapping[str, Fields]:
    """The vector of the picture, and of each of its captions."""
    texts = texts_of(record.columns.get("captions"))
    return {ONLY: {"image": record.path}} | {str(place): {"text": text} for place, text in enumerate(texts)}


def found(record: Record, results: Mapping[str, Any], setup: Setup) -> Found | None:
    """Vectors of a picture and its captions, for retrieval.

    Raises:
        DataError: They are of different spaces, so that their cosines mean nothing.
    """
    from manylens.evaluation.measures.retrieval import Found

    picture = results.get(ONLY)
    texts = [one for key, one in results.items() if key != ONLY]
    if picture is None:
        return None
    spaces = {one.space for one in (picture, *texts)}
    if len(spaces) > 1:
        raise DataError(
            f"vectors of pictures and of captions are of different spaces ({', '.join(sorted(spaces))})",
            "name a --model that embeds both",
        )
    return Found(picture.vector, np.stack([one.vector for one in texts]) if texts else None)


def unchanged(prediction: Any) -> Any:
    """A saved prediction as it is."""
    return prediction


def as_found(prediction: Any) -> Any:
    """The vector of a picture, from a file of features, for retrieval."""
    from manylens.evaluation.measures.retrieval import Found

    return Found(prediction) if isinstance(prediction, np.ndarray) else prediction
