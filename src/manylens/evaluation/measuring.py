"""From records and a model, or saved predictions, to a tally: the three ways a measure is taken."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manylens.data.problems import DataError, Problems
from manylens.errors import CostError, EngineError, ManylensError, UnsupportedError
from manylens.evaluation.asking import LOW_THRESHOLD, Setup, unchanged
from manylens.evaluation.measure import Measure
from manylens.evaluation.predictions import Saved, Spool
from manylens.evaluation.protocols import Asked, Driven, Protocol
from manylens.evaluation.running import Run, Watching

if TYPE_CHECKING:
    from manylens.data import Dataset
    from manylens.data.records import Record
    from manylens.evaluation.tally import Tally

Progress = Callable[[float, str], None]
"""Called with the share done and a line."""

_BROKEN = (ManylensError, ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError)
"""What reading one broken prediction may raise."""

_COMPLETE = ("labels", "classes", "panoptic", "texts", "readings")
"""Forms that have something to say of every picture; the measures of all others speak of it themselves."""

_OF_THE_RUNNER = ("closed", "threshold")


@dataclass(frozen=True)
class Job:
    """What is measured, and on what.

    Attributes:
        protocol: The measure.
        dataset: The records to judge.
        columns: Columns to keep for slices.
        problems: Takes what is wrong.
        options: Of the measure and of the requests.
        progress: Called as records are judged; None for nobody.
        saved: Predictions to judge, instead of a model's; None for a run.
        spool: Where a run writes its predictions; None for nowhere.
    """

    protocol: Protocol
    dataset: Dataset
    columns: Sequence[str]
    problems: Problems
    options: Mapping[str, Any]
    progress: Progress | None = None
    saved: Saved | None = None
    spool: Path | None = None

    def measure(self, problems: Problems | None = None, columns: Sequence[str] | None = None) -> Measure:
        """A fresh measure that judges finished predictions."""
        protocol = self.protocol
        if isinstance(protocol, Driven):
            protocol = replace(protocol, home=protocol.saved)
            taken = {part.name for part in fields(protocol.load())}
            arguments = {name: value for name, value in self.of_measure().items() if name in taken} | dict(
                protocol.fixed
            )
        else:
            assert isinstance(protocol, Asked)
            arguments = {**protocol.fixed, **self.of_measure()}
        made: Measure = protocol.load()(
            categories=self.dataset.categories,
            problems=self.problems if problems is None else problems,
            columns=self.columns if columns is None else columns,
            **arguments,
        )
        return made

    def of_measure(self) -> dict[str, Any]:
        """The options that the measure itself takes."""
        return {name: value for name, value in self.options.items() if name in self.protocol.options}

    def check(self) -> None:
        """Refuse options that nothing here takes.

        Raises:
            UnsupportedError: Names what there is.
        """
        known = (*self.protocol.options, *(_OF_THE_RUNNER if isinstance(self.protocol, Asked) else ()))
        for name in self.options:
            if name not in known:
                takes = f"it takes {', '.join(known)}" if known else "it takes none"
                raise UnsupportedError(f"option {name!r}: {self.protocol.name} does not take it", takes)

    def said(self, record: Record, done: int) -> None:
        """Tell how far it is."""
        if self.progress is not None:
            self.progress(done / max(1, len(self.dataset)), record.id)


def from_model(job: Job, run: Run) -> Tally:
    """Run a model and measure what it gives.

    Raises:
        DataError: Nothing could be judged.
        ManylensError: What would meet every record.
    """
    if isinstance(job.protocol, Driven):
        return _driven(job, job.protocol, run)
    assert isinstance(job.protocol, Asked)
    protocol = job.protocol
    setup = run.named(protocol, job.dataset.records(), _setup(job, protocol, run))
    done = 0

    def counted(record: Record) -> None:
        nonlocal done
        done += 1
        job.said(record, done)

    pairs = run.stream(protocol, job.dataset.records(), setup, counted)
    return _judged(job, pairs, lambda: asdict(run.used), lambda: run.stopped)


def from_saved(job: Job) -> Tally:
    """Measure saved predictions.

    Raises:
        DataError: Nothing could be judged.
    """
    saved = job.saved
    assert saved is not None
    if isinstance(job.protocol, Driven) and not job.protocol.saved:
        raise UnsupportedError(
            f"{job.protocol.name}: runs the model itself, so it takes no saved predictions", "name a --model"
        )

    if saved.form not in job.protocol.forms:
        raise DataError(
            f"{saved.path}: holds {saved.form or 'nothing known'}, and {job.protocol.name} judges "
            f"{' or '.join(job.protocol.forms)}",
            "name another --measure",
        )
    if saved.rows and not any(record.id in saved.rows for record in job.dataset.records()):
        first, there = next(iter(saved.rows)), next((record.id for record in job.dataset.records()), "none")
        raise DataError(
            f"{saved.path}: none of its {len(saved.rows)} predictions is for the records that are judged",
            f"they are for others, such as {first}; judged are such as {there}: look at the split and the limit",
        )
    adopt = job.protocol.adopt if isinstance(job.protocol, Asked) else unchanged

    def pairs() -> Iterator[tuple[Record, Any]]:
        for done, record in enumerate(job.dataset.records(), 1):
            try:
                said = adopt(saved[record.id] if record.id in saved.rows else None)
            except _BROKEN as error:
                why = error.what if isinstance(error, ManylensError) else f"is not what it should be ({error!r})"
                name = f"prediction for image {record.id}"
                job.problems.add("unreadable prediction", record.id, f"{name}: {why}; left out")
            else:
                if saved.form in _COMPLETE and record.id not in saved.rows:
                    what = f"image {record.id}: the predictions have none for it; counts as if nothing was said"
                    job.problems.add("missing prediction", record.id, what, left_out=False)
                yield record, said
            job.said(record, done)

    return _judged(job, pairs(), dict, str)


def _judged(
    job: Job,
    pairs: Iterable[tuple[Record, Any]],
    model: Callable[[], Mapping[str, Any]],
    stopped: Callable[[], str],
) -> Tally:
    measure = job.measure()
    seen = 0
    with ExitStack() as stack:
        spool = None
        if job.spool is not None:
            named = {"task": job.protocol.tasks[0], "measure": job.protocol.name}
            spool = stack.enter_context(Spool(job.spool, lambda: {**named, "model": model()}))
        for record, prediction in pairs:
            measure.add(record, prediction)
            seen += 1
            if spool is not None:
                spool.add(record.id, prediction)
    return _filled(job, measure.tally() if seen else None, stopped())


def _driven(job: Job, protocol: Driven, run: Run) -> Tally:
    from manylens.runtime.executors.journal import Journal

    asked: dict[str, Any] = {
        "model": run.model,
        "seed": run.seed,
        "columns": job.columns,
        "progress": job.progress,
        **job.of_measure(),
    }
    judge = protocol.load()
    session: Any = Watching(run)
    if not protocol.keeps:
        return _filled(job, judge(job.dataset, session, problems=job.problems, **asked))
    with ExitStack() as stack:
        kept: dict[str, Sequence[float]] = {}
        journal = None
        if run.journal is not None:
            # What the journal holds are numbers that only these arguments give.
            signature = repr([protocol.name, run.model, run.seed, sorted(job.of_measure().items())])
            journal = stack.enter_context(Journal(run.journal, signature))
            kept = {id: journal.get(id) for id in journal}

        def note(id: str, values: list[float]) -> None:
            kept[id] = values
            if journal is not None:
                journal.add(id, values)

        before = dict(kept)
        try:
            return _filled(job, judge(job.dataset, session, problems=job.problems, done=before, on_unit=note, **asked))
        except CostError as error:
            run.stopped = error.what
            quiet = {**asked, "progress": None}
            tally = judge(job.dataset, None, problems=Problems(), done=kept, **quiet) if kept else None
            return _filled(job, tally, run.stopped)


def _filled(job: Job, tally: Tally | None, stopped: str = "") -> Tally:
    if tally is not None and len(tally.units):
        return tally
    if stopped:
        raise CostError(f"{job.dataset.name}: {stopped}, and nothing was judged yet", "raise the cost cap")
    broke = next((one for one in job.problems if one.kind == "model failed"), None)
    if broke is not None:
        raise EngineError(
            f"{job.dataset.name}: nothing could be judged, the first: {broke.message}", "see manylens log"
        )
    first = next((f", the first: {one.message}" for one in job.problems if one.left_out), "")
    raise DataError(f"{job.dataset.name}: nothing could be judged{first}", "mend the data or the predictions")


def _setup(job: Job, protocol: Asked, run: Run) -> Setup:
    names = tuple(category.name for category in job.dataset.categories) if protocol.per_class else None
    closed = bool(job.options.get("closed"))
    takes = run.takes(protocol.calls)
    words = False
    if protocol.name == "instance":
        # A closed set of instances is the plain way; where the model has none, its words are.
        words = bool(takes) and "instance" not in takes and "text" in takes and not closed
        names = names if words else None
    return Setup(
        names=None if closed else names or None,
        threshold=float(job.options.get("threshold", LOW_THRESHOLD)),
        words=words,
    )
