"""What a vision transformer that embeds can do: vectors, classes by example, masks by example or attention, tracks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.errors import UnsupportedError
from manylens.models import checkpoint
from manylens.models.base import Model, Trainable
from manylens.models.dense.neighbours import votes
from manylens.models.dino import masks, views, weights
from manylens.models.dino.encoder import Encoder, Features, Layers, Need
from manylens.models.dino.tracking import follow
from manylens.runtime.context import Context
from manylens.runtime.engines import EngineSettings
from manylens.tasks import (
    Classification,
    ClassifyRequest,
    Embedding,
    EmbedRequest,
    Label,
    Match,
    MatchRequest,
    Request,
    SegmentRequest,
    TrackRequest,
)
from manylens.tasks.geometry import Box, clip_box

if TYPE_CHECKING:
    from manylens.catalog import Row


class Dino(Model):
    """Embeds pictures, regions of them, and patches; and what follows from that.

    The vector of a picture is the class token, of the picture as the checkpoint's own processor prepares it, crop
    included. Where patches are asked for they cover the whole picture; the vector that comes with them is the class
    token of that view, a space of its own where the processor crops. A region's vector is the mean of the patch
    features under its box, which is a space of its own, too. Vectors have length 1. Patch features are not normalised.
    """

    batch_size = 8

    def __init__(self, row: Row, files: Mapping[str, Path], settings: EngineSettings) -> None:
        super().__init__(row, files, settings)
        self._plan = weights.shape(files, row.id)
        exported = weights.exported(files) is not None
        self._views = views.embedded(self._plan) if exported else views.of_folder(files, self._plan, row.id)
        self._centre = centre() if self._plan.taps.centred else np.zeros(self._plan.width, np.float32)
        self._hash = checkpoint.weights_id(row, files)
        self._encode = Encoder(files, row.id, self._plan, self._views, self._hash, settings)
        self._features = Features(self._encode, self._plan, self._hash, row.preprocessing, settings)

    def run(self, requests: Sequence[Request], ctx: Context) -> Iterator[Any]:
        """Serve requests of ``embed``, ``classify``, ``match``, ``segment`` and ``track``.

        Pictures of a batch of ``embed`` run together, and none is encoded twice.
        """
        for start in range(0, len(requests), self.batch_size):
            ctx.check()
            batch = requests[start : start + self.batch_size]
            if all(isinstance(request, EmbedRequest) for request in batch):
                yield from self._embeddings([request for request in batch if isinstance(request, EmbedRequest)], ctx)
                continue
            for request in batch:
                ctx.check()
                yield self._answer(request, ctx)

    def _answer(self, request: Request, ctx: Context) -> Any:
        if isinstance(request, EmbedRequest):
            return next(self._embeddings([request], ctx))
        if isinstance(request, ClassifyRequest):
            return self._classify(request, ctx)
        if isinstance(request, MatchRequest):
            return self._match(request, ctx)
        if isinstance(request, SegmentRequest):
            return masks.segment(request, self._features, self._views.fine, ctx)
        if isinstance(request, TrackRequest):
            ctx.notes["cache"] = "miss"
            return follow(request, self._features, self._views.fine, ctx)
        raise UnsupportedError(f"{self.row.id} does not serve {request.task}", "name a model that does")

    def trainable(self) -> Trainable:
        """The whole network as a torch module; see :class:`manylens.models.base.Trainable`."""
        from manylens.models.dino import module

        prepare, processor = self._views.seen.prepare, self._views.processor
        return module.trainable(
            self.files,
            self.row.id,
            self._centre,
            lambda images: processor.normalised(np.stack([prepare(image.array) for image in images])),
            processor.levels,
            (processor.crop or processor.exact or (views.SIDE,))[0],
        )

    def probe(self) -> Callable[[], np.ndarray]:
        """See :meth:`manylens.models.base.Model.probe`; gives the patch tokens of one batch."""
        random = np.random.default_rng(0)
        sides = self._views.whole.prepare(random.integers(0, 256, (views.SIDE, views.SIDE, 3), dtype=np.uint8)).shape
        pictures = random.integers(0, 256, (self.batch_size, *sides), dtype=np.uint8)
        return lambda: np.stack([layers["dense"] for layers in self._encode(pictures)])

    def close(self) -> None:
        """Give the network's memory back."""
        self._encode.close()

    def _embeddings(self, batch: Sequence[EmbedRequest], ctx: Context) -> Iterator[Embedding]:
        needs = []
        for request in batch:
            assert request.image is not None
            dense = request.dense or request.box is not None
            layers = ({"vector"} if request.box is None else set()) | ({"dense"} if dense else set())
            view = self._views.whole if dense else self._views.seen
            needs.append(Need(request.image, view, frozenset(layers)))
        for request, need, (found, hit) in zip(batch, needs, self._features.of_all(needs, ctx), strict=True):
            ctx.notes["cache"] = hit
            yield self._embedding(request, need, found)

    def _embedding(self, request: EmbedRequest, need: Need, found: Layers) -> Embedding:
        space = f"dino-{self._hash}-{self.row.preprocessing}"
        dense = found["dense"] if request.dense else None
        if request.box is None:
            same = need.view is self._views.seen
            return Embedding(
                vector=_unit(found["vector"] - self._centre), space=space if same else f"{space}-whole", dense=dense
            )
        shares = cover(request.box, need.image.size, found["dense"].shape[:2])
        pooled = np.einsum("yx,yxd->d", shares, found["dense"])
        return Embedding(vector=_unit(pooled), space=f"{space}-region", dense=dense)

    def _classify(self, request: ClassifyRequest, ctx: Context) -> Classification:
        if not request.like:
            if self._plan.several or len(self._plan.labels) == 1:
                raise UnsupportedError(
                    f"{self.row.id}: its labels do not exclude each other, so that there is no best one",
                    "give examples (like), or another model",
                )
            found, ctx.notes["cache"] = self._features.of(request.image, self._views.seen, "logits", ctx)
            return _ranked(self._plan.labels, _softmax(found["logits"]), request.top)
        vectors = self._vectors([request.image, *(example.image for example in request.like)], ctx)
        names = list(dict.fromkeys(example.name for example in request.like))
        targets = np.array([names.index(example.name) for example in request.like])
        return _ranked(names, votes(vectors[1:], targets, vectors[:1])[0], request.top)

    def _match(self, request: MatchRequest, ctx: Context) -> Match:
        assert request.other is not None
        one, other = self._vectors([request.image, request.other], ctx)
        return Match(score=float(one @ other))

    def _vectors(self, images: Sequence[Any], ctx: Context) -> np.ndarray:
        """Unit vectors float32 ``(N, D)``; the notes tell where that of the first picture was."""
        needs = [Need(image, self._views.seen, frozenset({"vector"})) for image in images]
        found = [answer for i in range(0, len(needs), 32) for answer in self._features.of_all(needs[i : i + 32], ctx)]
        ctx.notes["cache"] = found[0][1]
        return np.stack([_unit(layers["vector"] - self._centre) for layers, _ in found])


def cover(box: Box, size: tuple[int, int], shape: tuple[int, ...]) -> np.ndarray:
    """How much of each patch lies under a box, to sum 1: float32 ``(rows, columns)``.

    Args:
        box: ``xyxy`` in pixels of the picture.
        size: ``(width, height)`` of the picture.
        shape: ``(rows, columns)`` of the patches over the whole picture.
    """
    x0, y0, x1, y1 = clip_box(box, size)
    shares = []
    for low, high, extent, cells in ((y0, y1, size[1], shape[0]), (x0, x1, size[0], shape[1])):
        edges = np.arange(cells + 1)
        low, high = low * cells / extent, high * cells / extent
        shares.append(np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0, None))
    under = np.outer(*shares)
    return (under / under.sum()).astype(np.float32)


@cache
def centre() -> np.ndarray:
    """The mean class token of the embedded ViT over free photographs, ``(384,)``; without it all cosines are near 1."""
    with resources.as_file(resources.files("manylens.models.data").joinpath("vit-s-centre.npy")) as path:
        return np.load(path, allow_pickle=False)


def _ranked(names: Sequence[str], shares: np.ndarray, top: int) -> Classification:
    order = np.argsort(-shares, kind="stable")[:top]
    return Classification(labels=tuple(Label(names[i], float(shares[i])) for i in order))


def _softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits.astype(np.float64) - logits.max())
    return np.asarray(raised / raised.sum())


def _unit(vector: np.ndarray) -> np.ndarray:
    return (vector / max(float(np.linalg.norm(vector)), 1e-12)).astype(np.float32)
