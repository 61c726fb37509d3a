"""``manylens.evaluate``: a model, or saved predictions, measured on labelled data."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.data.problems import DataError, Problems
from manylens.errors import PromptError
from manylens.evaluation import predictions as prediction_files
from manylens.evaluation.intervals import RESAMPLES, estimates
from manylens.evaluation.measuring import Job, Progress, from_model, from_saved
from manylens.evaluation.protocols import Asked, Facts, Protocol, choose
from manylens.evaluation.results import PREDICTIONS, SAVED, DataUsed, Evaluation, Example, ModelUsed
from manylens.evaluation.running import Run
from manylens.evaluation.slicing import BUILT_IN, check_fields, sliced
from manylens.evaluation.worst import prompted_again, shown
from manylens.runtime.meter import Meter
from manylens.tasks import get
from manylens.version import __version__

if TYPE_CHECKING:
    import os

    from manylens.data import Dataset
    from manylens.data.records import Record
    from manylens.evaluation.tally import Tally
    from manylens.session import Session

_WORST = 12


def evaluate(
    data: Dataset | str | os.PathLike[str],
    *,
    task: str,
    model: str | None = None,
    predictions: str | os.PathLike[str] | None = None,
    measure: str | None = None,
    prompt: str | None = None,
    slices: Sequence[str] = (),
    split: str | None = None,
    images: str | os.PathLike[str] | None = None,
    format: str | None = None,
    session: Session | None = None,
    out: str | os.PathLike[str] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    strict: bool = False,
    limit: int | None = None,
    max_cost: float | Meter | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
    **options: Any,
) -> Evaluation:
    """Run a model over labelled data, or take saved predictions, and measure them.

    Args:
        data: A data set, or what :meth:`manylens.data.Dataset.read` reads: our folder, COCO, class folders, masks, CSV.
        task: The task whose quality is asked for, such as ``segment``.
        model: A catalog id, a hub id or a folder; None lets the session choose.
        predictions: A file of predictions, instead of a run; see :func:`manylens.evaluation.predictions.read`.
        measure: A name of :data:`manylens.evaluation.protocols.PROTOCOLS`; by default what fits the task, the prompt
            and what the data holds.
        prompt: ``click``, ``box`` or ``none``, for ``segment``.
        slices: Columns of records or annotations, or ``class`` or ``size``: the figures for each group of these.
        split: Only this split of the data.
        images: Folder that the data's file names are relative to.
        format: Of the data; by default it is recognised.
        session: Runs the model; by default the one behind the package's verbs.
        out: Folder for the report, the tally and the predictions.
        resamples: Of the bootstrap, for the 95 % intervals; 0 for none.
        seed: Of every random step.
        strict: Whether the first thing that is wrong with labels or predictions is an error.
        limit: Only so many records, the first.
        max_cost: The most that the run may be charged: it stops before, and reports on what was judged. Or a meter that
            counts a job of several evaluations.
        progress: Called with the share done and a line.
        say: Called with a line before the run begins: what is measured, and why.
        options: ``threshold`` and ``closed`` (ask for the model's own classes) for the tasks that have them, and those
            of the measure, such as ``clicks``.

    Returns:
        Every figure with its interval, and what is needed to judge it.

    Raises:
        ManylensError: One line that names the input and the remedy.

    A run that is stopped goes on where it was, when it is started again with the same arguments: what is done is kept
    in ``out``, or in the cache folder.
    """
    clock = time.perf_counter()
    if model is not None and predictions is not None:
        raise PromptError("model and predictions: both are given", "give one of them")
    task = get(task).name
    if out is not None and Path(out).exists() and not Path(out).is_dir():
        raise PromptError(f"{out}: is a file", "name a folder for the report")
    problems = Problems(strict)
    whole = _opened(data, images, format, strict)
    dataset = whole.select(split=split, limit=limit)
    problems.extend(whole.problems)
    check_fields(slices, dataset)
    facts = Facts.of(dataset.records(), dataset.categories, len([name for name in dataset.splits if name]))
    run: Run | None = None
    saved = None
    if predictions is None:
        from manylens.session import default_session

        run = Run(session or default_session(), model, seed, problems, _meter(max_cost))
        if max_cost is not None and not run.session.rates.cost_money:
            run.notes.append("this machine has no rates, so its time costs nothing; manylens cost takes them")
        protocol = choose(task, facts, measure=measure, prompt=prompt, takes=run.takes(task))
    else:
        known = prediction_files.Known.of(whole)
        saved = prediction_files.read(Path(predictions), known, problems)
        measure = measure or saved.measure(task)
        protocol = choose(task, facts, measure=measure, prompt=prompt, takes=frozenset())
    given = {name: value for name, value in options.items() if value is not None}
    notes = [f"measure {protocol.name}: {protocol.says}"]
    if say is not None:
        say(_chosen(protocol, task, measure, dataset, run))
    with ExitStack() as stack:
        spool = Path(out) / PREDICTIONS if out is not None and run is not None else None
        if spool is None and slices and run is not None:
            spool = Path(stack.enter_context(tempfile.TemporaryDirectory())) / PREDICTIONS
        columns = [name for name in slices if name not in BUILT_IN]
        job = Job(protocol, dataset, columns, problems, given, progress, saved, spool)
        job.check()
        if run is not None:
            with _journal(out, job, run) as run.journal:
                tally = from_model(job, run)
        else:
            tally = from_saved(job)
        made = [sliced(job, tally, name, resamples=resamples, seed=seed) for name in slices]
        evaluation, records = _assembled(job, tally, made, run, task, split, resamples, seed)
        evaluation = replace(
            evaluation,
            options={
                "prompt": prompt,
                "slices": list(slices),
                "limit": limit,
                "resamples": resamples,
                "seed": seed,
                "strict": strict,
                "max_cost": run.meter.cap if run is not None else None,
                **given,
            },
            notes=[*notes, *_undefined(evaluation), *(run.all_notes() if run is not None else ())],
            seconds=round(time.perf_counter() - clock, 3),
        )
        if out is None:
            return evaluation
        written = spool if isinstance(protocol, Asked) else None
        _forget_others(Path(out) / PREDICTIONS, saved.path if saved is not None else written)
        kept: Any = saved
        if kept is None and spool is not None and spool.exists() and isinstance(protocol, Asked):
            kept = prediction_files.read(spool, prediction_files.Known.of(dataset), Problems())
        if run is not None and protocol.name in ("clicks", "boxes") and not run.stopped:
            kept = prompted_again(evaluation, records, run.session, model=model, seed=seed, meter=run.meter)
        return evaluation.save(Path(out), shown(evaluation, records, kept or {}))


def _undefined(evaluation: Evaluation) -> list[str]:
    """Why figures or intervals are not there."""
    names = [name for name, one in evaluation.figures.items() if np.isnan(one.value) and "/" not in name]
    notes = [f"not defined, for the data has nothing to judge them by: {', '.join(names)}"] if names else []
    if len(set(evaluation.tally.units.clusters)) == 1:
        notes.append("one picture was judged, and an interval needs two")
    return notes


def _forget_others(kept: Path, source: Path | None) -> None:
    """Remove the predictions of an earlier evaluation in the same folder, which this one was not made from."""
    if source is None or source.resolve() != kept.resolve():
        with suppress(OSError):  # no folder, or none that can be written to: the report will say so
            kept.unlink()


def _opened(data: Any, images: Any, format: str | None, strict: bool) -> Dataset:
    from manylens.data import Dataset

    if not isinstance(data, Dataset):
        return Dataset.read(data, images=images, format=format, strict=strict)
    if strict:
        for problem in data.problems:
            raise DataError(problem.message, "mend the data, or leave strict away to go on without it")
    return data


def _meter(most: float | Meter | None) -> Meter:
    return most if isinstance(most, Meter) else Meter(most)


def _chosen(protocol: Protocol, task: str, measure: str | None, dataset: Dataset, run: Run | None) -> str:
    why = "" if measure else f" (chosen for {task} on this data; --measure names another)"
    return f"measuring {protocol.name}: {protocol.says}, on {len(dataset)} records of {dataset.name}{why}"


@contextmanager
def _journal(out: Any, job: Job, run: Run) -> Iterator[Path]:
    """The file that remembers what is done; it goes when all is done, or nothing was.

    Its name tells apart what cannot go on from one another: other data, another measure, other options.
    """
    from manylens.runtime import paths

    told = [job.protocol.name, run.model, run.seed, sorted(job.options.items(), key=str), __version__]
    told.append(job.dataset.fingerprint(pixels=False))
    short = hashlib.sha256(repr(told).encode()).hexdigest()[:12]
    folder = Path(out) if out is not None else paths.home() / "evaluations"
    path = folder / f"unfinished-{job.protocol.name}-{short}.jsonl"
    done = False
    try:
        yield path
        done = not run.stopped
    finally:
        if path.exists() and (done or path.read_bytes().count(b"\n") < 2):  # the first line is its head
            path.unlink()


def _assembled(
    job: Job,
    tally: Tally,
    made: Sequence[Any],
    run: Run | None,
    task: str,
    split: str | None,
    resamples: int,
    seed: int,
) -> tuple[Evaluation, dict[str, Record]]:
    """The evaluation, and the records of its worst units by cluster."""
    from manylens.runtime.machine import machine_report

    clusters = set(tally.units.clusters)
    worst = _worst(tally)
    wanted = {cluster for _, cluster, _ in worst}
    places: dict[str, Record] = {}
    annotations = judged = 0
    for record in job.dataset.records():
        names = {record.id, str(record.columns.get("video", record.id))}  # a video is one cluster of many records
        if not names & clusters:
            continue
        judged, annotations = judged + 1, annotations + len(record.annotations)
        places |= dict.fromkeys(names & wanted - places.keys(), record)
    used = run.used if run is not None else ModelUsed(SAVED)
    if job.saved is not None:
        used = job.saved.used()
    evaluation = Evaluation(
        task=task,
        measure=job.protocol.name,
        model=used,
        data=DataUsed(job.dataset.name, _fingerprint(job), len(job.dataset), judged, annotations, split or ""),
        options={},
        figures=estimates(tally, resamples=resamples, seed=seed),
        details=tally.details(),
        slices=made,
        problems=job.problems,
        worst=[
            Example(unit, cluster, score, str(places[cluster].path) if cluster in places else "")
            for unit, cluster, score in worst
        ],
        seconds=0.0,
        machine=machine_report().to_json(),
        tally=tally,
        stopped=run.stopped if run is not None else "",
        cost=run.meter.spent if run is not None else 0.0,
    )
    return evaluation, places


def _fingerprint(job: Job) -> str:
    """The hash of the content; of the labels alone, and marked so, where a picture is missing."""
    try:
        return job.dataset.fingerprint()
    except DataError:
        return f"labels only: {job.dataset.fingerprint(pixels=False)}"


def _worst(tally: Tally) -> list[tuple[str, str, float]]:
    scores = tally.scores()
    if scores is None:
        return []
    order = [int(i) for i in np.argsort(scores, kind="stable") if not np.isnan(scores[i])]
    return [(tally.units.ids[i], tally.units.clusters[i], float(scores[i])) for i in order[:_WORST]]
