"""What goes along with the steps: the record of each epoch, progress, gradual unfreezing, safe checkpoints."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from manylens.errors import OutputError
from manylens.runtime.paths import replacing
from manylens.training.loop.fit import Fit


class WholeFiles(TorchCheckpointIO):
    """Checkpoints are written to a temporary name and renamed: a disk that fills up leaves the old one as it was."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write one.

        Raises:
            OutputError: The disk is full or the folder cannot be written; what stood there is untouched.
        """
        try:
            with replacing(Path(path)) as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:  # torch's writer tells a full disk as a RuntimeError
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise OutputError(
                f"{path}: the checkpoint cannot be written ({reason}); the one before it is untouched",
                "make room, then go on with --resume",
            ) from error

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> Any:
        """Read one: tensors and plain values alone, so that nothing in it is run."""
        return torch.load(path, map_location="cpu", weights_only=True)


class History(pl.Callback):
    """One line of JSON an epoch: its figures, rates and seconds.

    Args:
        path: The file.
        say: Called with a line for people after each epoch.
    """

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        self.path, self._say = path, say
        self.rows: list[dict[str, Any]] = []
        self._clock = time.perf_counter()
        self._warned: set[str] = set()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget epochs that a resumed training does again."""
        self.rows = [row for row in read_history(self.path) if row["epoch"] < trainer.current_epoch]
        self._clock = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the line, and tell the loggers the losses, which the module knows only now."""
        assert isinstance(pl_module, Fit)
        means = pl_module.means()
        for logger in trainer.loggers:
            logger.log_metrics(means, trainer.global_step)
        figures = means | {name: float(value) for name, value in trainer.callback_metrics.items()}
        now = time.perf_counter()
        row: dict[str, Any] = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        row |= {name: round(value, 6) for name, value in sorted(figures.items())}
        row |= {"lr": trainer.optimizers[0].param_groups[0]["lr"], "seconds": round(now - self._clock, 3)}
        self._clock = now
        self.rows.append(row)
        if trainer.is_global_zero:
            with replacing(self.path) as file:
                file.write("".join(json.dumps(one) + "\n" for one in self.rows).encode())
        told = "  ".join(f"{name} {value:.4g}" for name, value in row.items() if "/" in name)
        self._say(f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}  {told}")
        for line in pl_module.recipe.warnings():
            if line not in self._warned:
                self._warned.add(line)
                self._say(line)


def read_history(path: Path) -> list[dict[str, Any]]:
    """The rows of a training, one an epoch; none where there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


TIE = "val/loss"
"""Of epochs that are as good as each other the one with the least of this is the best: it is surer of what is right."""


class BestCheckpoint(ModelCheckpoint):
    """The best epoch's checkpoint; of epochs alike in the figure, that with the least loss of validation."""

    _loss = math.inf

    def check_monitor_top_k(self, trainer: pl.Trainer, current: Tensor | None = None) -> bool:
        """Whether an epoch is better than the best so far."""
        loss = float(trainer.callback_metrics.get(TIE, 0.0))
        better = super().check_monitor_top_k(trainer, current)
        if not better and current is not None and self.best_model_score is not None:
            better = bool(current == self.best_model_score) and loss < self._loss
        if better:
            self._loss = loss
        return better

    def state_dict(self) -> dict[str, Any]:
        """Also the loss of the best."""
        return {**super().state_dict(), "tie": self._loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self._loss = state_dict.pop("tie", math.inf)
        super().load_state_dict(state_dict)


class PlateauSteps(pl.Callback):
    """Tells the module's plateau the figure of each epoch, before the epoch's checkpoint is written.

    Args:
        monitor: Name of the figure.
    """

    def __init__(self, monitor: str) -> None:
        self._monitor = monitor

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Tell it."""
        assert isinstance(pl_module, Fit)
        if self._monitor in trainer.callback_metrics:
            pl_module.plateau.take(float(trainer.callback_metrics[self._monitor]))

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep where it stands."""
        assert isinstance(pl_module, Fit)
        checkpoint["plateau"] = pl_module.plateau.state()

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Go on from there."""
        assert isinstance(pl_module, Fit)
        pl_module.plateau.load(checkpoint["plateau"])


class Progress(pl.Callback):
    """Tells how far the training is."""

    def __init__(self, progress: Callable[[float, str], None]) -> None:
        self._progress = progress

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Tell it."""
        batches = max(int(trainer.num_training_batches), 1)
        done = trainer.current_epoch + (batch_idx + 1) / batches
        self._progress(done / (trainer.max_epochs or 1), f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}")


class GradualUnfreezing(pl.Callback):
    """Lets the encoder's blocks learn one after the other, the last one first (Howard & Ruder, 2018).

    All of them are parameters of the optimiser from the start; the gradients of those that wait are dropped, so that
    it works on several devices as on one.

    Args:
        waits: The epoch from which a parameter learns, by its name in the network.
    """

    def __init__(self, waits: dict[str, int]) -> None:
        self._waits = waits

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Drop the gradients of what still waits."""
        assert isinstance(pl_module, Fit)
        for name, parameter in pl_module.network.named_parameters():
            if self._waits.get(name, 0) > trainer.current_epoch:
                parameter.grad = None
