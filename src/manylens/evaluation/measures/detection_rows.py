"""What of records and predicted regions can be judged, as arrays; all else is taken down with its id and left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from manylens.data.problems import DataError, Problems
from manylens.data.records import Annotation, Category, Record
from manylens.evaluation.measure import Regions
from manylens.evaluation.measures.matching import FloatArray, Objects

Kind = Literal["box", "mask"]
Waiting = tuple[int, Record, Regions]
"""The number of a picture, its truth and what was predicted."""

_Bools = npt.NDArray[np.bool_]
_Faults = dict[int, tuple[str, str]]
"""What is wrong with the i-th row: the kind of problem, and in words."""

_Rle = dict[str, Any]
_BROKEN = (KeyError, OverflowError, TypeError, ValueError)  # what hotcoco raises for a broken RLE
_WORDS = {"question", "text"}  # what is said of a picture is no object of it
_NOWHERE = (np.nan, np.nan, np.nan, np.nan)


@dataclass
class Classes:
    """Numbers of the classes of things, in the order of the categories; without categories, as names are met."""

    categories: Sequence[Category] = ()
    numbers: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for category in self.categories:
            if category.is_thing:
                self.numbers.setdefault(category.name, len(self.numbers))
        self._stuff = {category.name for category in self.categories if not category.is_thing}

    def number(self, name: str) -> int:
        """Of a class; -1 where it is not to be detected."""
        return self.numbers.get(name, -1) if self.categories else self.numbers.setdefault(name, len(self.numbers))

    def fault(self, name: str) -> tuple[str, str]:
        """Why it has no number."""
        return (
            "unknown category",
            f"{name!r} is {'stuff, not a thing' if name in self._stuff else 'no category of the data'}",
        )

    def is_stuff(self, name: str) -> bool:
        """Whether it is a class of stuff."""
        return name in self._stuff


def check(record: Record, regions: Regions) -> None:
    """See that a prediction is whole.

    Raises:
        DataError: It has not as many scores, boxes or masks as names.
    """
    lengths = {"scores": len(regions.scores)}
    lengths |= {"boxes": len(regions.boxes)} if regions.boxes is not None else {}
    lengths |= {"masks": len(regions.masks)} if regions.masks is not None else {}
    for what, length in lengths.items():
        if length != len(regions):
            raise DataError(
                f"prediction for image {record.id}: {length} {what} for {len(regions)} names", "give one for each"
            )


def objects_of(
    waiting: Sequence[Waiting], classes: Classes, kind: Kind, problems: Problems
) -> tuple[Objects, _Bools, _Bools]:
    """The objects of pictures: annotations of things with a box or a mask.

    Returns:
        The objects, g of them; bool ``(g,)``, which are crowds; bool ``(g,)``, which are not judged.
    """
    rows: list[tuple[int, int, Annotation, Record]] = []
    for image, record, _ in waiting:
        for one in record.annotations:
            if classes.is_stuff(one.category):
                continue
            if one.box is None and one.mask is None:
                if one.category and not one.ignore and not _WORDS & one.columns.keys():
                    name = f"annotation {one.id} of image {record.id}"
                    problems.add("no box", one.id, f"{name}: has neither a box nor a mask to judge by; left out")
                continue
            number = classes.number(one.category)
            if number >= 0 or not one.ignore:
                rows.append((image, number, one, record))
    annotations = [row[2] for row in rows]
    faults: _Faults = {i: classes.fault(row[2].category) for i, row in enumerate(rows) if row[1] < 0}
    masks: list[_Rle] = []
    boxes = np.zeros((0, 4))
    if kind == "mask":
        masks, area = _masks([one.mask for one in annotations], [_size(row[3]) for row in rows], faults)
    else:
        boxes, area = _boxes(_placed(annotations), faults)
    stated = np.array([np.nan if one.area is None else one.area for one in annotations], float)
    images, numbers = (np.array([row[at] for row in rows], np.int64) for at in (0, 1))
    objects = Objects(images, numbers, np.where(np.isnan(stated), area, stated), boxes, masks)
    crowd, ignore = (np.array([getattr(one, name) for one in annotations], bool) for name in ("crowd", "ignore"))
    good = _left(
        len(rows), faults, problems, lambda i: (rows[i][2].id, f"annotation {rows[i][2].id} of image {rows[i][3].id}")
    )
    return objects.where(good), crowd[good], ignore[good]


def detections_of(
    waiting: Sequence[Waiting], classes: Classes, kind: Kind, problems: Problems
) -> tuple[Objects, FloatArray]:
    """The predictions for pictures.

    Returns:
        The detections, d of them, and their scores ``(d,)``.
    """
    lengths = [len(regions) for _, _, regions in waiting]
    starts = np.cumsum([0, *lengths])
    image = np.repeat(np.array([number for number, _, _ in waiting], np.int64), lengths)
    names = list(chain.from_iterable(regions.names for _, _, regions in waiting))
    number = np.fromiter(map(classes.number, names), np.int64, len(names))
    scores = _joined(regions.scores for _, _, regions in waiting)
    faults: _Faults = {int(i): classes.fault(names[i]) for i in np.flatnonzero(number < 0)}
    faults |= {int(i): ("NaN score", "its score is not a finite number") for i in np.flatnonzero(~np.isfinite(scores))}
    masks: list[_Rle] = []
    boxes = np.zeros((0, 4))
    if kind == "mask":
        given = chain.from_iterable(regions.masks or repeat(None, len(regions)) for _, _, regions in waiting)
        sizes = chain.from_iterable(repeat(_size(record), len(regions)) for _, record, regions in waiting)
        masks, area = _masks(list(given), list(sizes), faults)
    else:
        given_boxes = [_outlines(regions) for _, _, regions in waiting]
        boxes, area = _boxes(_joined(given_boxes).reshape(-1, 4), faults)

    def name(i: int) -> tuple[str, str]:
        at = int(np.searchsorted(starts, i, side="right")) - 1
        _, record, regions = waiting[at]
        id = str(regions.ids[i - starts[at]]) if len(regions.ids) else f"{record.id}/{i - starts[at]}"
        return id, f"prediction {id} of image {record.id}"

    for i in np.flatnonzero(area == 0) if kind == "mask" else ():
        if i not in faults:
            id, whole = name(int(i))
            problems.add("empty mask", id, f"{whole}: its mask is empty; a false alarm", left_out=False)
    good = _left(len(names), faults, problems, name)
    return Objects(image, number, area, boxes, masks).where(good), scores[good]


def _masks(
    given: Sequence[Mapping[str, Any] | None], sizes: Sequence[tuple[int, int] | None], faults: _Faults
) -> tuple[list[_Rle], FloatArray]:
    """Masks with their areas in pixels; adds those that are missing, broken or not of their picture's size."""
    masks = [dict(mask or {}) for mask in given]
    area = np.zeros(len(masks))
    there = [i for i, mask in enumerate(given) if mask]
    faults |= {i: ("no mask", "has no mask to judge by") for i, mask in enumerate(given) if not mask}
    for i, value in zip(there, _each(_areas, [masks[i] for i in there]), strict=True):
        if isinstance(value, Exception):
            faults[i] = ("bad mask", f"its mask cannot be read ({value})")
        else:
            area[i] = value
            said, size = tuple(masks[i]["size"]), sizes[i]
            if size is not None and said != size:
                faults[i] = ("mask size", f"is {said[1]} x {said[0]} pixels, the picture {size[1]} x {size[0]}")
    return masks, area


def _boxes(boxes: FloatArray, faults: _Faults) -> tuple[FloatArray, FloatArray]:
    """Boxes with their areas; adds those that are none."""
    side = boxes[:, 2:] - boxes[:, :2]
    for i in np.flatnonzero(~(np.isfinite(boxes).all(axis=1) & (side >= 0).all(axis=1))):
        faults[int(i)] = ("bad box", f"{[float(value) for value in boxes[i]]} is no box")
    return boxes, np.prod(side, axis=1)


def _placed(annotations: Sequence[Annotation]) -> FloatArray:
    """The box of each, else the one around its mask: ``(n, 4)``, NaN where that cannot be read."""
    boxes = np.array([one.box or _NOWHERE for one in annotations], float).reshape(-1, 4)
    around = [i for i, one in enumerate(annotations) if one.box is None]
    boxes[around] = _around([dict(annotations[i].mask or {}) for i in around])
    return boxes


def _outlines(regions: Regions) -> FloatArray:
    if regions.boxes is not None:
        return np.asarray(regions.boxes, float).reshape(-1, 4)
    return _around(list(map(dict, regions.masks))) if regions.masks is not None else np.full((len(regions), 4), np.nan)


def _around(masks: list[_Rle]) -> FloatArray:
    """The box around each mask, ``(n, 4)`` xyxy; NaN where it cannot be read."""
    corners = [_NOWHERE if isinstance(one, Exception) else one for one in _each(_bounds, masks)]
    boxes = np.array(corners, float).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def _areas(masks: list[_Rle]) -> npt.NDArray[Any]:
    from hotcoco import mask as rle

    return rle.area(masks)


def _bounds(masks: list[_Rle]) -> npt.NDArray[Any]:
    from hotcoco import mask as rle

    return rle.to_bbox(masks)


def _each(call: Callable[[list[_Rle]], npt.NDArray[Any]], masks: list[_Rle]) -> Iterable[Any]:
    """What a call gives for each mask, or the error that it raises for that one."""
    if not masks:
        return []
    try:
        return call(masks)
    except _BROKEN:  # rare: only now look which one it is
        return [_tried(call, mask) for mask in masks]


def _tried(call: Callable[[list[_Rle]], npt.NDArray[Any]], mask: _Rle) -> Any:
    try:
        return call([mask])[0]
    except _BROKEN as error:
        return error


def _size(record: Record) -> tuple[int, int] | None:
    """``(height, width)``, where the record or one of its masks says so."""
    if record.height is not None and record.width is not None:
        return record.height, record.width
    said = (one.mask.get("size") for one in record.annotations if one.mask is not None)
    return next(((size[0], size[1]) for size in said if isinstance(size, list | tuple) and len(size) == 2), None)


def _left(count: int, faults: _Faults, problems: Problems, name: Callable[[int], tuple[str, str]]) -> _Bools:
    """Take the faults down; which rows are left."""
    good = np.ones(count, bool)
    for i in sorted(faults):
        kind, what = faults[i]
        id, whole = name(i)
        problems.add(kind, id, f"{whole}: {what}; left out")
        good[i] = False
    return good


def _joined(parts: Iterable[Any]) -> FloatArray:
    return np.concatenate([np.zeros(0), *(np.asarray(part, float).ravel() for part in parts)])
