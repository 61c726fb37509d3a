"""Where weights come from: one module a source, all with the same few methods."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from manylens.catalog.progress import ProgressCallback
from manylens.catalog.row import Row, State


class Source(Protocol):
    """One way by which weights arrive on this machine."""

    def state(self, row: Row) -> State:
        """Where the weights of a row stand; quick, and without a connection."""
        ...

    def to_fetch(self, row: Row) -> int:
        """Bytes that `fetch` would download now; 0 where nothing is missing or the size is not known."""
        ...

    def paths(self, row: Row) -> Mapping[str, Path]:
        """The files of a row that is ready, by the name that the model's code calls them."""
        ...

    def fetch(self, row: Row, report: ProgressCallback) -> None:
        """Brings what is missing and replaces what is corrupt.

        Raises:
            NetworkError: The source did not answer.
            WeightsError: What it gave is not what the catalog says.
            OutputError: The disk is full.
        """
        ...

    def verify(self, row: Row) -> None:
        """Hashes every file again.

        Raises:
            WeightsError: A file is missing or not what it was; the first one is named.
        """
        ...

    def remove(self, row: Row) -> int:
        """Deletes what no other row needs; gives the bytes freed."""
        ...

    def weights_hash(self, row: Row) -> str:
        """Sixteen hex digits that change when the weights on this machine change."""
        ...
