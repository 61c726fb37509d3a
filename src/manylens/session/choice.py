"""Which model serves a request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from manylens.errors import UnsupportedError
from manylens.models import FAMILIES
from manylens.tasks import Request

if TYPE_CHECKING:
    from manylens.catalog import Catalog, Row


def choose(catalog: Catalog, request: Request, named: str | None, preferred: Mapping[str, str]) -> Row:
    """The row that serves a request.

    A model that the caller named wins, then the session's own preference for the task, then the embedded model of the
    highest rank that can take the request. A checkpoint from a hub is never fetched unless somebody named it.

    Args:
        catalog: The rows to choose from.
        request: What is asked; its :meth:`~manylens.tasks.Request.needs` must be met.
        named: A catalog id, a local folder or a hub id, or None.
        preferred: Model references by task.

    Raises:
        UnknownModelError: No model has that name.
        UnsupportedError: The model named, or every model at hand, cannot do it.
    """
    needs = request.needs()
    reference = named or preferred.get(request.task)
    if reference is not None:
        row = catalog.resolve(reference)
        if row.tasks:  # else a hub id whose config is not read yet: the session asks again when it is
            require(catalog, row, request)
        return row
    fallback = embedded_for(catalog, request)
    if fallback is None:
        raise UnsupportedError(*_nobody(catalog, request.task, needs))
    return fallback


def embedded_for(catalog: Catalog, request: Request) -> Row | None:
    """The embedded model of the highest rank that can take the request, if there is one."""
    rows = catalog.for_task(request.task, request.needs(), embedded_only=True)
    return rows[0] if rows else None


def require(catalog: Catalog, row: Row, request: Request) -> None:
    """Refuse a model that cannot take the request.

    Raises:
        UnsupportedError: Says what it can, and which models could.
    """
    task, needs = request.task, request.needs()
    takes = row.tasks.get(task)
    others = _ids(r.id for r in catalog.for_task(task, needs))
    remedy = f"name one of {others} or leave the model away" if others else "leave the model away"
    if takes is None:
        raise UnsupportedError(f"{row.id} does not do {task}; it does {', '.join(row.tasks)}", remedy)
    if not needs <= takes:
        raise UnsupportedError(f"{row.id} cannot {task} with {_words(needs - takes)}; it takes {_words(takes)}", remedy)


def _nobody(catalog: Catalog, task: str, needs: frozenset[str]) -> tuple[str, str]:
    how = "" if needs == {"default"} else f" with {_words(needs)}"
    what = f"{task}{how}: no embedded model does this yet"
    able = catalog.for_task(task, needs)
    if not able:
        others = sorted(set().union(*(row.tasks[task] for row in catalog.for_task(task))))
        remedy = f"name a checkpoint with --model (a hub id or a folder); known here for {task}: {', '.join(others)}"
        return what, remedy if others else "name a checkpoint with --model (a hub id or a folder)"
    row = able[0]
    size = f", {row.bytes / 1e6:,.0f} MB" if row.bytes else ""
    checkpoint = f"--model {row.id} (licence {row.licence}{size})"
    if row.family in FAMILIES:
        return what, f"name a checkpoint, such as {checkpoint}"
    return (
        what,
        f"the checkpoint to name is {checkpoint}, as soon as a version has a loader for {row.family!r}; this has none",
    )


def _ids(ids: Iterable[str], most: int = 3) -> str:
    return ", ".join(list(ids)[:most])


def _words(needs: Iterable[str]) -> str:
    return " and ".join(sorted(needs)) or "nothing"
