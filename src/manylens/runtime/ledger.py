"""The ledger: one row for every call, in a SQLite file that the user can query."""

from __future__ import annotations

import logging
import os
import random
import sqlite3
import statistics
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, astuple, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

_log = logging.getLogger(__name__)

T = TypeVar("T")

KEPT_ROWS = 100_000
_PRUNE_EVERY = 1_000
_BUSY_SECONDS = 10.0


def new_call_id() -> str:
    """A fresh id of a call: a parent hands it to its children before its own row is written."""
    return uuid.uuid4().hex[:16]


def utc_now() -> str:
    """The time now as the ledger writes it: ISO 8601, UTC, milliseconds. Sorts as text."""
    return utc_text(datetime.now(UTC))


def utc_text(when: datetime) -> str:
    """``when`` as the ledger writes it; a time without a zone is taken as local."""
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True)
class Entry:
    """One call.

    Args:
        task: Name of the task.
        model: Id of the model.
        weights: Hash of the weights, or empty.
        seconds: Wall-clock time.
        cpu_seconds: Processor time of the process in that while.
        bytes_in: Size of what went in, decoded.
        peak_rss_mb: Largest resident memory of the process so far, in MB.
        device: ``"cpu"``, ``"cuda:0"``, ...
        engine: Engine that ran the model, or empty.
        precision: Precision that it ran in, or empty.
        cache: ``"memory"`` or ``"disk"`` when an embedding was found there, ``"miss"`` when it was computed, empty when
            none was asked for.
        inputs: Ids of the inputs, joined by a space.
        seed: Seed of the call.
        outcome: ``"ok"`` or the name of the error class.
        message: The error's line, or empty.
        cost: What the call was charged, in the unit of the cost cap.
        parent: Id of the call that made this one, or empty.
        id: Id of this call.
        time: When the call began; ISO 8601, UTC.
    """

    task: str
    model: str
    weights: str = ""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    bytes_in: int = 0
    peak_rss_mb: float = 0.0
    device: str = "cpu"
    engine: str = ""
    precision: str = ""
    cache: str = ""
    inputs: str = ""
    seed: int = 0
    outcome: str = "ok"
    message: str = ""
    cost: float = 0.0
    parent: str = ""
    id: str = field(default_factory=new_call_id)
    time: str = field(default_factory=utc_now)

    def to_json(self) -> dict[str, str | int | float]:
        """The same as a plain dictionary."""
        return asdict(self)


@dataclass(frozen=True)
class Summary:
    """The calls of one task on one model. The times are of the calls that ended well."""

    task: str
    model: str
    calls: int
    errors: int
    mean_seconds: float
    median_seconds: float
    memory_hits: int
    disk_hits: int
    misses: int
    cost: float

    def to_json(self) -> dict[str, str | int | float]:
        """The same as a plain dictionary."""
        return asdict(self)


_SQL_TYPES = {"str": "TEXT", "int": "INTEGER", "float": "REAL"}
_COLUMNS = {column.name: _SQL_TYPES[str(column.type)] for column in fields(Entry)}


class Ledger:
    """Rows of calls in an SQLite file; safe between threads and processes.

    The file is opened on first use. A file that is damaged or cannot be written warns once and is then left alone: a
    call never fails for want of its row.

    Args:
        path: The file; its folder is created.
        keep: How many of the newest rows are kept, give or take the thousand between two clearings.
    """

    def __init__(self, path: Path | str, keep: int = KEPT_ROWS) -> None:
        self.path = Path(path)
        self._keep = keep
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._inherited: sqlite3.Connection | None = None
        self._process = 0
        self._broken = False

    def record(self, entry: Entry) -> None:
        """Adds a row."""
        names = ", ".join(f'"{name}"' for name in _COLUMNS)
        places = ", ".join("?" * len(_COLUMNS))

        def add(database: sqlite3.Connection) -> None:
            with database:
                row = database.execute(f"INSERT INTO calls ({names}) VALUES ({places})", astuple(entry)).lastrowid or 0
                if row % min(_PRUNE_EVERY, self._keep) == 0:
                    database.execute("DELETE FROM calls WHERE number <= ?", (row - self._keep,))

        self._attempt(add, None)

    def rows(
        self,
        limit: int | None = 50,
        *,
        task: str | None = None,
        model: str | None = None,
        since: str | datetime | None = None,
    ) -> list[Entry]:
        """The newest rows first.

        Args:
            limit: At most so many; ``None`` for all.
            task: Only this task.
            model: Only this model.
            since: Only calls that began at this time or later; text is ISO 8601 in UTC.
        """
        since = utc_text(since) if isinstance(since, datetime) else since
        wanted = {"task = ?": task, "model = ?": model, "time >= ?": since}
        given = {clause: value for clause, value in wanted.items() if value is not None}
        where = f"WHERE {' AND '.join(given)}" if given else ""
        names = ", ".join(f'"{name}"' for name in _COLUMNS)
        query = f"SELECT {names} FROM calls {where} ORDER BY number DESC LIMIT ?"
        values = [*given.values(), -1 if limit is None else limit]
        found: list[tuple] = self._attempt(lambda database: database.execute(query, values).fetchall(), [])
        return [Entry(**dict(zip(_COLUMNS, row, strict=True))) for row in found]

    def summary(self, *, since: str | datetime | None = None) -> list[Summary]:
        """One line for each task and model, by task and then by model."""
        groups: dict[tuple[str, str], list[Entry]] = defaultdict(list)
        for entry in self.rows(None, since=since):
            groups[entry.task, entry.model].append(entry)
        return [_summed(task, model, entries) for (task, model), entries in sorted(groups.items())]

    def close(self) -> None:
        """Closes the file; the next use opens it again."""
        with self._lock:
            if self._connection is not None and self._process == os.getpid():
                self._connection.close()
            self._connection = None

    def _attempt(self, action: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """What ``action`` gives on the open database; ``otherwise`` when that cannot be used."""
        with self._lock:
            if self._broken:
                return otherwise
            try:
                return action(self._open())
            except (sqlite3.Error, OSError) as error:
                if self._connection is not None and _is_busy(error):  # the next row may do better
                    _log.warning("%s: one call is not written down (%s by another process)", self.path, error)
                    return otherwise
                self._broken = True
                _log.warning("%s: calls are not written down (%s); move the file away for a new one", self.path, error)
                return otherwise

    def _open(self) -> sqlite3.Connection:
        # A connection does not survive a fork: the child opens its own.
        if self._connection is None or self._process != os.getpid():
            self._inherited = self._connection  # kept, for closing it would clear up under the parent's feet
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, check_same_thread=False)
            self._connection, self._process = None, os.getpid()
            try:
                _when_free(lambda: _prepare(connection))
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection


def _is_busy(error: Exception) -> bool:
    # The low byte is the primary code; the rest says which lock it was.
    return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY


def _when_free(action: Callable[[], None]) -> None:
    """Does ``action`` again while another process holds the file.

    SQLite's own time-out does not help here: two processes that turn a new file to WAL at the same moment each hold a
    read lock that the other waits for, so one is told at once that the file is busy (sqlite.org/wal.html, "Sometimes
    Queries Return SQLITE_BUSY In WAL Mode").
    """
    end = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            return action()
        except sqlite3.OperationalError as error:
            if not _is_busy(error) or time.monotonic() > end:
                raise
        time.sleep(random.uniform(0.005, 0.05))  # unequal waits, or two processes meet again and again


def _prepare(database: sqlite3.Connection) -> None:
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    columns = ", ".join(f'"{name}" {kind} NOT NULL' for name, kind in _COLUMNS.items())
    with database:
        database.execute(f"CREATE TABLE IF NOT EXISTS calls (number INTEGER PRIMARY KEY AUTOINCREMENT, {columns})")
    known = {row[1] for row in database.execute("PRAGMA table_info(calls)")}
    missing = [name for name in _COLUMNS if name not in known]
    if missing:
        _add_columns(database, missing)


def _add_columns(database: sqlite3.Connection, names: list[str]) -> None:
    """A file of an older version lacks columns; they are added empty, so its rows stay readable."""
    for name in names:
        kind = _COLUMNS[name]
        empty = "''" if kind == "TEXT" else "0"
        try:
            with database:
                database.execute(f'ALTER TABLE calls ADD COLUMN "{name}" {kind} NOT NULL DEFAULT {empty}')
        except sqlite3.OperationalError as error:
            if "duplicate column" not in str(error):  # another process was first
                raise


def _summed(task: str, model: str, entries: list[Entry]) -> Summary:
    seconds = [entry.seconds for entry in entries if entry.outcome == "ok"]
    caches = [entry.cache for entry in entries]
    return Summary(
        task=task,
        model=model,
        calls=len(entries),
        errors=len(entries) - len(seconds),
        mean_seconds=statistics.fmean(seconds) if seconds else 0.0,
        median_seconds=statistics.median(seconds) if seconds else 0.0,
        memory_hits=caches.count("memory"),
        disk_hits=caches.count("disk"),
        misses=caches.count("miss"),
        cost=sum(entry.cost for entry in entries),
    )
