"""What a job was charged so far, and whether its next call still fits under its cap."""

from __future__ import annotations

import math
import threading
from collections import deque

from manylens.errors import CostError, UserError

_RECENT = 20


class Meter:
    """Counts the cost of a job of many calls. Safe under threads.

    A call is let through only while what it is expected to cost still fits: that is the dearest of the last twenty, or
    before the first one what earlier calls of its kind cost. So a job stops before its cap and not after it, unless a
    call costs more than any did lately.

    Args:
        cap: The most that the job may cost; None for no limit.
        expected: What the first call is expected to cost.
    """

    def __init__(self, cap: float | None = None, expected: float = 0.0) -> None:
        if cap is not None and not 0 < cap < math.inf:
            raise UserError(f"cost cap {cap}: not a number above 0", "give the most that the job may cost")
        self.cap = cap
        self.spent = 0.0
        self._first = expected
        self._recent: deque[float] = deque(maxlen=_RECENT)
        self._lock = threading.Lock()

    @property
    def expected(self) -> float:
        """What the next call is expected to cost."""
        with self._lock:
            return max(self._recent, default=self._first)

    @property
    def fresh(self) -> bool:
        """Whether nothing was charged or expected yet."""
        return not (self._recent or self._first or self.spent)

    def expect(self, amount: float) -> None:
        """Say what the first call is expected to cost."""
        self._first = amount

    def charge(self, amount: float) -> None:
        """Count a cost."""
        with self._lock:
            self.spent += amount

    def learn(self, amount: float) -> None:
        """Take down what a whole call cost, which was charged already: the next one is expected to cost as much."""
        with self._lock:
            self._recent.append(amount)

    def check(self) -> None:
        """Stop a call that went over the cap.

        Raises:
            CostError: More was spent than may be.
        """
        if self.cap is not None and self.spent > self.cap:
            raise CostError(
                f"job: stopped at its cost cap, {self.spent:.4g} of {self.cap:g} spent",
                "raise the cost cap; what is done is kept",
            )

    def check_next(self) -> None:
        """Stop a job before a call that would not fit.

        Raises:
            CostError: The next call is expected to go over the cap.
        """
        self.check()
        if self.cap is not None and self.spent + self.expected > self.cap:
            raise CostError(
                f"job: stopped before its cost cap, {self.spent:.4g} of {self.cap:g} spent and the next call "
                f"costs about {self.expected:.3g}",
                "raise the cost cap; what is done is kept",
            )
