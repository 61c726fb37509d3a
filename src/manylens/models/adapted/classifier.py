"""An adapted classifier: names of its own classes, for whole pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from manylens.errors import UnsupportedError
from manylens.models.adapted.model import AdaptedModel
from manylens.runtime.context import Context
from manylens.tasks import Classification, ClassifyRequest, Label, Request


class AdaptedClassifier(AdaptedModel):
    """Serves ``classify`` with the classes that it was trained for; given names choose among them."""

    def run(self, requests: Sequence[Request], ctx: Context) -> Iterator[Classification]:
        """Yield ranked labels, whose scores sum to 1 over the classes that are asked for.

        Raises:
            UnsupportedError: None of the given names is one of its classes.
        """
        asked = [request for request in requests if isinstance(request, ClassifyRequest)]
        for start in range(0, len(asked), self.batch_size):
            ctx.check()
            batch = asked[start : start + self.batch_size]
            logits = self.answers([request.image for request in batch])["logits"].astype(np.float64)
            for request, row in zip(batch, logits, strict=True):
                yield self._classification(request, row)

    def _classification(self, request: ClassifyRequest, logits: np.ndarray) -> Classification:
        labels = self.spec.labels
        places = list(range(len(labels)))
        if request.names is not None:
            wanted = {name.strip().lower() for name in request.names}
            places = [i for i, label in enumerate(labels) if label.lower() in wanted]
            unknown = sorted(wanted - {label.lower() for label in labels})
            if unknown:
                raise UnsupportedError(
                    f"{self.row.id}: was not trained for {', '.join(unknown)}", f"its classes are {few(labels)}"
                )
        raised = np.exp(logits[places] - logits[places].max())
        shares = raised / raised.sum()
        order = np.argsort(-shares, kind="stable")[: request.top]
        return Classification(labels=tuple(Label(labels[places[i]], float(shares[i])) for i in order))


def few(labels: Sequence[str], most: int = 8) -> str:
    """The first names of many, and how many more there are."""
    more = len(labels) - most
    return ", ".join(labels[:most]) + (f" and {more} more" if more > 0 else "")
