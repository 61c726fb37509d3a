from pathlib import Path

import pytest

from manylens.runtime import cpu


def test_this_machine() -> None:
    assert cpu.threads() >= 1
    assert cpu.cpu_name()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu.max": "200000 100000"}, 2),
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "9900000 100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
    ],
)
def test_threads_stay_within_the_container(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: dict[str, str], expected: int
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(cpu, "_CGROUPS", tmp_path)
    monkeypatch.setattr(cpu.os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert cpu.threads() == expected


@pytest.mark.parametrize(
    ("text", "flags", "name", "bf16"),
    [
        ("model name\t: AMD EPYC\nflags\t\t: avx2 avx512_bf16\n", {"avx2", "avx512_bf16"}, "AMD EPYC", True),
        ("model name : Old\nflags : avx2 avx512f\nflags : other\n", {"avx2", "avx512f"}, "Old", False),
        ("Features : asimd bf16\n", {"asimd", "bf16"}, None, True),
        ("", set(), None, False),
    ],
)
def test_cpuinfo(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, flags: set[str], name: str | None, bf16: bool
) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(cpu, "_CPUINFO", tmp_path / "cpuinfo")
    cpu.cpu_flags.cache_clear()
    cpu.cpu_name.cache_clear()
    try:
        assert cpu.cpu_flags() == flags
        assert cpu.has_bf16() is bf16
        if name:
            assert cpu.cpu_name() == name
    finally:
        cpu.cpu_flags.cache_clear()
        cpu.cpu_name.cache_clear()
