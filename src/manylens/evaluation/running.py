"""Running a model over records: in order, bounded in memory; a failure costs one record, a stop keeps what is done."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manylens.data.problems import Problems
from manylens.data.sizes import other_size
from manylens.errors import CostError, ManylensError, MediaError, UnsupportedError
from manylens.evaluation.asking import Setup
from manylens.evaluation.measures import driving
from manylens.evaluation.results import ModelUsed
from manylens.models.names import quoted
from manylens.runtime.executors import Failure
from manylens.runtime.meter import Meter

if TYPE_CHECKING:
    from manylens.data.records import Record
    from manylens.evaluation.protocols import Asked
    from manylens.session import Session

_MOST_NOTES = 8
_TRIED_FOR_NAMES = 10
_MOST_UNKNOWN = 30


@dataclass
class Run:
    """A model at work on a data set.

    Attributes:
        session: The session that serves it.
        model: A catalog id, a folder or a hub id; None lets the session choose.
        seed: Of every random step.
        problems: Takes records that failed.
        meter: Counts what the run costs, over all its calls, and stops it before it goes over.
        journal: Remembers what is done; None where nothing is kept.
        used: The model that answered, from the first result.
        said: What the models had to say, and of how many records.
        notes: What a reader should know of the run itself.
        stopped: Why the run ended early; empty where it did not.
    """

    session: Session
    model: str | None
    seed: int
    problems: Problems
    meter: Meter = field(default_factory=Meter)
    journal: Path | None = None
    used: ModelUsed = field(default_factory=lambda: ModelUsed(""))
    said: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    stopped: str = ""

    def takes(self, task: str) -> frozenset[str]:
        """What the model takes for a task, as the catalog says; empty where it is not known."""
        catalog = self.session.catalog
        if self.model is not None:
            return frozenset(catalog.resolve(self.model).tasks.get(task, ()))
        rows = catalog.for_task(task, frozenset(), embedded_only=True)
        return frozenset().union(*(row.tasks[task] for row in rows))

    def named(self, protocol: Asked, records: Iterable[Record], setup: Setup) -> Setup:
        """The setup with the names that the model knows.

        A model that knows some of the classes only is asked for those; the others count as missed, and a note says so.

        Raises:
            UnsupportedError: It knows none of them, or does not do the task.
        """
        if not setup.names:
            return setup
        takes = self.takes(protocol.calls)
        if protocol.calls in ("detect", "classify") and takes and "names" not in takes:
            self.notes.append("the model takes no names: its own classes are compared with those of the data")
            return replace(setup, names=None)
        for record in islice(records, _TRIED_FOR_NAMES):
            try:
                doubtful = _without_score(self._try(protocol, record, setup))
                return self._known(protocol, record, setup, doubtful) if doubtful else setup
            except UnsupportedError as refusal:
                if not takes and self.model is None:
                    raise  # no model at all does the task
                self._require(protocol, record, setup)
                return self._known(protocol, record, setup, set(setup.names), refusal)
            except CostError:
                return setup  # the run itself will meet it, and stop cleanly
            except driving.OF_THE_RUN:
                raise
            except Exception:
                continue  # a broken picture, or a model that fails on it: the run will say so
        return setup

    def stream(
        self, protocol: Asked, records: Iterable[Record], setup: Setup, progress: Callable[[Record], None]
    ) -> Iterator[tuple[Record, Any]]:
        """Each record with what the measure judges; one that failed is a problem, and left out.

        Raises:
            ManylensError: What would meet every record: no such model, no weights, no memory.
        """
        waiting: deque[tuple[Record, list[str]]] = deque()

        def requests() -> Iterator[Mapping[str, Any]]:
            for record in records:
                if size := other_size(record):
                    made_for = f"its labels are for {record.width} x {record.height} pixels"
                    what = f"image {record.id}: {made_for}, the upright picture is {size[0]} x {size[1]}; left out"
                    self.problems.add("image size", record.id, what)
                    continue
                asked = protocol.ask(record, setup)
                waiting.append((record, list(asked)))
                yield from asked.values()

        results = self._results(protocol, requests())
        while True:
            try:
                first = next(results, None)
            except CostError as error:
                self.stopped = error.what
                return
            while waiting and (first is None or not waiting[0][1]):  # records that ask for nothing
                record, keys = waiting.popleft()
                if not keys:
                    yield record, protocol.take(record, {}, setup)
                    progress(record)
            if first is None:
                return
            record, keys = waiting.popleft()
            try:
                outcomes = [first, *islice(results, len(keys) - 1)]
            except CostError as error:
                self.stopped = error.what
                return
            good = {key: one for key, one in zip(keys, outcomes, strict=True) if not isinstance(one, Failure)}
            for key, one in zip(keys, outcomes, strict=True):
                if isinstance(one, Failure):
                    self._failed(record, key, one.error)
                else:
                    self.saw(one, record.path.name)
            if good:
                yield record, protocol.take(record, good, setup)
            progress(record)

    def saw(self, result: Any, about: str = "") -> None:
        """Take down which model gave a result, and what it had to say.

        Args:
            result: Of a call.
            about: Name of the picture: what is said of one picture alone is not kept.
        """
        from manylens.tasks import provenance_of

        made = provenance_of(result)
        if made is None:
            return
        if not self.used.id:
            parts = tuple(dict.fromkeys(str(part["model"]) for part in made.parts))
            self.used = ModelUsed(made.model, made.weights, made.engine, made.precision, made.device, parts)
        self.said.update(note for note in made.notes if not about or about not in note)

    def all_notes(self) -> list[str]:
        """What a reader should know: of the run, then what the models said most often."""
        return [
            *self.notes,
            *(
                f"{note} (of {count} request{'' if count == 1 else 's'})"
                for note, count in self.said.most_common(_MOST_NOTES)
            ),
        ]

    def _results(self, protocol: Asked, requests: Iterator[Mapping[str, Any]]) -> Iterator[Any]:
        return self.session.map(
            protocol.calls,
            requests,
            model=self.model,
            seed=self.seed,
            resume=self.journal if protocol.resumes else None,
            errors="return",
            cost_cap=self.meter,
        )

    def _failed(self, record: Record, key: str, error: Exception) -> None:
        if isinstance(error, MediaError):
            kind = "bad image" if record.path.exists() else "missing image"
            self.problems.add(kind, record.id, f"image {record.id}: {error.what}")
        else:
            driving.failed(self.problems, "question" if key else "image", key or record.id, error)

    def _try(self, protocol: Asked, record: Record, setup: Setup) -> list[Any]:
        return [
            self.session.run(asked, model=self.model, seed=self.seed, cost_cap=self.meter)
            for asked in _requests(protocol, record, setup)
        ]

    def _require(self, protocol: Asked, record: Record, setup: Setup) -> None:
        """Refuse a model that does not do the task at all, in the session's words: no name is at fault then."""
        from manylens.session.choice import require

        row = self.session.catalog.resolve(self.model) if self.model is not None else None
        if row is not None and row.tasks:
            for asked in _requests(protocol, record, setup):
                require(self.session.catalog, row, asked)

    def _known(
        self,
        protocol: Asked,
        record: Record,
        setup: Setup,
        doubtful: Collection[str],
        refusal: ManylensError | None = None,
    ) -> Setup:
        """The setup without those of the doubtful names that the model refuses when asked for them alone."""
        assert setup.names is not None
        unknown = []
        for name in setup.names:
            if name in doubtful:
                try:
                    self._try(protocol, record, replace(setup, names=(name,)))
                except UnsupportedError as error:
                    refusal = refusal or error
                    unknown.append(name)
        known = tuple(name for name in setup.names if name not in unknown)
        if not known:
            remedy = refusal.remedy if refusal is not None else ""
            raise UnsupportedError(f"{quoted(setup.names)}: the model knows none of them", remedy) from refusal
        if not unknown:
            return setup
        said = quoted(unknown, _MOST_UNKNOWN)
        self.notes.append(f"the model does not know {said}: not asked for, they count as missed")
        return replace(setup, names=known)


def _requests(protocol: Asked, record: Record, setup: Setup) -> Iterator[Any]:
    from manylens.tasks import request

    return (request(protocol.calls, **fields) for fields in protocol.ask(record, setup).values())


def _without_score(results: Iterable[Any]) -> set[str]:
    """Names that a classifier gave a score of exactly 0, which no softmax does: it may not know them."""
    from manylens.tasks import Classification

    labels = [label for one in results if isinstance(one, Classification) for label in one.labels]
    return {label.name for label in labels if label.score == 0}


class Watching:
    """A session that takes down which model answers and counts what it costs, for measures that run it themselves."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run.session, name)

    def run(self, request: Any, **options: Any) -> Any:
        """See :meth:`manylens.session.Session.run`."""
        result = self._run.session.run(request, **{**options, "cost_cap": self._run.meter})
        self._run.saw(result)
        return result

    def map(self, task: str, requests: Iterable[Any], **options: Any) -> Iterator[Any]:
        """See :meth:`manylens.session.Session.map`."""
        for result in self._run.session.map(task, requests, **{**options, "cost_cap": self._run.meter}):
            if not isinstance(result, Failure):
                self._run.saw(result)
            yield result
