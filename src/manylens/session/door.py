"""The door: tasks in, results out. Everything above speaks tasks and never names a model family."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from manylens import models
from manylens.catalog import Catalog, WeightsStore
from manylens.errors import EngineError, ManylensError, NetworkError
from manylens.media import Image
from manylens.runtime import accelerators, paths
from manylens.runtime.context import Context
from manylens.runtime.doctor import pinned
from manylens.runtime.engines import Engine, EngineSettings, Precision
from manylens.runtime.ledger import Ledger
from manylens.runtime.meter import Meter
from manylens.runtime.rates import Rates
from manylens.runtime.residency import Residency, default_budget, parse_bytes
from manylens.runtime.store import EmbeddingStore
from manylens.session.calls import Call, CallOptions
from manylens.session.choice import choose, embedded_for, require
from manylens.session.mapping import map_requests, request_key
from manylens.session.opened import Clicks, Opened, Stream
from manylens.tasks import Request, get

if TYPE_CHECKING:
    from manylens.catalog import Row, State
    from manylens.models.base import Model, Trainable

_WORST_FIRST: tuple[State, ...] = ("corrupt", "absent", "partial")


@dataclass(frozen=True)
class ModelKey:
    """What the memory budget holds: one model, as it runs."""

    id: str
    weights: str
    settings: EngineSettings

    def __str__(self) -> str:
        return self.id


@dataclass(frozen=True)
class _Ready:
    """A row whose weights are on this machine."""

    row: Row
    files: Mapping[str, Path]
    weights: str
    settings: EngineSettings
    notes: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """What the model takes in memory: as the catalog measured it, or half as much again as its files."""
        return self.row.memory_mb << 20 or self.row.bytes * 3 // 2


class Session:
    """Chooses a model for a task, keeps what fits in memory, remembers embeddings, writes the ledger, and runs it.

    Safe under threads. A session is cheap until its first call; :func:`default_session` is the one behind the
    package's verbs.

    Args:
        memory_budget: Bytes, or text such as ``"2GiB"``, for the process; default ``MANYLENS_MEMORY_BUDGET`` or half of
            the machine's free memory. The least recently used model leaves first; one that can never fit is refused.
        models: Model by task, such as ``{"segment": "facebook/sam-vit-base"}``; a call's own ``model`` wins.
        engine: ``openvino`` or ``torch`` for every model that can, instead of what ``manylens doctor`` measured.
        precision: ``f32`` or ``bf16``, likewise.
        device: ``cpu``, ``cuda``, ``cuda:1``; default a GPU where there is one, for models that run on it.
        offline: No connection at all; default as ``MANYLENS_OFFLINE`` says.
        home: Folder of weights, embeddings and ledger; default ``MANYLENS_HOME`` or the user's cache.
        catalog: The rows to choose from; default those of the package.
        accept_licence: Fetch checkpoints whose licence forbids commercial use.
        fetch_progress: Progress of downloads, see :meth:`manylens.catalog.WeightsStore.ensure`.
        rates: What machine time costs, for cost caps and the ledger; default those that ``manylens cost`` has kept.
    """

    def __init__(
        self,
        *,
        memory_budget: int | str | None = None,
        models: Mapping[str, str] | None = None,
        engine: Engine | None = None,
        precision: Precision | None = None,
        device: str | None = None,
        offline: bool | None = None,
        home: str | Path | None = None,
        catalog: Catalog | None = None,
        accept_licence: bool = False,
        fetch_progress: Any = None,
        rates: Rates | None = None,
    ) -> None:
        root = Path(home) if home is not None else paths.home()
        self.catalog = catalog if catalog is not None else Catalog.load()
        self.weights = WeightsStore(root, offline=offline)
        self.store = EmbeddingStore(root / "embeddings")
        self.ledger = Ledger(root / "ledger.sqlite")
        budget = parse_bytes(memory_budget) if memory_budget is not None else default_budget()
        self.residency: Residency[Model] = Residency(budget)
        self._preferred = {get(task).name: reference for task, reference in (models or {}).items()}
        self._engine, self._precision, self._device = engine, precision, device and accelerators.check(device)
        self._accept_licence, self._fetch_progress = accept_licence, fetch_progress
        self.rates = rates if rates is not None else Rates.load(root)

    # ------------------------------------------------------------------ one call

    def run(
        self,
        request: Request,
        *,
        model: str | None = None,
        seed: int = 0,
        timeout: float | None = None,
        cancel: threading.Event | None = None,
        cost_cap: float | Meter | None = None,
        progress: Callable[[float, str], None] | None = None,
    ) -> Any:
        """Serve one request.

        Args:
            request: A request of any task but a workflow; see :func:`manylens.tasks.request`.
            model: A catalog id, a local folder or a hub id; None chooses.
            seed: Of every random step.
            timeout: Seconds after which the call gives up.
            cancel: Set it from another thread to stop the call.
            cost_cap: The most that the call may be charged, in money at the session's :attr:`rates`; or a meter that
                counts a job of several calls.
            progress: Called with a fraction of 0..1 and a line.

        Returns:
            The task's result, with its provenance.

        Raises:
            ManylensError: One line that names the input and the remedy.
        """
        options = self._options(model, seed, timeout, cancel, cost_cap, progress)
        (result,) = self._serve([request], options)  # to its end, so that the model is let go here and now
        return result

    def map(
        self,
        task: str,
        requests: Iterable[Any],
        *,
        model: str | None = None,
        seed: int = 0,
        executor: str = "local",
        batch_size: int | None = None,
        prefetch: int = 16,
        resume: str | Path | None = None,
        errors: Literal["raise", "return"] = "raise",
        timeout: float | None = None,
        cancel: threading.Event | None = None,
        cost_cap: float | Meter | None = None,
        progress: Callable[[float, str], None] | None = None,
    ) -> Iterator[Any]:
        """Serve many requests of one task: in order, with bounded memory, decoding ahead.

        Args:
            task: The task's name.
            requests: Requests, dicts of their fields, or just their media (a path, a picture); consumed lazily.
            executor: Where it runs; see :mod:`manylens.runtime.executors`.
            batch_size: Requests in a batch; default what the model likes.
            prefetch: How many requests are decoded ahead.
            resume: A file that remembers what is done; a second run with it takes the results from there.
            errors: ``raise`` at the first failure, in its place; or ``return`` a
                :class:`~manylens.runtime.executors.Failure` there and go on.
            model: As in :meth:`run`, like the rest.
            seed: As in :meth:`run`.
            timeout: For the whole map.
            cancel: As in :meth:`run`.
            cost_cap: For the whole map, which stops before the call that would go over it.
            progress: As in :meth:`run`.
        """
        get(task)
        options = self._options(model, seed, timeout, cancel, cost_cap, progress)
        return map_requests(
            self,
            task,
            requests,
            options,
            executor=executor,
            batch_size=batch_size,
            prefetch=prefetch,
            resume=resume,
            errors=errors,
        )

    def open(self, task: str, media: Any, *, model: str | None = None, seed: int = 0) -> Opened:
        """Open media for work that keeps state: clicks on a picture (:class:`Clicks`), or a model's own stream.

        The model stays in memory until the opened thing is closed.
        """
        options = self._options(model, seed, None, None, None, None)
        pins = ExitStack()
        with pins:
            fields = list(get(task).request.model_fields)
            if task == "segment":
                media = Image.of(media)
            # What is asked of the model comes later; a click stands for it where a request must have a prompt.
            probe = get(task).request.of(**{fields[0]: media} | ({"points": [(0, 0)]} if "points" in fields else {}))
            loaded = pins.enter_context(self._lease(self._ready(probe, options), options))
            if task == "segment":
                return Clicks(self, media, model, seed, pins.pop_all())
            state = loaded.open(getattr(probe, fields[0]), self._context(options, lambda: "", None))
            return Stream(state, pins.pop_all())

    def state(self, row: Row) -> State:
        """Where a model's weights stand on this machine; a composed model is as ready as the models that it calls."""
        states = {self.weights.state(part) for part in self.catalog.parts(row) or [row]}
        return "ready" if states == {"ready"} else next(state for state in _WORST_FIRST if state in states)

    def settings(self, model: str) -> EngineSettings:
        """How a model would run here: engine, precision, threads and device."""
        return self._settings(self.catalog.resolve(model))

    @contextmanager
    def module(self, model: str) -> Iterator[Trainable]:
        """Lease a model in its trainable form, under the same memory budget; pinned until the block ends.

        Raises:
            UnsupportedError: The checkpoint has no differentiable form.
        """
        row = self.catalog.resolve(model)
        options = CallOptions(model=model)
        settings = EngineSettings(engine="torch", precision="f32")
        row, files = self._fetch(row)
        ready = _Ready(row, files, self.weights.weights_hash(row), settings)
        with self._lease(ready, options) as loaded:
            yield loaded.trainable()

    # ------------------------------------------------------------------ the parts of a call

    def serve(self, requests: Sequence[Request], options: CallOptions) -> Iterator[Any]:
        """Serve a batch whose requests may need different models, in order; for :meth:`map`."""
        start = 0
        rows = [choose(self.catalog, request, options.model, self._preferred).id for request in requests]
        for stop in range(1, len(requests) + 1):
            if stop == len(requests) or rows[stop] != rows[start]:
                yield from self._serve(requests[start:stop], options)
                start = stop

    def batch_size(self, task: str, options: CallOptions) -> int:
        """How many requests of a task a batch should bring, as the model that would serve it likes."""
        reference = options.model or self._preferred.get(task)
        rows = [self.catalog.resolve(reference)] if reference else self.catalog.for_task(task, frozenset())
        known = [row.family for row in rows if row.family in models.FAMILIES]
        return models.family(known[0]).batch_size if known else 1

    def request_key(self, request: Request, options: CallOptions) -> str:
        """What makes a request the same as one of an earlier map; see :mod:`manylens.session.mapping`."""
        row = choose(self.catalog, request, options.model, self._preferred)
        return request_key(request, row.id, self.weights.weights_hash(row), options.seed)

    def _serve(self, requests: Sequence[Request], options: CallOptions, above: Context | None = None) -> Iterator[Any]:
        ready = self._ready(requests[0], options)
        began = time.perf_counter()
        with self._lease(ready, options) as model:
            rates = self.rates if above is None else None
            call = Call(ready.row, ready.weights, ready.settings, options, self.ledger, rates)
            ctx = self._context(options, lambda: call.id, above)
            if rates is not None:
                self._expect(options.meter, requests[0].task, ready.row.id)
                ctx.charge(rates.money(time.perf_counter() - began))  # of loading
            results = model.run(requests, ctx)
            for request in requests:
                if rates is not None:
                    options.meter.check_next()
                try:
                    ctx.check()
                    result = next(results)
                except StopIteration:
                    raise EngineError(f"{ready.row.id} gave fewer results than requests", "report it") from None
                except Exception as error:
                    call.fail(request, error, ctx)
                    raise
                yield call.finish(request, result, ctx, ready.notes)

    def _expect(self, meter: Meter, task: str, model: str) -> None:
        """What the first call of a job with a cap is expected to cost, by the ledger's latest calls of its kind."""
        if meter.cap is None or not meter.fresh:
            return
        seconds = [row.seconds for row in self.ledger.rows(20, task=task, model=model) if row.outcome == "ok"]
        if seconds:
            meter.expect(self.rates.money(sum(seconds) / len(seconds)))

    def _options(
        self,
        model: str | None,
        seed: int,
        timeout: float | None,
        cancel: threading.Event | None,
        cost_cap: float | Meter | None,
        progress: Callable[[float, str], None] | None,
    ) -> CallOptions:
        deadline = None if timeout is None else time.monotonic() + timeout
        meter = cost_cap if isinstance(cost_cap, Meter) else Meter(cost_cap)
        return CallOptions(model, seed, deadline, cancel or threading.Event(), meter, progress)

    def _context(self, options: CallOptions, call_id: Callable[[], str], above: Context | None) -> Context:
        ctx: Context

        def call(task: str, request: Request) -> Any:
            # A composed model's calls share its limits but choose their own models.
            (result,) = self._serve([request], replace(options, model=None, parent=call_id()), ctx)
            ctx.notes.setdefault("parts", []).extend(Call.part(result))
            return result

        if above is not None:
            ctx = above.child(call=call)
        else:
            ctx = Context(
                options.seed, options.deadline, options.cancel, call=call, store=self.store, meter=options.meter
            )
            if options.progress is not None:
                ctx.progress = options.progress
        return ctx

    def _ready(self, request: Request, options: CallOptions) -> _Ready:
        row = choose(self.catalog, request, options.model, self._preferred)
        notes: tuple[str, ...] = ()
        try:
            row, files = self._fetch(row)
            require(self.catalog, row, request)
        except NetworkError as error:
            other = embedded_for(self.catalog, request)
            # A name that the catalog does not know may be a slip: another model must not answer for it.
            if row.embedded or other is None or row.id not in self.catalog:
                raise
            # A hub that is out of reach must not stop work that an embedded model can do; it is said, not hidden.
            notes = (f"{error.what}; {other.id} took over",)
            warnings.warn(notes[0], stacklevel=2)
            row, files = self._fetch(other)
        return _Ready(row, files, self.weights.weights_hash(row), self._settings(row), notes)

    def _fetch(self, row: Row) -> tuple[Row, Mapping[str, Path]]:
        if not row.family:
            row = self.weights.identify(row)
        models.family(row.family, row.id)  # refuse an unknown family before a download, not after it
        return row, self.weights.ensure(row, progress=self._fetch_progress, accept_licence=self._accept_licence)

    def _settings(self, row: Row) -> EngineSettings:
        """What the caller of the session asked for, else what was measured here; always one that the row runs on."""
        found = pinned(row.id, self.weights.weights_hash(row))
        device = self._device or (found.device if found else "cuda" if accelerators.cuda() else "cpu")
        if device.partition(":")[0] in row.devices and device != "cpu" and self._engine != "openvino":
            precision = self._precision or (found.precision if found else "f32")
            return EngineSettings("torch", precision, device=device)
        measured = replace(found or EngineSettings(), device="cpu")
        engine = self._engine or measured.engine
        if row.engines and engine not in row.engines:
            engine = cast(Engine, row.engines[0])
        return replace(measured, engine=engine, precision=self._precision or measured.precision)

    @contextmanager
    def _lease(self, ready: _Ready, options: CallOptions) -> Iterator[Model]:
        key = ModelKey(ready.row.id, ready.weights, ready.settings)

        def loader() -> Model:
            try:
                return models.load(ready.row, ready.files, ready.settings)
            except ManylensError:
                raise
            except Exception as error:
                raise EngineError(
                    f"{ready.row.id} did not load: {error}", f"try: manylens pull {ready.row.id}"
                ) from error

        with self.residency.lease(key, ready.bytes, loader, deadline=options.deadline) as model:
            yield model

    def close(self) -> None:
        """Let every model go and close the ledger."""
        self.residency.close()
        self.ledger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


_default: Session | None = None
_default_lock = threading.Lock()


def default_session() -> Session:
    """The session behind the package's verbs, made at its first use."""
    global _default
    with _default_lock:
        if _default is None:
            _default = Session()
        return _default
