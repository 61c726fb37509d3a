"""Judges saved models together on labelled pictures, as their recipe judges one while it trains.

Where the encoder is as it was, its kept features are what the models see: no picture is encoded twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from manylens.models.adapted.bundle import assemble
from manylens.models.adapted.ensemble import Member
from manylens.training.ensemble.folds import fold_numbers
from manylens.training.ensemble.vote import fitted_weights
from manylens.training.errors import TrainError
from manylens.training.inputs.features import place
from manylens.training.recipes import find
from manylens.training.recipes.base import Aim, Draw, Given

if TYPE_CHECKING:
    from manylens.data import Dataset
    from manylens.training.run import Job

_PLAIN: Mapping[str, Any] = {
    "imbalance.loss": "cross_entropy",  # what another adds to the answer, the saved heads have in their numbers
    "imbalance.loss_options": {},
    "imbalance.synthetic": "",
    "regularise.mixup": 0.0,
    "regularise.cutmix": 0.0,
    "regularise.drop_path": 0.0,
    "augment.policy": "none",
    "domain.kind": "",
}
_PARTS = 5
_ALONE = 5
"""Pictures that each model is taken to have told alone."""

_TINY = 1e-12
_PIXELS = 256
"""Pixels of a picture that weights are fitted on: neighbours say the same."""


@dataclass(frozen=True)
class _Parted(Given):
    """As :class:`Given`, with the records of each split given one by one."""

    parts: Mapping[str, Dataset] = field(default_factory=dict)

    def of(self, split: str) -> Dataset | None:
        """The records of a split."""
        return self.parts.get(split)


class Jury:
    """Saved models and the pictures that they are judged on.

    Attributes:
        networks: Of the models: of all that the pictures' source gives to what a head answers.
        ids: Of the pictures.
        aim: By what the best is chosen.

    Args:
        recipe: Its validation source holds the pictures.
        networks: Of the models.
        device: Where networks that see pixels run.
    """

    def __init__(self, recipe: Any, networks: Sequence[nn.Module], device: torch.device) -> None:
        self._recipe, self._device = recipe, device
        self._source = recipe.val_source()
        self.networks = list(networks)
        self.ids: list[str] = self._source.ids([Draw(number, 0, 0) for number in range(len(self._source))])
        self.aim = Aim.of(recipe.config, recipe)

    @property
    def numbers(self) -> npt.NDArray[np.int64]:
        """Of all pictures."""
        return np.arange(len(self.ids))

    def judge(self, network: nn.Module, numbers: npt.NDArray[np.int64]) -> None:
        """Take what a network says of pictures into account."""
        for batch, (answer,) in self._said([network], numbers):
            self._judge(batch, answer)

    def judge_fused(self, shares: Sequence[float], numbers: npt.NDArray[np.int64]) -> None:
        """Likewise what all networks find in pictures together, each with its share; of recipes that find objects."""
        for batch, answers in self._said(self.networks, numbers):
            self._recipe.judge_answers(batch, answers, shares)

    def figures(self) -> dict[str, float]:
        """Of all that was taken into account since the last call; forgets it."""
        return {name: float(value) for name, value in self._recipe.figures().items()}

    def right(
        self, network: nn.Module, numbers: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """How likely a network finds what is right; it is judged, too.

        Args:
            network: Of a model.
            numbers: Of pictures.

        Returns:
            Probabilities ``(n,)``, one a picture or, of segmenters, one for each of some of its pixels; and the number
            of the picture of each.
        """
        found: list[Tensor] = []
        owners: list[int] = []
        start = 0
        for batch, (answer,) in self._said([network], numbers):
            self._judge(batch, answer)
            for row in _right(batch, answer["logits"]):
                found.append(row)
                owners += [int(numbers[start])] * len(row)
                start += 1
        return torch.cat(found).double().numpy(), np.array(owners, np.int64)

    def _said(
        self, networks: Sequence[nn.Module], numbers: npt.NDArray[np.int64]
    ) -> Iterator[tuple[Any, list[dict[str, Tensor]]]]:
        """Batches of pictures, with what each network answers."""
        size = self._recipe.config.loop.batch_size
        for start in range(0, len(numbers), size):
            batch = self._source.__getitems__([Draw(int(number), 0, 0) for number in numbers[start : start + size]])
            if self._recipe.cached:
                given: tuple[Any, ...] = (batch["features"], (self._recipe.side, self._recipe.side))
            else:
                given = (batch["pixels"].to(self._device),)
            with torch.no_grad():
                each = [one(*given) for one in networks]
            yield batch, [{name: value.float().cpu() for name, value in one.items()} for one in each]

    def _judge(self, batch: Any, answer: dict[str, Tensor]) -> None:
        self._recipe.network = _Said(answer)
        with torch.no_grad():
            self._recipe.judge(batch)


class _Said(nn.Module):
    """Stands in for a network, or its head, that has said already what it says."""

    def __init__(self, answer: dict[str, Tensor]) -> None:
        super().__init__()
        self._answer = answer

    @property
    def head(self) -> _Said:
        """Itself."""
        return self

    def forward(self, *given: Any) -> dict[str, Tensor]:
        """What was said."""
        return self._answer


@contextmanager
def jury(
    job: Job, base: Mapping[str, str], members: Sequence[Member], parts: Mapping[str, Dataset] | None = None
) -> Iterator[Jury]:
    """Open saved models to be judged.

    Args:
        job: That they were trained by.
        base: Of the base model; see :class:`Given`.
        members: The models.
        parts: Records by split, where they are other ones than the job's: those of its validation split are judged.
    """
    own = any(one.own_encoder for one in members)
    config = job.config.changed({**_PLAIN, "transfer.mode": "full" if own else "frozen"})
    session = job.session
    device = torch.device("cuda" if own and config.loop.device != "cpu" and torch.cuda.is_available() else "cpu")
    with ExitStack() as stack:

        def opened() -> Any:
            return stack.enter_context(session.module(config.model))

        trainable = opened()
        splits = [split for split in (config.data.train, config.data.val) if job.dataset.splits.get(split)]
        given = _Parted(
            config=config,
            data=job.dataset,
            trainable=trainable,
            session=session,
            base=base,
            cache=place(session, members[0].files["config.json"].parent),
            settings=session.settings(config.model),
            progress=job.progress,
            parts=parts or {split: job.dataset.select(split=split) for split in splits},
        )
        recipe: Any = find(config.task, config.recipe)[1](given)
        for one in members:
            if one.spec.labels != tuple(recipe.labels):
                raise TrainError(
                    f"ensemble: {one.name} has other classes than all of its data together",
                    "name them in the data's categories, and set options.unlabelled where there are masks",
                )
        networks = [
            assemble(one.spec, opened() if own else trainable, one.files, f"the ensemble's member {one.name}")
            for one in members
        ]
        yield Jury(recipe, [one.to(device) if own else one.head for one in networks], device)


def fitted(
    rights: npt.NDArray[np.float64], owners: npt.NDArray[np.int64], parts: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], list[npt.NDArray[np.float64]]]:
    """The shares of models in a vote under which what is right is the most likely.

    The fewer pictures there are, the more equal the shares: each model is taken to have told some alone. And where
    shares that were fitted on some parts of the pictures do no better on the others than equal ones, all are equal.

    Args:
        rights: Probability of what is right by each model ``(M, n)``.
        owners: Number of the picture that each is of, ``(n,)``.
        parts: Of each picture: number of the part that it belongs to.

    Returns:
        Shares ``(M,)``, fitted on all; and for each part those that were fitted on the others.
    """
    models, part_of = len(rights), parts[owners]
    alone = np.repeat(np.eye(models), round(_ALONE * len(owners) / len(parts)), axis=1)

    def fit(of: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        seen = np.concatenate([of, alone], axis=1)
        return fitted_weights(np.stack([seen, 1 - seen], axis=-1), np.zeros(seen.shape[1], np.int64))

    equal = np.full(models, 1 / models)
    of_parts, gain = [], 0.0
    for number in range(int(parts.max()) + 1):
        inside = part_of == number
        shares = fit(rights[:, ~inside])
        of_parts.append(shares)
        gain += float(np.log(np.maximum(shares @ rights[:, inside], _TINY)).sum())
        gain -= float(np.log(np.maximum(equal @ rights[:, inside], _TINY)).sum())
    if gain <= 0:
        return equal, [equal for _ in of_parts]
    return fit(rights), of_parts


def parted(ids: Sequence[str], seed: int) -> npt.NDArray[np.int64]:
    """The part of each picture, ``(n,)``: as many as there can be, at most five."""
    parts = min(_PARTS, len(ids))
    return fold_numbers(ids, parts, seed=seed) if parts > 1 else np.zeros(len(ids), np.int64)


def _right(batch: Any, logits: Tensor) -> list[Tensor]:
    """Probability of what is right, of each picture of a batch: one number, or one for each of some pixels."""
    if logits.ndim == 2:
        return list(logits.softmax(dim=1).gather(1, batch["target"][:, None]))
    from manylens.training.dense.losses import VOID, enlarged

    labels = batch["labels"]
    rows = []
    for one, of_one in zip(logits, labels, strict=True):
        likely = enlarged(one[None], of_one[None])[0].softmax(dim=0)
        places = (of_one.flatten() != VOID).nonzero()[:, 0]
        places = places[:: max(1, len(places) // _PIXELS)]
        rows.append(likely.flatten(1)[of_one.flatten()[places], places])
    return rows
