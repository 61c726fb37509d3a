"""Domain adaptation of a classifier to pictures without labels of the place where it shall work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from manylens.training import domain
from manylens.training.config import DomainSection
from manylens.training.recipes.base import Step

Answer = Callable[[Mapping[str, Any]], Tensor]
"""A batch to logits, or to what the last layer sees."""

_BATCH = 32


class Adapting:
    """What a target adds to the loss, and what is done once the training is over.

    Args:
        section: Of the config.
        batch_of: Gives a batch of target pictures by their numbers, as the recipe's own sources give them.
        count: How many target pictures there are.
        width: Of what the last layer sees.
    """

    def __init__(
        self, section: DomainSection, batch_of: Callable[[np.ndarray], Mapping[str, Any]], count: int, width: int
    ) -> None:
        self._section, self._batch_of, self._count = section, batch_of, count
        self.helper: nn.Module | None = domain.Dann(width) if section.kind == "dann" else None
        self._coral = domain.Coral()
        self._labels: np.ndarray | None = None

    def before_epoch(self, step: Step, probabilities: Answer) -> None:
        """Draw pseudo-labels of what the model is sure of, more of them from epoch to epoch; none in the first."""
        if self._section.kind != "self-training" or step.epoch == 0:
            return
        with torch.no_grad():
            rows = torch.cat([probabilities(batch).softmax(dim=1).cpu() for batch in self.batches()])
        share = domain.share_at(step.epoch - 1)
        self._labels = domain.pseudo_labels(rows.numpy(), share, confidence=self._section.confidence).labels

    def loss(self, vectors: Tensor, size: int, step: Step, embed: Answer, logits: Answer) -> dict[str, Tensor]:
        """What the target adds: to be summed with the weight of the config.

        Args:
            vectors: What the last layer saw of the source's batch, ``(B, D)``.
            size: Target pictures to show beside them.
            step: Where the training stands.
            embed: Gives what the last layer sees of a batch.
            logits: Gives logits of a batch.
        """
        numbers = torch.randint(self._count, (size,)).numpy()
        if self._section.kind == "self-training":
            if self._labels is None:
                return {}
            sure = np.flatnonzero(self._labels != -100)
            if not len(sure):
                return {}
            numbers = sure[numbers % len(sure)]
            target = torch.from_numpy(self._labels[numbers])
            answer = logits(self._batch_of(numbers))
            return {"domain": domain.self_training_loss(answer, target.to(answer.device), label_smoothing=0.1)}
        if self._section.kind == "coral":
            return {"domain": self._coral(vectors, embed(self._batch_of(numbers)))}
        if self.helper is not None:
            return {"domain": self.helper(vectors, embed(self._batch_of(numbers)), step.share)}
        return {}

    def finish(self, network: nn.Module, logits: Answer) -> str:
        """What is done once the training is over; says what was done."""
        kind = self._section.kind
        if kind == "adabn":
            changed = domain.adabn(network, _Again(self.batches), forward=logits, passes=2)  # type: ignore[arg-type]
            return f"adabn: {changed} batch norms take the statistics of {self._count} target pictures"
        if kind == "tent":
            found = domain.tent(network, _Again(self.batches), predict=logits)  # type: ignore[arg-type]
            return f"tent: entropy on the target {found.before:.3f} before, {found.after:.3f} after"
        return ""

    def batches(self) -> Iterator[Mapping[str, Any]]:
        """All target pictures."""
        for start in range(0, self._count, _BATCH):
            yield self._batch_of(np.arange(start, min(start + _BATCH, self._count)))


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
