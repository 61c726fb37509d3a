"""``--search``: hyper-parameters found by Optuna; the space stands in the config, the study in SQLite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from manylens.training.config import Config
from manylens.training.errors import TrainError
from manylens.training.extras import need
from manylens.training.recipes import find
from manylens.training.recipes.base import Aim
from manylens.training.run import Job
from manylens.training.values import keys, nearest, write

_STUDY = "study.sqlite"


class SearchSection(BaseModel):
    """The ``search`` section of a config.

    Attributes:
        space: By dotted key: a list of values to choose from, or ``{low, high}`` with ``log: true`` for rates and
            ``step`` for whole numbers.
        trials: How many trainings, those of an earlier search in the same folder counted.
        pruner: ``median`` (stop what is worse than half of the others at the same epoch), ``hyperband`` or ``none``.
        figure: What is to be best; by default the recipe's own.
        mode: Whether more of it is better.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    space: dict[str, Any]
    trials: int = Field(default=20, ge=1)
    pruner: str = Field(default="median", pattern="median|hyperband|none")
    figure: str | None = None
    mode: Literal["max", "min"] | None = None


@dataclass(frozen=True)
class Searched:
    """What a search found.

    Attributes:
        best: Values of the best trial by dotted key.
        figure: Name and value of what was to be best.
        folder: Run of the best trial, a model.
        trials: Of each trial: number, state, value and what was tried.
        config: File of the config with the best values.
    """

    best: dict[str, Any]
    figure: tuple[str, float]
    folder: Path
    trials: list[dict[str, Any]]
    config: Path

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "best": self.best,
            "figure": {self.figure[0]: self.figure[1]},
            "folder": str(self.folder),
            "config": str(self.config),
            "trials": self.trials,
        }


def search(job: Job, out: Path) -> Searched:
    """Try values of the config's ``search.space``; a search that was stopped goes on in the same folder.

    Args:
        job: What is searched for; its config has a ``search`` section.
        out: Folder: the study, a run a trial, and ``best.yaml``.

    Raises:
        TrainError: The section is missing or wrong, or no trial came to an end.
    """
    optuna = need("optuna")
    section = _section(job.config)
    _, recipe = find(job.config.task, job.config.recipe)
    aim = Aim.of(job.config, recipe, section.figure, section.mode)
    out.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner = {
        "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1),
        "hyperband": optuna.pruners.HyperbandPruner,
        "none": optuna.pruners.NopPruner,
    }[section.pruner]()
    study = optuna.create_study(
        storage=f"sqlite:///{(out / _STUDY).resolve()}",
        study_name="manylens",
        direction="maximize" if aim.mode == "max" else "minimize",
        # Seeded by how far it is, so that a search that goes on draws no value twice.
        sampler=optuna.samplers.TPESampler(seed=job.config.seed, n_startup_trials=5, multivariate=True),
        pruner=pruner,
        load_if_exists=True,
    )
    over = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    done = len(study.get_trials(states=over))
    study.sampler.reseed_rng() if done else None

    def objective(trial: Any) -> float:
        values = {key: _tried(trial, key, space) for key, space in section.space.items()}
        mine = job.changed({**values, "search": {}})
        mine.say = lambda line: None
        folder = out / f"trial-{trial.number:03d}"
        mine.train(folder, callbacks=[_Pruning(trial, aim.logged, optuna)])
        # The best epoch by this figure, which need not be the one that a checkpoint was kept of.
        reached = [row[aim.logged] for row in _epochs(folder) if aim.logged in row]
        job.progress((trial.number + 1) / section.trials, f"trial {trial.number + 1} of {section.trials}")
        return float(max(reached) if aim.mode == "max" else min(reached))

    study.optimize(objective, n_trials=max(section.trials - done, 0))
    if not study.get_trials(states=over[:1]):
        raise TrainError("--search: no trial came to an end", "give more trials, or the pruner none")
    best = study.best_trial
    write(job.config.changed({**best.params, "search": {}}).to_json(), out / "best.yaml")
    rows = [
        {"number": one.number, "state": one.state.name.lower(), "value": one.value, **one.params}
        for one in study.get_trials()
    ]
    run = out / f"trial-{best.number:03d}"
    return Searched(dict(best.params), (aim.figure, float(best.value)), run, rows, out / "best.yaml")


def _epochs(folder: Path) -> list[dict[str, Any]]:
    """The epochs of a trial."""
    from manylens.training.loop.callbacks import read_history

    return read_history(folder / "history.jsonl")


class _Pruning(pl.Callback):
    """Stops a trial that is clearly worse than the others at the same epoch."""

    def __init__(self, trial: Any, figure: str, optuna: Any) -> None:
        self._trial, self._figure, self._optuna = trial, figure, optuna

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Tell the study how far it is."""
        if self._figure not in trainer.callback_metrics:
            return
        self._trial.report(float(trainer.callback_metrics[self._figure]), trainer.current_epoch)
        if self._trial.should_prune():
            raise self._optuna.TrialPruned


def _section(config: Config) -> SearchSection:
    if not config.search:
        raise TrainError(
            "--search: the config has no search.space",
            "give one, such as search: {space: {optimiser.lr: {low: 1e-4, high: 1e-1, log: true}}}",
        )
    try:
        found = SearchSection.model_validate(config.search)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(["search", *(str(part) for part in first["loc"])])
        raise TrainError(f"config {key!r}: {first.get('input')!r} does not fit", first["msg"].lower()) from None
    known = keys(Config)
    for key in found.space:
        if key not in known and not any(key.startswith(f"{one}.") for one in known if "options" in one):
            near = nearest(key, known)
            raise TrainError(f"search.space {key!r}: there is no such key", f"did you mean {near}?" if near else "")
    return found


def _tried(trial: Any, key: str, space: Any) -> Any:
    if isinstance(space, list):
        return trial.suggest_categorical(key, space)
    if isinstance(space, Mapping) and {"low", "high"} <= set(space) <= {"low", "high", "log", "step"}:
        low, high = space["low"], space["high"]
        whole = isinstance(low, int) and isinstance(high, int)
        if whole:
            return trial.suggest_int(key, low, high, log=bool(space.get("log")), step=int(space.get("step", 1)))
        return trial.suggest_float(key, float(low), float(high), log=bool(space.get("log")), step=space.get("step"))
    raise TrainError(f"search.space {key!r}: {space!r} is no space", "give a list of values, or low and high")
