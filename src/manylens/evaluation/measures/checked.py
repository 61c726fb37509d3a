"""The masks of one picture, checked: what is wrong with one is taken down with its id, and it is left out."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from manylens.data.problems import Problems
from manylens.data.records import Annotation, Record
from manylens.errors import MediaError
from manylens.evaluation.measure import Regions
from manylens.evaluation.measures.spans import Spans

Size = tuple[int, int]


def size_of(record: Record, prediction: Regions | npt.NDArray[np.integer] | None) -> Size:
    """``(height, width)`` as the record says, else as its masks do, else as the prediction does."""
    if record.height is not None and record.width is not None:
        return record.height, record.width
    masks = [one.mask for one in record.annotations if one.mask is not None]
    if isinstance(prediction, Regions):
        masks += prediction.masks or ()
    said = next((size for mask in masks if (size := _size(mask))), None)
    if said is None and isinstance(prediction, np.ndarray):
        return prediction.shape[0], prediction.shape[-1]
    return said or (1, 1)  # nothing is known of it, and nothing was found


def truth(
    record: Record, size: Size, known: Container[str], problems: Problems, *, empty: bool = True
) -> tuple[list[Annotation], Spans]:
    """The annotations of a picture that have a mask, and their masks.

    Args:
        record: The truth.
        size: ``(height, width)`` of the picture.
        known: Names of the categories.
        problems: Takes annotations without a mask, with a broken one or of an unknown category.
        empty: Whether a mask may be empty.
    """
    kept: list[Annotation] = []
    for one in record.annotations:
        if one.mask is None:
            problems.add("no mask", one.id, f"{_named(one, record)}: has no mask to judge by; left out")
        elif not one.ignore and one.category not in known:
            what = f"{one.category!r} is no category of the data"
            problems.add("unknown category", one.id, f"{_named(one, record)}: {what}; left out")
        else:
            kept.append(one)
    at, spans = readable(
        [one.mask or {} for one in kept],
        size,
        lambda i: (kept[i].id, _named(kept[i], record)),
        problems,
        empty=empty,
    )
    return [kept[i] for i in at], spans


def found(
    regions: Regions, record: Record, size: Size, known: Container[str], problems: Problems
) -> tuple[list[int], Spans] | None:
    """The predicted regions of a picture that can be judged, and their masks.

    Args:
        regions: The prediction.
        record: The truth.
        size: ``(height, width)`` of the picture.
        known: Names of the categories.
        problems: Takes regions with a NaN score, an unknown category, a broken or empty mask; and the whole prediction
            where it has no masks or its masks are not of the size.

    Returns:
        Which regions, and their masks; None where the picture must be left out.
    """
    if not len(regions):
        return [], Spans.of([], size)
    if regions.masks is None:
        problems.add("no mask", record.id, f"prediction for image {record.id}: has boxes but no masks; left out")
        return None
    sizes = {said for mask in regions.masks if (said := _size(mask))}
    if not sizes <= {size}:
        wrong_size(record, next(iter(sizes - {size})), size, problems)
        return None
    kept: list[int] = []

    def name_of(i: int) -> tuple[str, str]:
        id = str(regions.ids[i]) if len(regions.ids) else f"{record.id}/{i}"
        return id, f"prediction {id} of image {record.id}"

    unscored = np.isnan(np.asarray(regions.scores)).tolist()
    for i, name in enumerate(regions.names):
        if unscored[i]:
            id, whole = name_of(i)
            problems.add("NaN score", id, f"{whole}: its score is not a number; left out")
        elif name not in known:
            id, whole = name_of(i)
            problems.add("unknown category", id, f"{whole}: {name!r} is no category of the data; left out")
        else:
            kept.append(i)
    masks = [regions.masks[i] for i in kept]
    at, spans = readable(masks, size, lambda i: name_of(kept[i]), problems, empty=False)
    return [kept[i] for i in at], spans


def wrong_size(record: Record, said: tuple[int, ...], size: Size, problems: Problems) -> None:
    """Take down that a prediction is not of the picture's size; both as ``(height, width)``."""
    shapes = f"is {' x '.join(map(str, said[::-1]))} pixels, the picture {size[1]} x {size[0]}"
    problems.add("mask size", record.id, f"prediction for image {record.id}: {shapes}; left out")


def readable(
    masks: Sequence[Mapping[str, Any]],
    size: Size,
    name_of: Callable[[int], tuple[str, str]],
    problems: Problems,
    *,
    empty: bool = True,
) -> tuple[list[int], Spans]:
    """Masks that are what they should be.

    Args:
        masks: COCO RLE.
        size: ``(height, width)`` that they must have.
        name_of: Gives the id of a mask and what to call it; asked only where something is wrong.
        problems: Takes the others.
        empty: Whether a mask may be empty.

    Returns:
        Which masks, and their spans.
    """
    at = list(range(len(masks)))
    try:
        spans = Spans.of(masks, size)
    except MediaError:  # rare: only now look which one it is
        at = [i for i in at if _fits(masks[i], size, name_of(i), problems)]
        spans = Spans.of([masks[i] for i in at], size)
    nothing = () if empty else spans.empty()
    if not len(nothing):
        return at, spans
    for i in nothing:
        id, name = name_of(at[i])
        problems.add("empty mask", id, f"{name}: its mask is empty; left out")
    at = np.delete(at, nothing).tolist()
    return at, Spans.of([masks[i] for i in at], size)


def _fits(mask: Mapping[str, Any], size: Size, name: tuple[str, str], problems: Problems) -> bool:
    try:
        Spans.of([mask], size)
    except MediaError as error:
        problems.add("bad mask", name[0], f"{name[1]}: {error.what}; left out")
        return False
    return True


def _size(mask: Mapping[str, Any]) -> Size | None:
    try:
        height, width = mask["size"]
        return int(height), int(width)
    except (KeyError, TypeError, ValueError):
        return None


def _named(one: Annotation, record: Record) -> str:
    return f"annotation {one.id} of image {record.id}"
