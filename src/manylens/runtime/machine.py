"""What this machine is and has, as data; the command line shows it."""

from __future__ import annotations

import functools
import importlib.util
import os
import platform
import shutil
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from manylens.runtime import memory
from manylens.runtime.cpu import cpu_flags, cpu_name, has_bf16, threads
from manylens.runtime.paths import home, offline

_LIBRARIES = (
    "openvino",
    "torch",
    "transformers",
    "supervision",
    "opencv-python-headless",
    "huggingface_hub",
    "rapidocr",
)
_TELLING_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


@dataclass(frozen=True)
class Gpu:
    """A graphics processor that torch can use."""

    name: str
    memory_bytes: int


@dataclass(frozen=True)
class MachineReport:
    """This machine, its libraries and the settings of manylens.

    Args:
        cpu: Name of the processor.
        cores: Cores of the machine.
        usable_cores: Cores that this process may use.
        flags: Those flags of the processor that matter to inference.
        bf16: The processor computes in bf16 itself.
        memory_bytes: Memory of the machine.
        available_bytes: Memory that new work can take, within the container.
        budget_bytes: The memory budget of a session.
        gpus: Graphics processors that torch can use; empty without torch.
        home: Folder of the caches.
        home_writable: The folder can be written, or made.
        free_bytes: Free disk space there.
        offline: No connection is made.
        python: Version of Python.
        system: Name and version of the system.
        libraries: Versions by name; empty for one that is not installed.
    """

    cpu: str
    cores: int
    usable_cores: int
    flags: tuple[str, ...]
    bf16: bool
    memory_bytes: int
    available_bytes: int
    budget_bytes: int
    gpus: tuple[Gpu, ...]
    home: str
    home_writable: bool
    free_bytes: int
    offline: bool
    python: str
    system: str
    libraries: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """The same as a plain dictionary."""
        return asdict(self)


def machine_report() -> MachineReport:
    """Looks at this machine. Imports torch, where it is installed, to ask for graphics processors.

    Raises:
        UserError: ``MANYLENS_MEMORY_BUDGET`` holds no size.
    """
    import psutil

    standing = _standing(home())
    return MachineReport(
        cpu=cpu_name(),
        cores=os.cpu_count() or 1,
        usable_cores=threads(),
        flags=tuple(flag for flag in _TELLING_FLAGS if flag in cpu_flags()),
        bf16=has_bf16(),
        memory_bytes=int(psutil.virtual_memory().total),
        available_bytes=memory.available_bytes(),
        budget_bytes=memory.default_budget(),
        gpus=_gpus(),
        home=str(home()),
        home_writable=standing.is_dir() and os.access(standing, os.W_OK | os.X_OK),
        free_bytes=shutil.disk_usage(standing).free,
        offline=offline(),
        python=platform.python_version(),
        system=platform.platform(),
        libraries={name: library_version(name) for name in _LIBRARIES},
    )


@functools.cache
def library_version(name: str) -> str:
    """Version of an installed distribution, empty when it is not installed; nothing is imported."""
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return ""
    # Its metadata ends with its whole README, which importlib would parse as an e-mail's: milliseconds for each.
    head = (found.read_text("METADATA") or "").partition("\n\n")[0]
    told = next((line for line in head.splitlines() if line.startswith("Version:")), "")
    return told.removeprefix("Version:").strip() or found.version


def _standing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _gpus() -> tuple[Gpu, ...]:
    if importlib.util.find_spec("torch") is None:
        return ()
    try:
        import torch

        found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        return tuple(Gpu(each.name, int(each.total_memory)) for each in found)
    except (ImportError, RuntimeError, OSError):
        return ()  # a torch that does not load is told by its missing results, not here
