"""``--search``: hyper-parameters found by Optuna; the space stands in the config, the study in SQLite."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from manylens.errors import OutputError
from manylens.training.config import Config
from manylens.training.errors import TrainError
from manylens.training.extras import need
from manylens.training.recipes import find
from manylens.training.recipes.base import Aim
from manylens.training.run import Job, base_of, finished
from manylens.training.values import differences, keys, nearest, read, write

_STUDY, _GIVEN = "study.sqlite", "search.yaml"


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


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna says nothing: not of a trial that ends in an error, nor of lists among values, nor of odd steps."""
    optuna = need("optuna")
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"optuna\.")
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


@_quiet()
def search(job: Job, out: Path) -> Searched:
    """Try values of the config's ``search.space``; a search that was stopped goes on in the same folder.

    Args:
        job: What is searched for; its config has a ``search`` section.
        out: Folder: the study, a run a trial, and ``best.yaml``.

    Raises:
        TrainError: The section is missing or wrong, a search of something else stands in the folder, or no trial came
            to an end.
    """
    optuna = need("optuna")
    section = _section(job.config)
    _, recipe = find(job.config.task, job.config.recipe)
    aim = Aim.of(job.config, recipe, section.figure, section.mode)
    _begin(job, out)
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
    _card(job.changed({**best.params, "search": {}}), run)
    return Searched(dict(best.params), (aim.figure, float(best.value)), run, rows, out / "best.yaml")


def _card(job: Job, run: Path) -> None:
    """Write the card of the best trial's model, once; those of the others nobody reads."""
    from manylens.training.card import CARD

    made = finished(run)
    if made is not None and not (made.model / CARD).exists():
        job.card(made)


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
    if not found.space:
        raise TrainError("search.space: holds nothing to try", "give a key, such as optimiser.lr, with its values")
    known = keys(Config)
    for key, space in found.space.items():
        if key not in known and not any(key.startswith(f"{one}.") for one in known if "options" in one):
            near = nearest(key, known)
            raise TrainError(f"search.space {key!r}: there is no such key", f"did you mean {near}?" if near else "")
        for value in _ends(key, space):
            try:
                config.changed({key: value})
            except TrainError as error:
                raise TrainError(f"search.space {key!r}: {value!r} does not fit", error.remedy) from None
    return found


def _ends(key: str, space: Any) -> list[Any]:
    """The values that a space has, or the least and the greatest of them.

    Raises:
        TrainError: It is no space.
    """
    wrong, remedy = f"{space!r} is no space", "give a list of values, or low and high"
    if isinstance(space, list):
        if space:
            return space
        wrong, remedy = "there is no value to choose", "give a list of some, or low and high"
    elif isinstance(space, Mapping) and {"low", "high"} <= set(space) <= {"low", "high", "log", "step"}:
        low, high, step = _number(space["low"]), _number(space["high"]), _number(space.get("step", 1))
        whole = isinstance(low, int) and isinstance(high, int)
        if low is None or high is None:
            wrong, remedy = "low and high are to be numbers", "give such as low: 0.1, high: 0.5"
        elif low > high:
            wrong, remedy = f"low {low:g} is above high {high:g}", "give the lesser one as low"
        elif not isinstance(space.get("log", False), bool):
            wrong, remedy = "log is true or false", "give one of the two, or leave log out"
        elif space.get("log") and low <= 0:
            wrong, remedy = f"low {low:g} is on no log scale", "give a low above 0, or leave log out"
        elif step is None or step <= 0:
            wrong, remedy = f"step {space['step']!r} is not above 0", "give one that is, or leave it out"
        elif space.get("log") and "step" in space:
            wrong, remedy = "a log scale has no steps", "leave log or step out"
        elif whole and not isinstance(step, int):
            wrong, remedy = f"step {step:g} is not whole, as low and high are", "give a whole one, or 1.0 for 1 as low"
        else:
            return [low, high]
    raise TrainError(f"search.space {key!r}: {wrong}", remedy)


def _number(value: Any) -> int | float | None:
    """A number, also one that YAML takes for text, such as 1e-4; None of anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    try:
        found = float(value) if isinstance(value, float | str) else math.nan
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def _tried(trial: Any, key: str, space: Any) -> Any:
    """A value of a space that :func:`_ends` has looked over."""
    if isinstance(space, list):
        return trial.suggest_categorical(key, space)
    low, high, step = _number(space["low"]), _number(space["high"]), _number(space.get("step"))
    if isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(key, low, high, log=space.get("log", False), step=step or 1)
    return trial.suggest_float(key, low, high, log=space.get("log", False), step=step)


def _begin(job: Job, out: Path) -> None:
    """Keep what the search is of, or see that the one in the folder is of the same; it may have more trials.

    Raises:
        TrainError: Config, data or base differ from what the search in the folder began with.
        OutputError: The folder cannot be written.
    """
    base = base_of(job.session, job.config.model)
    config = job.config.to_json()
    given = {"config": config, "data": job.used["hash"], "base": base["weights"]}
    if not (out / _STUDY).exists():
        try:
            out.mkdir(parents=True, exist_ok=True)
            write(given, out / _GIVEN)
        except OSError as error:
            raise OutputError(f"{out}: cannot be written ({error.strerror or error})", "name another folder") from error
        return
    if not (out / _GIVEN).exists():
        raise TrainError(f"{out}: a search is there that does not say what it is of", "name another folder")
    before = read(out / _GIVEN)
    found = differences(_compared(config), _compared(before["config"]))
    if given["data"] != before["data"]:
        found.append(f"the data's hash is {given['data'][:12]}, was {before['data'][:12]}")
    if given["base"] != before["base"]:
        found.append(f"the base's weights are {given['base']}, were {before['base']}")
    if found:
        raise TrainError(
            f"{out}: a search is there, and cannot go on with another config: {'; '.join(found)}",
            "give what was given before, or name another folder",
        )


def _compared(config: Mapping[str, Any]) -> dict[str, Any]:
    """What has to be the same where a search goes on: not how many trials, nor where the same data lie."""
    data = {key: one for key, one in config["data"].items() if key not in ("source", "images", "format")}
    return {**config, "data": data, "search": {key: one for key, one in config["search"].items() if key != "trials"}}
