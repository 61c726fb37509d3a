"""What is kept of a picture to tell whether another one is the same: a hash of its pixels and a very small copy."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from manylens.data.memo import FileMemo, Stamp, stamp
from manylens.media import Image

CELLS = 16
"""Cells on a side of the small copy: 768 bytes a picture."""

_VERSION = 1  # raise it when a look of the same picture becomes another


@dataclass(frozen=True, eq=False)
class Look:
    """What is kept of a picture.

    Attributes:
        digest: Hash of the decoded pixels, 20 bytes: equal for equal pixels, whatever the file's format.
        cells: uint8 ``(16, 16, 3)``: means of the cells of a grid over the picture.
        width: Of the upright picture, in pixels.
        height: Likewise.
    """

    digest: bytes
    cells: npt.NDArray[np.uint8]
    width: int
    height: int

    @classmethod
    def of(cls, image: Image) -> Look:
        """Look at a picture; its sides are squeezed to a square.

        Raises:
            MediaError: It cannot be decoded.
        """
        import PIL.Image

        small = image.pil().resize((CELLS, CELLS), PIL.Image.Resampling.BOX)
        return cls(bytes.fromhex(image.id), np.asarray(small, np.uint8), image.width, image.height)


class KeptLooks(FileMemo):
    """Looks of files; see :class:`FileMemo`."""

    def __init__(self) -> None:
        super().__init__(f"looks-{_VERSION}.sqlite", "looks", "digest BLOB, cells BLOB, width INT, height INT")

    def get(self, path: Path) -> Look | None:
        """The look of a file as it is now; None where it is not known."""
        at = self.stamp(path)
        found = None if at is None else self.recall(at)
        if found is None or len(found[1]) != CELLS * CELLS * 3:
            return None
        digest, cells, width, height = found
        return Look(digest, np.frombuffer(cells, np.uint8).reshape(CELLS, CELLS, 3), width, height)

    def put(self, at: Stamp | None, look: Look) -> None:
        """Remember the look of a file.

        Args:
            at: What :meth:`stamp` said of the file before it was read.
            look: Of it.
        """
        if at is not None:
            self.keep(at, look.digest, look.cells.tobytes(), look.width, look.height)

    @staticmethod
    def stamp(path: Path) -> Stamp | None:
        """Path, size and time of change of a file; None where there is none."""
        with suppress(OSError):
            return stamp(path)
        return None
