"""Many requests of one task: in order, bounded in memory, decoded ahead, and restartable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from manylens.errors import PromptError
from manylens.runtime import executors
from manylens.runtime.executors.journal import Journal
from manylens.tasks import Request, get, to_json
from manylens.tasks.parse import from_json

if TYPE_CHECKING:
    from manylens.session.calls import CallOptions
    from manylens.session.door import Session


def as_request(task: str, item: Any) -> Request:
    """A request from what a caller may put into a map: a request, its fields, or just its media.

    Raises:
        PromptError: The item is a request of another task, or its fields do not fit.
        MediaError: Its media cannot be read.
    """
    kind = get(task).request
    if isinstance(item, Request):
        if not isinstance(item, kind):
            raise PromptError(f"a request for {item.task} among those for {task}", f"give {task} requests only")
        return item
    fields = item if isinstance(item, Mapping) else {next(iter(kind.model_fields)): item}
    return kind.of(**fields)


def request_key(request: Request, model: str, weights: str, seed: int) -> str:
    """What makes a request of a restarted map the same as before: task, media, prompt, model, weights and seed."""
    parts = [request.task, [image.id for image in request.pictures()], request.prompt(), model, weights, seed]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def map_requests(
    session: Session,
    task: str,
    items: Iterable[Any],
    options: CallOptions,
    *,
    executor: str,
    batch_size: int | None,
    prefetch: int,
    resume: str | Path | None,
    errors: Literal["raise", "return"],
) -> Iterator[Any]:
    """See :meth:`manylens.session.Session.map`."""
    journal = Journal(Path(resume), signature=task) if resume is not None else None

    def run_batch(requests: list[Request]) -> Iterator[Any]:
        if journal is None:
            yield from session.serve(requests, options)
            return
        keys = [session.request_key(request, options) for request in requests]
        fresh = session.serve([r for r, key in zip(requests, keys, strict=True) if key not in journal], options)
        for key in keys:
            if key in journal:
                yield from_json(journal.get(key))
            else:
                result = next(fresh)
                journal.add(key, to_json(result))
                yield result

    return executors.get(executor).map(
        run_batch,
        items,
        prepare=lambda item: as_request(task, item),
        batch_size=batch_size or session.batch_size(task, options),
        prefetch=prefetch,
        errors=errors,
        cancel=options.cancel,
    )
