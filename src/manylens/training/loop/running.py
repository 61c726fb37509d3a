"""Puts Lightning's trainer together from a config, and runs it."""

from __future__ import annotations

import logging
import os
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger

from manylens.runtime.cpu import threads
from manylens.training.balance.names import check_name
from manylens.training.config import Config
from manylens.training.loop.batches import Batches, loader
from manylens.training.loop.callbacks import (
    TIE,
    BestCheckpoint,
    GradualUnfreezing,
    History,
    PlateauSteps,
    Progress,
    WholeFiles,
    read_history,
)
from manylens.training.loop.fit import Fit
from manylens.training.processes import processes
from manylens.training.recipes.base import Aim, Recipe

LAST, BEST = "last.ckpt", "best.ckpt"
_PRECISION = {"f32": "32-true", "bf16": "bf16-mixed", "f16": "16-mixed"}


@dataclass(frozen=True)
class Fitted:
    """What came of the loop.

    Attributes:
        epochs: Epochs done.
        stopped_early: Whether patience ended it.
        figures: Of validation, at the best epoch.
        best_epoch: From 0.
        history: One row an epoch.
    """

    epochs: int
    stopped_early: bool
    figures: dict[str, float]
    best_epoch: int
    history: list[dict[str, Any]]


def fit(
    recipe: Recipe,
    config: Config,
    folder: Path,
    *,
    lr: float,
    blocks: int,
    waits: dict[str, int],
    resume: bool,
    progress: Callable[[float, str], None],
    say: Callable[[str], None],
    callbacks: Sequence[pl.Callback] = (),
) -> Fitted:
    """Train to the end, or to where patience ends it; weights of the best epoch are then in the recipe.

    Args:
        recipe: What is trained.
        config: How.
        folder: Of the run; ``checkpoints/``, ``logs/`` and ``history.jsonl`` are made in it.
        lr: Of the head.
        blocks: Of the encoder.
        waits: See :class:`GradualUnfreezing`.
        resume: Go on from the last checkpoint, where there is one.
        progress: Told how far it is.
        say: Told a line an epoch.
        callbacks: More of Lightning's.

    Raises:
        DivergedError: The loss is no number any more.
        OutputError: A checkpoint could not be written.
    """
    source, val = recipe.train_source(), recipe.val_source()
    module = Fit(recipe, config, lr, blocks, source)
    history = History(folder / "history.jsonl", say)
    aim = Aim.of(config, recipe)
    if recipe.judges and val is not None:
        check_name("loop.monitor", aim.figure, recipe.judges)
    places = folder / "checkpoints"
    common: dict[str, Any] = {"dirpath": places, "enable_version_counter": False, "save_on_train_epoch_end": True}
    best = BestCheckpoint(filename="best", monitor=aim.logged, mode=aim.mode, **common)
    last = ModelCheckpoint(filename="last", save_top_k=1, **common)
    going = [PlateauSteps(aim.logged), history, Progress(progress), *callbacks]
    if waits:
        going.append(GradualUnfreezing(waits))
    if config.regularise.ema:
        going.append(EMAWeightAveraging(decay=config.regularise.ema))
    stopping = None
    if val is not None:
        if config.loop.patience:
            stopping = EarlyStopping(
                aim.logged, mode=aim.mode, patience=config.loop.patience, check_on_train_epoch_end=True
            )
            going.append(stopping)
        going.append(best)
    going.append(last)
    with _quiet():
        trainer = _trainer(config, folder, going)
        rank, world = trainer.global_rank, trainer.world_size
        size, seed = config.loop.batch_size, config.seed
        workers, pinned = config.loop.workers, trainer.strategy.root_device.type == "cuda"
        train = loader(source, Batches(recipe.draws, size, seed, rank, world, True), workers, pinned)
        judged = None
        if val is not None:
            everything = np.arange(len(val))
            judged = loader(val, Batches(lambda epoch: everything, size, seed, rank, world, False), workers, pinned)
        start = places / LAST if resume and (places / LAST).exists() else None
        try:
            trainer.fit(module, train, judged, ckpt_path=start, weights_only=True)
        except SystemExit:  # what Lightning makes of a signal
            kept_epochs = len(read_history(history.path))
            say(f"stopped in epoch {trainer.current_epoch + 1}: {kept_epochs} are kept; go on with --resume")
            if trainer.received_sigterm:
                raise SystemExit(128 + signal.SIGTERM) from None
            raise KeyboardInterrupt from None
    if not history.rows:  # it was at its end already, and only what comes of it was missing
        history.rows = read_history(history.path)
    load(module, places / (BEST if val is not None and (places / BEST).exists() else LAST))
    rows = history.rows
    at = _best_row(rows, aim)
    return Fitted(
        trainer.current_epoch,
        stopping is not None and stopping.stopped_epoch > 0,
        {name.removeprefix("val/"): value for name, value in rows[at].items() if name.startswith("val/")},
        rows[at]["epoch"],
        rows,
    )


def load(module: Fit, path: Path) -> None:
    """Put the weights of a checkpoint into the module; what was never saved stays as it is."""
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    missing = module.load_state_dict(state, strict=False)
    assert not missing.unexpected_keys, missing.unexpected_keys


def _best_row(rows: list[dict[str, Any]], aim: Aim) -> int:
    """The epoch whose checkpoint was kept, as :class:`BestCheckpoint` chose it."""
    judged = [i for i, row in enumerate(rows) if aim.logged in row]
    if not judged:
        return len(rows) - 1
    sign = -1.0 if aim.mode == "max" else 1.0
    return min(judged, key=lambda i: (sign * rows[i][aim.logged], rows[i].get(TIE, 0.0)))


def _trainer(config: Config, folder: Path, callbacks: list[pl.Callback]) -> pl.Trainer:
    loop, started = config.loop, processes()
    devices, nodes = started.local or loop.devices, started.nodes or loop.nodes
    strategy: str = loop.strategy
    if devices * nodes > 1 and strategy in ("auto", "ddp"):
        # Where more than a head learns, not every weight is asked: a mask token, a norm that the head does not see.
        strategy = "ddp" if config.transfer.mode == "frozen" else "ddp_find_unused_parameters_true"
    if loop.device == "cpu" or (loop.device == "auto" and not torch.cuda.is_available()):
        torch.set_num_threads(max(1, threads() // devices))
    return pl.Trainer(
        accelerator={"auto": "auto", "cpu": "cpu", "cuda": "gpu"}[loop.device],
        devices=devices,
        num_nodes=nodes,
        strategy=strategy,
        precision=_PRECISION[loop.precision],  # type: ignore[arg-type]
        max_epochs=loop.epochs,
        accumulate_grad_batches=config.optimiser.accumulate,
        gradient_clip_val=config.optimiser.clip or None,
        callbacks=callbacks,
        plugins=[WholeFiles()],
        logger=loggers(folder),
        log_every_n_steps=50,
        sync_batchnorm=config.transfer.batch_norm == "sync" and devices * nodes > 1,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=True,
        default_root_dir=folder,
    )


def loggers(folder: Path) -> list[Any]:
    """TensorBoard always, MLflow where ``MLFLOW_TRACKING_URI`` is set."""
    found: list[Any] = [TensorBoardLogger(folder, name="logs", version="")]
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        from lightning.pytorch.loggers import MLFlowLogger

        from manylens.training.extras import need

        need("mlflow")
        found.append(MLFlowLogger("manylens", run_name=folder.name, tracking_uri=uri))
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's own lines and warnings are about its options, which the config decides."""
    names = ("lightning.pytorch", "lightning.fabric", "lightning", "pytorch_lightning")
    before = {name: logging.getLogger(name).level for name in names}
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
