"""``manylens.train``: a model adapted to one's own pictures, from data and config to a folder for ``--model``."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manylens.catalog.trained import MODEL, RUN
from manylens.errors import ManylensError
from manylens.models import checkpoint
from manylens.training.config import Config
from manylens.training.errors import TrainError
from manylens.training.inputs.features import place
from manylens.training.processes import processes
from manylens.training.recipes import find
from manylens.training.record import CONFIG, Record, held, same, told
from manylens.training.values import read, with_changes

if TYPE_CHECKING:
    from manylens.data import Dataset
    from manylens.session import Session
    from manylens.training.check import Report
    from manylens.training.recipes.base import Recipe

_CELL = 32
"""Pixels that a cell of the last map sees, where an encoder has no patches."""

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Trained:
    """What came of a training.

    Attributes:
        folder: Of the run.
        model: Of the trained model; ``manylens.Session`` and ``--model`` take it, and the run's folder too.
        figures: Of the validation split at the best epoch.
        best_epoch: Its number, from 0.
        epochs: Epochs done.
        stopped_early: Whether patience ended it.
        history: One row an epoch.
        seconds: Spent on each part: ``check``, ``prepare``, ``fit``, ``save``.
        notes: What the user should know.
    """

    folder: Path
    model: Path
    figures: dict[str, float]
    best_epoch: int
    epochs: int
    stopped_early: bool
    history: list[dict[str, Any]]
    seconds: dict[str, float]
    notes: list[str] = field(default_factory=list)

    def __fspath__(self) -> str:
        """The folder of the run, so that this is taken wherever a model is."""
        return str(self.folder)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "folder": str(self.folder),
            "model": str(self.model),
            "figures": self.figures,
            "best_epoch": self.best_epoch,
            "epochs": self.epochs,
            "stopped_early": self.stopped_early,
            "seconds": self.seconds,
            "notes": self.notes,
        }


def train(
    data: Dataset | str | os.PathLike[str] | None = None,
    *,
    task: str | None = None,
    model: str | None = None,
    out: str | os.PathLike[str],
    config: Config | Mapping[str, Any] | str | os.PathLike[str] | None = None,
    set: Mapping[str, Any] | None = None,
    resume: bool = False,
    session: Session | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> Trained:
    """Adapt a model to pictures of one's own.

    Args:
        data: A data set, or what :meth:`manylens.data.Dataset.read` reads: our folder, COCO, class folders, masks, CSV.
        task: ``classify``, ``segment``, ``detect`` or ``embed``.
        model: The base model: a catalog id, a hub id or a folder; default ``manylens/vit-s``.
        out: Folder of the run: config, record, history, checkpoints, logs and the model are written there.
        config: A :class:`Config`, its values, or a YAML or JSON file of them; see docs/train.md.
        set: Values by dotted key that win over the config's, such as ``{"optimiser.lr": 1e-3}``.
        resume: Go on with the run in ``out``, to the same end as if it had not been stopped.
        session: Gives the base model; by default the one behind the package's verbs.
        progress: Called with the share done and a line.
        say: Called with a line that the user should read.

    Returns:
        Figures of the best epoch, and where the model lies.

    Raises:
        ManylensError: One line that names the input and the remedy.
    """
    config = config_of(Path(out), resume, config)
    job = Job.of(data, config=config, task=task, model=model, set=set, session=session, progress=progress, say=say)
    return job.run(Path(out), resume)


def config_of(out: Path, resume: bool, config: Any = None) -> Any:
    """The config to train by: of a run that goes on, and for which none is given, the run's own."""
    return out / CONFIG if resume and config is None and (out / CONFIG).is_file() else config


@dataclass
class Job:
    """A training before it runs: config and data, checked.

    Attributes:
        config: Validated.
        dataset: With the splits that the config names.
        used: About the data: name, hash, counts.
        session: Gives the base model.
        progress: Told how far it is.
        say: Told lines that the user should read.
        report: What the check of the data found; None where it was not asked for.
        notes: Lines that are kept with the run.
        seconds: Spent so far, by part.
    """

    config: Config
    dataset: Dataset
    used: Mapping[str, Any]
    session: Session
    progress: Progress
    say: Callable[[str], None]
    report: Report | None = None
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        data: Dataset | str | os.PathLike[str] | None,
        *,
        config: Config | Mapping[str, Any] | str | os.PathLike[str] | None = None,
        task: str | None = None,
        model: str | None = None,
        set: Mapping[str, Any] | None = None,
        session: Session | None = None,
        progress: Progress | None = None,
        say: Callable[[str], None] | None = None,
    ) -> Job:
        """Validate the config, open the data and look it over. Arguments as of :func:`train`."""
        from manylens.session import default_session
        from manylens.training.extras import need

        chosen = _config(config, task, model, data, set)
        need("lightning.pytorch")
        if chosen.loop.device == "cuda" and not cuda():
            raise TrainError("loop.device 'cuda': there is no GPU here that torch can use", "set it to auto or cpu")
        find(chosen.task, chosen.recipe)  # a name that is wrong is told before anything is fetched
        quiet: Callable[..., None] = lambda *words: None  # noqa: E731
        made = cls(chosen, _opened(data, chosen), {}, session or default_session(), progress or quiet, say or quiet)
        with _clocked(made.seconds, "check"):
            if chosen.data.check:
                made._check()
            found = made.dataset
            made.used = {
                "name": found.name, "hash": found.fingerprint(), "records": len(found), "splits": dict(found.splits)
            }  # fmt: skip
        return made

    def changed(self, changes: Mapping[str, Any]) -> Job:
        """The same data with other values of the config, which do not touch the data."""
        config = self.config.changed(changes)
        return replace(self, config=config, notes=list(self.notes), seconds=dict(self.seconds))

    def note(self, line: str) -> None:
        """Say a line and keep it with the run."""
        self.notes.append(line)
        self.say(line)

    def run(self, out: Path, resume: bool = False) -> Trained:
        """Train one model, or several that the config makes one of, and write its card; see :func:`train`."""
        if not self.config.ensemble.kind:
            made = self.train(out, resume)
            self.card(made)
            return made
        from manylens.training.ensembling import ensemble

        with held(out):
            joined = ensemble(self, out, resume)
        # Its figures are of pictures that nothing was fitted on; any others would tell of it better than it is.
        self.card(joined, pictures=0)
        return joined

    def train(self, out: Path, resume: bool = False, callbacks: Sequence[Any] = ()) -> Trained:
        """Run it; see :func:`train`.

        Args:
            out: Folder of the run.
            resume: Go on with the run there.
            callbacks: More of Lightning's.
        """
        from manylens.training.loop.running import fit

        config = self.config
        if resume and not (out / RUN).is_file():
            self.note(f"{out}: there is no run to go on with, so it begins")
        if resume and (reached := finished(out)) is not None:
            same(out, config, self.used, base_of(self.session, config.model))
            self.say(f"{out}: this run is done already")
            return reached
        with held(out), self.opened(out, resume) as (record, recipe, blocks):
            with _clocked(self.seconds, "fit"):
                fitted = fit(
                    recipe,
                    config,
                    out,
                    lr=config.optimiser.lr or recipe.rate,
                    blocks=blocks,
                    waits=recipe.waits,
                    resume=resume,
                    progress=self.progress,
                    say=self.say,
                    callbacks=callbacks,
                )
            with _clocked(self.seconds, "save"):
                recipe.finish()
                if record.writes:
                    write_model(recipe, record.model)
            made = Trained(
                out,
                record.model,
                fitted.figures,
                fitted.best_epoch,
                fitted.epochs,
                fitted.stopped_early,
                fitted.history,
                {name: round(one, 3) for name, one in self.seconds.items()},
                self.notes,
            )
            record.save(state="done", recipe=recipe.name, **made.to_json())
        return made

    def card(self, made: Trained, pictures: int | None = None) -> None:
        """Write the model's card beside it, with figures of the saved model; the first process does.

        Args:
            made: What the card is of.
            pictures: How many it is measured on at most; with 0 the card has the figures of the training. By default as
                the config says.
        """
        from manylens.training import card

        if not (self.config.record.card and processes().first) or (made.model / card.CARD).exists():
            return
        began = time.perf_counter()
        card.write(
            made.model,
            told(made.folder),
            self.config,
            self.dataset,
            self.session,
            pictures=self.config.record.pictures if pictures is None else pictures,
            progress=self.progress,
            say=self.say,
        )
        made.seconds["card"] = round(time.perf_counter() - began, 3)

    @contextmanager
    def opened(self, out: Path, resume: bool) -> Iterator[tuple[Record, Recipe, int]]:
        """The run's record, its recipe with all it learns from prepared, and the number of the encoder's blocks."""
        from manylens.training.recipes.base import Given

        config, session = self.config, self.session
        _, recipe_of = find(config.task, config.recipe)
        with session.module(config.model) as trainable:
            base = base_of(session, config.model)
            record = Record.begin(out, config, self.used, base, resume)
            if self.report:
                record.write_check(self.report)
            try:
                with _clocked(self.seconds, "prepare"):
                    given = Given(
                        config=config,
                        data=self.dataset,
                        trainable=trainable,
                        session=session,
                        base=base,
                        cache=place(session, out),
                        settings=session.settings(config.model),
                        progress=self.progress,
                        say=self.note,
                    )
                    recipe = recipe_of(given)
                    if self.report is not None and recipe.side:
                        record.write_check(self._at_size(self.report, recipe.side, trainable.patch or _CELL))
                    recipe.train_source(), recipe.val_source()
                yield record, recipe, len(trainable.blocks)
            except BaseException as error:
                state = "failed" if isinstance(error, ManylensError) else "stopped"
                record.save(state=state, error=str(error) or type(error).__name__)
                raise

    def _at_size(self, report: Report, side: int, cell: int) -> Report:
        """The check with what is left of pictures and objects at the size of the training, known only now."""
        from manylens.training.check import resized

        found = resized(report, side, cell)
        for finding in found.warnings[len(report.warnings) :]:
            self.note(f"data: {finding.line}")
        found.stop(strict=self.config.data.strict)
        return found

    def _check(self) -> None:
        """Look over the data before anything is trained on it; what cannot be used is left out."""
        from manylens.training.check import check

        section = self.config.data
        report = check(
            self.dataset,
            task=self.config.task,
            train=section.train,
            group=section.group,
            allow=section.allow,
            progress=self.progress,
        )
        report.stop(strict=section.strict)
        for finding in report.warnings:
            self.note(f"data: {finding.line}")
        self.report = report
        if report.left_out:
            lost = {*report.left_out}
            self.dataset = self.dataset.select(ids=[one for one in self.dataset.values("id") if one not in lost])


def finished(out: Path) -> Trained | None:
    """What came of the run in a folder; None where it has not come to its end."""
    from manylens.training.loop.callbacks import read_history

    values = told(out)
    if values.get("state") != "done":
        return None
    plain = {name: values[name] for name in ("figures", "best_epoch", "epochs", "stopped_early", "seconds", "notes")}
    return Trained(out, out / MODEL, **plain, history=read_history(out / "history.jsonl"))


def cuda() -> bool:
    """Whether torch can use a GPU here."""
    import torch

    return torch.cuda.is_available()


def _config(
    config: Config | Mapping[str, Any] | str | os.PathLike[str] | None,
    task: str | None,
    model: str | None,
    data: Any,
    changes: Mapping[str, Any] | None,
) -> Config:
    if isinstance(config, Config):
        values: Mapping[str, Any] = config.to_json()
    elif config is None or isinstance(config, Mapping):
        values = config or {}
    else:
        values = read(Path(config))
    given: dict[str, Any] = {"task": task, "model": model}
    if isinstance(data, str | os.PathLike):
        given["data.source"] = os.fspath(data)
    made = with_changes(values, {key: one for key, one in given.items() if one is not None})
    return Config.of(with_changes(made, changes or {}))


def _opened(data: Any, config: Config) -> Dataset:
    """The data set with the splits that the config names; a validation split is held out where there is none."""
    from manylens.data import Dataset

    section = config.data
    if isinstance(data, Dataset):
        found = data
    elif section.source:
        found = Dataset.read(section.source, images=section.images, format=section.format)
    else:
        raise TrainError("data: none is given", "give labelled pictures with --data")
    named = [name for name in found.splits if name]
    if section.train not in named:
        if section.train != "train":
            there = f"there are {', '.join(named)}" if named else "the data has no splits"
            raise TrainError(f"data.train {section.train!r}: there is no such split", there)
        if "val" in named or "test" in named:
            raise TrainError(
                f"{found.name}: has splits {', '.join(named)}, but none to train on",
                "name it with --set data.train=NAME",
            )
        return _held_out(found, config)
    if section.val in named or not section.holdout:
        return found
    return _held_out(found.select(split=section.train), config)


def _held_out(found: Dataset, config: Config) -> Dataset:
    section = config.data
    if not section.holdout:
        return found.split({section.train: 1.0})
    stratify = section.stratify
    if stratify is None:
        stratify = "label" if config.task in ("classify", "embed") else ""
        labels = list(found.values(stratify)) if stratify else []
        # Pictures without labels are many where nothing but features is learnt; they are not a class.
        if len({one for one in labels if one}) < 2 or (config.task == "embed" and not all(labels)):
            stratify = ""
    shares = {section.train: 1 - section.holdout, section.val: section.holdout}
    return found.split(shares, stratify=stratify or None, group=section.group, seed=config.seed)


def base_of(session: Session, model: str) -> dict[str, str]:
    """What the run has to know of its base model."""
    row = session.catalog.resolve(model)
    if not row.family:
        row = session.weights.identify(row)
    files = session.weights.ensure(row)
    named = str(Path(model).expanduser().resolve()) if row.folder is not None else row.id
    return {
        "id": named,
        "weights": checkpoint.weights_id(row, files),
        "licence": row.licence,
        "licence_note": row.licence_note,
    }


def write_model(recipe: Any, folder: Path) -> None:
    """Write the model beside where it shall be, and put it there whole."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        recipe.save(part)
        if folder.exists():
            shutil.rmtree(folder)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


class _clocked:  # noqa: N801 - used as a statement
    """Seconds of a part, added to what it took before."""

    def __init__(self, seconds: dict[str, float], name: str) -> None:
        self._seconds, self._name = seconds, name

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self._seconds[self._name] = self._seconds.get(self._name, 0.0) + time.perf_counter() - self._start
