"""What is known of files, remembered by path, size and time of change, so that none is read for it twice."""

from __future__ import annotations

import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from manylens.runtime.paths import home

Stamp = tuple[str, int, int]
"""Path, size and time of change of a file."""

_YOUNG_NS = 2 * 10**9  # a file that changed just now may change again within one tick of the clock of the disk
_WAIT_S = 10.0
_COMMIT_S = 10.0  # a run that is stopped has not looked in vain, and others may write meanwhile


def stamp(path: Path) -> Stamp:
    """The stamp of a file as it is now.

    Raises:
        OSError: There is none.
    """
    found = path.stat()
    return str(path.absolute()), found.st_size, found.st_mtime_ns


class FileMemo:
    """A table with a row a file, in the folder of caches, or in memory alone where there can be none.

    Used as a context; what it learned is kept as it ends. One thread uses it. No trouble of the database is told: what
    was found of a file is right, only not remembered.

    Args:
        file: Name of the database.
        table: Name of the table.
        columns: What is kept of a file, in SQL's words.
    """

    def __init__(self, file: str, table: str, columns: str) -> None:
        self._table = table
        make = f"CREATE TABLE IF NOT EXISTS {table} (path TEXT PRIMARY KEY, size INT, changed INT, {columns})"
        try:
            place = home() / "data" / file
            place.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(place, timeout=_WAIT_S)
            self._database.execute(make)
            self._database.execute(f"SELECT * FROM {table} LIMIT 1").fetchone()
        except (sqlite3.Error, OSError):
            self._database = sqlite3.connect(":memory:")
            self._database.execute(make)
        self._since = time.monotonic()

    def recall(self, at: Stamp) -> tuple[Any, ...] | None:
        """What was kept of a file under its stamp."""
        with suppress(sqlite3.Error):
            query = f"SELECT * FROM {self._table} WHERE path = ? AND size = ? AND changed = ?"
            found = self._database.execute(query, at).fetchone()
            return None if found is None else tuple(found[len(at) :])
        return None

    def keep(self, at: Stamp, *values: Any) -> None:
        """Remember what was found of a file, unless the file is so young that it may change unseen.

        Args:
            at: Its stamp before it was read.
            *values: One a column.
        """
        if time.time_ns() - at[2] < _YOUNG_NS:
            return
        row = (*at, *values)
        with suppress(sqlite3.Error):  # busy or full
            self._database.execute(f"INSERT OR REPLACE INTO {self._table} VALUES ({', '.join('?' * len(row))})", row)
            if time.monotonic() - self._since > _COMMIT_S:
                self._database.commit()
                self._since = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(sqlite3.Error):
            self._database.commit()
        self._database.close()
