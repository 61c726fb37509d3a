"""How a download tells how far it is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

ProgressCallback = Callable[[str, int, int], None]
"""Called with a label, the bytes done and the bytes in all (0 where that is not known)."""


def megabytes(count: int) -> str:
    """A size for people: ``90.2 MB``, in millions of bytes."""
    return f"{count / 1e6:.1f} MB" if count >= 50_000 else f"{count / 1e3:.1f} kB"


@contextmanager
def terminal_progress() -> Iterator[ProgressCallback]:
    """A bar on standard error that leaves nothing behind; where that is not a terminal, one line for each label."""
    if not sys.stderr.isatty():
        yield _line_for_each_label()
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def report(label: str, done: int, total: int) -> None:
            if label not in tasks:
                tasks[label] = bar.add_task(label, total=total or None)
            bar.update(tasks[label], completed=done, total=total or None)

        yield report


def _line_for_each_label() -> ProgressCallback:
    seen: set[str] = set()

    def report(label: str, done: int, total: int) -> None:
        if label not in seen:
            seen.add(label)
            print(f"{label}{f' ({megabytes(total)})' if total else ''}", file=sys.stderr, flush=True)

    return report
