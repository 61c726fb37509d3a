"""Reads the catalog's data file strictly: what is not understood is an error, not a default."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from manylens.catalog.row import DEFAULT_PATTERNS, Row, WeightFile, Wheel, capabilities
from manylens.errors import ManylensError

_MISSING = object()
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TOKEN = re.compile(r"[a-z][a-z0-9_-]*(:[a-z]+)?")


class CatalogError(ManylensError):
    """The catalog's data file is not well formed: a mistake in the file, not in a request."""


class _Table:
    """One TOML table whose keys are taken one by one; the rest, at the end, is unknown."""

    def __init__(self, where: str, values: object) -> None:
        if not isinstance(values, dict):
            raise CatalogError(f"{where}: a table is expected")
        self.where, self._values = where, dict(values)

    def take(self, key: str, kind: type, default: Any = _MISSING) -> Any:
        value = self._values.pop(key, default)
        if value is _MISSING:
            raise CatalogError(f"{self.where}: {key} is missing")
        # bool is an int in Python, but `bytes = true` is a mistake.
        if value is not default and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
            raise CatalogError(f"{self.where}: {key} must be {kind.__name__}, not {type(value).__name__}")
        return value

    def has(self, key: str) -> bool:
        return key in self._values

    def words(self, key: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
        values = self.take(key, list, list(default))
        if not all(isinstance(value, str) and value for value in values):
            raise CatalogError(f"{self.where}: {key} must be a list of words")
        return tuple(values)

    def tables(self, key: str) -> list[_Table]:
        values = self.take(key, list, [])
        return [_Table(f"{self.where}, {key} {number}", value) for number, value in enumerate(values, 1)]

    def finish(self) -> None:
        if self._values:
            raise CatalogError(f"{self.where}: unknown key {', '.join(sorted(self._values))}")


def read_catalog(path: Path) -> dict[str, Row]:
    """Reads all rows of a catalog.

    Args:
        path: A TOML file with ``[[wheel]]`` and ``[[model]]`` tables, or a folder of such files.

    Returns:
        The rows by id, in the order of the files' names and of each file.

    Raises:
        CatalogError: The file cannot be read, or a row has an unknown key, a missing or wrong value, an id that another
            row has, a file without sha256, or a wheel that is not listed.
    """
    rows: dict[str, Row] = {}
    for file in sorted(path.glob("*.toml")) if path.is_dir() else [path]:
        for row in _rows(file):
            if row.id in rows:
                raise CatalogError(f"{file.name}: {row.id} stands there twice")
            rows[row.id] = row
    return {row.id: replace(row, companions=_companions(row, rows)) for row in rows.values()}


def _rows(path: Path) -> Iterator[Row]:
    try:
        top = _Table(path.name, tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CatalogError(f"{path}: not a catalog file ({error})", "reinstall manylens") from error
    wheels = {(wheel.package, wheel.version): wheel for wheel in map(_wheel, top.tables("wheel"))}
    yield from (_row(table, wheels) for table in top.tables("model"))
    top.finish()


def _companions(row: Row, rows: Mapping[str, Row]) -> tuple[WeightFile, ...]:
    own = {file.sha256 for file in row.files}
    others = {file.sha256: file for other in rows.values() for file in other.files if file.wheel in row.wheels}
    return tuple(file for sha256, file in others.items() if sha256 not in own)


def _wheel(table: _Table) -> Wheel:
    wheel = Wheel(table.take("package", str), table.take("version", str), table.take("bytes", int))
    table.finish()
    return wheel


def _row(table: _Table, wheels: Mapping[tuple[str, str], Wheel]) -> Row:
    table.where = identity = table.take("id", str)
    repo, composed = table.take("repo", str, ""), table.has("uses")
    row = Row(
        id=identity,
        family=table.take("family", str),
        summary=table.take("summary", str),
        tasks=_tasks(identity, table.take("tasks", dict)),
        rank=table.take("rank", int),
        licence=table.take("licence", str),
        licence_note=table.take("licence_note", str, ""),
        commercial=table.take("commercial", bool, None),
        memory_mb=table.take("memory_mb", int, 0),
        devices=table.words("devices", ("cpu",)),
        engines=table.words("engines", ("torch",)),
        preprocessing=table.take("preprocessing", str, "1"),
        files=tuple(_file(file, wheels) for file in table.tables("file")),
        uses=table.words("uses"),
        repo=repo,
        revision=table.take("revision", str) if repo else "",
        patterns=table.words("patterns", DEFAULT_PATTERNS) if repo else (),
        hub_bytes=table.take("bytes", int, 0) if repo else 0,
    )
    table.finish()
    _check_origin(row, composed)
    return row


def _check_origin(row: Row, composed: bool) -> None:
    """A row has weights from one source, or is composed: of other tasks, or of code alone (``uses = []``)."""
    if sum((bool(row.repo), bool(row.files), composed)) != 1:
        raise CatalogError(f"{row.id}: exactly one of repo, file and uses must be given")
    if len({file.source for file in row.files}) > 1:
        raise CatalogError(f"{row.id}: all files must have the same source")
    if len({file.name for file in row.files}) < len(row.files):
        raise CatalogError(f"{row.id}: two files have the same name")
    if not row.composed and row.source != "package" and row.memory_mb <= 0:
        raise CatalogError(f"{row.id}: memory_mb is missing")
    for use in row.uses:
        task, _, capability = use.partition(":")
        if not _TOKEN.fullmatch(use) or (capability and capability not in capabilities(task)):
            raise CatalogError(f"{row.id}: uses {use!r}, which is not task or task:capability")


def _tasks(identity: str, values: dict[str, object]) -> dict[str, frozenset[str]]:
    tasks = {}
    for task, words in values.items():
        if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
            raise CatalogError(f"{identity}: tasks.{task} must be a list of words")
        if unknown := set(words) - capabilities(task):
            raise CatalogError(f"{identity}: tasks.{task} has unknown {', '.join(sorted(unknown))}")
        tasks[task] = frozenset(words)
    if not tasks:
        raise CatalogError(f"{identity}: tasks is empty")
    return tasks


def _file(table: _Table, wheels: Mapping[tuple[str, str], Wheel]) -> WeightFile:
    name, source, package = table.take("name", str), table.take("source", str), table.take("package", str)
    parts = name.split("/")
    if not all(parts) or {".", ".."} & set(parts):
        raise CatalogError(f"{table.where}: name {name!r} is not a plain relative path")
    if source == "package":
        file = WeightFile(name, "package", package, member=table.take("member", str, ""))
    elif source == "wheel":
        version = table.take("version", str)
        file = WeightFile(
            name=name,
            source="wheel",
            package=package,
            version=version,
            member=table.take("member", str),
            bytes=table.take("bytes", int),
            sha256=table.take("sha256", str),
            wheel=wheels.get((package, version)),
        )
        if not _SHA256.fullmatch(file.sha256):
            raise CatalogError(f"{table.where}: sha256 must be 64 hex digits")
        if file.wheel is None:
            raise CatalogError(f"{table.where}: no [[wheel]] for {package} {version}")
    else:
        raise CatalogError(f"{table.where}: source must be wheel or package, not {source!r}")
    table.finish()
    return file
