"""An adapted embedder: vectors that are near for what its training took for one class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from manylens.errors import UnsupportedError
from manylens.models.adapted.model import AdaptedModel
from manylens.models.dense.neighbours import votes
from manylens.runtime.context import Context
from manylens.tasks import Classification, ClassifyRequest, Embedding, EmbedRequest, Label, Match, MatchRequest, Request

if TYPE_CHECKING:
    from manylens.media import Image


class AdaptedEmbedder(AdaptedModel):
    """Serves ``embed`` of whole pictures, and what follows from it: ``match`` of two, ``classify`` by examples."""

    outputs: tuple[str, ...] = ("vector",)

    def run(self, requests: Sequence[Request], ctx: Context) -> Iterator[Embedding | Match | Classification]:
        """Yield unit vectors, cosines, or ranked names of the examples.

        Raises:
            UnsupportedError: The request is of another task.
        """
        for start in range(0, len(requests), self.batch_size):
            ctx.check()
            batch = requests[start : start + self.batch_size]
            if all(isinstance(request, EmbedRequest) for request in batch):
                yield from self._embeddings([one for one in batch if isinstance(one, EmbedRequest)])
                continue
            for request in batch:
                ctx.check()
                yield self._answer(request)

    def _answer(self, request: Request) -> Embedding | Match | Classification:
        if isinstance(request, EmbedRequest):
            return next(self._embeddings([request]))
        if isinstance(request, MatchRequest) and request.other is not None:
            one, other = self._vectors([request.image, request.other])
            return Match(score=float(one @ other))
        if isinstance(request, ClassifyRequest) and request.like:
            vectors = self._vectors([request.image, *(example.image for example in request.like)])
            names = list(dict.fromkeys(example.name for example in request.like))
            targets = np.array([names.index(example.name) for example in request.like], np.int64)
            shares = votes(vectors[1:], targets, vectors[:1])[0]
            order = np.argsort(-shares, kind="stable")[: request.top]
            return Classification(labels=tuple(Label(names[i], float(shares[i])) for i in order))
        raise UnsupportedError(f"{self.row.id} does not serve {request.task} so", "name a model that does")

    def _embeddings(self, batch: Sequence[EmbedRequest]) -> Iterator[Embedding]:
        space = f"adapted-{self._hash}-{self.spec.base.weights}"
        for vector in self._vectors([one.image for one in batch if one.image is not None]):
            yield Embedding(vector=vector, space=space)

    def _vectors(self, images: Sequence[Image]) -> np.ndarray:
        """float32 ``(N, D)`` of length 1."""
        found = [self.answers(images[i : i + self.batch_size]) for i in range(0, len(images), self.batch_size)]
        return np.concatenate([one["vector"] for one in found]).astype(np.float32)
