"""What a data set holds: records (a picture with what is known of it), annotations, categories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from manylens.media import Image

Box = tuple[float, float, float, float]

BACKGROUND = "background"
"""The class of pixels that are known to be no object: judged as a class of pixels, but no object to prompt for."""


@dataclass(frozen=True)
class Category:
    """A class of things or stuff; ``name`` is what everything else refers to, ``id`` is the number in files."""

    id: int
    name: str
    is_thing: bool = True
    supercategory: str = ""


@dataclass(frozen=True)
class Annotation:
    """Something that is known about a part of a picture, or a question or text that belongs to it.

    Attributes:
        id: Unique in the data set.
        category: Name of its class; empty where there is none.
        box: ``x0, y0, x1, y1`` in pixels of the upright picture, max exclusive.
        mask: COCO RLE, ``{"size": [height, width], "counts": str}``.
        area: In pixels: of the mask, else of the box; None where there is neither.
        crowd: A group that is not told apart (COCO's ``iscrowd``).
        ignore: Not judged: neither found nor missed, and no false alarm where it is matched.
        columns: Anything else. Known names: ``text`` (what is written there), ``question`` and ``answers`` (a list).
    """

    id: str
    category: str = ""
    box: Box | None = None
    mask: Mapping[str, Any] | None = None
    area: float | None = None
    crowd: bool = False
    ignore: bool = False
    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """A picture of a data set; nothing is decoded before :meth:`image`.

    Attributes:
        id: Unique in the data set.
        path: The file.
        width: Of the upright picture in pixels; None where the labels do not say.
        height: Likewise.
        split: ``train``, ``val``, ``test`` or any other; empty where there is none.
        label: Name of the class of the whole picture; empty where there is none.
        annotations: What is known of its parts.
        columns: Anything else. Known names: ``captions`` (a list of texts), ``depth`` (path of a depth map),
            ``video`` and ``frame`` (for frames, from 0).
    """

    id: str
    path: Path
    width: int | None = None
    height: int | None = None
    split: str = ""
    label: str = ""
    annotations: tuple[Annotation, ...] = ()
    columns: Mapping[str, Any] = field(default_factory=dict)

    def image(self) -> Image:
        """Read the picture.

        Raises:
            MediaError: The file is missing or no picture.
        """
        from manylens.media import Image

        return Image.of(self.path)
