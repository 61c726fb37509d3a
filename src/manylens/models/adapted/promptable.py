"""An adapted promptable decoder: clicks, boxes, coarse masks and everything, on kept features of its encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.models import checkpoint
from manylens.models.adapted.encoding import blueprint
from manylens.models.adapted.model import BASE, AdaptedModel
from manylens.models.adapted.picture import PREPROCESSING, square
from manylens.models.base import Trainable
from manylens.models.network import Blueprint, Network, Pieces, wrapped
from manylens.models.promptable import answer, everything
from manylens.models.promptable.decoder import Decoded, Scene
from manylens.models.promptable.prompts import PADDING, Canvas, batches
from manylens.runtime.context import Context
from manylens.runtime.engines import EngineSettings
from manylens.runtime.store import Key
from manylens.tasks import Request, SegmentRequest

if TYPE_CHECKING:
    import torch
    from supervision import Detections

    from manylens.catalog import Row
    from manylens.media import Image
    from manylens.models.adapted.bundle import Adapted

PICTURE, KEYS = "picture", "keys"
"""The maps of an encoded picture, as :class:`.heads.promptable.Embedding` has them: float32 ``(1, C, h, w)``."""

_TOGETHER = 8
"""Objects that one run of the decoder asks for: each has its own copy of the picture."""

_EVERYTHING = {"points_per_side": 16, "pred_iou_thresh": 0.5, "stability_score_thresh": 0.6}
"""Where the folder says nothing of what its decoder's numbers are worth."""

_ENCODER, _NECK, _DECODER, _MASKED = "encoder", "neck", "decoder", "masked-decoder"


class AdaptedPromptable(AdaptedModel):
    """Serves ``segment`` by prompts, as SAM does.

    What the encoder gives of a picture is kept under the encoder's own weights, so that all decoders on one frozen
    encoder share it; what the neck makes of that is kept, too.
    """

    def __init__(self, row: Row, files: Mapping[str, Path], settings: EngineSettings) -> None:
        super().__init__(row, files, settings)
        mine = {name: path for name, path in files.items() if not name.startswith(BASE)}
        own = any(name.startswith(f"{_ENCODER}.") for name in checkpoint.names(mine, row.id))
        self._encoder_hash = f"{self._hash} {self.spec.base.weights}" if own else self.spec.base.weights
        weights = f"{self._hash} {self.spec.base.weights}"
        self._encoder = Pieces(self._encoder_blueprint, self.module, settings, self._encoder_hash)
        # The decoder is small, and the sines of places turn too fast for half precision.
        self._head = Pieces(self._head_blueprint, self.module, replace(settings, precision="f32"), weights)
        self._decoder: PromptableDecoder | None = None

    def run(self, requests: Sequence[Request], ctx: Context) -> Iterator[Detections]:
        """Yield the masks of each request."""
        for request in requests:
            assert isinstance(request, SegmentRequest)
            ctx.check()
            scene, ctx.notes["cache"] = self.scene(request.image, ctx)
            ctx.check()
            yield self._answer(request, scene, ctx)

    def scene(self, image: Image, ctx: Context) -> tuple[Scene, str]:
        """What the decoder needs of a picture, and where it was found: ``memory``, ``disk`` or ``miss``."""
        where = ["miss"]

        def make() -> Mapping[str, np.ndarray]:
            given, where[0] = self._features(image, ctx)
            ctx.check()
            maps = self._head.of(_NECK)(*(given[name][None] for name in self._needs))
            return dict(zip((PICTURE, KEYS), maps, strict=True))

        key = self._key(image, "promptable-embedding-1", f"{self._hash} {self._encoder_hash}")
        found, hit = ctx.store.get_or_compute(key, make, check=ctx.check)
        return found, hit or where[0]

    def decoder(self) -> PromptableDecoder:
        """The decoder, for whoever asks one."""
        if self._decoder is None:
            self._decoder = PromptableDecoder(self.spec.side, self._low_res(), self._head.of)
        return self._decoder

    def trainable(self) -> Trainable:
        """The base model with what was changed in it; the head, which answers prompts only, is the part ``head``."""
        from manylens.models.adapted.opened import trainable

        network = self.module()
        return replace(trainable(network, self.spec), forward=network.backbone.trainable.forward, labels=())

    def probe(self) -> Callable[[], np.ndarray]:
        """See :meth:`manylens.models.base.Model.probe`; gives the encoder's last map of a fixed batch."""
        side = self.spec.side
        squares = np.random.default_rng(0).integers(0, 256, (self.batch_size, side, side, 3), dtype=np.uint8)
        return lambda: self._encoder.of(_ENCODER)(squares)[0]

    def close(self) -> None:
        """Give the networks' memory back."""
        super().close()
        self._encoder.close()
        self._head.close()
        self._decoder = None

    @property
    def _needs(self) -> tuple[str, ...]:
        return tuple(self.spec.details["needs"])

    def _answer(self, request: SegmentRequest, scene: Scene, ctx: Context) -> Detections:
        decoder, canvas = self.decoder(), Canvas.filled(request.image.size, self.spec.side)
        if request.mode == "everything":
            options = everything.Everything.of(request, **{**_EVERYTHING, **self.spec.details.get("everything", {})})
            return everything.generate(decoder, scene, canvas, options, ctx.check)
        asked = batches(request.prompts(), canvas, decoder.low_res, request.previous)
        found = []
        for part in (part for batch in asked for part in batch.parts(_TOGETHER)):
            ctx.check()
            found.append((part, decoder(scene, part.points, part.labels, part.masks)))
        return answer.detections_of(found, canvas, decoder.threshold, request.threshold)

    def _features(self, image: Image, ctx: Context) -> tuple[dict[str, np.ndarray], str]:
        """The encoder's maps of a picture by name, ``(h, w, D)``, and where they were found."""
        keys = {name: self._key(image, name, self._encoder_hash) for name in self._needs}
        kept = {name: ctx.store.find(key) for name, key in keys.items()}
        if all(arrays is not None for arrays, _ in kept.values()):
            where = "disk" if any(hit == "disk" for _, hit in kept.values()) else "memory"
            return {name: arrays[name] for name, (arrays, _) in kept.items() if arrays is not None}, where
        maps = self._encoder.of(_ENCODER)(square(image.array, self.spec.side)[None])
        found = {name: one[0] for name, one in zip(self._needs, maps, strict=True)}
        for name, key in keys.items():
            ctx.store.put(key, {name: found[name]})
        return found, "miss"

    def _key(self, image: Image, layer: str, weights: str) -> Key:
        prepared, settings = f"{PREPROCESSING}-{self.spec.side}", self.settings
        return Key(image.id, weights, prepared, layer, settings.engine, settings.precision)

    def _low_res(self) -> int:
        return int(self.spec.details["low_res"])

    def _encoder_blueprint(self, name: str) -> Blueprint:
        title = f"backbone {' '.join(self._needs)} {self.spec.side}"
        return blueprint(title, lambda: self._encoder.module().backbone, self._needs, self.spec.side)

    def _head_blueprint(self, name: str) -> Blueprint:
        """``neck``: the encoder's maps to those of a scene; the decoders: these and prompts to logits and qualities."""
        network: Callable[[], Adapted] = self._head.module
        if name == _NECK:
            module = lambda: wrapped(network().head, partial(_embedded, self._needs))  # noqa: E731
            return Blueprint(f"promptable-{name}", module, lambda: self._maps(network()), self._needs, (PICTURE, KEYS))
        masked, side = name == _MASKED, self.spec.side

        def example() -> list[torch.Tensor]:
            import torch

            with torch.no_grad():
                maps = self._maps(network())
                embedding: Any = network().head.embed(dict(zip(self._needs, maps, strict=True)))  # type: ignore[operator]
            points = torch.tensor([[[3.0, 4.0], [9.0, 8.0], [0.0, 0.0]]] * 2)
            given = [*embedding, points, torch.tensor([[1, 0, PADDING], [2, 3, 1]])]
            return [*given, torch.zeros(2, 1, self._low_res(), self._low_res())] if masked else given

        def shapes() -> dict[str, Sequence[int]]:
            low = self._low_res()
            return {"points": (-1, -1, 2), "labels": (-1, -1), "masks": (-1, 1, low, low)}

        inputs = (PICTURE, KEYS, "points", "labels", *(("masks",) if masked else ()))
        module = lambda: wrapped(network().head, partial(_decoded, side))  # noqa: E731
        return Blueprint(f"promptable-{name} {side}", module, example, inputs, ("low_res", "iou"), shapes())

    def _maps(self, network: Adapted) -> list[torch.Tensor]:
        """The encoder's maps of an empty picture."""
        import torch

        side = self.spec.side
        with torch.no_grad():
            found = network.backbone(torch.zeros(1, 3, side, side))
        return [found[name] for name in self._needs]


class PromptableDecoder:
    """A :class:`~manylens.models.promptable.decoder.Decoder`.

    Args:
        side: Side of the network's picture in pixels.
        low_res: Side of its masks.
        network: Gives ``decoder`` and ``masked-decoder``, called on first use.
    """

    threshold = 0.0

    def __init__(self, side: int, low_res: int, network: Callable[[str], Network]) -> None:
        self.side, self.low_res, self._network = side, low_res, network

    def __call__(
        self, scene: Scene, points: np.ndarray, labels: np.ndarray, masks: np.ndarray | None = None
    ) -> Decoded:
        """See :class:`manylens.models.promptable.decoder.Decoder`."""
        if not labels.shape[1]:  # a mask alone
            points, labels = np.zeros((len(labels), 1, 2), np.float32), np.full((len(labels), 1), PADDING, np.int64)
        given = [scene[PICTURE], scene[KEYS], points.astype(np.float32), labels.astype(np.int64)]
        if masks is None:
            return Decoded(*self._network(_DECODER)(*given))
        return Decoded(*self._network(_MASKED)(*given, masks.astype(np.float32)))


def _embedded(needs: Sequence[str], head: Any, *maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    found = head.embed(dict(zip(needs, maps, strict=True)))
    return found.picture, found.keys


def _decoded(side: int, head: Any, *given: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    from manylens.models.adapted.heads.promptable import Embedding, Prompts

    picture, keys, points, labels = given[:4]
    prompts = Prompts(points, labels, torch.zeros_like(labels[:, 0]), given[4] if len(given) > 4 else None)
    found = head.decode(Embedding(picture, keys), (side, side), prompts)
    return found["masks"], found["iou"]
