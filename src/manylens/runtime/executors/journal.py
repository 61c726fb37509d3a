"""The journal of a restartable map: what is done is on disk, line by line, and is not done again."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from manylens.errors import OutputError, UserError

_log = logging.getLogger(__name__)


class Journal:
    """An append-only file of JSON lines, one ``{"id": ..., "result": ...}`` for each item that is done.

    A line is appended whole or not at all; one that a crash tore is passed over. Results stay on disk: memory holds
    only where each begins. Several processes may append to the same file; each knows what it wrote, and what was
    there when it opened.

    Args:
        path: The file; made with its folder when it is not there.
        signature: What the results depend on besides the item (task, model, arguments). A journal that was begun with
            another signature is refused: its results are those of another question.

    Raises:
        UserError: The file is something else, or belongs to another signature.
        OutputError: The file cannot be opened.
    """

    def __init__(self, path: Path | str, signature: str = "") -> None:
        self.path = Path(path)
        self._offsets: dict[str, int] = {}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be opened ({error.strerror})", "name another file") from None
        try:
            self._open(signature)
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self._offsets)

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._offsets

    def __iter__(self) -> Iterator[str]:
        return iter(self._offsets)

    def get(self, item_id: str) -> Any:
        """The result of an item that is done.

        Raises:
            KeyError: It is not done.
        """
        with self.path.open("rb") as file:
            file.seek(self._offsets[item_id])
            return json.loads(file.readline())["result"]

    def add(self, item_id: str, result: Any) -> None:
        """Writes down the result of an item; a later result of the same item takes its place.

        Args:
            item_id: Id of the item.
            result: Anything that JSON can hold.

        Raises:
            OutputError: It cannot be written; the journal stays as it was.
        """
        self._offsets[item_id] = self._append({"id": item_id, "result": result})

    def close(self) -> None:
        """Closes the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self, signature: str) -> None:
        with _locked(self._file):
            size = os.fstat(self._file).st_size
            if size == 0:
                self._write({"journal": 1, "signature": signature})
                return
            self._read(signature)
            if os.pread(self._file, 1, size - 1) != b"\n":
                self._write(None)  # so that the next line begins on its own

    def _read(self, signature: str) -> None:
        with self.path.open("rb") as file:
            head = _parsed(file.readline())
            if head is None or head.get("journal") != 1:
                raise UserError(f"{self.path}: not a journal of manylens", "name another file")
            if head.get("signature") != signature:
                raise UserError(
                    f"{self.path}: belongs to another call ({head.get('signature')}), not to {signature}",
                    "name another file, or repeat that call",
                )
            offset, torn = file.tell(), 0
            for line in file:
                record = _parsed(line)
                if record is not None and "id" in record and "result" in record:
                    self._offsets[record["id"]] = offset
                else:
                    torn += line != b"\n"
                offset += len(line)
        if torn:
            _log.info("%s: %d unfinished lines passed over", self.path, torn)

    def _append(self, record: dict[str, Any]) -> int:
        with _locked(self._file):
            return self._write(record)

    def _write(self, record: dict[str, Any] | None) -> int:
        """Appends a line and gives its offset. The file is locked."""
        line = b"\n" if record is None else json.dumps(record, ensure_ascii=False).encode() + b"\n"
        start = os.fstat(self._file).st_size
        try:
            if os.write(self._file, line) < len(line):
                raise OSError(0, "disk full")
        except OSError as error:
            os.ftruncate(self._file, start)
            raise OutputError(f"{self.path}: cannot be written ({error.strerror})", "free some space") from None
        return start


class _locked:  # noqa: N801  # reads as a verb
    """Keeps other processes from appending meanwhile."""

    def __init__(self, file: int) -> None:
        self._file = file

    def __enter__(self) -> None:
        _flock(self._file, True)

    def __exit__(self, *_: object) -> None:
        _flock(self._file, False)


def _flock(file: int, lock: bool) -> None:
    try:
        import fcntl
    except ImportError:  # no such locks on this system: one process at a time
        return
    fcntl.flock(file, fcntl.LOCK_EX if lock else fcntl.LOCK_UN)


def _parsed(line: bytes) -> dict[str, Any] | None:
    """The record of a line, or ``None``; a torn one lacks its last brace, so it cannot be taken for whole."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
