"""Weights in a repository of a model hub; only safetensors, configs and tokenizers, never a pickle."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manylens.catalog.blobs import Blobs, check_space, write_text, writing
from manylens.catalog.families import CONFIG, PIPELINE
from manylens.catalog.growing import file_sizes
from manylens.catalog.hashing import file_sha256
from manylens.catalog.progress import ProgressCallback
from manylens.catalog.row import DEFAULT_PATTERNS, UNKNOWN_LICENCE, Row, State, short_hash
from manylens.catalog.sources.hub_client import download, repository_info
from manylens.errors import WeightsError

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

_NON_COMMERCIAL = re.compile(r"(^|[-_ ])nc([-_ ]|$)|non-?commercial|research", re.IGNORECASE)

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz", ".h5", ".msgpack")


@dataclass(frozen=True)
class _Kept:
    """One fetched file: what it was when it was verified."""

    sha256: str
    bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class _Record:
    """What was fetched of a repository, written when all of it was there and verified."""

    commit: str
    patterns: tuple[str, ...]
    files: Mapping[str, _Kept]


class HubSource:
    """Repositories of a model hub, kept in the hub client's own cache format below ``hub/``.

    ``HF_ENDPOINT`` and ``HF_TOKEN`` mean what they mean to the client. Files that are complete are not fetched again
    after a killed download.

    Args:
        blobs: Gives the folder and the locks.
    """

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._cache = blobs.root / "hub"
        self._told: dict[tuple[str, str], ModelInfo] = {}  # what a fetch need not ask a second time

    def state(self, row: Row) -> State:
        """See `Source.state`."""
        record = self._record(row)
        if record is None:
            return "partial" if any(path.is_file() for path in self._folder(row).glob("blobs/*")) else "absent"
        states = {self._file_state(row, record, name) for name in record.files}
        return "corrupt" if "corrupt" in states else "partial" if "absent" in states else "ready"

    def to_fetch(self, row: Row) -> int:
        """See `Source.to_fetch`."""
        return 0 if self.state(row) == "ready" else row.download_bytes

    def paths(self, row: Row) -> Mapping[str, Path]:
        """See `Source.paths`: every file by its path inside the repository."""
        record = self._record(row)
        return {name: self._path(row, record.commit, name) for name in record.files} if record else {}

    def verify(self, row: Row) -> None:
        """See `Source.verify`."""
        record = self._record(row)
        if record is None:
            raise WeightsError(f"{row.id}: not on this machine", f"run manylens pull {row.id}")
        for name, kept in record.files.items():
            path = self._path(row, record.commit, name)
            if not path.exists() or file_sha256(path) != kept.sha256:
                problem = "corrupted" if path.exists() else "missing"
                raise WeightsError(f"{row.id}: its file {name} is {problem}", f"run manylens pull {row.id}")

    def remove(self, row: Row) -> int:
        """See `Source.remove`."""
        with self._blobs.lock(self._folder(row).name):
            self._record_path(row).unlink(missing_ok=True)
            freed = _folder_bytes(self._folder(row))
            shutil.rmtree(self._folder(row), ignore_errors=True)
            shutil.rmtree(self._cache / ".locks" / self._folder(row).name, ignore_errors=True)
        return freed

    def weights_hash(self, row: Row) -> str:
        """See `Source.weights_hash`: of the files that were fetched, else of the repository's name and revision."""
        record = self._record(row)
        if record is None:
            return row.weights_hash
        return short_hash(*(f"{name}:{kept.sha256}" for name, kept in sorted(record.files.items())))

    def described(self, row: Row) -> Row:
        """The row with what its repository says of itself now: the licence of its model card, and its size.

        Raises:
            NetworkError: The hub did not answer.
            UnknownModelError: It has no such repository.
        """
        info = self._told[row.repo, row.revision] = repository_info(row)
        card = info.card_data.to_dict() if info.card_data is not None else {}
        named = str(card.get("license_name") or card.get("license") or "")
        about: dict[str, Any] = {"hub_bytes": sum(_wanted(row, info).values())}
        if named and row.licence == UNKNOWN_LICENCE:
            about |= {"licence": named, "licence_note": "as its model card says"}
        # What the catalog knows wins; a card can only add that commercial use is not allowed.
        if row.commercial is None and _NON_COMMERCIAL.search(named):
            about["commercial"] = False
        return replace(row, **about)

    def fetch(self, row: Row, report: ProgressCallback) -> None:
        """See `Source.fetch`.

        Raises:
            UnknownModelError: The hub has no such repository or revision.
            UserError: The repository is gated.
        """
        with self._blobs.lock(self._folder(row).name):
            record = self._record(row)
            if record is not None:
                try:
                    self.verify(row)
                except WeightsError:
                    self._drop_corrupt(row, record)
                else:
                    return
            info = self._told.pop((row.repo, row.revision), None) or repository_info(row)
            wanted = _wanted(row, info)
            total = sum(wanted.values())
            for leftover in self._folder(row).glob("blobs/*.incomplete"):
                leftover.unlink(missing_ok=True)  # The client never takes up another process's part of a file.
            check_space(self._blobs.root, total - _folder_bytes(self._folder(row)))
            with writing(self._blobs.root, total):
                self._cache.mkdir(parents=True, exist_ok=True)
                self._download(row, str(info.sha), list(wanted), total, report)
                self._keep(row, info, wanted)

    def has_config(self, row: Row) -> bool:
        """Whether the config that names the family is on this machine."""
        return bool(self._commit(row)) and any((self.config_folder(row) / name).exists() for name in (CONFIG, PIPELINE))

    def config_folder(self, row: Row) -> Path:
        """The folder in which the config lies."""
        return self._folder(row) / "snapshots" / self._commit(row)

    def fetch_config(self, row: Row, report: ProgressCallback) -> None:
        """Brings only the config that names the family.

        Raises:
            WeightsError: The repository has none.
        """
        info = repository_info(row)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
        names = [name for name in (CONFIG, PIPELINE) if name in sizes]
        if not names:
            raise WeightsError(f"{row.id}: the repository has no {CONFIG}", "name a repository in the hub's format")
        with self._blobs.lock(self._folder(row).name), writing(self._blobs.root):
            self._cache.mkdir(parents=True, exist_ok=True)
            self._download(row, str(info.sha), names, sum(sizes[name] for name in names), report)

    def _download(self, row: Row, commit: str, names: Sequence[str], total: int, report: ProgressCallback) -> None:
        label = f"fetching {row.id}"

        def progress() -> int:
            done = _folder_bytes(self._folder(row))
            report(label, min(done, total), total)
            return done

        download(row, commit, names, self._cache, progress)
        report(label, total, total)

    # -- where things lie

    def _folder(self, row: Row) -> Path:
        return self._cache / f"models--{row.repo.replace('/', '--')}"

    def _path(self, row: Row, commit: str, name: str) -> Path:
        return self._folder(row) / "snapshots" / commit / name

    def _record_path(self, row: Row) -> Path:
        return self._cache / f"{row.repo.replace('/', '--')}@{row.revision.replace('/', '--')}.json"

    def _record(self, row: Row) -> _Record | None:
        try:
            data = json.loads(self._record_path(row).read_text(encoding="utf-8"))
            files = {name: _Kept(**kept) for name, kept in data["files"].items()}
            record = _Record(data["commit"], tuple(data["patterns"]), files)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return record if record.patterns == row.patterns else None

    def _commit(self, row: Row) -> str:
        """The commit that the row's revision last meant here; empty where none was fetched."""
        record = self._record(row)
        if record is not None:
            return record.commit
        snapshots = sorted((self._folder(row) / "snapshots").glob("*"), key=lambda path: path.stat().st_mtime)
        return snapshots[-1].name if snapshots else ""

    def _file_state(self, row: Row, record: _Record, name: str) -> State:
        path, kept = self._path(row, record.commit, name), record.files[name]
        try:
            stat = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return "absent"
        if stat.st_size != kept.bytes:
            return "corrupt"
        return "ready" if stat.st_mtime_ns == kept.mtime_ns or file_sha256(path) == kept.sha256 else "corrupt"

    def _drop_corrupt(self, row: Row, record: _Record) -> None:
        for name, kept in record.files.items():
            path = self._path(row, record.commit, name)
            if path.exists() and file_sha256(path) != kept.sha256:
                path.resolve().unlink()
                path.unlink(missing_ok=True)
        self._record_path(row).unlink(missing_ok=True)

    def _keep(self, row: Row, info: ModelInfo, wanted: Mapping[str, int]) -> None:
        """Verifies what came against the hub's own hashes, and writes the record."""
        hashes = {file.rfilename: file.lfs.sha256 for file in info.siblings or () if file.lfs is not None}
        files = {}
        for name, size in wanted.items():
            path = self._path(row, str(info.sha), name)
            stat, sha256 = path.stat(), file_sha256(path)
            if stat.st_size != size or sha256 != hashes.get(name, sha256):
                path.resolve().unlink()
                path.unlink(missing_ok=True)
                raise WeightsError(
                    f"{row.id}: {name} is not what the hub says it is", f"run manylens pull {row.id} to fetch it again"
                )
            files[name] = _Kept(sha256, stat.st_size, stat.st_mtime_ns)
        record = {"commit": info.sha, "patterns": row.patterns, "files": {k: asdict(v) for k, v in files.items()}}
        write_text(self._record_path(row), json.dumps(record))


def _wanted(row: Row, info: ModelInfo) -> dict[str, int]:
    """Size by name of the files to fetch."""
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    names = {name: size for name, size in sizes.items() if any(fnmatch(name, pattern) for pattern in row.patterns)}
    if row.patterns == DEFAULT_PATTERNS:
        # A pipeline's parts lie in folders, beside single-file copies and half-precision variants of the same weights;
        # a model lies at the top, beside folders with copies for other programs.
        if PIPELINE in sizes:
            names = {name: size for name, size in names.items() if name == PIPELINE or _is_part(name)}
        else:
            names = {name: size for name, size in names.items() if "/" not in name}
    names = {name: size for name, size in names.items() if not name.lower().endswith(PICKLES)}
    if not any(name.endswith(".safetensors") for name in names):
        raise WeightsError(
            f"{row.id}: the repository has no safetensors, and pickles are not fetched",
            "name a repository or folder with safetensors",
        )
    return names


def _is_part(name: str) -> bool:
    return "/" in name and not fnmatch(name, "*.fp16.*") and not fnmatch(name, "*.non_ema.*")


def _folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder, links not counted."""
    return sum(size for _, size in file_sizes(folder))
