"""What the measures share that run a model themselves: what ends a run, what only costs a unit, and rows of units."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from manylens.data.problems import Problems
from manylens.data.records import Annotation, Record
from manylens.errors import (
    BudgetError,
    CancelledError,
    CostError,
    DeadlineError,
    MediaError,
    NetworkError,
    UnknownModelError,
    UnsupportedError,
    WeightsError,
)
from manylens.evaluation.tally import Units

if TYPE_CHECKING:
    from manylens.media import Image

BoolMask = npt.NDArray[np.bool_]
Progress = Callable[[float, str], None]
"""Called with a share of 0..1 (0 where the length is not known) and a line."""

OnUnit = Callable[[str, list[float]], None]
"""Called with the id and the values of each unit as soon as it is judged, so that a stop loses nothing."""

OF_THE_RUN = (
    CancelledError,
    DeadlineError,
    CostError,
    UnsupportedError,
    UnknownModelError,
    BudgetError,
    NetworkError,
    WeightsError,
)
"""Errors that would meet every unit, or that somebody asked for: they end the run; all others cost one unit."""

SMALL, LARGE = 32**2, 96**2
"""COCO's bounds of the area in pixels: small below the first, large from the second on."""

T = TypeVar("T")


def size_name(area: float) -> str:
    """``small``, ``medium`` or ``large``, as COCO draws the bounds."""
    return "small" if area < SMALL else "medium" if area < LARGE else "large"


@dataclass
class Rows:
    """Units as they are met.

    Attributes:
        kind: The singular noun.
        names: Columns to keep, of the annotation or else of the record.
    """

    kind: str
    names: Sequence[str] = ()
    ids: list[str] = field(default_factory=list)
    clusters: list[str] = field(default_factory=list)
    values: list[dict[str, Any]] = field(default_factory=list)

    def add(
        self, id: str, cluster: str, record: Record, annotation: Annotation | None, known: Mapping[str, Any]
    ) -> None:
        """Take a unit; ``known`` are columns that the measure works out itself, such as ``size``."""
        self.ids.append(id)
        self.clusters.append(cluster)
        self.values.append({name: column(name, record, annotation) for name in self.names} | dict(known))

    def units(self) -> Units:
        """All of them."""
        names = dict.fromkeys(name for row in self.values for name in row)
        return Units(
            self.kind, self.ids, self.clusters, {name: [row.get(name) for row in self.values] for name in names}
        )


def column(name: str, record: Record, annotation: Annotation | None = None) -> Any:
    """The value of a column: of the annotation, else of the record; ``split`` and ``label`` are columns too."""
    for holder in (annotation, record):
        if holder is not None and name in holder.columns:
            return holder.columns[name]
    return getattr(record, name) if name in ("split", "label") else None


def watched(dataset: Iterable[T], progress: Progress | None, line: Callable[[T], str]) -> Iterator[T]:
    """The same items; says after each how far it is."""
    total = len(dataset) if isinstance(dataset, Sized) else 0
    for number, item in enumerate(dataset, 1):
        yield item
        if progress is not None:
            progress(min(number / total, 1.0) if total else 0.0, line(item))


def image_of(record: Record, problems: Problems) -> Image | None:
    """The picture of a record; one that cannot be read is a problem, and None."""
    try:
        image = record.image()
        _ = image.size  # decoded here, so that a broken file costs its record and not the run
        return image
    except MediaError as error:
        _unreadable(record, error, problems)
        return None


def _unreadable(record: Record, error: MediaError, problems: Problems) -> None:
    kind = "bad image" if record.path.exists() else "missing image"
    problems.add(kind, record.id, f"image {record.id}: {error.what}")


def mask_of(annotation: Annotation, size: tuple[int, int], problems: Problems) -> BoolMask | None:
    """The mask of an annotation, bool ``(H, W)``; a missing, broken or empty one is a problem, and None.

    Args:
        annotation: The object.
        size: ``(width, height)`` of its picture.
        problems: Takes what is wrong.
    """
    from manylens.media import from_rle

    name = f"object {annotation.id}"
    if annotation.mask is None:
        problems.add("no mask", annotation.id, f"{name}: has no mask to judge by")
        return None
    try:
        mask = from_rle(annotation.mask)
    except MediaError as error:
        problems.add("bad mask", annotation.id, f"{name}: {error.what}")
        return None
    if mask.shape != (size[1], size[0]):
        shapes = f"its mask is {mask.shape[1]} x {mask.shape[0]} pixels, the picture {size[0]} x {size[1]}"
        problems.add("mask size", annotation.id, f"{name}: {shapes}")
        return None
    if not mask.any():
        problems.add("empty mask", annotation.id, f"{name}: its mask is empty")
        return None
    return mask


def failed(problems: Problems, kind: str, id: str, error: Exception, record: Record | None = None) -> None:
    """Take down that the model failed on a unit; or that its picture cannot be read, where that is the record's.

    Raises:
        Exception: The error itself, where it is one of :data:`OF_THE_RUN`.
    """
    if isinstance(error, OF_THE_RUN):
        raise error
    if record is not None and isinstance(error, MediaError):
        _unreadable(record, error, problems)
        return
    what = str(getattr(error, "what", error)) or type(error).__name__
    problems.add("model failed", id, f"{kind} {id}: the model failed ({what})")


def iou(one: BoolMask, other: BoolMask) -> float:
    """Intersection over union of two masks of one size; 1 where both are empty."""
    union = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / union if union else 1.0


def table(rows: Rows, values: Mapping[str, Sequence[float]], width: int) -> npt.NDArray[np.float64]:
    """Values by unit id as float64 ``(n, width)``, in the order of the rows."""
    return np.array([values[id] for id in rows.ids], np.float64).reshape(len(rows.ids), width)
