"""What every recipe is: a network, what is shown to it, how it is wrong, and how well it does.

A recipe knows nothing of the loop: no optimiser, no device, no checkpoint. The loop (``manylens.training.loop``) knows
nothing of tasks. Adding one is a module here and a row in :data:`manylens.training.recipes.RECIPES`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from torch import Tensor, nn

from manylens.training.errors import TrainError

if TYPE_CHECKING:
    from manylens.data import Dataset
    from manylens.models.base import Trainable
    from manylens.runtime.engines import EngineSettings
    from manylens.session import Session
    from manylens.training.config import Config

Batch = Any
"""What a source gives of several draws: mostly a dict of tensors; the loop only moves it to the device."""

OF_HEADS = (
    "head.kind",
    "head.options",
    "regularise.dropout",
    "regularise.drop_path",
    "regularise.label_smoothing",
    "regularise.mixup",
    "regularise.cutmix",
    "augment.copy_paste",
    "imbalance.loss",
    "imbalance.sampling",
    "imbalance.synthetic",
    "domain.kind",
)
"""Keys of the config that say nothing where no new head is put on an encoder; see :attr:`Recipe.idle`."""


@dataclass(frozen=True, slots=True)
class Draw:
    """One thing that the network is shown: which, and when. Augmentation is seeded by it, so it never differs."""

    index: int
    epoch: int
    seed: int


class Source(ABC):
    """What the network is shown: a map-style data set of torch that answers for a whole batch at once."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitems__(self, draws: Sequence[Draw]) -> Batch:
        """The batch of these draws. It depends on nothing but them: no random state of its own."""

    def ids(self, draws: Sequence[Draw]) -> list[str]:
        """Names of the pictures of these draws, for errors."""
        return [str(draw.index) for draw in draws]


@dataclass(frozen=True)
class Step:
    """Where the training stands.

    Attributes:
        number: Optimiser steps done, from 0.
        total: Optimiser steps of the whole training.
        epoch: Epochs done, from 0.
        epochs: Of the whole training.
    """

    number: int
    total: int
    epoch: int
    epochs: int

    @property
    def share(self) -> float:
        """How much of the training is done, 0..1."""
        return self.number / max(self.total, 1)


@dataclass(frozen=True)
class Given:
    """What a recipe is made from.

    Attributes:
        config: The validated config.
        data: The data set, with the splits that the config says.
        trainable: The base model, opened; leased until the training ends.
        session: Gives what else is needed.
        base: About the base model: ``id``, ``weights`` (hash), ``licence``, ``licence_note``.
        cache: Folder where features may be kept.
        progress: Called with a share of 0..1 and a line while something is prepared.
        say: Called with a line that the user should read.
    """

    config: Config
    data: Dataset
    trainable: Trainable
    session: Session
    base: Mapping[str, str]
    cache: Path
    settings: EngineSettings
    progress: Callable[[float, str], None] = field(default=lambda share, line: None)
    say: Callable[[str], None] = field(default=lambda line: None)

    def of(self, split: str) -> Dataset | None:
        """The records of a split (``train``, ``val``, ``target``), or None where it has none."""
        return self.data.select(split=split) if self.data.splits.get(split) else None


@dataclass(frozen=True)
class Aim:
    """What a training is to be best at.

    Attributes:
        figure: Of validation.
        mode: Whether more of it is better.
    """

    figure: str
    mode: Literal["max", "min"]

    @classmethod
    def of(
        cls,
        config: Config,
        recipe: Recipe | type[Recipe],
        figure: str | None = None,
        mode: Literal["max", "min"] | None = None,
    ) -> Aim:
        """As the config says, else as the recipe does; less of a loss is better under any recipe.

        Args:
            config: Of the training.
            recipe: What is trained.
            figure: Wins over the config's.
            mode: Likewise.
        """
        chosen = figure or config.loop.monitor or recipe.watched(config)
        return cls(chosen, mode or config.loop.mode or ("min" if "loss" in chosen else recipe.mode))

    @property
    def logged(self) -> str:
        """Its name among all that is logged."""
        return f"val/{self.figure}"


class Recipe(ABC):
    """A way to train for a task.

    Attributes:
        network: All that is trained or that must go into a checkpoint, as one module; the loop moves, saves and
            loads it. State that outlives a step (a teacher, centres) is a buffer or parameter of it.
        monitor: The figure by which the best checkpoint is chosen, such as ``accuracy``; figures of validation are
            logged as ``val/NAME``.
        mode: Whether more of it is better.
        judges: Names of all figures of validation.
        side: Of the squares that pictures become; 0 where they become none.
    """

    name: ClassVar[str]
    idle: ClassVar[tuple[str, ...]] = ()
    """Keys of the config that say nothing to this recipe: one that is set all the same is refused."""
    network: nn.Module
    judges: tuple[str, ...] = ()
    side: int = 0
    monitor: str = "loss"
    mode: Literal["max", "min"] = "min"

    def __init__(self, given: Given) -> None:
        self.given = given
        self.config = given.config
        refuse(given.config, self)
        self._waits: dict[str, int] = {}

    @classmethod
    def watched(cls, config: Config) -> str:
        """The figure by which the best is usually chosen, known before anything is opened."""
        return cls.monitor

    @property
    def rate(self) -> float:
        """The usual learning rate of what has the full one."""
        return 1e-3

    @property
    def waits(self) -> dict[str, int]:
        """The epoch from which a parameter of the network learns, by its name; those left out do from the start."""
        return self._waits

    @abstractmethod
    def train_source(self) -> Source:
        """What the network learns from."""

    def val_source(self) -> Source | None:
        """What it is judged on after each epoch; None where there is no validation split."""
        return None

    def draws(self, epoch: int) -> np.ndarray:
        """Which of the source's things an epoch shows, in order, int64 ``(n,)``; a pure function of seed and epoch."""
        random = np.random.default_rng((self.config.seed, epoch, 0x5EED))
        return random.permutation(len(self.train_source()))

    @abstractmethod
    def loss(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """What is wrong with the network's answer: ``loss``, a scalar to step down, and others to log.

        Random choices are drawn from torch's global generator, which the loop seeds anew before each step.
        """

    def judge(self, batch: Batch) -> None:  # noqa: B027 - a recipe without validation has nothing to judge
        """Take a batch of the validation split into account; runs without gradients, in evaluation mode."""

    def figures(self) -> dict[str, float]:
        """What :meth:`judge` found since the last call, by name; forgets it."""
        return {}

    def before_epoch(self, step: Step) -> None:  # noqa: B027 - optional
        """Called before each epoch, such as to draw pseudo-labels."""

    def before_step(self, step: Step) -> None:  # noqa: B027 - optional
        """Called with gradients in place, before the optimiser's step, such as to cancel some of them."""

    def after_step(self, step: Step) -> None:  # noqa: B027 - optional
        """Called after each optimiser step, such as to move a teacher."""

    def finish(self) -> None:  # noqa: B027 - optional
        """Called once the training is over and the best weights are in place, before the model is saved."""

    def warnings(self) -> list[str]:
        """What the user should know of how the training goes, such as a collapse; asked after each epoch."""
        return []

    def parameters(self) -> list[tuple[str, nn.Parameter]]:
        """All that is trained, by name."""
        return [(name, one) for name, one in self.network.named_parameters() if one.requires_grad]

    def weight_decay(self, step: Step) -> float | None:
        """What decays at a step, of all that decays; None for what the config says."""
        return None

    def frozen(self) -> set[str]:
        """Names of parameters of the network that never change, and that no checkpoint needs."""
        return {name for name, one in self.network.named_parameters() if not one.requires_grad}

    def depth(self, name: str) -> int | None:
        """For layer-wise rates: the number of the encoder block that a parameter of this name belongs to.

        -1 is what comes before the blocks, ``None`` what comes after them (the head, which has the full rate).
        """
        return None

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the trained model: a folder that ``--model`` takes. The folder exists and is empty."""


def refuse(config: Config, recipe: Recipe | type[Recipe]) -> None:
    """Raise where the config asks for what the recipe does not do: it would train, and not as was asked.

    Raises:
        TrainError: Names the key.
    """
    usual = type(config)(task=config.task)
    for key in recipe.idle:
        asked, other = (reduce(getattr, key.split("."), one) for one in (config, usual))
        if asked != other:
            raise TrainError(f"{key}: says nothing to the recipe {recipe.name!r}", "leave it out")
