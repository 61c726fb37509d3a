"""Which checkpoints there are, and how a name becomes one of them."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from manylens.catalog.families import estimated_memory_mb, recognise, with_family
from manylens.catalog.reader import read_catalog
from manylens.catalog.row import DEFAULT_PATTERNS, UNKNOWN_LICENCE, Row
from manylens.catalog.trained import base_of, check_finished, model_folder
from manylens.errors import UnknownModelError

OWN = "manylens/"
"""Owner of our own ids: such a name is never looked for on a hub."""

_PATHS = (".", "~", "/", "runs/")
"""How a name begins that can only mean a folder."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class Catalog:
    """The known checkpoints, by id.

    Args:
        rows: Row by id.
    """

    def __init__(self, rows: Mapping[str, Row]) -> None:
        self._rows = dict(rows)

    @classmethod
    def load(cls, path: str | os.PathLike[str] | None = None) -> Catalog:
        """Reads a catalog.

        Args:
            path: A TOML file, or a folder of them; the folder that ships with manylens where it is None.

        Raises:
            CatalogError: A file is not a well-formed catalog.
        """
        return cls(read_catalog(Path(path) if path is not None else Path(__file__).with_name("rows")))

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows.values())

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, identity: object) -> bool:
        return identity in self._rows

    def __getitem__(self, identity: str) -> Row:
        """The row of an id.

        Raises:
            UnknownModelError: No row has that id; the nearest id is named.
        """
        try:
            return self._rows[identity]
        except KeyError:
            raise self._unknown(identity) from None

    def for_task(self, task: str, needs: frozenset[str] = frozenset(), embedded_only: bool = False) -> list[Row]:
        """The rows that can serve a request, the preferred one first.

        Args:
            task: Name of the task.
            needs: Capability words that the request computes; every one of them must be met.
            embedded_only: Whether to leave out rows that need a model hub.

        Returns:
            Rows by falling rank; rows of equal rank by id. Empty where no row can.
        """
        rows = [
            row
            for row in self
            if task in row.tasks and needs <= row.tasks[task] and (row.embedded or not embedded_only)
        ]
        return sorted(rows, key=lambda row: (-row.rank, row.id))

    def parts(self, row: Row) -> list[Row]:
        """The embedded rows that a composed row's tasks fall to when nothing else is named; empty for other rows."""
        found: dict[str, Row] = {}
        for use in row.uses:
            task, _, capability = use.partition(":")
            for part in self.for_task(task, frozenset({capability} if capability else ()), embedded_only=True)[:1]:
                found[part.id] = part
        return list(found.values())

    def resolve(self, ref: str | os.PathLike[str]) -> Row:
        """What a user's ``model=`` means.

        Args:
            ref: An id of the catalog; or a local folder in the hub's format; or ``owner/name`` of a hub repository that
                the catalog does not list, whose family is known only once its config was fetched
                (`WeightsStore.identify`).

        Raises:
            UnknownModelError: It is none of these, or a run that has no model yet.
            UnsupportedError: It is a folder whose family nothing here loads.
            WeightsError: It is a folder, but not in the hub's format.
        """
        name = os.fspath(ref)
        if name in self._rows:
            return self._rows[name]
        path = Path(name).expanduser()
        if name and path.is_dir():
            check_finished(path)
            row = folder_row(model_folder(path), name)
            base = base_of(model_folder(path))
            return row if base is None else with_base(row, self.resolve(base))
        if path.is_file():
            raise UnknownModelError(
                f"{name}: a file, not a model", "give the folder that it lies in, with its config.json"
            )
        near = difflib.get_close_matches(path.name, _folders(path.parent), n=1) if "/" in name else []
        # A folder may bear the name of a hub's owner: there, only what looks like one of its own is mistyped.
        beside = "/" in name and not name.startswith(OWN) and path.parent.is_dir()
        if name.startswith(_PATHS) or (beside and (near or not _HUB_ID.fullmatch(name))):
            remedy = f"did you mean {Path(name).parent / near[0]}?" if near else "give the folder of a model"
            raise UnknownModelError(f"{name}: no such folder", remedy)
        if _HUB_ID.fullmatch(name) and not name.startswith(OWN):
            return _hub_row(name)
        raise self._unknown(name)

    def _unknown(self, identity: str) -> UnknownModelError:
        # The owner is often left out, so the names behind it are compared as well.
        names = {
            **{row.id.partition("/")[2].lower(): row.id for row in self},
            **{row.id.lower(): row.id for row in self},
        }
        near = difflib.get_close_matches(identity.lower(), names, n=1, cutoff=0.6)
        hint = "run manylens models for the list"
        return UnknownModelError(
            f"{identity or 'an empty name'}: no such model", f"did you mean {names[near[0]]}? {hint}" if near else hint
        )


def _folders(place: Path) -> list[str]:
    """Names of the folders in one; none where it cannot be read."""
    try:
        return [one.name for one in place.iterdir() if one.is_dir()]
    except OSError:
        return []


def folder_row(folder: Path, name: str) -> Row:
    """A row for a local folder in the hub's format.

    Raises:
        UnsupportedError: No family here loads it.
        WeightsError: It is not in the hub's format.
    """
    row = Row(
        id=name,
        family="",
        summary="local folder",
        tasks={},
        rank=0,
        licence=UNKNOWN_LICENCE,
        licence_note="of the checkpoint in the folder",
        devices=("cpu", "cuda"),
        folder=folder.resolve(),
    )
    return with_family(row, recognise(folder, name))


def with_base(row: Row, base: Row) -> Row:
    """The row of an adapted model: it runs where its base does, and takes the memory of both."""
    return replace(
        row,
        base=base,
        summary=f"adapted from {base.id}",
        licence=base.licence,
        licence_note=f"of its base {base.id}" + (f", {base.licence_note}" if base.licence_note else ""),
        commercial=base.commercial,
        devices=base.devices,
        memory_mb=row.memory_mb + (base.memory_mb or estimated_memory_mb(base.bytes)),
    )


def _hub_row(repo: str) -> Row:
    return Row(
        id=repo,
        family="",
        summary="model hub repository",
        tasks={},
        rank=0,
        licence=UNKNOWN_LICENCE,
        devices=("cpu", "cuda"),
        repo=repo,
        revision="main",
        patterns=DEFAULT_PATTERNS,
    )
