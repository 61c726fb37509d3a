"""Headers of tables: which column is which, by the names that people give them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from manylens.data.problems import DataError

# Field -> names of its column, compared in small letters; the first is the one that is written.
NAMES: dict[str, tuple[str, ...]] = {
    "image": ("image", "file", "path", "file_name", "filename", "image_path"),
    "id": ("id", "image_id"),
    "split": ("split",),
    "label": ("label", "class"),
    "annotation_id": ("annotation_id",),
    "category": ("category",),
    "mask": ("mask", "mask_path"),
    "area": ("area",),
    "crowd": ("crowd", "iscrowd"),
    "ignore": ("ignore",),
    "text": ("text",),
    "question": ("question",),
    "answers": ("answers", "answer"),
    "caption": ("caption",),
    "captions": ("captions",),
    "depth": ("depth",),
}
BOXES = (
    ("x0", "y0", "x1", "y1"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("x_min", "y_min", "x_max", "y_max"),
    ("x1", "y1", "x2", "y2"),
    ("left", "top", "right", "bottom"),
)
"""Corners, max exclusive."""
SIZED_BOXES = (
    ("x", "y", "w", "h"),
    ("x", "y", "width", "height"),
    ("left", "top", "width", "height"),
    ("bbox_x", "bbox_y", "bbox_w", "bbox_h"),
)
"""Corner and size."""
PARTS = ("annotation_id", "category", "mask", "crowd", "ignore", "area", "text", "question", "answers")
"""Fields that say something of a part of the picture, so that their row is an annotation."""
OF_ANNOTATIONS = "annotation."
"""Before the name of a column that belongs to annotations."""
OF_RECORDS = "column."
"""Before the name of a picture's column that else would be taken for a known one."""
WRITTEN = (
    *("id", "image", "width", "height", "split", "label", "depth"),
    *(
        "annotation_id",
        "category",
        *BOXES[0],
        "mask",
        "area",
        "crowd",
        "ignore",
        "text",
        "question",
        "answers",
        "caption",
    ),
)
"""Known columns in the order in which they are written."""


@dataclass(frozen=True)
class Header:
    """The columns of a table.

    Attributes:
        fields: Name of the column of each field that the table has.
        box: The four columns of a box; empty where there are none.
        sized: Whether the last two of these are width and height.
        sides: The columns of the picture's width and height; two times None where there are none.
        others: All other columns.
    """

    fields: dict[str, str]
    box: tuple[str, ...]
    sized: bool
    sides: tuple[str, str] | tuple[None, None]
    others: tuple[str, ...]

    @property
    def parts(self) -> tuple[str, ...]:
        """Columns that make their row an annotation where they are filled."""
        return (*self.box, *(self.fields[field] for field in PARTS if field in self.fields))


def is_known(name: str) -> bool:
    """Whether a column of this name would be read as more than a column."""
    known = {one for names in (*NAMES.values(), *BOXES, *SIZED_BOXES) for one in names} | {"width", "height"}
    return name.strip().lower() in known or name.startswith((OF_ANNOTATIONS, OF_RECORDS))


def understood(names: Sequence[str], source: Path) -> Header:
    """Read a header.

    Raises:
        DataError: No column names the pictures, or two have the same name.
    """
    by_name = {name.strip().lower(): name for name in reversed(names)}
    shown = ", ".join(names)
    if len(set(names)) < len(names):
        raise DataError(f"{source}: two columns have the same name (its header is {shown})", "rename one")
    fields = {
        field: next(by_name[name] for name in known if name in by_name)
        for field, known in NAMES.items()
        if any(name in by_name for name in known)
    }
    if "image" not in fields:
        wanted = ", ".join(NAMES["image"])
        raise DataError(
            f"{source}: no column names the pictures (its header is {shown[:300]})",
            f"name one of its columns one of {wanted}",
        )
    box: tuple[str, ...] = ()
    sized = False
    for columns in (*BOXES, *SIZED_BOXES):
        if all(column in by_name for column in columns):
            box, sized = tuple(by_name[column] for column in columns), columns in SIZED_BOXES
            break
    used = {*fields.values(), *box}
    width, height = (by_name.get(side) for side in ("width", "height"))
    sides: tuple[str, str] | tuple[None, None] = (None, None)
    if width is not None and height is not None and not used & {width, height}:
        sides = (width, height)
        used |= {width, height}
    return Header(fields, box, sized, sides, tuple(name for name in names if name not in used))
