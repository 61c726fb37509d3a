"""Sizes in bytes: how they are written, how much this process has and may take, and how it gives memory back."""

from __future__ import annotations

import ctypes
import gc
import os
import re
import sys
from pathlib import Path

from manylens.errors import UserError

_UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgt", start=1):
    _UNITS |= {_letter: 1024**_power, f"{_letter}ib": 1024**_power, f"{_letter}b": 1000**_power}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", re.IGNORECASE)
_BUDGET_VARIABLE = "MANYLENS_MEMORY_BUDGET"
_CGROUPS = Path("/sys/fs/cgroup")


def parse_bytes(text: str | int, name: str = "size") -> int:
    """Bytes of a written size: ``"2GiB"``, ``"512 MB"`` (powers of 1000), ``"1.5g"`` (of 1024), ``1048576``.

    Args:
        text: The size.
        name: What the size is of, for the error.

    Raises:
        UserError: Not a positive size.
    """
    found = _SIZE.fullmatch(str(text))
    unit = _UNITS.get(found[2].lower()) if found else None
    size = int(float(found[1]) * unit) if found and unit else 0
    if size <= 0:
        raise UserError(f"{name} {str(text)!r}: not a size", "write it as 2GiB, 512MB or a number of bytes")
    return size


def format_bytes(size: float) -> str:
    """A size for people, in powers of 1000: ``"900 MB"``, ``"2.1 GB"``."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            number = size / scale
            return f"{number:.1f} {unit}" if number < 10 and unit == "GB" else f"{number:.0f} {unit}"
    return f"{size:.0f} B"


def resident_bytes() -> int:
    """Resident memory of this process now."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def peak_resident_bytes() -> int:
    """Largest resident memory that this process had."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def available_bytes() -> int:
    """Memory that new work can take without swapping, within the limits of the control group (container)."""
    import psutil

    return min([int(psutil.virtual_memory().available), *_cgroup_rooms()])


def default_budget() -> int:
    """``$MANYLENS_MEMORY_BUDGET``, or half of the memory at hand.

    Raises:
        UserError: The variable holds no size.
    """
    named = os.environ.get(_BUDGET_VARIABLE, "").strip()
    return parse_bytes(named, _BUDGET_VARIABLE) if named else (available_bytes() + resident_bytes()) // 2


def give_back() -> None:
    """Frees what nothing refers to and, on glibc, hands the freed pages back to the system."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        return  # not glibc


def _cgroup_rooms() -> list[int]:
    """Memory left in each control group that this process is in and that has a limit."""
    rooms = []
    for folder in _cgroup_folders():
        for limit, used in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            try:
                most, taken = int((folder / limit).read_text()), int((folder / used).read_text())
                cached = re.search(
                    r"^(?:total_)?inactive_file (\d+)$", (folder / "memory.stat").read_text(), re.MULTILINE
                )
            except (OSError, ValueError):
                continue  # not there, or "max"
            rooms.append(max(0, most - taken + (int(cached[1]) if cached else 0)))
    return rooms


def _cgroup_folders() -> list[Path]:
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    folders: list[Path] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        root = _CGROUPS / "memory" if "memory" in controllers.split(",") else _CGROUPS if not controllers else None
        if root is not None:
            here = root / path.lstrip("/")
            # Inside a container the path may be the host's; its root is then what is mounted.
            folders += [folder for folder in [here, *here.parents] if folder == root or root in folder.parents]
    return folders
