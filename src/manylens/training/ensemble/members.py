"""Trains the members of an ensemble: by fold, by seed, or at the ends of the cycles of one training.

Each training is a run of its own in the ensemble's folder; one that is done is not trained again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import numpy.typing as npt
import torch

from manylens.catalog.trained import MODEL
from manylens.data import Dataset
from manylens.training.ensemble.folds import fold_numbers
from manylens.training.ensemble.snapshot import snapshot_steps
from manylens.training.errors import TrainError
from manylens.training.loop.callbacks import WholeFiles
from manylens.training.loop.fit import Fit
from manylens.training.record import told
from manylens.training.run import Job, write_model

START = "start.ckpt"


@dataclass(frozen=True)
class Ran:
    """A member once it is trained.

    Attributes:
        name: Of it.
        model: Folder of its model.
        record: What its training's ``run.json`` says.
    """

    name: str
    model: Path
    record: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Folds:
    """The records that folds are made of: those of training and validation; a test split stays out of it.

    Attributes:
        pool: The records.
        numbers: Of the fold that holds each record out, ``(records,)``.
    """

    pool: Dataset
    numbers: npt.NDArray[np.int64]

    @classmethod
    def of(cls, job: Job) -> Folds:
        """Part a job's records, classes alike in all folds and groups in one piece, as ``data`` of its config says.

        Raises:
            TrainError: A class has fewer examples (or groups that hold some) than there are folds.
        """
        data, section, folds = job.dataset, job.config.data, job.config.ensemble.members
        pairs = zip(data.values("id"), data.values("split"), strict=True)
        pool = data.select(ids=[id for id, split in pairs if split in (section.train, section.val)])
        ids = pool.values("id")
        groups = pool.values(section.group) if section.group else None
        classes: list[Any] = pool.categories_of()
        if job.config.task == "classify":
            classes = [{label} if label else set() for label in pool.values("label")]
        units = ids if groups is None else [id if one is None else one for id, one in zip(ids, groups, strict=True)]
        held: dict[str, set[Any]] = {}
        for unit, names in zip(units, classes, strict=True):
            for name in names:
                held.setdefault(name, set()).add(unit)
        few = min(held, key=lambda name: (len(held[name]), name), default="")
        if few and len(held[few]) < folds:
            what = "examples" if groups is None else f"different {section.group}"
            raise TrainError(
                f"class {few!r}: has {len(held[few])} {what}, fewer than {folds} folds",
                "give it more, or fewer members" if len(held[few]) > 1 else "give it more, or leave it out",
            )
        if section.stratify is None:
            strata: Sequence[Any] | None = classes
        else:
            strata = pool.values(section.stratify) if section.stratify else None
        numbers = fold_numbers(ids, folds, strata=strata, groups=groups, seed=job.config.seed)
        found = cls(pool, numbers)
        for name in sorted(held):
            if len({number for number, names in zip(numbers.tolist(), classes, strict=True) if name in names}) < 2:
                raise TrainError(
                    f"class {name!r}: all of its examples fall into one fold, so that one member could not learn it",
                    "leave data.stratify away, or name another data.group",
                )
        return found

    def held_out(self, ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """The fold that holds each of some records out."""
        of = dict(zip(self.pool.values("id"), self.numbers.tolist(), strict=True))
        return np.array([of[id] for id in ids], np.int64)

    def to_json(self) -> dict[str, int]:
        """The fold of each record by its id, from 1."""
        return {id: int(number) + 1 for id, number in zip(self.pool.values("id"), self.numbers, strict=True)}


def by_fold(job: Job, folder: Path, folds: Folds) -> list[Ran]:
    """A training a fold, which learns from all but the records of that fold.

    None of them is shown the fold in any way: there is no validation in it, and the last epoch is kept.

    Args:
        job: Of the ensemble.
        folder: Of the members.
        folds: Its records.
    """
    members, train = job.config.ensemble.members, job.config.data.train
    ids = np.array(folds.pool.values("id"), object)
    found = []
    for number in range(members):
        name = f"fold-{number + 1}"
        learn = folds.pool.select(ids=ids[folds.numbers != number].tolist()).split({train: 1.0})
        mine = _member(job, {"data.holdout": 0.0}, name, number, members)
        used = {**job.used, "records": len(learn), "splits": dict(learn.splits), "fold": number + 1, "folds": members}
        found.append(_ran(replace(mine, dataset=learn, used=used), name, folder / name))
    return found


def by_seed(job: Job, folder: Path, one_start: bool) -> list[Ran]:
    """A training a seed, from the config's own upwards, on the same splits.

    Args:
        job: Of the ensemble.
        folder: Of the members.
        one_start: Whether all begin with the same weights, as a mean of weights asks for: those that the first begins
            with (its head as drawn from its seed, and what was measured for it) are kept and given to all others. What
            else the seed decides (order, augmentation, dropout) differs.
    """
    members, first = job.config.ensemble.members, job.config.seed
    found = []
    for number in range(members):
        name = f"seed-{first + number}"
        mine = _member(job, {"seed": first + number}, name, number, members)
        callbacks = [SameStart(folder / START)] if one_start else []
        found.append(_ran(mine, name, folder / name, callbacks))
    return found


def by_cycle(job: Job, folder: Path) -> list[Ran]:
    """One training, whose rate falls and starts anew as many times as there are members; each is its end of a cycle.

    Args:
        job: Of the ensemble.
        folder: Of the members.
    """
    members = job.config.ensemble.members
    changes = {"schedule.kind": "cyclic", "schedule.cycles": members, "schedule.warmup": 0.0}
    snapshots = Snapshots(folder, members)
    mine = _member(job, changes, "cycles", 0, 1)
    ran = _ran(mine, "cycles", folder / "cycles", [snapshots], all(place.is_dir() for place in snapshots.places))
    return [Ran(place.name, place, ran.record) for place in snapshots.places]


class SameStart(pl.Callback):
    """Begins a training with weights that another one began with, or keeps its own for the others.

    Args:
        path: Where they are kept.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Called before a checkpoint is read, so that one that goes on is left as it was."""
        assert isinstance(pl_module, Fit)
        frozen = pl_module.recipe.frozen()
        if self._path.exists():
            state = torch.load(self._path, map_location="cpu", weights_only=True)
            pl_module.network.load_state_dict(state, strict=False)
        else:
            state = {name: one for name, one in pl_module.network.state_dict().items() if name not in frozen}
            WholeFiles().save_checkpoint(state, self._path)


class Snapshots(pl.Callback):
    """Writes the model as it is at the end of each cycle.

    Args:
        folder: A folder a cycle is made in it.
        cycles: How many.
    """

    def __init__(self, folder: Path, cycles: int) -> None:
        self.places = [folder / f"cycle-{number + 1}" for number in range(cycles)]
        self._ends: tuple[int, ...] = ()
        self._last = -1

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Find the last step of each cycle.

        Raises:
            TrainError: There are fewer steps than cycles.
        """
        steps, cycles = int(trainer.estimated_stepping_batches), len(self.places)
        if steps < cycles:
            raise TrainError(f"ensemble.members {cycles}: do not fit in {steps} steps", "give fewer, or more epochs")
        self._ends = snapshot_steps(steps, cycles)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write it."""
        step = trainer.global_step - 1
        if step == self._last or step not in self._ends:
            return
        self._last = step
        if trainer.is_global_zero:
            assert isinstance(pl_module, Fit)
            write_model(pl_module.recipe, self.places[self._ends.index(step)])


def _member(job: Job, changes: Mapping[str, Any], name: str, place: int, members: int) -> Job:
    """The job of a member, which tells how far the ensemble is."""
    mine = job.changed({**changes, "ensemble.kind": ""})

    def progress(share: float, line: str) -> None:
        job.progress((place + share) / members, f"{name}: {line}")

    return replace(mine, progress=progress, say=lambda line: None, seconds={})


def _ran(job: Job, name: str, folder: Path, callbacks: Sequence[pl.Callback] = (), whole: bool = True) -> Ran:
    """A member's training, which is not done again where it is done and what came of it is there."""
    record = told(folder)
    if record.get("state") != "done" or not (folder / MODEL).is_dir() or not whole:
        job.train(folder, resume=bool(record), callbacks=callbacks)
        record = told(folder)
    return Ran(name, folder / MODEL, record)
