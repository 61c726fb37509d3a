"""What is known of the parts of pictures, kept as run lengths: a mask is decoded when asked for, and then forgotten.

An object takes some sixty bytes of memory beside its run lengths, which go to a temporary file once they are many. A
million of them as dense masks of 640x480 would be 286 GiB.
"""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from manylens.data import rle
from manylens.data.records import Annotation, Box, Record
from manylens.training.dense.spill import Spill
from manylens.training.errors import TrainError

if TYPE_CHECKING:
    from manylens.data import Dataset

NO_CLASS = -1
"""The class of what is not judged."""

_AT_ONCE = 64
"""Records that are read at a time; one is far larger than what is kept of it."""


class ObjectStore:
    """The objects of many pictures.

    Objects without a box and without a mask, or with an empty mask, are left out, as are those of other classes.

    Args:
        names: Of the classes.
        in_memory: Bytes of run lengths that may stay in memory.

    Attributes:
        ids: Of the pictures.
        paths: Of their files.
    """

    def __init__(self, names: Sequence[str], *, in_memory: int = 2 << 20) -> None:
        self.names = tuple(names)
        self.ids: list[str] = []
        self.paths: list[Path] = []
        self._numbers = {name: number for number, name in enumerate(self.names)}
        self._masks = Spill(in_memory)
        self._classes, self._crowd, self._boxes, self._areas = array("i"), array("b"), array("f"), array("d")
        self._starts, self._sizes = array("q", [0]), array("i")

    @classmethod
    def of(
        cls,
        data: Dataset | Iterable[Record],
        names: Sequence[str],
        *,
        in_memory: int = 2 << 20,
        progress: Callable[[int], None] = lambda count: None,
    ) -> ObjectStore:
        """Read what a data set says of its pictures; no picture is decoded.

        Args:
            data: Records, or a data set, whose records stream.
            names: Of the classes.
            in_memory: Bytes of run lengths that may stay in memory.
            progress: Called with the number of pictures read, now and then.

        Raises:
            TrainError: A mask is broken or not of its picture's size, or the disk is full.
        """
        store = cls(names, in_memory=in_memory)
        records: Iterable[Record] = data.records(batch=_AT_ONCE) if hasattr(data, "records") else data
        try:
            for record in records:
                store.add(record)
                if len(store) % 1000 == 0:
                    progress(len(store))
            store._masks.flush()
        except OSError as error:
            raise TrainError(
                f"masks: cannot be kept ({error.strerror})", "free some room for temporary files"
            ) from error
        return store

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def objects(self) -> int:
        """How many there are in all pictures."""
        return len(self._classes)

    @property
    def classes(self) -> npt.NDArray[np.int32]:
        """int32 ``(n,)``: the class of each object by its place in the names, :data:`NO_CLASS` where not judged."""
        return _seen(self._classes, np.int32)

    @property
    def crowd(self) -> npt.NDArray[np.bool_]:
        """Bool ``(n,)``: whether it is a group that is not told apart."""
        return _seen(self._crowd, np.int8).view(np.bool_)

    @property
    def boxes(self) -> npt.NDArray[np.float32]:
        """float32 ``(n, 4)``: xyxy in pixels of the upright picture."""
        return _seen(self._boxes, np.float32).reshape(-1, 4)

    @property
    def areas(self) -> npt.NDArray[np.float64]:
        """float64 ``(n,)``: as its annotation states, else of the mask, else of the box."""
        return _seen(self._areas, np.float64)

    @property
    def starts(self) -> npt.NDArray[np.int64]:
        """int64 ``(pictures + 1,)``: the first object of each picture."""
        return _seen(self._starts, np.int64)

    @property
    def has_mask(self) -> npt.NDArray[np.bool_]:
        """Bool ``(n,)``: whether it has a mask, or a box only."""
        return np.asarray(self._masks.lengths()) > 0

    def size(self, picture: int) -> tuple[int, int]:
        """``(width, height)`` of a picture."""
        return self._sizes[2 * picture], self._sizes[2 * picture + 1]

    def rows(self, picture: int) -> range:
        """Numbers of the objects of a picture."""
        return range(self._starts[picture], self._starts[picture + 1])

    def picture(self, row: int) -> int:
        """The picture that an object is in."""
        return bisect_right(self._starts, row) - 1

    def box(self, row: int) -> npt.NDArray[np.float32]:
        """The box of an object, float32 ``(4,)``."""
        return np.array(self._boxes[4 * row : 4 * row + 4], np.float32)

    def class_of(self, row: int) -> int:
        """See :attr:`classes`."""
        return self._classes[row]

    def is_crowd(self, row: int) -> bool:
        """See :attr:`crowd`."""
        return bool(self._crowd[row])

    def rle(self, row: int) -> dict[str, Any] | None:
        """The mask of an object as COCO RLE; None where it has none."""
        counts = self._masks.get(row)
        if not counts:
            return None
        width, height = self.size(self.picture(row))
        return {"size": [height, width], "counts": counts}

    def mask(self, row: int) -> npt.NDArray[np.bool_] | None:
        """The mask of an object, decoded now: bool ``(H, W)``; None where it has none."""
        from pycocotools import mask as coco

        found = self.rle(row)
        return None if found is None else coco.decode(found).view(np.bool_)

    def digest(self) -> str:
        """Tells what is kept apart from anything else."""
        found = hashlib.blake2b(repr((self.names, self.ids)).encode("utf-8", "surrogatepass"), digest_size=16)
        for values in (self._classes, self._crowd, self._boxes, self._starts, self._sizes):
            found.update(values)
        for row in range(self.objects):
            found.update(self._masks.get(row))
        return found.hexdigest()

    def record(self, picture: int) -> Record:
        """What is kept of a picture, as the record that it was; for measures, which judge by records."""
        width, height = self.size(picture)
        return Record(
            self.ids[picture],
            self.paths[picture],
            width,
            height,
            annotations=tuple(self._annotation(row) for row in self.rows(picture)),
        )

    def add(self, record: Record) -> None:
        """Add a picture with its objects.

        Raises:
            TrainError: A mask is broken, or not of the picture's size.
            OSError: The disk is full.
        """
        width, height = _size(record)
        for one in record.annotations:
            if not one.ignore and one.category not in self._numbers:
                continue
            mask = None if one.mask is None else _Packed.of(one, record, (width, height))
            box = one.box or (mask and mask.box)
            if box is None or (mask and mask.box is None):
                continue
            area = mask.area if mask else (box[2] - box[0]) * (box[3] - box[1])
            self._masks.add(mask.counts if mask else b"")
            self._classes.append(NO_CLASS if one.ignore else self._numbers[one.category])
            self._crowd.append(one.crowd)
            self._boxes.extend(box)
            self._areas.append(area if one.area is None else one.area)
        self.ids.append(record.id)
        self.paths.append(record.path)
        self._sizes.extend((width, height))
        self._starts.append(len(self._classes))

    def _annotation(self, row: int) -> Annotation:
        number = self._classes[row]
        mask = self.rle(row)
        if mask is not None:
            mask["counts"] = mask["counts"].decode("ascii")
        x0, y0, x1, y1 = self._boxes[4 * row : 4 * row + 4]
        return Annotation(
            str(row),
            "" if number == NO_CLASS else self.names[number],
            (x0, y0, x1, y1),
            mask,
            self._areas[row],
            bool(self._crowd[row]),
            number == NO_CLASS,
        )


def _seen(values: array[Any], dtype: Any) -> Any:
    """The values of an array as NumPy sees them, copied, so that more can still be added."""
    return np.array(values, dtype)


def _size(record: Record) -> tuple[int, int]:
    if record.width is not None and record.height is not None:
        return record.width, record.height
    from manylens.data.sizes import upright_size

    found = upright_size(record.path)
    if found is None:
        raise TrainError(f"picture {record.id}: its size cannot be read", "mend the file, or leave it out")
    return found


class _Packed(NamedTuple):
    """A mask as it is kept: its run lengths, the box around it (None where it is empty) and its pixels."""

    counts: bytes
    box: Box | None
    area: float

    @classmethod
    def of(cls, one: Annotation, record: Record, size: tuple[int, int]) -> _Packed:
        """The mask of an annotation that has one."""
        assert one.mask is not None
        named = f"annotation {one.id} of picture {record.id}"
        try:
            lengths = rle.runs(one.mask)
        except ValueError as error:
            raise TrainError(f"{named}: its mask {error}", "mend it, or leave it out") from error
        height, width = (int(side) for side in one.mask["size"])
        if (width, height) != size:
            raise TrainError(
                f"{named}: its mask is {width} x {height} pixels, the picture {size[0]} x {size[1]}",
                "give masks of the upright picture",
            )
        area = rle.area(lengths)
        if not area:
            return cls(b"", None, 0.0)
        return cls(rle.packed(one.mask)["counts"].encode("ascii"), rle.bounds(one.mask, lengths), float(area))
