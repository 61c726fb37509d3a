"""What is known of files, shared by several processes."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from manylens.data import memo
from manylens.data.fingerprint import FileHashes
from manylens.data.memo import FileMemo, stamp


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that has not changed for long."""
    monkeypatch.setenv("MANYLENS_HOME", str(tmp_path / "home"))
    file = tmp_path / "a"
    file.write_text("a")
    os.utime(file, (1_000_000_000, 1_000_000_000))
    return file


def test_what_is_kept_is_found_by_the_next(old):
    with FileMemo("m.sqlite", "things", "one INT, two TEXT") as first:
        assert first.recall(stamp(old)) is None
        first.keep(stamp(old), 1, "a")
        first.keep(stamp(old), 2, "b")
    with FileMemo("m.sqlite", "things", "one INT, two TEXT") as second:
        assert second.recall(stamp(old)) == (2, "b")
        os.utime(old, (1_000_000_001, 1_000_000_001))
        assert second.recall(stamp(old)) is None


def test_others_see_it_before_the_end(old, monkeypatch):
    monkeypatch.setattr(memo, "_COMMIT_S", -1.0)
    with FileMemo("m.sqlite", "things", "one INT") as first, FileMemo("m.sqlite", "things", "one INT") as second:
        first.keep(stamp(old), 1)
        assert second.recall(stamp(old)) == (1,)


def test_hashes_are_right_where_another_process_writes(old, tmp_path, monkeypatch):
    monkeypatch.setattr(memo, "_WAIT_S", 0.01)
    with FileHashes() as hashes:
        expected = hashes.of(old)
    os.utime(old, (1_000_000_001, 1_000_000_001))
    other = sqlite3.connect(tmp_path / "home" / "data" / "files.sqlite")
    other.execute("BEGIN IMMEDIATE")
    with FileHashes() as hashes:
        assert hashes.of(old) == expected
    other.close()
