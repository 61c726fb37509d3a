"""The contract of an executor."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

RunBatch = Callable[[list[Any]], Iterable[Any]]


@dataclass(frozen=True)
class Failure:
    """Stands in the place of a result that could not be had.

    Args:
        item_index: Position of the item among the items, from 0.
        error: What went wrong.
    """

    item_index: int
    error: Exception


class Executor(Protocol):
    """Runs batches of items and gives the results in the order of the items."""

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
        """Yields one result for each item, in order, as they are ready.

        Args:
            run_batch: Runs up to ``batch_size`` items; gives one result for each, in order.
            items: The items, taken one by one as they are needed; may be endless.
            batch_size: Most items in one call of ``run_batch``.
            prefetch: Most items that are taken and prepared ahead of the batch that runs.
            prepare: Applied to each item before it is run, several at once (decoding of files).
            errors: With ``"return"``, an item that fails gives a :class:`Failure` in its place and the others go on;
                with ``"raise"``, its error is raised when its turn comes.
            cancel: When set, ends the work with ``CancelledError``.

        Raises:
            CancelledError: ``cancel`` was set.
            EngineError: ``run_batch`` gave another number of results than it was given items.
        """
        ...
