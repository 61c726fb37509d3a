"""The executor of one process: inputs are prepared by threads while batches run in the caller's own."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Literal

from manylens.errors import CancelledError, CostError, DeadlineError, EngineError, UserError
from manylens.runtime.cpu import threads
from manylens.runtime.executors.base import Failure, RunBatch

_POLL_SECONDS = 0.1
_MOST_WORKERS = 8
_END = object()


class ResultCountError(EngineError):
    """A model gave another number of results than it was given items: none of them can be trusted."""


# These end the whole call: they are never the fault of one item.
_OF_THE_CALL = (CancelledError, DeadlineError, CostError, ResultCountError)


class LocalExecutor:
    """Runs batches in the caller's thread, as results are asked for, and prepares the next items in a few threads.

    At most ``batch_size + prefetch`` items are in memory at once, and results wait for nobody: nothing runs ahead of
    a consumer that stops, and closing the iterator ends the threads.

    Args:
        workers: Threads that prepare items; ``None`` for one a core, at least two.
    """

    def __init__(self, workers: int | None = None) -> None:
        self._workers = workers or min(_MOST_WORKERS, max(2, threads()))

    def map(
        self,
        run_batch: RunBatch,
        items: Iterable[Any],
        *,
        batch_size: int = 8,
        prefetch: int = 16,
        prepare: Callable[[Any], Any] | None = None,
        errors: Literal["raise", "return"] = "raise",
        cancel: threading.Event | None = None,
    ) -> Iterator[Any]:
        """Yields one result for each item, in order; see :meth:`manylens.runtime.executors.Executor.map`."""
        if batch_size < 1:
            raise UserError(f"batch_size {batch_size}: not positive", "use 1 or more")
        if prefetch < 0:
            raise UserError(f"prefetch {prefetch}: negative", "use 0 or more")
        cancel = cancel or threading.Event()
        outcomes = self._outcomes(run_batch, items, batch_size, prefetch, prepare, cancel)
        return _raising(outcomes) if errors == "raise" else outcomes

    def _outcomes(
        self,
        run_batch: RunBatch,
        items: Iterable[Any],
        batch_size: int,
        prefetch: int,
        prepare: Callable[[Any], Any] | None,
        cancel: threading.Event,
    ) -> Iterator[Any]:
        pool = ThreadPoolExecutor(self._workers, "manylens-prepare") if prepare else None
        window = _Window(items, pool, prepare)
        try:
            while True:
                window.fill(batch_size)
                batch = [_settled(slot, cancel) for slot in window.take(batch_size)]
                if not batch:
                    break
                window.fill(prefetch)  # the pool works on these while the batch runs
                yield from _run(run_batch, batch, cancel)
            if window.error is not None:
                raise window.error
        finally:
            if pool is not None:
                pool.shutdown(wait=True, cancel_futures=True)


@dataclass
class _Slot:
    """One item on its way: taken, then prepared or failed."""

    index: int
    item: Any = None
    preparing: Future[Any] | None = None
    error: Exception | None = None


class _Window:
    """The items taken from the source and not yet run."""

    def __init__(
        self, items: Iterable[Any], pool: ThreadPoolExecutor | None, prepare: Callable[[Any], Any] | None
    ) -> None:
        self._source = iter(items)
        self._pool = pool
        self._prepare = prepare
        self._slots: deque[_Slot] = deque()
        self._taken = 0
        self._ended = False
        self.error: Exception | None = None  # of the source itself; due after what came before it

    def fill(self, count: int) -> None:
        while len(self._slots) < count and not self._ended:
            try:
                item = next(self._source)
            except StopIteration:
                self._ended = True
            except Exception as error:
                self._ended, self.error = True, error
            else:
                slot = _Slot(self._taken, item)
                if self._pool is not None and self._prepare is not None:
                    slot.item, slot.preparing = None, self._pool.submit(self._prepare, item)
                self._slots.append(slot)
                self._taken += 1

    def take(self, count: int) -> list[_Slot]:
        return [self._slots.popleft() for _ in range(min(count, len(self._slots)))]


def _settled(slot: _Slot, cancel: threading.Event) -> _Slot:
    """Waits until the item is prepared."""
    if slot.preparing is None:
        return slot
    while not slot.preparing.done():
        _check(cancel)
        wait([slot.preparing], timeout=_POLL_SECONDS)
    error = slot.preparing.exception()
    if error is None:
        slot.item = slot.preparing.result()
    elif isinstance(error, Exception) and not isinstance(error, _OF_THE_CALL):
        slot.error = error
    else:
        raise error
    slot.preparing = None
    return slot


def _run(run_batch: RunBatch, batch: list[_Slot], cancel: threading.Event) -> Iterator[Any]:
    """The results of a batch, with a failure in the place of each item that failed.

    A batch that fails does not say which item did it: from the first missing result on, items run one by one.
    """
    good = [slot for slot in batch if slot.error is None]
    results = _results(run_batch, good)
    one_by_one = False
    for slot in batch:
        _check(cancel)
        if slot.error is not None:
            yield Failure(slot.index, slot.error)
            continue
        outcome = None if one_by_one else _next(results, slot)
        if one_by_one or (isinstance(outcome, Failure) and len(good) > 1):
            one_by_one = True
            outcome = _next(_results(run_batch, [slot]), slot)
        slot.item = None
        yield outcome


def _next(results: Iterator[Any], slot: _Slot) -> Any:
    try:
        return next(results)
    except _OF_THE_CALL:
        raise
    except Exception as error:
        return Failure(slot.index, error)


def _results(run_batch: RunBatch, slots: list[_Slot]) -> Iterator[Any]:
    """As many results as slots. The last is given when the model has ended, so that it always comes to its end."""
    results = iter(run_batch([slot.item for slot in slots]))
    for number in range(1, len(slots) + 1):
        result = next(results, _END)
        if result is _END or (number == len(slots) and next(results, _END) is not _END):
            found = f"{number - 1}" if result is _END else f"more than {number}"
            raise ResultCountError(f"model: gave {found} results for a batch of {len(slots)}", "report it")
        yield result


def _raising(outcomes: Iterator[Any]) -> Iterator[Any]:
    for outcome in outcomes:
        if isinstance(outcome, Failure):
            outcomes.close()  # type: ignore[attr-defined]
            raise outcome.error
        yield outcome


def _check(cancel: threading.Event) -> None:
    if cancel.is_set():
        raise CancelledError("call: cancelled")
