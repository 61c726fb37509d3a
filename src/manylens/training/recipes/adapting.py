"""Domain adaptation to pictures without labels of the place where the model shall work: of pictures or of pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor, nn

from manylens.data import Dataset
from manylens.training import domain
from manylens.training.config import Config
from manylens.training.domain import IGNORED
from manylens.training.domain.norms import batch_norms, needed, norm_parameters
from manylens.training.errors import TrainError
from manylens.training.inputs.features import Features
from manylens.training.inputs.pictures import Pictures
from manylens.training.recipes.base import Step

_BATCH = 32
_SAMPLE = 256
"""Pixels of a picture that thresholds are found by: neighbours say the same."""

_LINEAR = ("linear", "linear-mask")


class Adaptable(Protocol):
    """A recipe whose network says what its last layer sees."""

    config: Config
    network: Any
    head: Any
    backbone: Any
    kind: str
    side: int
    cached: bool

    def features(self, pictures: Pictures) -> Features:
        """Kept features of pictures."""
        ...

    def embedded(self, batch: Mapping[str, Any]) -> Tensor:
        """What the last layer sees of a batch, ``(B, D)`` or ``(B, D, h, w)``."""
        ...

    def of_embedded(self, embedded: Tensor) -> Tensor:
        """Logits of that, ``(B, C)`` or ``(B, C, h, w)``."""
        ...


class Adapting:
    """What a target adds to the loss, and what is done once the training is over.

    Attributes:
        helper: What learns beside the model and is not saved with it; None where nothing does.

    Args:
        recipe: Whose model adapts.
        batch_of: Gives a batch of target pictures by their numbers, as the recipe's own sources give them.
        count: How many target pictures there are.
    """

    def __init__(self, recipe: Adaptable, batch_of: Callable[[np.ndarray], Mapping[str, Any]], count: int) -> None:
        self._recipe, self._section = recipe, recipe.config.domain
        self._batch_of, self._count = batch_of, count
        width = recipe.head.classes.weight.shape[1]
        self.helper: nn.Module | None = domain.Dann(width) if self._section.kind == "dann" else None
        self._coral = domain.Coral()
        self._labels: np.ndarray | None = None

    @classmethod
    def of(cls, recipe: Adaptable) -> Self | None:
        """As the config says, or None where it names no way to adapt.

        Raises:
            TrainError: There is no target, or nothing of the model could adapt in that way.
        """
        config = recipe.config
        kind = config.domain.kind
        if not kind:
            return None
        if config.data.target is None:
            raise TrainError(f"domain.kind {kind!r}: there is no target", "name it with data.target")
        if kind in ("coral", "dann") and recipe.cached and recipe.kind in _LINEAR:
            raise TrainError(
                f"domain {kind!r}: a linear head on a frozen encoder has no features that could adapt",
                "choose another head.kind, or another transfer.mode",
            )
        norms = {"adabn": batch_norms, "tent": norm_parameters}.get(kind)
        if norms is not None and recipe.cached and not norms(recipe.head):
            raise TrainError(
                f"domain {kind!r}: changes the norms of the encoder, whose features are kept",
                "choose another transfer.mode than frozen",
            )
        if kind == "adabn":
            needed(recipe.network)
        records = list(Dataset.read(config.data.target, format=config.data.target_format).records())
        pictures = Pictures([record.path for record in records], recipe.side)
        found = recipe.features(pictures) if recipe.cached else None

        def batch_of(asked: np.ndarray) -> Mapping[str, Any]:
            device = next(recipe.network.parameters()).device
            if found is None:
                return {"pixels": pictures.tensor(asked.tolist()).to(device)}
            kept = found.get(asked, np.zeros(len(asked), np.int64))
            return {"features": {name: one.to(device) for name, one in kept.items()}}

        return cls(recipe, batch_of, len(records))

    def before_epoch(self, step: Step) -> None:
        """Draw pseudo-labels of what the model is sure of, more of them from epoch to epoch; none in the first."""
        if self._section.kind != "self-training" or step.epoch == 0:
            return
        network = self._recipe.network
        network.eval()
        with torch.no_grad():
            self._labels = self._pseudo_labels(domain.share_at(step.epoch - 1))
        network.train()

    def loss(self, embedded: Tensor, step: Step) -> dict[str, Tensor]:
        """What the target adds, as ``domain``, which is to be summed with the weight of the config; empty for nothing.

        Args:
            embedded: What the last layer saw of the source's batch, ``(B, D)`` or ``(B, D, h, w)``; as many pictures
                of the target are shown.
            step: Where the training stands.
        """
        kind, embed = self._section.kind, self._recipe.embedded
        numbers = torch.randint(self._count, (len(embedded),)).numpy()
        if kind == "self-training":
            if self._labels is None:
                return {}
            sure = np.flatnonzero((self._labels != IGNORED).reshape(self._count, -1).any(axis=1))
            if not len(sure):
                return {}
            numbers = sure[numbers % len(sure)]
            target = torch.from_numpy(self._labels[numbers].astype(np.int64))
            answer = self._logits(self._batch_of(numbers))
            return {"domain": domain.self_training_loss(answer, target.to(answer.device), label_smoothing=0.1)}
        if kind == "coral":
            return {"domain": self._coral(_pooled(embedded), _pooled(embed(self._batch_of(numbers))))}
        if self.helper is not None:
            return {"domain": self.helper(_pooled(embedded), _pooled(embed(self._batch_of(numbers))), step.share)}
        return {}

    def added(self, found: dict[str, Tensor], embedded: Tensor, step: Step) -> dict[str, Tensor]:
        """The recipe's losses with what the target adds; ``task`` is then the recipe's own. See :meth:`loss`."""
        more = self.loss(embedded, step)
        if not more:
            return found
        return {
            **found,
            **more,
            "task": found["loss"].detach(),
            "loss": found["loss"] + self._section.weight * more["domain"],
        }

    def finish(self, say: Callable[[str], None]) -> None:
        """What is done once the training is over; says what was done."""
        kind, network = self._section.kind, self._recipe.network
        if kind == "adabn":
            changed = domain.adabn(network, _Again(self.batches), forward=self._logits, passes=2)  # type: ignore[arg-type]
            say(f"adabn: {changed} batch norms take the statistics of {self._count} target pictures")
        if kind == "tent":
            found = domain.tent(network, _Again(self.batches), predict=self._logits)  # type: ignore[arg-type]
            say(f"tent: entropy on the target {found.before:.3f} before, {found.after:.3f} after")

    def batches(self) -> Iterator[Mapping[str, Any]]:
        """All target pictures."""
        for start in range(0, self._count, _BATCH):
            yield self._batch_of(np.arange(start, min(start + _BATCH, self._count)))

    def _logits(self, batch: Mapping[str, Any]) -> Tensor:
        return self._recipe.of_embedded(self._recipe.embedded(batch))

    def _pseudo_labels(self, share: float) -> np.ndarray:
        """Of all target pictures, int16; in two passes, as the probabilities of all pixels would not fit anywhere."""
        said = (self._logits(batch).softmax(dim=1).cpu() for batch in self.batches())
        sample = torch.cat([_sampled(one) for one in said]).numpy()
        limits = domain.thresholds(sample, share, least=self._section.confidence)
        said = (self._logits(batch).softmax(dim=1).cpu() for batch in self.batches())
        rows = [domain.pseudo_labels(one.numpy(), limits=limits).labels.astype(np.int16) for one in said]
        return np.concatenate(rows)


def _pooled(embedded: Tensor) -> Tensor:
    """One vector a picture."""
    return embedded if embedded.ndim == 2 else embedded.mean(dim=(2, 3))


def _sampled(probabilities: Tensor) -> Tensor:
    """Those of pictures ``(B, C)`` as they are, those of pixels ``(B, C, h, w)`` as some of them ``(n, C)``."""
    if probabilities.ndim == 2:
        return probabilities
    flat = probabilities.flatten(2)
    return flat[:, :, :: max(1, flat.shape[2] // _SAMPLE)].transpose(1, 2).flatten(0, 1)


class _Again:
    """Batches that can be gone through more than once, each as long as its number of pictures."""

    def __init__(self, batches: Callable[[], Iterator[Mapping[str, Any]]]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[Any]:
        return (Counted(batch) for batch in self._batches())


class Counted(dict[str, Any]):
    """A batch whose length is its number of pictures."""

    def __len__(self) -> int:
        first = next(iter(self.values()))
        return len(next(iter(first.values())) if isinstance(first, Mapping) else first)
