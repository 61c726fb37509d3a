"""What surrounds one call: its options, its clock, its row in the ledger, and the provenance of its result."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from manylens.runtime.context import Context
from manylens.runtime.engines import EngineSettings
from manylens.runtime.ledger import Entry, Ledger, new_call_id, utc_now
from manylens.runtime.memory import peak_resident_bytes
from manylens.runtime.meter import Meter
from manylens.runtime.rates import Rates
from manylens.tasks import Provenance, Request, provenance_of, with_provenance
from manylens.version import __version__

if TYPE_CHECKING:
    from manylens.catalog import Row


@dataclass(frozen=True)
class CallOptions:
    """What a caller may set for a call, beside the request.

    Attributes:
        model: A catalog id, a local folder or a hub id; None lets the session choose.
        seed: Of every random step.
        deadline: :func:`time.monotonic` value after which the call gives up.
        cancel: Set from another thread to stop the call.
        meter: Counts the costs of the job that the call is part of; shared by all calls of a map.
        progress: Called with a fraction of 0..1 and a line.
        parent: Ledger id of the call that makes this one.
    """

    model: str | None = None
    seed: int = 0
    deadline: float | None = None
    cancel: threading.Event = field(default_factory=threading.Event)
    meter: Meter = field(default_factory=Meter)
    progress: Callable[[float, str], None] | None = None
    parent: str = ""


class Call:
    """One call as it runs: measures it, charges it, then writes it down.

    Args:
        row: The model.
        weights: Hash of its weights.
        settings: What it runs on.
        options: Of the call.
        ledger: Takes its row.
        rates: What its time costs; None where the call that made this one pays for it.
    """

    def __init__(
        self,
        row: Row,
        weights: str,
        settings: EngineSettings,
        options: CallOptions,
        ledger: Ledger,
        rates: Rates | None = None,
    ) -> None:
        self.id = new_call_id()
        self._rates = rates
        self._row, self._weights, self._settings, self._options, self._ledger = row, weights, settings, options, ledger
        self._spent = 0.0
        self._restart()

    def _restart(self) -> None:
        self._began = utc_now()
        self._clock, self._cpu = time.perf_counter(), time.process_time()

    @property
    def _ran_on(self) -> tuple[str, str]:
        """Engine and precision; a composed model has none of its own."""
        return ("", "") if self._row.composed else (self._settings.engine, self._settings.precision)

    def finish(self, request: Request, result: Any, ctx: Context, extra_notes: Sequence[str]) -> Any:
        """Write the ledger row of a result and give the result back with its provenance."""
        seconds = time.perf_counter() - self._clock
        self._charge(seconds, ctx)
        notes = (*extra_notes, *ctx.notes.get("notes", ()))
        provenance = Provenance(
            task=request.task,
            model=self._row.id,
            weights=self._weights,
            prompt=request.prompt(),
            seconds=round(seconds, 6),
            device=self._settings.device,
            engine=self._ran_on[0],
            precision=self._ran_on[1],
            seed=self._options.seed,
            cache=str(ctx.notes.get("cache", "")),
            inputs=tuple(image.id for image in request.pictures()),
            notes=tuple(dict.fromkeys(notes)),
            parts=tuple(_merged(ctx.notes.get("parts", ()))),
            version=__version__,
        )
        self._record(request, seconds, ctx)
        ctx.notes.clear()
        self.id, self._spent = new_call_id(), ctx.spent
        self._restart()
        return with_provenance(result, provenance)

    @staticmethod
    def part(result: Any) -> list[dict[str, Any]]:
        """A call that a composed model made, and those below it, for the provenance of what it makes of them."""
        made = provenance_of(result)
        if made is None:
            return []
        kept = ("task", "model", "weights", "engine", "precision", "device", "seconds", "cache")
        return [{key: getattr(made, key) for key in kept}, *made.parts]

    def fail(self, request: Request, error: BaseException, ctx: Context) -> None:
        """Write the ledger row of a call that ended in an error."""
        seconds = time.perf_counter() - self._clock
        self._charge(seconds, ctx)
        self._record(request, seconds, ctx, error)

    def _charge(self, seconds: float, ctx: Context) -> None:
        if self._rates is not None:
            ctx.charge(self._rates.money(seconds))
            self._options.meter.learn(ctx.spent - self._spent)

    def _record(
        self,
        request: Request,
        seconds: float,
        ctx: Context,
        error: BaseException | None = None,
    ) -> None:
        pictures = request.pictures()
        self._ledger.record(
            Entry(
                id=self.id,
                time=self._began,
                task=request.task,
                model=self._row.id,
                weights=self._weights,
                seconds=seconds,
                cpu_seconds=time.process_time() - self._cpu,
                bytes_in=sum(3 * image.width * image.height for image in pictures),
                peak_rss_mb=peak_resident_bytes() / 1e6,
                device=self._settings.device,
                engine=self._ran_on[0],
                precision=self._ran_on[1],
                cache=str(ctx.notes.get("cache", "")),
                inputs=" ".join(image.id[:16] for image in pictures),
                seed=self._options.seed,
                outcome="ok" if error is None else type(error).__name__,
                message="" if error is None else str(error),
                cost=ctx.spent - self._spent,
                parent=self._options.parent,
            )
        )


def _merged(parts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each model of a composed call once, in the order of first use, with its seconds summed and its calls counted."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for part in parts:
        alike = tuple(part[key] for key in ("task", "model", "weights", "engine", "precision", "device"))
        kept = found.setdefault(alike, {**part, "seconds": 0.0, "calls": 0})
        kept["seconds"] = round(kept["seconds"] + part["seconds"], 6)
        kept["calls"] += part.get("calls", 1)
    return list(found.values())
