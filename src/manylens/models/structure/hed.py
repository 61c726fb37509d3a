"""Edges as people draw them (HED, Xie & Tu, ICCV 2015), and scribbles made of these."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from manylens.media import Image
from manylens.models.base import Model
from manylens.models.regions.features import EdgeEncoder
from manylens.runtime.context import Context
from manylens.runtime.engines import EngineSettings
from manylens.runtime.store import Key
from manylens.tasks import Request
from manylens.tasks.requests import StructureRequest
from manylens.tasks.results import StructureMap

if TYPE_CHECKING:
    from manylens.catalog import Row

LONG_SIDE = 1024
"""Pixels of the longer side that the network sees at most; its memory is then about 900 MB. Larger photos are reduced
for it, and the map is brought back to their size."""

_THICK = 3.0 / 512
"""Width of a scribble's blur, as a share of the longer side: ControlNet's 3 pixels at its 512."""


class Hed(Model):
    """Serves ``structure`` for ``edges`` and ``scribble``; the map of a photo is kept in the embedding store."""

    def __init__(self, row: Row, files: Mapping[str, Path], settings: EngineSettings) -> None:
        super().__init__(row, files, settings)
        self._loading = threading.Lock()
        self._encoder: EdgeEncoder | None = None

    def run(self, requests: Sequence[Request], ctx: Context) -> Iterator[StructureMap]:
        """Yield float32 ``(H, W)`` in 0..1 for ``edges``, uint8 0 or 255 for ``scribble``."""
        for request in requests:
            assert isinstance(request, StructureRequest)
            ctx.check()
            edges = self._edges(request.image, ctx)
            yield (
                StructureMap("scribble", scribble(edges))
                if request.kind == "scribble"
                else StructureMap("edges", edges)
            )

    def _edges(self, image: Image, ctx: Context) -> np.ndarray:
        key = Key(
            image.id,
            self.row.weights_hash,
            self.row.preprocessing,
            f"hed-{LONG_SIDE}",
            self.settings.engine,
            self.settings.precision,
        )
        kept, hit = ctx.store.get_or_compute(
            key, lambda: {"edges": self._loaded()(image.array).astype(np.float16)}, check=ctx.check
        )
        ctx.notes["cache"] = hit or "miss"
        return at_size(kept["edges"].astype(np.float32), image.size)

    def _loaded(self) -> EdgeEncoder:
        with self._loading:
            if self._encoder is None:
                self._encoder = EdgeEncoder(
                    self.files["hed_bsds500.weights.h5"],
                    long_side=LONG_SIDE,
                    precision=self.settings.precision,
                    threads=self.settings.threads,
                )
            return self._encoder

    def probe(self) -> Callable[[], np.ndarray]:
        """The map of fixed noise; see :meth:`manylens.models.base.Model.probe`."""
        noise = np.random.default_rng(0).integers(0, 256, (320, 320, 3), np.uint8)
        return lambda: self._loaded()(noise)[..., None]

    def close(self) -> None:
        """Give the network's memory back."""
        if self._encoder is not None:
            self._encoder.close()
            self._encoder = None


def at_size(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map at a photo's ``(width, height)``, bilinear: float32 ``(H, W)`` in 0..1."""
    import cv2

    width, height = size
    if plane.shape != (height, width):
        plane = cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR).reshape(height, width)
    return np.clip(plane, 0, 1)


def scribble(edges: np.ndarray) -> np.ndarray:
    """Thick strokes along the strong edges, as ControlNet's scribbles made of HED.

    Edges are blurred, thinned to their ridges, cut at one half, and blurred again to strokes.

    Args:
        edges: float32 ``(H, W)`` in 0..1.

    Returns:
        uint8 ``(H, W)``: 255 on a stroke, else 0.
    """
    import cv2

    sigma = max(0.6, _THICK * max(edges.shape))
    smooth = cv2.GaussianBlur(edges, (0, 0), sigma)
    ridge = np.zeros(edges.shape, bool)
    for across in np.array(_LINES, np.uint8):
        ridge |= cv2.dilate(smooth, across) == smooth  # nothing across a ridge is higher
    thin = np.where(ridge & (smooth > 0.5), np.float32(1), np.float32(0))
    return np.where(cv2.GaussianBlur(thin, (0, 0), sigma) > 4 / 255, np.uint8(255), np.uint8(0))


_LINES = (
    ((0, 0, 0), (1, 1, 1), (0, 0, 0)),
    ((0, 1, 0), (0, 1, 0), (0, 1, 0)),
    ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    ((0, 0, 1), (0, 1, 0), (1, 0, 0)),
)
"""A pixel and its two neighbours along each direction."""
