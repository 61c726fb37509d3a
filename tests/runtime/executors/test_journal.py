import multiprocessing
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manylens.errors import OutputError, UserError
from manylens.runtime.executors import journal as module
from manylens.runtime.executors.journal import Journal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "run.jsonl"


def test_what_is_done_is_known_to_the_next_run(path: Path) -> None:
    with Journal(path) as journal:
        journal.add("a", {"boxes": [1.5, 2], "name": "größe\nzwei"})
        journal.add("b", None)
        assert journal.get("a")["name"] == "größe\nzwei"
    with Journal(path) as journal:
        assert list(journal) == ["a", "b"]
        assert len(journal) == 2
        assert "a" in journal
        assert "c" not in journal
        assert journal.get("a") == {"boxes": [1.5, 2], "name": "größe\nzwei"}
        assert journal.get("b") is None
        with pytest.raises(KeyError):
            journal.get("c")


def test_a_later_result_takes_the_place_of_an_earlier(path: Path) -> None:
    with Journal(path) as journal:
        journal.add("a", 1)
        journal.add("a", 2)
    assert Journal(path).get("a") == 2


@settings(max_examples=80, deadline=None)
@given(cut=st.integers(1, 200))
def test_law_a_torn_end_loses_the_last_line_only(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("journal") / "run.jsonl"
    with Journal(path) as journal:
        for name in "abc":
            journal.add(name, f"result {name}")
    whole = path.read_bytes()
    head = whole.index(b"\n") + 1
    kept = whole[: max(head, len(whole) - cut)]
    path.write_bytes(kept)
    expected = list("abc")[: kept.count(b'"}') - 1]
    with Journal(path) as journal:
        assert list(journal) == expected
        journal.add("d", "result d")
        assert journal.get("d") == "result d"
    with Journal(path) as journal:
        assert list(journal) == [*expected, "d"]
        assert [journal.get(name) for name in journal] == [f"result {name}" for name in [*expected, "d"]]


def test_another_call_is_refused(path: Path) -> None:
    Journal(path, "segment manylens/regions").close()
    Journal(path, "segment manylens/regions").close()
    with pytest.raises(UserError, match=r"run.jsonl: belongs to another call \(segment manylens/regions\)"):
        Journal(path, "detect manylens/regions")


@pytest.mark.parametrize("content", [b"hello\n", b"{}\n", b"[1]\n", b"\x00\xff", b'{"journal": 2}\n', b"\n"])
def test_another_file_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a journal"):
        Journal(path)
    assert path.read_bytes() == content


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be opened"):
        Journal(tmp_path)


def test_a_full_disk_leaves_the_journal_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    with Journal(path) as journal:
        journal.add("a", 1)
        before = path.read_bytes()
        monkeypatch.setattr(module.os, "write", lambda file, data: write(file, data[:5]))
        with pytest.raises(OutputError, match=r"run.jsonl: cannot be written \(disk full\)"):
            journal.add("b", 2)
        monkeypatch.undo()
        assert path.read_bytes() == before
        assert "b" not in journal
        journal.add("b", 3)
    assert Journal(path).get("b") == 3


def test_what_json_cannot_hold_writes_nothing(path: Path) -> None:
    with Journal(path) as journal:
        before = path.read_bytes()
        with pytest.raises(TypeError):
            journal.add("a", object())
        assert path.read_bytes() == before


def _append(path: str, name: str) -> None:
    with Journal(path) as journal:
        for number in range(60):
            journal.add(f"{name}{number}", "x" * 3000)
            assert journal.get(f"{name}{number}") == "x" * 3000


def test_two_processes_append_whole_lines(path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=_append, args=(str(path), name)) for name in "ab"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert set(Journal(path)) == {f"{name}{number}" for name in "ab" for number in range(60)}
