"""Made pictures: ask for one for each caption, and judge its features against those of real pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.data.problems import DataError, Problems
from manylens.data.records import Record
from manylens.errors import UnsupportedError
from manylens.evaluation.measures import driving
from manylens.evaluation.measures.captions import texts_of
from manylens.evaluation.measures.driving import Progress
from manylens.evaluation.measures.generation import Generation, Made, load_features
from manylens.tasks import EmbedRequest, request

if TYPE_CHECKING:
    from manylens.data import Dataset
    from manylens.evaluation.tally import Tally
    from manylens.session import Session
    from manylens.tasks import Embedding


def run(
    dataset: Dataset,
    session: Session,
    *,
    model: str | None = None,
    seed: int = 0,
    columns: Sequence[str] = (),
    problems: Problems,
    progress: Progress | None = None,
    features: str | None = None,
    reference: str | Path | None = None,
) -> Tally:
    """Make a picture for the first caption of every record, and judge them all.

    Args:
        dataset: Records with captions.
        session: Runs ``generate``, and ``embed`` for the features.
        model: Makes the pictures.
        seed: Of the making.
        columns: Columns of records to keep for slices.
        problems: Takes records without a caption, and those that a model failed on.
        progress: Called after each picture.
        features: The model of the features; where it embeds text too, pictures are also held to their captions.
        reference: ``.npy`` of features of real pictures; None: those of the records' own pictures.
    """
    measure = Generation(
        categories=dataset.categories,
        problems=problems,
        columns=columns,
        reference=None if reference is None else load_features(reference),
    )

    def embedded(**fields: Any) -> Embedding:
        vector: Embedding = session.run(EmbedRequest.of(**fields), model=features)
        return vector

    for record in driving.watched(dataset, progress, lambda record: record.id):
        texts = texts_of(record.columns.get("captions"))
        if not texts:
            problems.add("no captions", record.id, f"{record.id}: has no caption to make a picture of; left out")
            continue
        try:
            made = session.run(request("generate", text=texts[0]), model=model, seed=seed)
            picture = embedded(image=made.image)
            words = _of_words(embedded, texts[0])
            together = words is not None and words.space == picture.space
            measure.add(
                record,
                Made(
                    picture.vector,
                    None if reference is not None else _real(embedded, record),
                    picture.vector if together else None,
                    words.vector if words is not None and together else None,
                ),
            )
        except Exception as error:
            driving.failed(problems, "image", record.id, error)
    return measure.tally()


@dataclass
class OfFeatures(Generation):
    """Judges saved features of made pictures, ``(D,)`` each, against a reference.

    Args:
        reference: ``.npy`` of features of real pictures, or these themselves.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reference is None:
            raise DataError("generation: no features of real pictures", "name them as reference (--set reference=FILE)")
        if isinstance(self.reference, str | Path):
            self.reference = load_features(self.reference)

    def add(self, record: Record, prediction: Any) -> None:
        """See :meth:`Measure.add`."""
        super().add(record, None if prediction is None else Made(np.asarray(prediction)))


def _real(embedded: Any, record: Record) -> Any:
    return embedded(image=record.path).vector


def _of_words(embedded: Any, text: str) -> Embedding | None:
    """The vector of the words; None where the model has none."""
    try:
        vector: Embedding = embedded(text=text)
        return vector
    except UnsupportedError:
        return None
