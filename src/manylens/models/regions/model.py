"""The embedded model behind clicks and boxes: two encoders, once a picture, then a solver, once a prompt."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.media import Image, bounds
from manylens.models.base import Model
from manylens.models.regions.features import EdgeEncoder, SalientPatchEncoder
from manylens.models.regions.solver import Scene, encode_scene, solve
from manylens.runtime.context import Context
from manylens.runtime.engines import EngineSettings
from manylens.runtime.store import Key
from manylens.tasks import ObjectPrompt, Request, SegmentRequest, detections
from manylens.tasks.geometry import clip_box

if TYPE_CHECKING:
    from manylens.catalog import Row

_LAYER = "regions-scene-3"
"""Names what is kept for a picture; the number changes with the solver's preparation."""


class Regions(Model):
    """Clicks, boxes and coarse masks to masks, without trained weights of its own.

    The encoders load when a picture is not in the embedding store: one that was seen before costs only the solver.
    """

    def __init__(self, row: Row, files: Mapping[str, Path], settings: EngineSettings) -> None:
        super().__init__(row, files, settings)
        self._weights = row.weights_hash
        self._loading = threading.Lock()
        self._encoders: tuple[SalientPatchEncoder, EdgeEncoder] | None = None

    def run(self, requests: Sequence[Request], ctx: Context) -> Iterator[Any]:
        """Up to three masks for each object of a request, the best first."""
        for request in requests:
            assert isinstance(request, SegmentRequest)
            scene, cache = self._scene(request.image, ctx)
            ctx.notes["cache"] = cache
            found = [(i, prompt) for i, prompt in enumerate(request.prompts())]
            yield _answer(scene, request.image, found, ctx)

    def _scene(self, image: Image, ctx: Context) -> tuple[Scene, str]:
        """What later prompts need of a picture, and where it came from: ``memory``, ``disk`` or ``miss``."""
        key = Key(
            pixels=image.id,
            weights=self._weights,
            preprocessing=self.row.preprocessing,
            layer=_LAYER,
            engine=self.settings.engine,
            precision=self.settings.precision,
        )
        arrays, hit = ctx.store.get_or_compute(key, lambda: self._encode(image, ctx), check=ctx.check)
        return Scene.from_arrays(arrays), hit or "miss"

    def _encode(self, image: Image, ctx: Context) -> Mapping[str, np.ndarray]:
        patches, edges = self._loaded()
        features, saliency = patches.encode(image.array)
        ctx.check()
        boundaries = edges(image.array)
        ctx.check()
        with _one_thread():
            return encode_scene(image.array, features, boundaries, saliency).to_arrays()

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


def _answer(scene: Scene, image: Image, prompts: Sequence[tuple[int, ObjectPrompt]], ctx: Context) -> Any:
    masks, scores, levels, objects = [], [], [], []
    for number, prompt in prompts:
        ctx.check()
        points = [*prompt.points, *prompt.background_points]
        labels = [1] * len(prompt.points) + [0] * len(prompt.background_points)
        box = clip_box(prompt.box, image.size) if prompt.box is not None else None
        with _one_thread():
            candidates = solve(scene, points=points, labels=labels, box=box, mask=prompt.mask)
        for candidate in candidates:
            masks.append(candidate.mask)
            scores.append(candidate.score)
            levels.append(candidate.level)
            objects.append(number)
    stacked = np.stack(masks) if masks else np.zeros((0, image.height, image.width), bool)
    return detections(boxes_of(stacked), scores, masks=stacked, levels=levels, objects=objects)


def boxes_of(masks: np.ndarray) -> np.ndarray:
    """Tight boxes ``xyxy``, max exclusive, float32 ``(N, 4)``, of masks bool ``(N, H, W)``; zeros for an empty mask."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        box[:] = bounds(mask) or (0, 0, 0, 0)
    return boxes
