"""What the catalog knows of one checkpoint: its row and its files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from manylens.catalog.hashing import folder_hash

State = Literal["ready", "partial", "absent", "corrupt"]
"""Where the weights of a row stand on this machine.

``ready``: all there; ``partial``: some files, or some bytes, are there; ``absent``: nothing is; ``corrupt``: a file is
not what the catalog says it is.
"""

SourceName = Literal["wheel", "hub", "folder", "package", "composed"]

CAPABILITIES: Mapping[str, frozenset[str]] = {
    "segment": frozenset(
        "points box mask text like everything main semantic instance panoptic".split()  # noqa: SIM905 reads better
    ),
    "detect": frozenset({"closed", "names", "like"}),
    "track": frozenset({"points", "box", "mask", "text", "like"}),
    "classify": frozenset({"closed", "names", "like"}),
    "match": frozenset({"text", "image"}),
    "embed": frozenset({"image", "region", "text", "audio", "dense"}),
    "answer": frozenset({"default", "several"}),
    "structure": frozenset({"canny", "edges", "lines", "scribble", "pose", "normal", "depth", "segmentation"}),
}
"""What the models of a task can differ in; a request computes the words it needs. Other tasks have only ``default``."""

UNKNOWN_LICENCE = "see the model page"

DEFAULT_PATTERNS = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model")
"""What a hub row fetches when it names nothing: weights as safetensors, configs, tokenizers. Never a pickle."""


def capabilities(task: str) -> frozenset[str]:
    """The words that a row may use for what it can take in a task."""
    return CAPABILITIES.get(task, frozenset({"default"}))


@dataclass(frozen=True, slots=True)
class Wheel:
    """A published wheel that carries weights.

    Attributes:
        package: Name in the package index.
        version: The exact version.
        bytes: Size of the wheel: what a download of any file in it costs.
    """

    package: str
    version: str
    bytes: int

    @property
    def requirement(self) -> str:
        """As pip wants it: ``name==version``."""
        return f"{self.package}=={self.version}"


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One file of a row.

    Attributes:
        name: What the model's code calls it, with ``/`` between folders; the key in the mapping that the store gives.
        source: ``wheel`` (a member of a published wheel) or ``package`` (inside an installed dependency).
        package: The wheel's, or the installed package's, name.
        version: Version of the wheel; empty for an installed package, whose version the installer chose.
        member: Path inside the wheel or the package; empty for the folder of the package itself.
        bytes: Size in bytes; 0 for an installed package.
        sha256: Hash of the content; empty for an installed package.
        wheel: The wheel that carries it, or None.
    """

    name: str
    source: Literal["wheel", "package"]
    package: str
    version: str = ""
    member: str = ""
    bytes: int = 0
    sha256: str = ""
    wheel: Wheel | None = None


@dataclass(frozen=True)
class Row:
    """One checkpoint of one family, or a composed model without weights of its own.

    Attributes:
        id: Public name; ``owner/name`` for a hub repository, the path for a local folder.
        family: The module in ``models/`` that loads it; empty while a hub repository's config was not yet read.
        summary: One line for people.
        tasks: What it can take in each task.
        rank: The higher, the sooner it is a task's default.
        licence: Name of the licence, or ``see the model page``.
        licence_note: Where that is known from.
        commercial: Whether the licence allows commercial use; None where that is not known.
        memory_mb: MiB of memory with activations; 0 where that is not known.
        devices: Where it can run (``cpu``, ``cuda``).
        engines: What can run it, the usual one first.
        preprocessing: Version of the pre-processing; part of an embedding's key.
        files: Files of a wheel or package row.
        companions: Files that other rows take from the same wheels: kept too when a wheel is fetched, which is fetched
            whole anyway.
        uses: ``task`` or ``task:capability`` that a composed row calls; none where its code does all.
        repo: Hub repository.
        revision: Branch, tag or commit of the repository.
        patterns: Which files of the repository are fetched.
        hub_bytes: About how many bytes these are; 0 where that is not known.
        folder: Local folder of a folder row.
        base: The row whose weights it needs beside its own, of a model that was adapted.
    """

    id: str
    family: str
    summary: str
    tasks: Mapping[str, frozenset[str]]
    rank: int
    licence: str
    licence_note: str = ""
    commercial: bool | None = None
    memory_mb: int = 0
    devices: tuple[str, ...] = ("cpu",)
    engines: tuple[str, ...] = ("torch",)
    preprocessing: str = "1"
    files: tuple[WeightFile, ...] = ()
    companions: tuple[WeightFile, ...] = ()
    uses: tuple[str, ...] = ()
    repo: str = ""
    revision: str = ""
    patterns: tuple[str, ...] = ()
    hub_bytes: int = 0
    folder: Path | None = field(default=None)
    base: Row | None = field(default=None)

    @property
    def source(self) -> SourceName:
        """Where the weights come from."""
        if self.folder is not None:
            return "folder"
        if self.repo:
            return "hub"
        return self.files[0].source if self.files else "composed"

    @property
    def composed(self) -> bool:
        """Whether it has no weights of its own and works through other tasks."""
        return self.source == "composed"

    @property
    def embedded(self) -> bool:
        """Whether it works with nothing but a package registry."""
        return self.source in ("wheel", "package", "composed")

    @property
    def wheels(self) -> tuple[Wheel, ...]:
        """The wheels that carry its files, each once."""
        return tuple(dict.fromkeys(file.wheel for file in self.files if file.wheel is not None))

    @property
    def bytes(self) -> int:
        """Bytes on disk; for a hub row about how many, 0 where that is not known."""
        if self.folder is not None:
            return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        return self.hub_bytes + sum(file.bytes for file in self.files)

    @property
    def download_bytes(self) -> int:
        """Bytes that a first pull brings: a wheel is fetched whole for one file of it."""
        return self.hub_bytes + sum(wheel.bytes for wheel in self.wheels)

    @property
    def weights_hash(self) -> str:
        """Sixteen hex digits that change when the weights change.

        Made of the files' sha256 (wheel), the package's version (package), the content (folder), the repository and
        revision (hub) or the id (composed). A hub's branch moves: `WeightsStore.weights_hash` knows what was
        fetched.
        """
        if self.folder is not None:
            return folder_hash(self.folder)
        if self.repo:
            return short_hash(f"hub:{self.repo}@{self.revision}")
        if not self.files:
            return short_hash(f"composed:{self.id}:{self.preprocessing}")
        return short_hash(
            *sorted(f"{file.name}:{file.sha256 or _installed_version(file.package)}" for file in self.files)
        )


def short_hash(*parts: str) -> str:
    """Sixteen hex digits of the sha256 of some words."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _installed_version(package: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
