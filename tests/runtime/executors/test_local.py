import itertools
import threading
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manylens.errors import CancelledError, DeadlineError, EngineError, UserError
from manylens.runtime import executors
from manylens.runtime.executors import Failure
from manylens.runtime.executors.local import LocalExecutor


def double(batch: list[int]) -> list[int]:
    return [2 * item for item in batch]


def our_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("manylens-prepare")]


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(0, 40),
    batch_size=st.integers(1, 9),
    prefetch=st.integers(0, 20),
    bad_inputs=st.sets(st.integers(0, 39)),
    bad_runs=st.sets(st.integers(0, 39)),
    lazy=st.booleans(),
)
def test_law_order_and_failures(
    count: int, batch_size: int, prefetch: int, bad_inputs: set[int], bad_runs: set[int], lazy: bool
) -> None:
    def prepare(item: int) -> int:
        if item in bad_inputs:
            raise ValueError(item)
        return item

    def generate(batch: list[int]) -> Iterator[int]:
        assert len(batch) <= batch_size
        for item in batch:
            if item in bad_runs:
                raise KeyError(item)
            yield 2 * item

    run = generate if lazy else lambda batch: list(generate(batch))
    got = LocalExecutor(3).map(
        run, range(count), batch_size=batch_size, prefetch=prefetch, prepare=prepare, errors="return"
    )
    seen = [(type(o.error), o.item_index, o.error.args[0]) if isinstance(o, Failure) else o for o in got]
    assert seen == [
        (ValueError, item, item) if item in bad_inputs else (KeyError, item, item) if item in bad_runs else 2 * item
        for item in range(count)
    ]


@pytest.mark.parametrize("where", ["prepare", "run", "source"])
def test_an_error_is_raised_when_its_turn_comes(where: str) -> None:
    def fail_at_11(item: int) -> int:
        if item == 11:
            raise ValueError("eleven")
        return item

    def source() -> Iterator[int]:
        for item in range(20):
            yield fail_at_11(item) if where == "source" else item

    run = (lambda batch: [fail_at_11(item) for item in batch]) if where == "run" else list
    prepare = fail_at_11 if where == "prepare" else None
    got = []

    def consume() -> None:
        got.extend([])
        for result in LocalExecutor(2).map(run, source(), batch_size=4, prefetch=8, prepare=prepare):
            got.append(result)

    with pytest.raises(ValueError, match="eleven"):
        consume()
    assert got == list(range(11))
    assert our_threads() == []


def test_a_failing_source_is_never_returned_as_a_result() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    results = LocalExecutor().map(double, source(), errors="return")
    assert next(results) == 2
    with pytest.raises(OSError, match="gone"):
        next(results)


@pytest.mark.parametrize(("batch_size", "prefetch"), [(1, 0), (4, 0), (4, 10), (8, 3)])
def test_an_endless_source_is_taken_as_needed(batch_size: int, prefetch: int) -> None:
    taken = itertools.count()
    consumed: list[int] = []

    def source() -> Iterator[int]:
        for item in taken:
            consumed.append(item)
            yield item

    results = LocalExecutor(2).map(double, source(), batch_size=batch_size, prefetch=prefetch, prepare=lambda x: x)
    assert consumed == []
    for index in range(50):
        assert next(results) == 2 * index
        done = index // batch_size * batch_size
        assert len(consumed) <= done + batch_size + max(prefetch, batch_size - 1)
    results.close()  # type: ignore[attr-defined]
    assert our_threads() == []


def test_inputs_are_prepared_while_a_batch_runs() -> None:
    """Deadlocks (and times out) unless item 5 is prepared while the batch of items 0 to 3 runs."""
    prepared = threading.Event()

    def prepare(item: int) -> int:
        if item == 5:
            prepared.set()
        return item

    def run(batch: list[int]) -> list[int]:
        assert prepared.wait(10)
        return batch

    assert list(LocalExecutor(2).map(run, range(8), batch_size=4, prefetch=4, prepare=prepare)) == list(range(8))


def test_results_come_as_they_are_ready() -> None:
    ran = []

    def run(batch: list[int]) -> Iterator[int]:
        for item in batch:
            ran.append(item)
            yield item

    results = LocalExecutor().map(run, range(4), batch_size=4)
    assert next(results) == 0
    assert ran == [0]


def test_a_consumer_that_stops_early_leaves_no_thread_and_closes_the_model() -> None:
    closed = []

    def run(batch: list[int]) -> Iterator[int]:
        try:
            yield from batch
        finally:
            closed.append(True)

    results = LocalExecutor(2).map(run, range(100), batch_size=8, prepare=lambda item: item)
    next(results)
    assert our_threads() != []
    results.close()  # type: ignore[attr-defined]
    assert our_threads() == []
    assert closed == [True]


def test_what_waits_to_be_prepared_is_dropped_when_the_consumer_stops() -> None:
    prepared, go = [], threading.Event()

    def prepare(item: int) -> int:
        if item > 0:
            go.wait(10)
        prepared.append(item)
        return item

    results = LocalExecutor(2).map(double, range(100), batch_size=1, prefetch=50, prepare=prepare)
    next(results)
    threading.Timer(0.2, go.set).start()
    results.close()  # type: ignore[attr-defined]
    assert len(prepared) <= 3


def test_the_model_comes_to_its_end_before_the_last_result() -> None:
    ended = []

    def run(batch: list[int]) -> Iterator[int]:
        yield from batch
        ended.append(len(batch))

    results = LocalExecutor().map(run, range(3), batch_size=3)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    assert ended == [3]


def test_cancel_between_results() -> None:
    cancel = threading.Event()
    results = LocalExecutor().map(double, range(100), batch_size=2, cancel=cancel, errors="return")
    assert [next(results), next(results)] == [0, 2]
    cancel.set()
    with pytest.raises(CancelledError):
        next(results)


def test_cancel_while_an_input_is_prepared() -> None:
    cancel, go = threading.Event(), threading.Event()

    def prepare(item: int) -> int:
        cancel.set()
        go.wait(5)
        return item

    threading.Timer(0.5, go.set).start()
    with pytest.raises(CancelledError):
        list(LocalExecutor(2).map(double, range(3), prepare=prepare, cancel=cancel))
    assert our_threads() == []


@pytest.mark.parametrize("where", ["prepare", "run"])
def test_errors_of_the_call_are_not_those_of_an_item(where: str) -> None:
    def late(item: object) -> None:
        raise DeadlineError("call: late")

    results = LocalExecutor(2).map(
        late if where == "run" else double,  # type: ignore[arg-type]
        range(3),
        prepare=late if where == "prepare" else None,
        errors="return",
    )
    with pytest.raises(DeadlineError):
        next(results)


@pytest.mark.parametrize(
    ("run", "match"),
    [
        (lambda batch: batch[:-1], "gave 3 results for a batch of 4"),
        (lambda batch: [*batch, 9], "gave more than 4 results for a batch of 4"),
        (lambda batch: [], "gave 0 results for a batch of 4"),
    ],
)
def test_a_miscount_is_never_passed_on(run, match: str) -> None:
    with pytest.raises(EngineError, match=match):
        list(LocalExecutor().map(run, range(8), batch_size=4, errors="return"))


@pytest.mark.parametrize("bad", [{"batch_size": 0}, {"prefetch": -1}])
def test_bad_arguments_are_refused_at_once(bad: dict[str, int]) -> None:
    with pytest.raises(UserError):
        LocalExecutor().map(double, [1], **bad)


def test_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "_factories", dict(executors._factories))
    assert isinstance(executors.get("local"), LocalExecutor)
    with pytest.raises(UserError, match="executor 'moon': not known; use local"):
        executors.get("moon")

    class Other:
        def map(self, run_batch, items: Iterable[int], **options: object) -> Iterator[int]:
            return iter(run_batch(list(items)))

    executors.register("other", Other)
    executors.register("lazy", "manylens.runtime.executors.local:LocalExecutor")
    assert list(executors.get("other").map(double, [1, 2])) == [2, 4]
    assert isinstance(executors.get("lazy"), LocalExecutor)
    assert executors.names() == ["lazy", "local", "other"]
