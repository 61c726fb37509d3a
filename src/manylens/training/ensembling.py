"""``--ensemble``: several trainings made one model, which ``--model`` takes as it takes any.

- ``folds``: each training holds another part of the data out; all vote.
- ``snapshots`` (Huang et al., 2017): one training whose rate falls and rises again; the ends of its cycles vote.
- ``vote``: trainings with other seeds vote.
- ``soup``, ``greedy-soup`` (Wortsman et al., 2022): weights of trainings from one start are averaged into one model.

Where members find objects (the recipes ``masks`` and ``detect``), they do not vote but count alike, and what they find
is fused: see :mod:`manylens.models.adapted.finders`.

Members are runs below the ensemble's own. Those that are done are not trained again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from manylens.errors import ManylensError
from manylens.models.adapted.ensemble import ARCHITECTURES, Member
from manylens.runtime.paths import replacing
from manylens.training.ensemble.joining import Joined, by_mean, by_own_folds, by_validation, judged
from manylens.training.ensemble.members import Folds, Ran, by_cycle, by_fold, by_seed
from manylens.training.errors import TrainError
from manylens.training.processes import processes
from manylens.training.recipes import find
from manylens.training.record import Record
from manylens.training.run import Job, Trained, base_of, write_model

SOUPS = ("soup", "greedy-soup")


@dataclass(frozen=True)
class Ensembled(Trained):
    """What came of an ensemble: as of a training, where ``epochs`` are those of all members.

    Its ``figures`` are of pictures that no shares were fitted on: of ``folds`` those held out, each judged by the one
    member that never saw it, so that the vote of all is not in them; else of the validation split, which chose the
    members' epochs (and the soup) as it does in any training. There is no one ``best_epoch`` (-1) and no ``history``.

    Attributes:
        kind: ``folds``, ``snapshots``, ``vote``, ``soup`` or ``greedy-soup``.
        members: Of each: ``name``, ``share`` of the vote or mean, ``figures`` by itself.
    """

    kind: str = ""
    members: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {**super().to_json(), "kind": self.kind, "members": self.members}


def ensemble(job: Job, out: Path, resume: bool = False) -> Ensembled:
    """Train the members that ``ensemble`` of the config asks for, and make one model of them.

    Args:
        job: What each member is like.
        out: Folder of the run; those of the members lie in its ``members``.
        resume: Go on with the ensemble there.

    Returns:
        Figures, and where the model lies.

    Raises:
        TrainError: The kind of ensemble does not fit the recipe, the data or the config.
        ManylensError: As of :meth:`Job.train`.
    """
    _check(job)
    kind, inside = job.config.ensemble.kind, out / "members"
    folds = Folds.of(job) if kind == "folds" else None
    base = base_of(job.session, job.config.model)
    record = Record.begin(out, job.config, job.used, base, resume)
    if job.report:
        record.write_check(job.report)
    try:
        if folds is not None:
            with replacing(out / "folds.json") as file:
                file.write(json.dumps(folds.to_json(), indent=1, ensure_ascii=False).encode())
            ran = by_fold(job, inside, folds)
        else:
            ran = by_cycle(job, inside) if kind == "snapshots" else by_seed(job, inside, one_start=kind in SOUPS)
        start = time.perf_counter()
        members = [Member.of(one.model, one.name, 1 / len(ran)) for one in ran]
        if folds is not None:
            joined = by_own_folds(job, base, members, folds)
        else:
            joined = by_mean(job, base, members) if kind in SOUPS else by_validation(job, base, members)
        write_model(SimpleNamespace(save=joined.write), record.model)
        job.seconds["ensemble"] = job.seconds.get("ensemble", 0.0) + time.perf_counter() - start
        made = _made(job, record, ran, joined)
        record.save(recipe=find(job.config.task, job.config.recipe)[0], **made.to_json(), state="done")
    except BaseException as error:
        state = "failed" if isinstance(error, ManylensError) else "stopped"
        record.save(state=state, error=str(error) or type(error).__name__)
        raise
    return made


def _check(job: Job) -> None:
    """Raise where an ensemble of a kind cannot be had, before anything is trained."""
    config, kind, started = job.config, job.config.ensemble.kind, processes()
    name, recipe = find(config.task, config.recipe)
    architecture, found = getattr(recipe, "architecture", ""), config.options.get("kind", "instance")
    problems = (
        (kind == "", "ensemble.kind: none is named", "name folds, snapshots, soup, greedy-soup or vote"),
        (
            architecture not in ARCHITECTURES,
            f"ensemble: there is none of what the recipe {name!r} trains",
            f"there are of {', '.join(ARCHITECTURES)}",
        ),
        (
            architecture == "AdaptedMasks" and kind not in SOUPS and found != "instance",
            f"ensemble {kind!r}: members are fused instance by instance, which options.kind {found!r} does not find",
            "set it to instance, or take soup",
        ),
        (
            (started.local or config.loop.devices) * (started.nodes or config.loop.nodes) > 1,
            "ensemble: its members are trained by one process",
            "set loop.devices to 1",
        ),
        (
            kind == "greedy-soup" and not judged(job),
            "ensemble 'greedy-soup': there is no validation split to choose by",
            "set data.holdout above 0, or take soup",
        ),
        (
            kind == "folds" and config.schedule.kind == "plateau",
            "schedule.kind 'plateau': a member of folds has no validation to go by",
            "take cosine",
        ),
        (
            kind in ("folds", "snapshots") and config.loop.patience > 0,
            f"loop.patience {config.loop.patience}: a member of {kind} is its last epoch",
            "set it to 0",
        ),
        (
            kind == "snapshots" and config.regularise.ema > 0,
            "regularise.ema: its mean is over several cycles, which snapshots keep apart",
            "set it to 0",
        ),
        (
            kind == "snapshots" and config.domain.kind in ("adabn", "tent"),
            f"domain.kind {config.domain.kind!r}: is done when a training is over, and snapshots are taken before",
            "take folds or vote",
        ),
    )
    for wrong, said, remedy in problems:
        if wrong:
            raise TrainError(said, remedy)


def _made(job: Job, record: Record, ran: Sequence[Ran], joined: Joined) -> Ensembled:
    runs = {json.dumps(one.record.get("folder")): one.record for one in ran}.values()  # snapshots are of one
    seconds = dict(job.seconds)
    for run in runs:
        for name, spent in run["seconds"].items():
            seconds[name] = seconds.get(name, 0.0) + spent
    rows = zip(ran, joined.shares, joined.own, strict=True)
    return Ensembled(
        record.folder,
        record.model,
        joined.figures,
        best_epoch=-1,
        epochs=sum(run["epochs"] for run in runs),
        stopped_early=False,
        history=[],
        seconds={name: round(spent, 3) for name, spent in seconds.items()},
        notes=job.notes,
        kind=job.config.ensemble.kind,
        members=[{"name": one.name, "share": share, "figures": dict(own)} for one, share, own in rows],
    )
