"""The context that comes with every run of a model: limits, seed, and the way to other tasks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from manylens.errors import CancelledError, CostError, DeadlineError, UnsupportedError
from manylens.runtime.meter import Meter
from manylens.runtime.store import EmbeddingStore


def _no_progress(done: float, message: str) -> None:
    """Shows nothing."""


def _no_call(task: str, request: Any) -> Any:
    raise UnsupportedError(f"{task}: asked for outside of a session", "run the model through a session")


@dataclass
class Context:
    """What a model may use and must respect while it runs.

    Args:
        seed: Seed of every random step.
        deadline: A ``time.monotonic()`` value after which :meth:`check` stops the work.
        cancel: Set by the caller to stop the work.
        cost_cap: The most that :meth:`spend` may reach, in the caller's unit.
        progress: Called with the share done, 0 to 1, and a few words.
        call: Runs another task: ``call(task, request) -> result``.
        store: Embeddings kept from earlier calls.
        notes: What the model has to say for provenance and ledger, such as ``notes["cache"] = "disk"``.
        parent: The context of the call that made this one; its limits hold here too.
        meter: Counts what the job costs that this call is part of.
    """

    seed: int = 0
    deadline: float | None = None
    cancel: threading.Event = field(default_factory=threading.Event)
    cost_cap: float | None = None
    progress: Callable[[float, str], None] = _no_progress
    call: Callable[[str, Any], Any] = _no_call
    store: EmbeddingStore = field(default_factory=lambda: EmbeddingStore(None))
    notes: dict[str, Any] = field(default_factory=dict)
    parent: Context | None = field(default=None, repr=False)
    meter: Meter | None = field(default=None, repr=False)
    spent: float = field(default=0.0, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    def check(self) -> None:
        """Stops the work when it should go no further; cheap enough for every step of a loop.

        Raises:
            CancelledError: The caller cancelled.
            DeadlineError: The time is over.
            CostError: The cost cap is passed.
        """
        if self.cancel.is_set():
            raise CancelledError("call: cancelled")
        if self.deadline is not None and time.monotonic() >= self.deadline:
            raise DeadlineError("call: stopped at its deadline", "give more time")
        if self.cost_cap is not None and self.spent > self.cost_cap:
            raise CostError(f"call: stopped at its cost cap, {self.spent:g} of {self.cost_cap:g}", "raise the cost cap")
        if self.meter is not None:
            self.meter.check()
        if self.parent is not None:
            self.parent.check()

    def rng(self) -> np.random.Generator:
        """A fresh generator from the seed: the same numbers on every call."""
        return np.random.default_rng(self.seed)

    def spend(self, amount: float) -> None:
        """Charges this call, and all that it is part of.

        Raises:
            CostError: A cost cap is passed by it.
        """
        self.charge(amount)
        self.check()

    def charge(self, amount: float) -> None:
        """As :meth:`spend`, for what is done already: never stops the work."""
        here: Context | None = self
        while here is not None:
            with here._lock:
                here.spent += amount
            if here.meter is not None:
                here.meter.charge(amount)
            here = here.parent

    def child(self, **changes: Any) -> Context:
        """A context for a call made by this one: same limits, own notes, its costs charged here too.

        Args:
            changes: Fields that differ, such as ``seed`` or ``progress``.
        """
        # The cap stays with the parent: the child's costs count there.
        fresh: dict[str, Any] = {
            "notes": {},
            "parent": self,
            "cost_cap": None,
            "meter": None,
            "progress": _no_progress,
        }
        return replace(self, **(fresh | changes))
