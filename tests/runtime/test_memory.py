from pathlib import Path

import pytest

from manylens.errors import UserError
from manylens.runtime import memory


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2GiB", 2 << 30),
        ("2 gib", 2 << 30),
        ("512MB", 512_000_000),
        ("512M", 512 << 20),
        ("1.5g", 3 << 29),
        ("7k", 7168),
        ("1kB", 1000),
        ("100", 100),
        ("100B", 100),
        (4096, 4096),
        ("1TiB", 1 << 40),
    ],
)
def test_parse_bytes(text: str | int, expected: int) -> None:
    assert memory.parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "much", "-1GB", "0", "2 XB", "1e9", "GiB", "1.2.3MB", -5])
def test_parse_bytes_refuses(text: str | int) -> None:
    with pytest.raises(UserError, match=r"^--memory-budget .*: not a size; write it as 2GiB"):
        memory.parse_bytes(text, "--memory-budget")


@pytest.mark.parametrize(
    ("size", "expected"),
    [(0, "0 B"), (999, "999 B"), (1500, "2 kB"), (900e6, "900 MB"), (2 << 30, "2.1 GB"), (24e9, "24 GB")],
)
def test_format_bytes(size: float, expected: str) -> None:
    assert memory.format_bytes(size) == expected


def test_the_process_knows_its_size() -> None:
    now, peak = memory.resident_bytes(), memory.peak_resident_bytes()
    assert 5 << 20 < now < 64 << 30
    assert peak > now * 0.9


def test_the_budget_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANYLENS_MEMORY_BUDGET", "3GiB")
    assert memory.default_budget() == 3 << 30
    monkeypatch.setenv("MANYLENS_MEMORY_BUDGET", "lots")
    with pytest.raises(UserError, match="MANYLENS_MEMORY_BUDGET 'lots'"):
        memory.default_budget()


def test_the_budget_is_half_of_what_is_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MANYLENS_MEMORY_BUDGET", raising=False)
    monkeypatch.setattr(memory, "available_bytes", lambda: 10 << 30)
    monkeypatch.setattr(memory, "resident_bytes", lambda: 2 << 30)
    assert memory.default_budget() == 6 << 30


@pytest.mark.parametrize(
    ("limit", "used", "expected"),
    [("1000000", "700000", 400_000), ("max", "700000", None), ("100", "700000", 0)],
)
def test_a_container_bounds_the_memory_at_hand(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: str, used: str, expected: int | None
) -> None:
    (tmp_path / "memory.max").write_text(limit)
    (tmp_path / "memory.current").write_text(used)
    (tmp_path / "memory.stat").write_text("active_file 5\ninactive_file 100000\n")
    monkeypatch.setattr(memory, "_cgroup_folders", lambda: [tmp_path])
    if expected is None:
        assert memory.available_bytes() > 1_000_000
    else:
        assert memory.available_bytes() == expected


def test_memory_is_given_back_without_error() -> None:
    memory.give_back()
