"""Residency: loaded things held under a memory budget, pinned while in use, least recently used out first."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Generic, TypeVar

from manylens.errors import BudgetError, DeadlineError, EngineError
from manylens.runtime import memory
from manylens.runtime.memory import default_budget, format_bytes, parse_bytes

__all__ = ["Held", "Residency", "default_budget", "parse_bytes"]

T = TypeVar("T")

_log = logging.getLogger(__name__)
_POLL_SECONDS = 0.1
_PATIENCE_SECONDS = 300.0
_REMEDY = "raise it with --memory-budget or name a smaller model"


@dataclass(frozen=True)
class Held:
    """One thing that is held: its key, the bytes counted for it, and how many leases pin it."""

    key: Hashable
    bytes: int
    pins: int


class _State(Enum):
    LOADING = "loading"
    READY = "ready"
    CLOSING = "closing"


@dataclass
class _Slot:
    key: Hashable
    bytes: int
    state: _State = _State.LOADING
    thing: Any = None
    users: Counter[int] = field(default_factory=Counter)  # leases, by the thread that took them
    used: int = 0  # order of last use

    @property
    def pinned(self) -> bool:
        return bool(self.users)


class Residency(Generic[T]):
    """Holds loaded things (models) so that their declared bytes, and the process's own, never pass a budget.

    Safe under threads. A thing has a ``close()`` method or needs none; it is called when the thing leaves.

    Args:
        budget_bytes: The budget.
        base_bytes: What the process takes by itself and the budget must hold as well; ``None`` measures the resident
            memory now, so that a budget of 2 GiB is about the whole process, as the user means it.
        patience: Seconds that a lease without a deadline waits for pinned things to be let go.
    """

    def __init__(
        self, budget_bytes: int, *, base_bytes: int | None = None, patience: float = _PATIENCE_SECONDS
    ) -> None:
        self.budget_bytes = budget_bytes
        self.base_bytes = memory.resident_bytes() if base_bytes is None else base_bytes
        self._patience = patience
        self._changed = threading.Condition()
        self._slots: dict[Hashable, _Slot] = {}
        self._blocked: set[int] = set()  # threads that found no room since the last change
        self._clock = 0
        self._closed = False

    @contextmanager
    def lease(
        self,
        key: Hashable,
        need_bytes: int,
        loader: Callable[[], T],
        *,
        deadline: float | None = None,
        check: Callable[[], None] | None = None,
    ) -> Iterator[T]:
        """Gives the thing named ``key``, loaded on first use and never closed inside the block.

        Threads that ask for the same key at once load it once. When there is no room, unpinned things leave, least
        recently used first; when the rest is pinned, waits for it.

        Args:
            key: Name of the thing.
            need_bytes: Memory that it takes when loaded and run; counted from the moment that loading begins.
            loader: Makes the thing. When it fails nothing is held, and its error is raised here.
            deadline: A ``time.monotonic()`` value; no waiting beyond it.
            check: Called now and then while waiting; may raise to stop.

        Raises:
            BudgetError: It can never fit, or everything else is pinned by leases that wait for each other.
            DeadlineError: No room came in time.
        """
        slot = self._acquire(key, need_bytes, loader, deadline, check)
        owner = threading.get_ident()
        try:
            yield slot.thing
        finally:
            self._release(slot, owner)

    def evict(self, key: Hashable) -> bool:
        """Closes the thing named ``key`` now; False when it is not held or is in use."""
        with self._changed:
            slot = self._slots.get(key)
            if slot is None or slot.pinned or slot.state is not _State.READY:
                return False
            slot.state = _State.CLOSING
        self._close([slot])
        return True

    def held(self) -> list[Held]:
        """What is held now, least recently used first."""
        with self._changed:
            slots = sorted(self._slots.values(), key=lambda slot: slot.used)
            return [Held(slot.key, slot.bytes, slot.users.total()) for slot in slots]

    @property
    def held_bytes(self) -> int:
        """Bytes counted for all that is held, loading or closing; the base is not in it."""
        with self._changed:
            return self._total()

    def close(self) -> None:
        """Closes everything; what is in use closes when it is let go. Leases asked from now on are refused."""
        with self._changed:
            self._closed = True
            leaving = [slot for slot in self._slots.values() if slot.state is _State.READY and not slot.pinned]
            for slot in leaving:
                slot.state = _State.CLOSING
            self._wake()
        self._close(leaving)

    def _acquire(
        self,
        key: Hashable,
        need: int,
        loader: Callable[[], T],
        deadline: float | None,
        check: Callable[[], None] | None,
    ) -> _Slot:
        self._refuse_what_never_fits(key, need)
        patient_until = time.monotonic() + self._patience
        while True:
            with self._changed:
                if self._closed:
                    raise EngineError(f"{key}: not loaded, the session is closed", "open another session")
                slot = self._slots.get(key)
                if slot is not None and slot.state is _State.READY:
                    self._pin(slot)
                    return slot
                leaving = self._leaving_for(need) if slot is None else None
                if leaving is None:
                    self._wait(key, need, deadline, patient_until)
                elif leaving:
                    for old in leaving:
                        old.state = _State.CLOSING
                else:
                    slot = self._slots[key] = _Slot(key, need)
                    self._pin(slot)
                    break
            if leaving:
                self._close(leaving)
            elif check:
                check()
        return self._load(slot, loader)

    def _load(self, slot: _Slot, loader: Callable[[], T]) -> _Slot:
        try:
            slot.thing = loader()
        except BaseException:
            with self._changed:
                del self._slots[slot.key]
                self._wake()
            memory.give_back()
            raise
        with self._changed:
            slot.state = _State.READY
            self._wake()
        return slot

    def _release(self, slot: _Slot, owner: int) -> None:
        with self._changed:
            slot.users[owner] -= 1
            slot.users = +slot.users
            self._touch(slot)
            leaves = self._closed and not slot.pinned
            if leaves:
                slot.state = _State.CLOSING
            self._wake()
        if leaves:
            self._close([slot])

    def _refuse_what_never_fits(self, key: Hashable, need: int) -> None:
        if self.base_bytes + need <= self.budget_bytes:
            return
        base = f" on top of the {format_bytes(self.base_bytes)} that the program takes" if self.base_bytes else ""
        budget = format_bytes(self.budget_bytes)
        raise BudgetError(f"{key}: needs {format_bytes(need)}{base}, but the memory budget is {budget}", _REMEDY)

    def _leaving_for(self, need: int) -> list[_Slot] | None:
        """What must leave so that ``need`` bytes fit, perhaps nothing; ``None`` when even all unpinned are too few."""
        excess = self.base_bytes + self._total() + need - self.budget_bytes
        leaving = []
        for slot in sorted(self._slots.values(), key=lambda slot: slot.used):
            if excess <= 0:
                break
            if slot.state is _State.READY and not slot.pinned:
                leaving.append(slot)
                excess -= slot.bytes
        return leaving if excess <= 0 else None

    def _wait(self, key: Hashable, need: int, deadline: float | None, patient_until: float) -> None:
        """Waits for a change, for a moment. Holds the lock, as do the callers of all below."""
        in_use = format_bytes(sum(slot.bytes for slot in self._slots.values() if slot.pinned))
        state = f"{key}: needs {format_bytes(need)}, but {in_use} of the {format_bytes(self.budget_bytes)} budget"
        if deadline is not None and time.monotonic() >= deadline:
            raise DeadlineError(f"{state} stayed in use until the deadline", "give more time or a larger memory budget")
        if time.monotonic() >= patient_until:
            raise BudgetError(f"{state} stayed in use for {self._patience:.0f} s", _REMEDY)
        self._blocked.add(threading.get_ident())
        if self._nobody_will_move():
            self._blocked.discard(threading.get_ident())
            raise BudgetError(f"{state} is held by the calls that wait for it", _REMEDY)
        until = min(patient_until, deadline if deadline is not None else patient_until)
        self._changed.wait(min(_POLL_SECONDS, max(0.0, until - time.monotonic())))

    def _nobody_will_move(self) -> bool:
        """True when every thread that pins something waits itself: then no room can ever come."""
        if any(slot.state is _State.CLOSING for slot in self._slots.values()):
            return False
        return all(self._blocked.issuperset(slot.users) for slot in self._slots.values())

    def _close(self, slots: list[_Slot]) -> None:
        """Closes things that are marked as closing, without the lock; their bytes count until they are gone."""
        for slot in slots:
            try:
                close = getattr(slot.thing, "close", None)
                if close is not None:
                    close()
            except Exception:
                _log.warning("%s: failed to close", slot.key, exc_info=True)
            slot.thing = None
        if slots:
            memory.give_back()
        with self._changed:
            for slot in slots:
                del self._slots[slot.key]
            self._wake()

    def _pin(self, slot: _Slot) -> None:
        slot.users[threading.get_ident()] += 1
        self._touch(slot)

    def _touch(self, slot: _Slot) -> None:
        self._clock += 1
        slot.used = self._clock

    def _total(self) -> int:
        return sum(slot.bytes for slot in self._slots.values())

    def _wake(self) -> None:
        # Whoever waits looks again, and says so again when it still finds no room.
        self._blocked.clear()
        self._changed.notify_all()
