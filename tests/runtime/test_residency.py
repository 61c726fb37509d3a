import random
import threading
import time
from contextlib import ExitStack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manylens.errors import BudgetError, DeadlineError, EngineError
from manylens.runtime import residency as module
from manylens.runtime.residency import Residency

MB = 1_000_000


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.memory, "give_back", lambda: None)


class Thing:
    def __init__(self, name: str = "") -> None:
        self.name = name
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def keys(residency: Residency) -> list:
    return [held.key for held in residency.held()]


def test_loaded_once_and_kept() -> None:
    residency = Residency(100, base_bytes=0)
    loads = []
    for _ in range(3):
        with residency.lease("a", 10, lambda: loads.append(1) or Thing()) as thing:
            assert residency.held() == [module.Held("a", 10, 1)]
    assert len(loads) == 1
    assert residency.held() == [module.Held("a", 10, 0)]
    assert not thing.closed


def test_the_least_recently_used_leaves_first_and_only_as_many_as_needed() -> None:
    residency = Residency(100, base_bytes=0)
    things = {}
    for name in "abc":
        with residency.lease(name, 30, Thing) as things[name]:
            pass
    with residency.lease("a", 30, Thing):
        pass
    with residency.lease("d", 30, Thing):
        assert [things[name].closed for name in "abc"] == [0, 1, 0]
    assert keys(residency) == ["c", "a", "d"]


def test_last_use_is_the_end_of_the_lease() -> None:
    residency = Residency(100, base_bytes=0)
    with residency.lease("a", 30, Thing), residency.lease("b", 30, Thing):
        pass  # b ends first
    assert keys(residency) == ["b", "a"]


def test_the_base_counts_and_the_refusal_names_the_numbers() -> None:
    residency = Residency(512 * MB, base_bytes=100 * MB)
    with residency.lease("small", 412 * MB, Thing):
        pass
    with pytest.raises(
        BudgetError,
        match=r"^manylens/x: needs 900 MB on top of the 100 MB that the program takes, but the memory budget is "
        "512 MB; raise it with --memory-budget or name a smaller model$",
    ):
        residency.lease("manylens/x", 900 * MB, Thing).__enter__()
    assert keys(residency) == ["small"]  # nothing leaves for what can never fit


def test_the_base_is_measured() -> None:
    assert Residency(1 << 30).base_bytes > 5 << 20


def test_a_failed_load_leaves_nothing() -> None:
    residency = Residency(100, base_bytes=0)

    def fail() -> Thing:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        residency.lease("a", 100, fail).__enter__()
    assert residency.held() == []
    with residency.lease("b", 100, Thing):
        pass


def test_an_error_in_the_block_lets_go() -> None:
    residency = Residency(100, base_bytes=0)

    def work() -> None:
        with residency.lease("a", 10, Thing):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert residency.held()[0].pins == 0


def test_a_thing_that_fails_to_close_leaves_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    class Bad:
        def close(self) -> None:
            raise ZeroDivisionError

    residency = Residency(100, base_bytes=0)
    with residency.lease("bad", 100, Bad):
        pass
    with residency.lease("good", 100, object):
        pass
    assert keys(residency) == ["good"]
    assert "bad: failed to close" in caplog.text


def test_evict() -> None:
    residency = Residency(100, base_bytes=0)
    with residency.lease("a", 10, Thing) as thing:
        assert not residency.evict("a")
    assert residency.evict("a")
    assert thing.closed == 1
    assert not residency.evict("a")
    assert residency.held() == []


def test_close_waits_for_what_is_in_use_and_refuses_the_rest() -> None:
    residency = Residency(100, base_bytes=0)
    with residency.lease("idle", 10, Thing) as idle:
        pass
    with residency.lease("used", 10, Thing) as used:
        residency.close()
        assert (idle.closed, used.closed) == (1, 0)
        with pytest.raises(EngineError, match="session is closed"):
            residency.lease("idle", 10, Thing).__enter__()
    assert used.closed == 1
    assert residency.held() == []
    residency.close()


def test_a_call_that_holds_the_room_it_asks_for_is_told_at_once() -> None:
    residency = Residency(100, base_bytes=0)
    with (
        residency.lease("a", 60, Thing) as thing,
        pytest.raises(BudgetError, match="b: needs 60 B, but 60 B of the 100 B budget is held by the calls that wait"),
    ):
        residency.lease("b", 60, Thing).__enter__()
    assert not thing.closed
    with residency.lease("b", 60, Thing):
        assert thing.closed


def test_two_calls_that_wait_for_each_other_do_not_hang() -> None:
    residency = Residency(100, base_bytes=0)
    both, ends = threading.Barrier(2), []

    def work(mine: str, other: str) -> None:
        try:
            with residency.lease(mine, 50, Thing):
                both.wait(5)
                with residency.lease(other, 50, Thing):
                    ends.append("ok")
        except BudgetError:
            ends.append("refused")

    threads = [threading.Thread(target=work, args=pair) for pair in (("a", "c"), ("b", "d"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(ends) in (["ok", "refused"], ["refused", "refused"])
    assert "ok" in ends  # the refusal of one made room for the other
    assert all(held.pins == 0 for held in residency.held())


def test_waits_until_room_comes() -> None:
    residency = Residency(100, base_bytes=0)
    pinned, let_go, got = threading.Event(), threading.Event(), []

    def hold() -> None:
        with residency.lease("a", 60, Thing):
            pinned.set()
            let_go.wait(5)

    holder = threading.Thread(target=hold)
    holder.start()
    pinned.wait(5)

    def want() -> None:
        with residency.lease("b", 60, Thing):
            got.append(residency.held_bytes)

    waiter = threading.Thread(target=want)
    waiter.start()
    waiter.join(0.3)
    assert waiter.is_alive()
    assert got == []
    let_go.set()
    waiter.join(5)
    holder.join(5)
    assert got == [60]


@pytest.mark.parametrize(
    ("patience", "deadline", "error", "match"),
    [
        (300, 0.05, DeadlineError, "b: needs 60 B, but 60 B of the 100 B budget stayed in use until the deadline"),
        (0.05, None, BudgetError, "stayed in use for 0 s"),
    ],
)
def test_waiting_is_bounded(patience: float, deadline: float | None, error: type[Exception], match: str) -> None:
    residency = Residency(100, base_bytes=0, patience=patience)
    with ExitStack() as stack:
        holder = threading.Thread(target=lambda: stack.enter_context(residency.lease("a", 60, Thing)))
        holder.start()
        holder.join(5)
        until = None if deadline is None else time.monotonic() + deadline
        with pytest.raises(error, match=match):
            residency.lease("b", 60, Thing, deadline=until).__enter__()


def test_waiting_can_be_stopped() -> None:
    residency = Residency(100, base_bytes=0)

    def stop() -> None:
        raise TimeoutError

    with ExitStack() as stack:
        holder = threading.Thread(target=lambda: stack.enter_context(residency.lease("a", 60, Thing)))
        holder.start()
        holder.join(5)
        with pytest.raises(TimeoutError):
            residency.lease("b", 60, Thing, check=stop).__enter__()


def test_threads_that_ask_at_once_load_once() -> None:
    residency = Residency(100, base_bytes=0)
    started, go, loads, got = threading.Event(), threading.Event(), [], []

    def load() -> Thing:
        loads.append(1)
        started.set()
        go.wait(5)
        return Thing()

    def work() -> None:
        with residency.lease("a", 100, load) as thing:
            got.append(thing)

    threads = [threading.Thread(target=work) for _ in range(6)]
    threads[0].start()
    started.wait(5)
    for thread in threads[1:]:
        thread.start()
    go.set()
    for thread in threads:
        thread.join(5)
    assert len(loads) == 1
    assert len(got) == 6
    assert len(set(map(id, got))) == 1


def test_a_closing_thing_counts_until_it_is_gone() -> None:
    residency = Residency(100, base_bytes=0)
    seen = []

    class Slow:
        def close(self) -> None:
            seen.append(residency.held_bytes)  # also: close() runs without the lock

    with residency.lease("a", 70, Slow):
        pass
    with residency.lease("b", 70, Thing):
        pass
    assert seen == [70]


@settings(max_examples=150, deadline=None)
@given(
    budget=st.integers(10, 60),
    base=st.integers(0, 10),
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("lease"), st.integers(0, 7)),
            st.tuples(st.just("release"), st.integers(0, 7)),
            st.tuples(st.just("evict"), st.integers(0, 7)),
        ),
        max_size=40,
    ),
)
def test_law_the_budget_holds_and_what_is_pinned_stays(budget: int, base: int, steps: list[tuple[str, int]]) -> None:
    residency: Residency[Thing] = Residency(budget, base_bytes=base)
    sizes = [1, 3, 5, 8, 13, 21, 34, 55]
    alive: list[Thing] = []
    open_leases: list[tuple[int, Thing, ExitStack]] = []

    def load(index: int) -> Thing:
        assert residency.base_bytes + residency.held_bytes <= budget
        alive.append(Thing(str(index)))
        return alive[-1]

    for verb, index in steps:
        if verb == "lease":
            stack = ExitStack()
            try:
                thing = stack.enter_context(residency.lease(index, sizes[index], lambda index=index: load(index)))
            except BudgetError:
                pinned = {name for name, *_ in open_leases}
                assert base + sizes[index] + sum(sizes[name] for name in pinned) > budget
            else:
                assert thing.name == str(index)
                open_leases.append((index, thing, stack))
        elif verb == "release" and open_leases:
            open_leases.pop(index % len(open_leases))[2].close()
        elif verb == "evict":
            residency.evict(index)
        held = {entry.key: entry for entry in residency.held()}
        assert base + sum(entry.bytes for entry in held.values()) <= budget
        assert all(thing.closed == 0 for _, thing, _ in open_leases)
        assert sum(entry.pins for entry in held.values()) == len(open_leases)
        assert sum(thing.closed == 0 for thing in alive) == len(held)
        assert all(thing.closed <= 1 for thing in alive)
    for *_, stack in open_leases:
        stack.close()
    residency.close()
    assert all(thing.closed == 1 for thing in alive)


def test_stress_many_threads_many_things() -> None:
    budget = 100
    residency: Residency[Thing] = Residency(budget, base_bytes=0)
    lock, live, errors = threading.Lock(), {"bytes": 0}, []

    class Counted(Thing):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.size = size
            with lock:
                live["bytes"] += size
                if live["bytes"] > budget:
                    errors.append(f"{live['bytes']} held")

        def close(self) -> None:
            super().close()
            with lock:
                live["bytes"] -= self.size

    def work(seed: int) -> None:
        rng = random.Random(seed)
        try:
            for _ in range(60):
                name = rng.randrange(8)
                size = 10 + 5 * name
                with residency.lease(name, size, lambda size=size: Counted(size)) as thing:
                    if rng.random() < 0.3:
                        time.sleep(0.001)
                    if thing.closed:
                        errors.append(f"{name} closed while in use")
        except Exception as error:
            errors.append(repr(error))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert errors == []
    residency.close()
    assert live["bytes"] == 0
