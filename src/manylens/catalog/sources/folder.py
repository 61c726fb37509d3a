"""Weights in a local folder in the hub's format: used as they are, never changed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from manylens.catalog.families import recognise
from manylens.catalog.hashing import visible_files
from manylens.catalog.progress import ProgressCallback
from manylens.catalog.row import Row, State
from manylens.errors import WeightsError


class FolderSource:
    """A folder of the user's own."""

    def state(self, row: Row) -> State:
        """See `Source.state`."""
        return "ready" if row.folder is not None and row.folder.is_dir() else "absent"

    def to_fetch(self, row: Row) -> int:
        """Nothing is ever downloaded."""
        return 0

    def paths(self, row: Row) -> Mapping[str, Path]:
        """See `Source.paths`: every file by its path inside the folder."""
        assert row.folder is not None
        return {path.relative_to(row.folder).as_posix(): path for path in sorted(visible_files(row.folder))}

    def fetch(self, row: Row, report: ProgressCallback) -> None:
        """Raises the error of `verify` where the folder is gone."""
        self.verify(row)

    def verify(self, row: Row) -> None:
        """Checks that the folder is still there and still in the hub's format."""
        if row.folder is None or not row.folder.is_dir():
            raise WeightsError(f"{row.id}: the folder is gone", "give another folder")
        recognise(row.folder, row.id)

    def remove(self, row: Row) -> int:
        """Removes nothing: the folder is the user's."""
        return 0

    def weights_hash(self, row: Row) -> str:
        """See `Source.weights_hash`."""
        return row.weights_hash
