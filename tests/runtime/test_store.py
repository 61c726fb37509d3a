import dataclasses
import errno
import logging
import multiprocessing
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from manylens.runtime import disk
from manylens.runtime import store as module
from manylens.runtime.store import EmbeddingStore, Key

KEY = Key(pixels="p", weights="w", preprocessing="v1", layer="last", engine="openvino", precision="f32")


def key(number: int) -> Key:
    return dataclasses.replace(KEY, pixels=f"p{number}")


def block(number: int, kib: int = 1) -> dict[str, np.ndarray]:
    return {"x": np.full(kib * 1024, number % 251, np.uint8)}


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_every_field_of_the_key_counts() -> None:
    digests = {dataclasses.replace(KEY, **{field.name: "other"}).digest for field in dataclasses.fields(Key)}
    assert len(digests | {KEY.digest}) == 7
    assert dataclasses.replace(KEY, pixels="ab", weights="c") != dataclasses.replace(KEY, pixels="a", weights="bc")
    # Pinned: an accidental change of the digest would throw away every user's cache.
    assert KEY.digest.startswith("fdd5b020e6cdc5ad")


@pytest.mark.parametrize(
    "array",
    [
        np.linspace(-1, 1, 12, dtype=np.float16).reshape(3, 4),
        np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4).T,
        np.arange(9, dtype=np.uint8)[::2],
        np.array(7),
        np.array([True, False]),
        np.zeros((0, 5), np.float32),
        np.array(["cat", "größe"]),
    ],
    ids=["fp16", "fortran", "strided", "scalar", "bool", "empty", "text"],
)
def test_arrays_come_back_as_they_were(tmp_path: Path, array: np.ndarray) -> None:
    EmbeddingStore(tmp_path).put(KEY, {"a": array, "file": np.array(3)})
    found = EmbeddingStore(tmp_path).get(KEY)
    assert found is not None
    assert found["a"].dtype == array.dtype
    assert found["a"].shape == array.shape
    np.testing.assert_array_equal(found["a"], array)
    assert int(found["file"]) == 3


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.text("abc_", min_size=1, max_size=5),
        hnp.arrays(
            st.sampled_from([np.float16, np.float32, np.uint8, np.int64]), hnp.array_shapes(min_dims=0, max_side=4)
        ),
        max_size=3,
    )
)
def test_the_disk_changes_nothing(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    EmbeddingStore(tmp_path).put(KEY, arrays)
    found = EmbeddingStore(tmp_path).get(KEY)
    assert found is not None
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_what_is_given_out_cannot_change_what_is_kept(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path)
    mine = np.zeros(4, np.float32)
    given_out = store.put(KEY, {"a": mine})
    mine[0] = 9
    given_out["b"] = mine
    again = store.get(KEY)
    assert again is not None
    assert set(again) == {"a"}
    assert again["a"][0] == 0
    for arrays in (given_out, again, EmbeddingStore(tmp_path).get(KEY)):
        assert arrays is not None
        with pytest.raises(ValueError, match="read-only"):
            arrays["a"][0] = 1


def test_objects_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="a: arrays of object"):
        EmbeddingStore(tmp_path).put(KEY, {"a": np.array([{}, 1], dtype=object)})
    assert files(tmp_path) == []


def test_a_type_from_outside_numpy_is_refused(tmp_path: Path) -> None:
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    with pytest.raises(TypeError, match="bfloat16"):
        EmbeddingStore(tmp_path).put(KEY, {"a": np.zeros(3, bfloat16)})


def test_where_it_was_found(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path)
    assert [store.get_or_compute(KEY, lambda: block(1))[1] for _ in range(2)] == [None, "memory"]
    fresh = EmbeddingStore(tmp_path)
    assert [fresh.get_or_compute(KEY, lambda: block(2))[1] for _ in range(2)] == ["disk", "memory"]
    stats = fresh.stats()
    assert (stats.memory_hits, stats.disk_hits, stats.misses) == (1, 1, 0)
    assert store.stats().misses == 1
    assert stats.disk_items == stats.memory_items == 1
    assert stats.memory_bytes == 1024
    assert stats.to_json()["disk_bytes"] > 1024


def test_without_a_folder_it_keeps_in_memory() -> None:
    store = EmbeddingStore(None)
    store.put(KEY, block(1))
    assert store.get(KEY) is not None
    store.clear()
    assert store.get(KEY) is None


def test_clear_forgets_both_levels(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path)
    store.put(KEY, block(1))
    store.clear()
    assert store.get(KEY) is None
    assert files(tmp_path) == []


def test_memory_drops_the_least_recently_used() -> None:
    store = EmbeddingStore(None, memory_bytes=3 * 1024)
    for number in range(3):
        store.put(key(number), block(number))
    store.get(key(0))
    store.put(key(3), block(3))
    assert [store.get(key(number)) is not None for number in range(4)] == [True, False, True, True]
    assert store.stats().memory_bytes == 3 * 1024
    store.put(key(4), block(4, kib=4))  # larger than the level: not kept, and nothing leaves for it
    assert store.stats().memory_items == 3


def test_disk_drops_the_least_recently_used(tmp_path: Path) -> None:
    limit = 10 * 4096
    store = EmbeddingStore(tmp_path, memory_bytes=0, disk_bytes=limit)
    order = [5, 2, 7, 0, 6, 1, 4, 3]  # of last use, oldest first; not that of the names
    for number in range(8):
        store.put(key(number), block(number, kib=4))
    for age, number in enumerate(order):
        path = tmp_path / key(number).digest[:2] / f"{key(number).digest}.npz"
        os.utime(path, (1000 + age, 1000 + age))
    assert store.get(key(5)) is not None  # read: now the youngest
    for number in range(8, 12):
        store.put(key(number), block(number, kib=4))
        assert sum(path.stat().st_size for path in files(tmp_path)) <= limit
    kept = {number for number in range(12) if store.get(key(number)) is not None}
    by_use = [*order[1:], 5, 8, 9, 10, 11]
    assert len(kept) >= 7
    assert kept == set(by_use[-len(kept) :])


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 40)), max_size=30))
def test_the_disk_never_passes_its_limit(tmp_path_factory: pytest.TempPathFactory, puts: list[tuple[int, int]]) -> None:
    folder = tmp_path_factory.mktemp("store")
    store = EmbeddingStore(folder, memory_bytes=0, disk_bytes=64 * 1024)
    for number, kib in puts:
        store.put(key(number), block(number, kib))
        assert sum(path.stat().st_size for path in files(folder)) <= 64 * 1024


def test_the_folder_is_not_scanned_for_every_put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scans = []
    files_of = disk.DiskCache.files
    monkeypatch.setattr(disk.DiskCache, "files", lambda self: scans.append(1) or files_of(self))
    store = EmbeddingStore(tmp_path)
    for number in range(50):
        store.put(key(number), block(number))
    assert len(scans) == 1


def test_a_part_that_a_killed_writer_left_goes_and_a_live_one_stays(tmp_path: Path) -> None:
    shard = tmp_path / "ab"
    shard.mkdir()
    dead, live = shard / ".dead.part", shard / ".live.part"
    dead.write_bytes(b"x")
    live.write_bytes(b"x")
    os.utime(dead, (1000, 1000))
    EmbeddingStore(tmp_path).put(KEY, block(1))
    assert not dead.exists()
    assert live.exists()


def _truncate(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize("damage", [_truncate, _flip, lambda data: b"", lambda data: b"hello"])
def test_a_damaged_file_is_computed_again(tmp_path: Path, damage) -> None:
    EmbeddingStore(tmp_path).put(KEY, block(1))
    (path,) = files(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    store = EmbeddingStore(tmp_path)
    assert store.get(KEY) is None
    assert not path.exists()
    arrays, hit = store.get_or_compute(KEY, lambda: block(2))
    assert hit is None
    np.testing.assert_array_equal(arrays["x"], block(2)["x"])
    assert EmbeddingStore(tmp_path).get(KEY) is not None


# The larger is over what is mapped instead of being read.
SIZES = pytest.mark.parametrize("count", [1000, 600_000])


@pytest.mark.parametrize("place", range(1, 12, 5))
def test_a_change_of_any_kind_is_damage(place: int, tmp_path: Path) -> None:
    cache = disk.DiskCache(tmp_path, 1 << 24)
    cache.put("00ff", {"x": np.arange(7, dtype=np.uint8), "y": np.arange(100)})
    (path,) = files(tmp_path)
    content = path.read_bytes()
    for at in range(content.index(b"NUMPY") - 1, content.index(b"y.npy") - 40, place):
        path.write_bytes(content[:at] + bytes([content[at] ^ (1 << place % 8)]) + content[at + 1 :])
        assert cache.get("00ff") is None, at


def test_blocks_that_change_places_are_damage(tmp_path: Path) -> None:
    cache, block = disk.DiskCache(tmp_path, 1 << 24), 1 << 16
    cache.put("00ff", {"x": np.arange(block, dtype=np.int64)})
    (path,) = files(tmp_path)
    content = path.read_bytes()
    at = content.index(np.arange(8, dtype=np.int64).tobytes())
    one, other = content[at : at + block], content[at + block : at + 2 * block]
    path.write_bytes(content[:at] + other + one + content[at + 2 * block :])
    assert cache.get("00ff") is None


@SIZES
def test_arrays_from_a_file_are_aligned(count: int, tmp_path: Path) -> None:
    # NumPy copies one that is not, each time that it is multiplied.
    cache = disk.DiskCache(tmp_path, 1 << 24)
    cache.put("00ff", {name: np.arange(count + len(name), dtype=np.float32) for name in ("a", "of.weight", "abc")})
    found = cache.get("00ff")
    assert found is not None
    offsets = {array.ctypes.data % 64 for array in found.values()}
    assert len(offsets) == 1
    assert all(array.flags.aligned for array in found.values())
    with np.load(files(tmp_path)[0]) as plain:  # as any other program reads it
        for name, array in found.items():
            np.testing.assert_array_equal(plain[name], array)


@SIZES
def test_a_file_that_is_in_use_stays_as_it_was(count: int, tmp_path: Path) -> None:
    cache = disk.DiskCache(tmp_path, 1 << 24)
    cache.put("00ff", {"x": np.arange(count), "none": np.zeros((0, 3), np.float32)})
    found, kept = cache.get("00ff", writable=True), cache.get("00ff")
    assert found is not None
    assert kept is not None
    assert found["none"].shape == (0, 3)
    found["x"][0] = 7  # its own copy
    with pytest.raises(ValueError, match="read-only"):
        kept["x"][0] = 7
    again = cache.get("00ff")
    assert again is not None
    np.testing.assert_array_equal(again["x"], np.arange(count))
    cache.put("00ff", {"x": np.zeros(count)})
    np.testing.assert_array_equal(kept["x"], np.arange(count))
    cache.clear()
    np.testing.assert_array_equal(found["x"][1:], np.arange(count)[1:])


@SIZES
@pytest.mark.parametrize("damage", [_truncate, _flip, lambda data: b"", lambda data: b"hello"])
def test_a_damaged_file_is_dropped(count: int, damage, tmp_path: Path) -> None:
    cache = disk.DiskCache(tmp_path, 1 << 24)
    cache.put("00ff", {"x": np.arange(count)})
    (path,) = files(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    assert cache.get("00ff") is None
    assert not path.exists()


def test_no_pickle_is_ever_read(tmp_path: Path) -> None:
    EmbeddingStore(tmp_path).put(KEY, block(1))
    (path,) = files(tmp_path)
    with path.open("wb") as file:
        np.savez(file, x=np.array([{"evil": 1}], dtype=object))
    assert EmbeddingStore(tmp_path).get(KEY) is None


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_takes_nothing_warns_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    def full(file: object, arrays: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(disk, "_write", full)
    store = EmbeddingStore(tmp_path)
    with caplog.at_level(logging.WARNING):
        for number in range(3):
            store.get_or_compute(key(number), lambda: block(1))
    assert store.get(key(0)) is not None
    assert files(tmp_path) == []
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert os.strerror(code) in caplog.text


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    store = EmbeddingStore(tmp_path / "file" / "embeddings")
    assert store.get_or_compute(KEY, lambda: block(1))[1] is None
    assert store.get_or_compute(KEY, lambda: block(1))[1] == "memory"
    assert len(caplog.records) == 1


def test_threads_that_ask_at_once_compute_once(tmp_path: Path) -> None:
    # memory_bytes=0: the waiting threads must get the arrays of the one that computed, not of a level.
    store = EmbeddingStore(None, memory_bytes=0)
    computed, started, go, results = [], threading.Event(), threading.Event(), []

    def compute() -> dict[str, np.ndarray]:
        computed.append(1)
        started.set()
        go.wait(5)
        return block(7)

    def ask() -> None:
        results.append(store.get_or_compute(KEY, compute))

    leader = threading.Thread(target=ask)
    leader.start()
    started.wait(5)
    followers = [threading.Thread(target=ask) for _ in range(7)]
    waiting = threading.Semaphore(0)
    wait = module._Flight.wait

    def counted(self, check):
        waiting.release()
        return wait(self, check)

    module._Flight.wait = counted  # type: ignore[method-assign]
    try:
        for thread in followers:
            thread.start()
        for _ in followers:
            assert waiting.acquire(timeout=5)
        go.set()
        for thread in [leader, *followers]:
            thread.join(5)
    finally:
        module._Flight.wait = wait  # type: ignore[method-assign]
    assert len(computed) == 1
    assert sorted(str(hit) for _, hit in results) == ["None"] + ["memory"] * 7
    assert all((arrays["x"] == 7).all() for arrays, _ in results)


def test_the_failure_of_one_is_not_the_failure_of_those_that_wait(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path)
    started, go, errors, results = threading.Event(), threading.Event(), [], []

    def fail() -> dict[str, np.ndarray]:
        started.set()
        go.wait(5)
        raise ZeroDivisionError

    def lead() -> None:
        try:
            store.get_or_compute(KEY, fail)
        except ZeroDivisionError as error:
            errors.append(error)

    leader = threading.Thread(target=lead)
    leader.start()
    started.wait(5)
    follower = threading.Thread(target=lambda: results.append(store.get_or_compute(KEY, lambda: block(3))))
    follower.start()
    go.set()
    leader.join(5)
    follower.join(5)
    assert len(errors) == 1
    assert results[0][1] is None


def test_a_computation_that_asks_for_itself_does_not_hang() -> None:
    store = EmbeddingStore(None)
    with pytest.raises(RuntimeError, match="its own computation"):
        store.get_or_compute(KEY, lambda: store.get_or_compute(KEY, dict)[0])
    assert store.get_or_compute(KEY, lambda: block(1))[1] is None


def test_waiting_can_be_stopped() -> None:
    store = EmbeddingStore(None)
    started, go = threading.Event(), threading.Event()

    def slow() -> dict[str, np.ndarray]:
        started.set()
        go.wait(5)
        return block(1)

    thread = threading.Thread(target=lambda: store.get_or_compute(KEY, slow))
    thread.start()
    started.wait(5)

    def stop() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        store.get_or_compute(KEY, slow, check=stop)
    go.set()
    thread.join(5)


def _hammer(folder: str, seed: int, bad: "multiprocessing.Queue[str]") -> None:
    store = EmbeddingStore(folder, memory_bytes=0, disk_bytes=600 * 1024)
    for step in range(60):
        number = (seed + step) % 5
        arrays, _ = store.get_or_compute(key(number), lambda number=number: block(number, kib=64))
        if not (arrays["x"] == number).all() or len(arrays["x"]) != 64 * 1024:
            bad.put(f"{number}: wrong bytes")
        store.put(key(number), block(number, kib=64))
    bad.put("done")


def test_two_processes_on_the_same_keys(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    bad = spawn.Queue()
    workers = [spawn.Process(target=_hammer, args=(str(tmp_path), seed, bad)) for seed in (0, 2)]
    for worker in workers:
        worker.start()
    said = [bad.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(60)
    assert said == ["done", "done"]
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert all(path.suffix == ".npz" for path in files(tmp_path))
    assert {path.stem for path in files(tmp_path)} <= {key(n).digest for n in range(5)}
