"""The one Lightning module: it runs a recipe's steps and knows nothing of its task."""

from __future__ import annotations

import copy
import math
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from manylens.training.config import Config
from manylens.training.errors import DivergedError, TrainError
from manylens.training.loop import optimisers, schedules
from manylens.training.loop.batches import Shown
from manylens.training.recipes.base import Aim, Batch, Draw, Recipe, Source, Step

_SHOWN = 5
_SHARED = ("_recipe", "_config", "_lr", "_blocks", "_source", "_sums", "_count", "_total", "plateau", "_frozen")
"""What a copy of the weights has of the module as it is."""


class Fit(pl.LightningModule):
    """A recipe as Lightning runs it.

    Args:
        recipe: What is trained.
        config: Of the training.
        lr: Learning rate of the head.
        blocks: Of the encoder, for layer-wise rates.
        source: What the recipe learns from, to name pictures in an error.
    """

    def __init__(self, recipe: Recipe, config: Config, lr: float, blocks: int, source: Source) -> None:
        super().__init__()
        self.network = recipe.network
        self._recipe, self._config, self._lr, self._blocks, self._source = recipe, config, lr, blocks, source
        self._sums: dict[str, Tensor] = {}
        self._count = 0
        self._total = 0
        self.plateau = schedules.Plateau(config.schedule, Aim.of(config, recipe).mode)
        self._frozen = recipe.frozen()

    def __deepcopy__(self, memo: dict[int, Any]) -> Fit:
        """A copy of the weights for their moving average; the recipe, which holds the data, is the same."""
        made = Fit.__new__(Fit)
        pl.LightningModule.__init__(made)
        made.network = copy.deepcopy(self.network, memo)
        for name in _SHARED:
            setattr(made, name, getattr(self, name))
        return made

    @property
    def recipe(self) -> Recipe:
        """What is trained."""
        return self._recipe

    # ------------------------------------------------------------------ steps

    def on_train_epoch_start(self) -> None:
        """Forget the last epoch's losses and let the recipe prepare."""
        self._sums, self._count = {}, 0
        self._recipe.before_epoch(self._step())

    def training_step(self, given: tuple[Batch, Shown], number: int) -> Tensor:
        """The loss of one batch."""
        batch, shown = given
        torch.manual_seed(_seed(self._config.seed, self.current_epoch, number, self.global_rank))
        losses = self._recipe.loss(batch, self._step())
        self._check(losses["loss"], number, shown.draws)
        for name, value in losses.items():
            value = value.detach()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._count += 1
        return losses["loss"]

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Let the recipe cancel gradients, and say what decays."""
        step = self._step()
        self._recipe.before_step(step)
        decay = self._recipe.weight_decay(step)
        if decay is not None:
            for group in optimizer.param_groups:
                group["weight_decay"] = decay if group["weight_decay"] else 0.0

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, and let the recipe move what follows the weights."""
        super().optimizer_step(*args, **kwargs)
        self._recipe.after_step(self._step())

    def means(self) -> dict[str, float]:
        """The means of the epoch's losses so far, over all processes."""
        found = {f"train/{name}": value / max(self._count, 1) for name, value in self._sums.items()}
        if self.trainer.world_size > 1:
            found = {name: self.trainer.strategy.reduce(value, reduce_op="mean") for name, value in found.items()}
        return {name: float(value) for name, value in found.items()}

    def validation_step(self, given: tuple[Batch, Shown], number: int) -> None:
        """Let the recipe judge a batch."""
        self._recipe.judge(given[0])

    def on_validation_epoch_end(self) -> None:
        """Log what the recipe found."""
        found = self._recipe.figures()
        loss = float(found.get("loss", 0.0))
        if not math.isfinite(loss):
            raise DivergedError(
                f"the loss of validation is {loss} after epoch {self.current_epoch + 1}",
                f"lower optimiser.lr (now {self._lr:g}); the last good checkpoint is kept",
            )
        self.log_dict({f"val/{name}": float(value) for name, value in found.items()}, sync_dist=False)

    # ------------------------------------------------------------------ optimiser

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Parameter groups, optimiser and schedule of the config."""
        config = self._config
        parameters = self._recipe.parameters()
        if not parameters:
            raise TrainError("the recipe has nothing to train", "choose another transfer.mode")
        found = optimisers.groups(
            parameters,
            self._recipe.depth,
            self._blocks,
            self._lr,
            config.optimiser.weight_decay,
            config.transfer,
        )
        optimiser = optimisers.build(config.optimiser, found, self._lr)
        self._total = total = int(self.trainer.estimated_stepping_batches)
        each = max(1, total // max(config.loop.epochs, 1))

        def rate(step: int) -> float:
            return schedules.factor(config.schedule, step, total, each) * self.plateau.scale

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    # ------------------------------------------------------------------ checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out what never changes: the base model's frozen weights are where they came from."""
        state = checkpoint["state_dict"]
        for name in self._frozen:
            state.pop(f"network.{name}", None)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put in again what was left out."""
        present = self.state_dict()
        for name in self._frozen:
            checkpoint["state_dict"].setdefault(f"network.{name}", present[f"network.{name}"])

    # ------------------------------------------------------------------ parts

    def _step(self) -> Step:
        return Step(self.global_step, self._total, self.current_epoch, self._config.loop.epochs)

    def _check(self, loss: Tensor, number: int, draws: list[Draw]) -> None:
        """Stop where the loss is no number, before it reaches the weights."""
        if bool(torch.isfinite(loss)):
            return
        ids = self._source.ids(draws)
        shown = ", ".join(ids[:_SHOWN]) + (f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else "")
        raise DivergedError(
            f"the loss is {float(loss)} at step {self.global_step} (epoch {self.current_epoch}, "
            f"batch {number}: {shown})",
            f"lower optimiser.lr (now {self._lr:g}), or look at these pictures; the last good checkpoint is kept",
        )


def _seed(*words: int) -> int:
    return int(np.random.SeedSequence(words).generate_state(1)[0])
