"""Vectors of pictures and regions, and patch features, from a DINOv2-like ViT."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from manylens.models.base import Model, Trainable
from manylens.models.dino import weights
from manylens.models.dino.weights import Vit
from manylens.runtime.context import Context
from manylens.runtime.engines import EngineSettings, compile
from manylens.runtime.store import Key
from manylens.tasks import Embedding, EmbedRequest, Request
from manylens.tasks.geometry import Box, clip_box

if TYPE_CHECKING:
    from manylens.catalog import Row

SIDE = 224
"""Pictures are resized to this square, their aspect not kept: nothing is cut off, and one run serves every request."""


class _Encoder(Protocol):
    """The network on one engine: uint8 ``(N, SIDE, SIDE, 3)`` to class tokens and patch tokens."""

    def __call__(self, pictures: np.ndarray, /) -> list[np.ndarray]: ...

    def close(self) -> None: ...


class Dino(Model):
    """Embeds pictures, regions of them, and patches.

    The vector of a picture is the class token; a region's is the mean of the patch features under its box, which is a
    space of its own. Both have length 1. Patch features are not normalised.
    """

    batch_size = 8

    def __init__(self, row: Row, files: Mapping[str, Path], settings: EngineSettings) -> None:
        super().__init__(row, files, settings)
        vit = weights.read(files)
        self._taps, self._cells, self._width = vit.taps, SIDE // vit.patch, vit.width
        self._encode = _encoder(vit, settings)
        self._centre = centre() if vit.taps.centred else np.zeros(vit.width, np.float32)
        self._hash = _weights_id(row, files)

    def run(self, requests: Sequence[Request], ctx: Context) -> Iterator[Embedding]:
        """Serve ``embed`` requests of pictures; those of a batch run together, and none is encoded twice."""
        asked = [request for request in requests if isinstance(request, EmbedRequest)]
        for start in range(0, len(asked), self.batch_size):
            ctx.check()
            batch = asked[start : start + self.batch_size]
            for request, (found, hit) in zip(batch, self._features(batch, ctx), strict=True):
                ctx.notes["cache"] = hit
                yield self._embedding(request, found)

    def trainable(self) -> Trainable:
        """The whole network as a torch module; see :class:`manylens.models.base.Trainable`."""
        from manylens.models.dino import module

        return module.trainable(
            weights.read(self.files), self._centre, lambda images: _squares([i.array for i in images])
        )

    def probe(self) -> Callable[[], np.ndarray]:
        """See :meth:`manylens.models.base.Model.probe`; gives the patch tokens of one batch."""
        shape = (self.batch_size, SIDE, SIDE, 3)
        pictures = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        return lambda: self._encode(pictures)[1]

    def close(self) -> None:
        """Give the network's memory back."""
        self._encode.close()

    def _features(self, batch: Sequence[EmbedRequest], ctx: Context) -> list[tuple[dict[str, np.ndarray], str]]:
        """What each request needs, by layer, and where it was found; what is not kept is encoded in one run."""
        images = [request.image for request in batch if request.image is not None]
        needed = [_layers(request) for request in batch]
        with ThreadPoolExecutor(self.settings.threads) as pool:  # decoding and hashing leave the interpreter free
            ids = list(pool.map(lambda image: image.id, images))
            kept = [self._kept(ctx, identity, layers) for identity, layers in zip(ids, needed, strict=True)]
            new = {ids[i]: images[i] for i, found in enumerate(kept) if found is None}
            squares = list(pool.map(lambda image: _square(image.array), new.values()))
        fresh = self._encoded(list(new), squares, ctx) if new else {}
        for identity, layers in zip(ids, needed, strict=True):
            for layer in layers & fresh.get(identity, {}).keys():
                ctx.store.put(self._key(identity, layer), {layer: fresh[identity][layer]})
        return [found or (fresh[identity], "miss") for identity, found in zip(ids, kept, strict=True)]

    def _encoded(
        self, ids: Sequence[str], squares: Sequence[np.ndarray], ctx: Context
    ) -> dict[str, dict[str, np.ndarray]]:
        ctx.check()
        vectors, patches = self._encode(np.stack(squares))
        dense = patches.reshape(len(ids), self._cells, self._cells, self._width)
        return {identity: {"vector": vectors[i], "dense": dense[i]} for i, identity in enumerate(ids)}

    def _embedding(self, request: EmbedRequest, found: Mapping[str, np.ndarray]) -> Embedding:
        space = f"dino-{self._hash}-{self.row.preprocessing}"
        dense = found["dense"] if request.dense else None
        if request.box is None:
            return Embedding(vector=_unit(found["vector"] - self._centre), space=space, dense=dense)
        assert request.image is not None
        pooled = np.einsum("yx,yxd->d", cover(request.box, request.image.size, self._cells), found["dense"])
        return Embedding(vector=_unit(pooled), space=f"{space}-region", dense=dense)

    def _kept(self, ctx: Context, identity: str, layers: set[str]) -> tuple[dict[str, np.ndarray], str] | None:
        """The layers of a picture and where they were kept, ``memory`` or ``disk``; None when one is missing."""
        arrays: dict[str, np.ndarray] = {}
        where = "memory"
        for layer in layers:
            found, hit = ctx.store.find(self._key(identity, layer))
            if found is None:
                return None
            arrays |= found
            where = "disk" if hit == "disk" else where
        return arrays, where

    def _key(self, identity: str, layer: str) -> Key:
        block = self._taps.vector if layer == "vector" else self._taps.dense
        return Key(
            identity,
            self._hash,
            f"dino-{self.row.preprocessing}",
            f"{layer}-{block}",
            self.settings.engine,
            self.settings.precision,
        )


def cover(box: Box, size: tuple[int, int], cells: int) -> np.ndarray:
    """How much of each patch lies under a box, to sum 1: float32 ``(cells, cells)``.

    Args:
        box: ``xyxy`` in pixels of the picture.
        size: ``(width, height)`` of the picture.
        cells: Patches along each side of the square that the picture was resized to.
    """
    x0, y0, x1, y1 = clip_box(box, size)
    edges = np.arange(cells + 1)
    shares = []
    for low, high, extent in ((y0, y1, size[1]), (x0, x1, size[0])):
        low, high = low * cells / extent, high * cells / extent
        shares.append(np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0, None))
    under = np.outer(*shares)
    return (under / under.sum()).astype(np.float32)


@cache
def centre() -> np.ndarray:
    """The mean class token of the embedded ViT over free photographs, ``(384,)``; without it all cosines are near 1."""
    with resources.as_file(resources.files("manylens.models.data").joinpath("vit-s-centre.npy")) as path:
        return np.load(path, allow_pickle=False)


def _encoder(vit: Vit, settings: EngineSettings) -> _Encoder:
    if settings.engine == "torch":
        from manylens.models.dino.module import TorchEncoder

        return TorchEncoder(vit, settings)
    from manylens.models.dino.graph import build

    return compile(build(vit, SIDE), settings)


def _layers(request: EmbedRequest) -> set[str]:
    wanted = {"vector"} if request.box is None else {"dense"}
    return wanted | ({"dense"} if request.dense else set())


def _squares(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.stack([_square(array) for array in arrays])


def _square(rgb: np.ndarray) -> np.ndarray:
    """``(H, W, 3)`` to ``(SIDE, SIDE, 3)``."""
    import cv2

    shrinks = max(rgb.shape[:2]) > SIDE
    return cv2.resize(rgb, (SIDE, SIDE), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def _unit(vector: np.ndarray) -> np.ndarray:
    return (vector / max(float(np.linalg.norm(vector)), 1e-12)).astype(np.float32)


def _weights_id(row: Row, files: Mapping[str, Path]) -> str:
    """Changes with the weights, also where a hub's branch moved: a snapshot's folder names its commit."""
    if not row.repo:
        return row.weights_hash[:16]
    from manylens.media.identity import content_id

    return content_id("weights", [str(files["model.safetensors"].resolve())])[:16]
