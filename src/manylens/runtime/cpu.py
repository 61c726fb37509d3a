"""What the processor is and how much of it this process may use."""

from __future__ import annotations

import math
import os
import platform
from functools import cache
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_CGROUPS = Path("/sys/fs/cgroup")
# Instructions that multiply bf16; without them bf16 is emulated and slower than f32.
_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


def threads() -> int:
    """Cores that this process may use: its affinity, within the quota of the control group (container)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota()
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


@cache
def cpu_flags() -> frozenset[str]:
    """Flags of the processor, such as ``avx512_bf16``; empty where the system does not say."""
    return frozenset((_cpuinfo("flags") or _cpuinfo("Features")).split())


@cache
def cpu_name() -> str:
    """Name of the processor."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def has_bf16() -> bool:
    """True when the processor computes in bf16 itself."""
    return bool(_BF16_FLAGS & cpu_flags())


def _cpuinfo(wanted: str) -> str:
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == wanted:
            return value.strip()
    return ""


def _quota() -> float | None:
    """Cores' worth of time that the control group gives, or ``None`` when it sets no limit."""
    for quota_file, period_file in (("cpu.max", None), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            words = (_CGROUPS / quota_file).read_text().split()
            if period_file is not None:
                words.append((_CGROUPS / period_file).read_text().strip())
            quota, period = float(words[0]), float(words[1])
        except (OSError, ValueError, IndexError):
            continue  # not there, or "max"
        if quota > 0 and period > 0:
            return quota / period
    return None
