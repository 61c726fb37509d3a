"""The weights on this machine: whether they are there, how they come, and how they leave."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path

from manylens.catalog.blobs import Blobs
from manylens.catalog.families import recognise, with_family
from manylens.catalog.progress import ProgressCallback, megabytes, terminal_progress
from manylens.catalog.row import Row, State
from manylens.catalog.sources import Source
from manylens.catalog.sources.folder import FolderSource
from manylens.catalog.sources.hub import HubSource
from manylens.catalog.sources.package import PackageSource
from manylens.catalog.sources.wheel import WheelSource
from manylens.errors import LicenceError, NetworkError, WeightsError
from manylens.runtime import paths

Announce = Callable[[Row], None]
"""Called with the row before its weights are downloaded, to show licence and size."""


def licence_line(row: Row, to_fetch: int | None = None) -> str:
    """What a user should know before a download: size and licence, in one line.

    Args:
        row: The model.
        to_fetch: Bytes that a download brings now, see `WeightsStore.to_fetch`; all of them where it is None.
    """
    count = row.download_bytes if to_fetch is None else to_fetch
    size = f"{'about ' if row.source == 'hub' else ''}{megabytes(count)}" if count else "size not known"
    note = f" ({row.licence_note})" if row.licence_note else ""
    return f"{row.id}: {size} to fetch; licence {row.licence}{note}"


class WeightsStore:
    """The weights on this machine, whatever their source.

    Safe between threads and processes: two that want the same weights download them once. Nothing half-written is ever
    taken for a weight file.

    Args:
        home: Folder of manylens; `runtime.paths.home` where it is None. The weights lie in ``weights/`` in it.
        offline: Whether connections are switched off; what ``MANYLENS_OFFLINE`` says at the time where it is None.
    """

    def __init__(self, home: str | os.PathLike[str] | None = None, offline: bool | None = None) -> None:
        self.root = (Path(home).expanduser().absolute() if home is not None else paths.home()) / "weights"
        self._offline = offline
        blobs = Blobs(self.root)
        self._hub = HubSource(blobs)
        self._sources: dict[str, Source] = {
            "wheel": WheelSource(blobs),
            "package": PackageSource(),
            "folder": FolderSource(),
            "hub": self._hub,
        }

    @property
    def offline(self) -> bool:
        """Whether connections are switched off now."""
        return paths.offline() if self._offline is None else self._offline

    def state(self, row: Row) -> State:
        """Where the weights of a row stand; quick, and without a connection. A composed row is always ready."""
        if row.composed:
            return "ready"
        own = self._source(row).state(row)
        if row.base is None or own != "ready":
            return own
        below = self.state(row.base)
        return "partial" if below == "absent" else below

    def to_fetch(self, row: Row) -> int:
        """Bytes that a download of a row would bring now: a wheel counts whole, or not at all where its files are here.

        0 where nothing is missing, or where the size is not known.
        """
        below = 0 if row.base is None else self.to_fetch(row.base)
        return 0 if row.composed else self._source(row).to_fetch(row) + below

    def weights_hash(self, row: Row) -> str:
        """Sixteen hex digits that change when the weights on this machine change; for provenance and embedding keys."""
        return row.weights_hash if row.composed else self._source(row).weights_hash(row)

    def ensure(
        self,
        row: Row,
        progress: ProgressCallback | None = None,
        *,
        announce: Announce | None = None,
        accept_licence: bool = False,
    ) -> Mapping[str, Path]:
        """The files of a row, fetched first where they are not on this machine.

        Args:
            row: The model.
            progress: Told how far the download is; a bar on standard error where it is None.
            announce: Shown the row before a download; prints size and licence where it is None.
            accept_licence: Whether the user accepts a licence that forbids commercial use.

        Returns:
            Path by the name that the model's code calls a file; empty for a composed row.

        Raises:
            WeightsError: A file is corrupted; `pull` repairs it. Or what the source gave is not what the catalog says.
            NetworkError: The source did not answer, or connections are switched off.
            LicenceError: The licence has to be accepted first.
            OutputError: The disk is full.
        """
        if row.composed:
            return {}
        source = self._source(row)
        state = source.state(row)
        if state == "corrupt":
            source.verify(row)  # Raises, with the name of the file.
        if state != "ready":
            self._fetch(row, source, progress, announce, accept_licence)
        if row.base is None:
            return source.paths(row)
        below = self.ensure(row.base, progress, announce=announce, accept_licence=accept_licence)
        return self._with_base(row, below)

    def pull(
        self,
        row: Row,
        progress: ProgressCallback | None = None,
        *,
        announce: Announce | None = None,
        accept_licence: bool = False,
    ) -> Mapping[str, Path]:
        """As `ensure`, but hashes what is there and fetches what is corrupted again."""
        if row.composed:
            return {}
        source = self._source(row)
        try:
            source.verify(row)
        except WeightsError:
            self._fetch(row, source, progress, announce, accept_licence)
        if row.base is None:
            return source.paths(row)
        below = self.pull(row.base, progress, announce=announce, accept_licence=accept_licence)
        return self._with_base(row, below)

    def verify(self, row: Row) -> None:
        """Hashes every file of a row again.

        Raises:
            WeightsError: A file is missing or corrupted; it is named.
        """
        if not row.composed:
            self._source(row).verify(row)

    def remove(self, row: Row) -> int:
        """Deletes the weights of a row, but no file that another row on this machine uses.

        Returns:
            Bytes freed.
        """
        return 0 if row.composed else self._source(row).remove(row)

    def identify(self, row: Row) -> Row:
        """The row with its family and tasks, for a hub repository that the catalog does not list.

        Only the repository's config is fetched, so that nothing large comes for a model that nothing here loads.

        Raises:
            UnsupportedError: No family here loads it.
            UnknownModelError: The hub has no such repository.
            NetworkError: The hub did not answer, or connections are switched off.
        """
        if row.family or row.source != "hub":
            return row
        if not self._hub.has_config(row):
            self._require_network(row)
            self._hub.fetch_config(row, lambda *_: None)
        return with_family(row, recognise(self._hub.config_folder(row), row.id))

    def _with_base(self, row: Row, below: Mapping[str, Path]) -> Mapping[str, Path]:
        return {**self._source(row).paths(row), **{f"base/{name}": path for name, path in below.items()}}

    def _require_network(self, row: Row) -> None:
        if self.offline:
            raise NetworkError(
                f"{row.id}: not on this machine, and connections are switched off",
                f"unset MANYLENS_OFFLINE, or run manylens pull {row.id} where there is a network",
            )

    def _fetch(
        self,
        row: Row,
        source: Source,
        progress: ProgressCallback | None,
        announce: Announce | None,
        accept_licence: bool,
    ) -> None:
        if row.source in ("wheel", "hub"):
            self._require_network(row)
            if row.source == "hub":
                row = self._hub.described(row)
            if row.commercial is False and not accept_licence:
                raise LicenceError(
                    f"{row.id}: its licence ({row.licence}) does not allow commercial use",
                    f"run manylens pull {row.id} --accept-licence if that suits you",
                )
            if announce is not None:
                announce(row)
            else:
                print(licence_line(row, self.to_fetch(row)), file=sys.stderr, flush=True)
        with nullcontext(progress) if progress is not None else terminal_progress() as report:
            source.fetch(row, report)

    def _source(self, row: Row) -> Source:
        return self._sources[row.source]
