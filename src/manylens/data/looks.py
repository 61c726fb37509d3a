"""What is kept of a picture to tell whether another one is the same: a hash of its pixels and a very small copy."""

from __future__ import annotations

import sqlite3
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from manylens.media import Image
from manylens.runtime.paths import home

CELLS = 16
"""Cells on a side of the small copy: 768 bytes a picture."""

_VERSION = 1  # raise it when a look of the same picture becomes another
_YOUNG_NS = 2 * 10**9  # a file that changed just now may change again within one tick of the clock of the disk


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


class KeptLooks:
    """Looks of files, remembered by path, size and time of change in the folder of caches, or in memory alone.

    Used as a context; what it learned is kept as it ends. One thread uses it.
    """

    def __init__(self) -> None:
        self._database = self._opened()
        self._since = time.monotonic()

    def get(self, path: Path) -> Look | None:
        """The look of a file as it is now; None where it is not known."""
        stamp = _stamp(path)
        if stamp is None:
            return None
        query = "SELECT digest, cells, width, height FROM looks WHERE path = ? AND size = ? AND changed = ?"
        with suppress(sqlite3.Error):
            found = self._database.execute(query, stamp).fetchone()
            if found is not None and len(found[1]) == CELLS * CELLS * 3:
                cells = np.frombuffer(found[1], np.uint8).reshape(CELLS, CELLS, 3)
                return Look(found[0], cells, found[2], found[3])
        return None

    def put(self, stamp: tuple[str, int, int] | None, look: Look) -> None:
        """Remember the look of a file, unless the file is so young that it may change unseen.

        Args:
            stamp: What :meth:`stamp` said of the file before it was read.
            look: Of it.
        """
        if stamp is None or time.time_ns() - stamp[2] < _YOUNG_NS:
            return
        row = (*stamp, look.digest, look.cells.tobytes(), look.width, look.height)
        with suppress(sqlite3.Error):  # busy or full: the look is right, only not remembered
            self._database.execute("INSERT OR REPLACE INTO looks VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            if time.monotonic() - self._since > 10:  # a run that is stopped has not looked in vain
                self._database.commit()
                self._since = time.monotonic()

    @staticmethod
    def stamp(path: Path) -> tuple[str, int, int] | None:
        """Path, size and time of change of a file; None where there is none."""
        return _stamp(path)

    def __enter__(self) -> KeptLooks:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(sqlite3.Error):
            self._database.commit()
        self._database.close()

    def _opened(self) -> sqlite3.Connection:
        table = (
            "CREATE TABLE IF NOT EXISTS looks "
            "(path TEXT PRIMARY KEY, size INT, changed INT, digest BLOB, cells BLOB, width INT, height INT)"
        )
        try:
            file = home() / "data" / f"looks-{_VERSION}.sqlite"
            file.parent.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(file, timeout=10)
            database.execute(table)
            database.execute("SELECT * FROM looks LIMIT 1").fetchone()
        except (sqlite3.Error, OSError):
            database = sqlite3.connect(":memory:")
            database.execute(table)
        return database


def _stamp(path: Path) -> tuple[str, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return str(path.absolute()), found.st_size, found.st_mtime_ns
