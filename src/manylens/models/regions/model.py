"""The embedded model behind clicks, boxes, examples and everything: two encoders a picture, then a solver a prompt."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.media import Image
from manylens.models.base import Model
from manylens.models.regions import answers
from manylens.models.regions.features import EdgeEncoder, SalientPatchEncoder
from manylens.models.regions.solver import Scene, encode_scene
from manylens.runtime.context import Context
from manylens.runtime.engines import EngineSettings
from manylens.runtime.store import Key
from manylens.tasks import DetectRequest, Request, SegmentRequest

if TYPE_CHECKING:
    from manylens.catalog import Row

_SCENE = "regions-scene-3"
"""Names what is kept of a picture for every prompt; the number changes with the solver's preparation."""

_PATCHES = "regions-patches-1"
"""Names the patch features, float16, that are kept beside it to be matched with those of other pictures."""

_WORST = ("memory", "disk", "miss")


class Regions(Model):
    """Clicks, boxes, masks, examples or nothing to masks, and example boxes to boxes; no trained weights of its own.

    The encoders load when a picture is not in the embedding store: one that was seen before costs only the solver.
    """

    def __init__(self, row: Row, files: Mapping[str, Path], settings: EngineSettings) -> None:
        super().__init__(row, files, settings)
        self._weights = row.weights_hash
        self._loading = threading.Lock()
        self._encoders: tuple[SalientPatchEncoder, EdgeEncoder] | None = None

    def run(self, requests: Sequence[Request], ctx: Context) -> Iterator[Any]:
        """Detections: up to three masks for each object that is pointed out; else what the mode or the task says."""
        for request in requests:
            assert isinstance(request, SegmentRequest | DetectRequest)
            look = _Look(self, ctx)
            ctx.check()
            with _one_thread():
                result = answers.answer(request, look, ctx)
            yield result

    def _scene(self, image: Image, ctx: Context) -> tuple[Scene, str]:
        """What later prompts need of a picture, and where it came from: ``memory``, ``disk`` or ``miss``."""

        def encode() -> Mapping[str, np.ndarray]:
            patches, edges = self._loaded()
            features, saliency = patches.encode(image.array)
            ctx.store.put(self._key(image, _PATCHES), {"patches": features.astype(np.float16)})
            ctx.check()
            boundaries = edges(image.array)
            ctx.check()
            return encode_scene(image.array, features, boundaries, saliency).to_arrays()

        arrays, hit = ctx.store.get_or_compute(self._key(image, _SCENE), encode, check=ctx.check)
        return Scene.from_arrays(arrays), hit or "miss"

    def _patches(self, image: Image, ctx: Context) -> tuple[np.ndarray, str]:
        """Patch features of a picture, float16 (gh, gw, C), and where they came from."""

        def encode() -> Mapping[str, np.ndarray]:
            return {"patches": self._loaded()[0](image.array).astype(np.float16)}

        arrays, hit = ctx.store.get_or_compute(self._key(image, _PATCHES), encode, check=ctx.check)
        return arrays["patches"], hit or "miss"

    def _key(self, image: Image, layer: str) -> Key:
        return Key(
            pixels=image.id,
            weights=self._weights,
            preprocessing=self.row.preprocessing,
            layer=layer,
            engine=self.settings.engine,
            precision=self.settings.precision,
        )

    def _loaded(self) -> tuple[SalientPatchEncoder, EdgeEncoder]:
        with self._loading:
            if self._encoders is None:
                shared: dict[str, Any] = {"precision": self.settings.precision, "threads": self.settings.threads}
                self._encoders = (
                    SalientPatchEncoder(self.files["vit_s_focus.onnx"], **shared),
                    EdgeEncoder(self.files["hed_bsds500.weights.h5"], **shared),
                )
            return self._encoders

    def probe(self) -> Callable[[], np.ndarray]:
        """Both encoders on a fixed picture; the patch features are what must stay the same."""
        patches, edges = self._loaded()
        ramp = np.linspace(0, 255, 480 * 640 * 3).reshape(480, 640, 3)
        picture = (ramp + 60 * np.random.default_rng(0).random((480, 640, 3))).clip(0, 255).astype(np.uint8)

        def run() -> np.ndarray:
            edges(picture)
            return patches.encode(picture)[0]

        return run

    def close(self) -> None:
        """Let the encoders go."""
        for encoder in self._encoders or ():
            encoder.close()
        self._encoders = None


@cache
def _libraries() -> Any:
    import threadpoolctl

    return threadpoolctl.ThreadpoolController()


def _one_thread() -> AbstractContextManager[Any]:
    """One thread for numpy's linear algebra: its matrices are small here, and its threads spin against each other."""
    return _libraries().limit(limits=1, user_api="blas")


class _Look:
    """What the model sees of pictures during one request; the notes say where the slowest of it came from."""

    def __init__(self, model: Regions, ctx: Context) -> None:
        self._model, self._ctx = model, ctx

    def scene(self, image: Image) -> Scene:
        scene, cache = self._model._scene(image, self._ctx)
        self._note(cache)
        return scene

    def patches(self, image: Image) -> np.ndarray:
        patches, cache = self._model._patches(image, self._ctx)
        self._note(cache)
        return patches

    def _note(self, cache: str) -> None:
        before = self._ctx.notes.get("cache", _WORST[0])
        self._ctx.notes["cache"] = max(before, cache, key=_WORST.index)
