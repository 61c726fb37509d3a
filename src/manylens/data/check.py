"""What every reader's stream goes through: each row is right, mended or left out, and each mistake is taken down."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from manylens.data import rle
from manylens.data.formats import shared
from manylens.data.problems import DataError, Problems
from manylens.data.records import Annotation, Box, Category, Record
from manylens.data.sizes import upright_size

_ROUNDING = 0.01
"""Pixels that a box may reach over the border without a word: what rounding in a file leaves."""


def checked(
    records: Iterable[Record], categories: Collection[Category], problems: Problems, *, pictures: bool = True
) -> Iterator[Record]:
    """The records that are right, with what could be mended.

    Left out: pictures that are missing, duplicate or empty ids, unknown categories, boxes that are not numbers, empty
    or outside of the picture, masks that cannot be read, are empty or not of the picture's size. Mended: a box that
    reaches over the border is cut there; a box or an area that is not given is taken from the mask or the box.

    Args:
        records: From a reader.
        categories: All classes; where there are none, any name is right.
        problems: Takes what is wrong.
        pictures: Whether the files of the pictures must be there; they are looked for, and
            their heads are read where a box needs a size that the labels do not say; none is decoded.
    """
    names = {one.name for one in categories}
    ids: set[int] = set()
    annotation_ids: set[int] = set()
    for record in records:
        wrong = _wrong_record(record, names, ids, pictures)
        if wrong is not None:
            kind, message = wrong
            problems.add(kind, record.id or record.path.name, message)
            for one in record.annotations:
                problems.add("image left out", one.id, f"annotation {one.id}: its image {record.id} is left out")
            continue
        if any(side is not None and side < 1 for side in (record.width, record.height)):
            size = f"{record.width} x {record.height}"
            problems.add("bad size", record.id, f"image {record.id}: its size is {size}", left_out=False)
            record = replace(record, width=None, height=None)
        sized = _sized(record) if pictures else record
        kept = (_annotation(one, sized, names, annotation_ids, problems) for one in record.annotations)
        yield replace(record, annotations=tuple(one for one in kept if one is not None))


def unique(records: Iterable[Record]) -> Iterator[Record]:
    """The records, each with an id of its own, as all of its annotations.

    Raises:
        DataError: Two have the same id.
    """
    ids: set[int] = set()
    annotation_ids: set[int] = set()
    for record in records:
        if not record.id or _met(record.id, ids):
            raise DataError(f"image {record.id!r}: two have this id, or it is empty", "give each an id of its own")
        for one in record.annotations:
            if not one.id or _met(one.id, annotation_ids):
                raise DataError(f"annotation {one.id!r}: two have this id, or it is empty", "give each its own id")
        yield record


def completed(one: Annotation, lengths: rle.Runs | None = None) -> Annotation:
    """The annotation with the box and the area that its mask, or its box, implies where they are not given.

    Args:
        one: The annotation.
        lengths: Runs of its mask, where they are known.

    Raises:
        ValueError: Its mask cannot be read.
    """
    box, area = one.box, one.area
    if one.mask is not None and (box is None or area is None):
        lengths = rle.runs(one.mask) if lengths is None else lengths
        area = float(rle.area(lengths)) if area is None else area
        box = rle.bounds(one.mask, lengths) if box is None and rle.area(lengths) else box
    if box is not None and area is None:
        area = (box[2] - box[0]) * (box[3] - box[1])
    return one if (box, area) == (one.box, one.area) else replace(one, box=box, area=area)


def _met(id: str, ids: set[int]) -> bool:
    """Whether an id was met before; hashes are kept, not texts, for a million take a third of the memory."""
    key = hash(id)
    if key in ids:
        return True
    ids.add(key)
    return False


def _wrong_record(record: Record, names: set[str], ids: set[int], pictures: bool) -> tuple[str, str] | None:
    if not record.id:
        return "empty id", f"image {record.path}: has no id"
    if _met(record.id, ids):
        return "duplicate id", f"image {record.id}: another image has this id"
    if pictures and not shared.is_file(record.path):
        return "missing image", f"image {record.id}: there is no file {record.path}"
    if names and record.label and record.label not in names:
        return "unknown category", f"image {record.id}: its label {record.label!r} is no category"
    return None


def _sized(record: Record) -> Record:
    """The record with the size of its picture, where boxes or masks need one and the labels say none."""
    stated = record.width is not None and record.height is not None
    if stated or all(one.box is None and one.mask is None for one in record.annotations):
        return record
    width, height = upright_size(record.path) or (None, None)
    return replace(record, width=width, height=height)


def _annotation(
    one: Annotation, record: Record, names: set[str], ids: set[int], problems: Problems
) -> Annotation | None:
    """The annotation, mended where it can be; None where it is left out."""

    def wrong(kind: str, message: str, *, left_out: bool = True) -> None:
        problems.add(kind, one.id, f"annotation {one.id} of image {record.id}: {message}", left_out=left_out)

    mask, box, lengths = one.mask, one.box, None
    fault = _fault(one, names, ids)
    if fault is None and mask is not None:
        try:
            lengths = rle.runs(mask)
        except ValueError as error:
            fault = "unreadable mask", f"its mask {error}"
        else:
            fault = _mask_fault(mask, lengths, record)
    if fault is not None:
        wrong(*fault)
        return None
    if box is not None:
        box = _box(box, record, wrong)
        if box is None:
            return None
    area = one.area
    if area is not None and not (math.isfinite(area) and area >= 0):
        wrong("bad area", f"its area is {area}; taken from its mask or box", left_out=False)
        area = None
    mask = None if mask is None else rle.packed(mask)
    return completed(replace(one, box=box, mask=mask, area=area), lengths)


def _fault(one: Annotation, names: set[str], ids: set[int]) -> tuple[str, str] | None:
    if not one.id:
        return "empty id", "has no id"
    if _met(one.id, ids):
        return "duplicate id", "another annotation has this id"
    if names and one.category and one.category not in names:
        return "unknown category", f"{one.category!r} is no category"
    return None


def _mask_fault(mask: Mapping[str, Any], lengths: rle.Runs, record: Record) -> tuple[str, str] | None:
    height, width = (int(side) for side in mask["size"])
    if (record.width or width, record.height or height) != (width, height):
        size = f"{record.width} x {record.height}"
        return "mask size", f"its mask is {width} x {height} pixels, the image {size}"
    return None if rle.area(lengths) else ("empty mask", "its mask has no pixel")


def _box(box: Box, record: Record, wrong: Callable[..., None]) -> Box | None:
    said = "[" + ", ".join(f"{side:g}" for side in box) + "]"
    if len(box) != 4 or not all(math.isfinite(side) for side in box):
        wrong("bad box", f"its box {said} is not four finite numbers")
        return None
    x0, y0, x1, y1 = (float(side) for side in box)
    if x1 <= x0 or y1 <= y0:
        wrong("empty box", f"its box {said} has no area")
        return None
    width = math.inf if record.width is None else float(record.width)
    height = math.inf if record.height is None else float(record.height)
    cut = max(x0, 0.0), max(y0, 0.0), min(x1, width), min(y1, height)
    if cut[2] <= cut[0] or cut[3] <= cut[1]:
        wrong("box outside", f"its box {said} is outside of the image")
        return None
    if max(abs(side - before) for side, before in zip(cut, (x0, y0, x1, y1), strict=True)) > _ROUNDING:
        wrong("box outside", f"its box {said} reaches over the border of the image; cut there", left_out=False)
    return cut
