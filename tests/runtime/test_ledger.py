import logging
import multiprocessing
import os
import sqlite3
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from manylens.runtime.ledger import Entry, Ledger, new_call_id, utc_text

FULL = Entry(
    task="segment",
    model="manylens/regions",
    weights="ab12",
    seconds=1.25,
    cpu_seconds=2.5,
    bytes_in=921600,
    peak_rss_mb=512.5,
    device="cpu",
    engine="openvino",
    precision="bf16",
    cache="disk",
    inputs="p1 p2",
    seed=7,
    outcome="PromptError",
    message="point 9,9: outside; größer",
    cost=0.25,
    parent=new_call_id(),
    time="2026-01-02T03:04:05.678Z",
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "ledger.sqlite"


def test_a_row_comes_back_whole_in_another_process(path: Path) -> None:
    Ledger(path).record(FULL)
    assert Ledger(path).rows() == [FULL]


def test_the_file_is_plain_sqlite_with_wal(path: Path) -> None:
    Ledger(path).record(FULL)
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert database.execute("SELECT task, seconds FROM calls").fetchall() == [("segment", 1.25)]


def test_new_entries_have_their_own_id_and_the_time() -> None:
    before = utc_text(datetime.now(UTC))
    first, second = Entry("a", "m"), Entry("a", "m")
    assert first.id != second.id
    assert before <= first.time <= second.time
    assert first.time.endswith("Z")


def test_times_of_every_zone_are_written_in_utc() -> None:
    tokyo = datetime(2026, 1, 1, 9, tzinfo=timezone(timedelta(hours=9)))
    assert utc_text(tokyo) == "2026-01-01T00:00:00.000Z"


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, [5, 4, 3, 2, 1]),
        ({"limit": 2}, [5, 4]),
        ({"limit": None}, [5, 4, 3, 2, 1]),
        ({"task": "detect"}, [4, 2]),
        ({"model": "m1"}, [5, 4]),
        ({"task": "detect", "model": "m0"}, [2]),
        ({"since": "2026-01-04"}, [5, 4]),
        ({"since": datetime(2026, 1, 4, tzinfo=UTC)}, [5, 4]),
        ({"task": "x' OR 1=1 --"}, []),
    ],
)
def test_rows(path: Path, asked: dict, expected: list[int]) -> None:
    ledger = Ledger(path)
    for day in range(1, 6):
        task = "segment" if day % 2 else "detect"
        ledger.record(Entry(task, f"m{day // 4}", seed=day, time=f"2026-01-{day:02}T00:00:00.000Z"))
    assert [entry.seed for entry in ledger.rows(**asked)] == expected


def test_summary(path: Path) -> None:
    ledger = Ledger(path)
    for seconds, cache in [(1.0, "miss"), (2.0, "memory"), (6.0, "disk")]:
        ledger.record(Entry("segment", "m", seconds=seconds, cache=cache, cost=0.5))
    ledger.record(Entry("segment", "m", seconds=99.0, outcome="PromptError"))
    ledger.record(Entry("detect", "m", seconds=99.0, outcome="EngineError"))
    detect, segment = ledger.summary()
    assert (detect.task, detect.calls, detect.errors, detect.mean_seconds, detect.median_seconds) == (
        "detect",
        1,
        1,
        0.0,
        0.0,
    )
    assert segment.to_json() == {
        "task": "segment",
        "model": "m",
        "calls": 4,
        "errors": 1,
        "mean_seconds": 3.0,
        "median_seconds": 2.0,
        "memory_hits": 1,
        "disk_hits": 1,
        "misses": 1,
        "cost": 1.5,
    }


def test_only_the_newest_rows_are_kept(path: Path) -> None:
    ledger = Ledger(path, keep=10)
    for number in range(35):
        ledger.record(Entry("a", "m", seed=number))
    seeds = [entry.seed for entry in ledger.rows(None)]
    assert 10 <= len(seeds) < 20
    assert seeds == list(range(34, 34 - len(seeds), -1))


def test_an_older_file_gains_the_missing_columns(path: Path) -> None:
    Ledger(path).record(FULL)
    with sqlite3.connect(path) as database:
        database.execute("ALTER TABLE calls DROP COLUMN cost")
        database.execute("ALTER TABLE calls DROP COLUMN cache")
        database.execute("ALTER TABLE calls ADD COLUMN future TEXT")
    ledger = Ledger(path)
    ledger.record(Entry("b", "m", cache="miss"))
    new, old = ledger.rows()
    assert (new.task, new.cache) == ("b", "miss")
    assert (old.id, old.cache, old.cost) == (FULL.id, "", 0)


def _garbage(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"this is no database" * 100)


def _folder(path: Path) -> None:
    path.mkdir(parents=True)


def _file_in_the_way(path: Path) -> None:
    path.parent.write_text("a file")


@pytest.mark.parametrize("spoil", [_garbage, _folder, _file_in_the_way])
def test_a_ledger_that_cannot_be_used_warns_once(path: Path, spoil, caplog: pytest.LogCaptureFixture) -> None:
    spoil(path)
    ledger = Ledger(path)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            ledger.record(Entry("a", "m"))
    assert ledger.rows() == []
    assert ledger.summary() == []
    assert len(caplog.records) == 1
    assert str(path) in caplog.text


def test_a_file_that_breaks_while_open(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ledger = Ledger(path)
    ledger.record(FULL)
    with sqlite3.connect(path) as database:
        database.execute("DROP TABLE calls")
    ledger.record(FULL)
    ledger.record(FULL)
    assert len(caplog.records) == 1


def test_threads_lose_no_row(path: Path) -> None:
    ledger = Ledger(path)
    threads = [threading.Thread(target=lambda: [ledger.record(Entry("a", "m")) for _ in range(25)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len({entry.id for entry in ledger.rows(None)}) == 200


def test_a_fork_opens_its_own_connection(path: Path) -> None:
    ledger = Ledger(path)
    ledger.record(FULL)
    connection = ledger._connection
    child = os.fork()
    if child == 0:
        ledger.record(Entry("child", "m"))
        os._exit(ledger._connection is connection)
    assert os.waitpid(child, 0)[1] == 0
    ledger.record(Entry("parent", "m"))
    assert [entry.task for entry in ledger.rows()] == ["parent", "child", "segment"]


def _write(path: str, task: str, start: Barrier) -> None:
    start.wait()
    ledger = Ledger(path)
    for _ in range(20):
        ledger.record(Entry(task, "m"))


@pytest.mark.parametrize("round_", range(10))
def test_processes_that_open_a_new_file_together_lose_no_row(path: Path, round_: int) -> None:
    fork = multiprocessing.get_context("fork")
    names = list("abcdef")
    start = fork.Barrier(len(names))
    workers = [fork.Process(target=_write, args=(str(path), name, start)) for name in names]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * len(names)
    assert Counter(entry.task for entry in Ledger(path).rows(None)) == dict.fromkeys(names, 20)


def test_a_busy_file_costs_one_row_and_not_the_rest(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("manylens.runtime.ledger._BUSY_SECONDS", 0.01)
    ledger = Ledger(path)
    ledger.record(Entry("first", "m"))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    ledger.record(Entry("while busy", "m"))
    other.execute("ROLLBACK")
    ledger.record(Entry("after", "m"))
    assert [entry.task for entry in ledger.rows()] == ["after", "first"]
    assert "database is locked" in caplog.text
