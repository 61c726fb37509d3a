"""Mask2Former and EoMT: semantic, instance and panoptic segmentation of a closed set of classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.errors import WeightsError
from manylens.media import Image, bounds
from manylens.models import checkpoint, network
from manylens.models.base import Model
from manylens.models.masks import queries
from manylens.models.masks.labels import Labels
from manylens.models.masks.queries import Segment
from manylens.models.masks.resizing import Resizing, bilinear, nearest
from manylens.models.network import Blueprint, Sizes
from manylens.runtime.context import Context
from manylens.runtime.engines import EngineSettings
from manylens.runtime.store import Key
from manylens.tasks import Request, SegmentRequest, detections

if TYPE_CHECKING:
    import torch
    from supervision import Detections

    from manylens.catalog import Row

_CLASSES = {"mask2former": "Mask2FormerForUniversalSegmentation", "eomt": "EomtForUniversalSegmentation"}
_THRESHOLDS = {"mask2former": 0.5, "eomt": 0.8}
"""The least score of a region where the request says none: what each family's own post-processing takes."""


class Masks(Model):
    """Serves ``segment`` in the modes semantic, instance and panoptic, all from one run of the network.

    Any checkpoint answers all three; it is best in the one that it was trained for. What the network says of a picture
    (a class and a small mask for each query) is kept, so that another mode or threshold costs no second run.
    """

    def __init__(self, row: Row, files: Mapping[str, Path], settings: EngineSettings) -> None:
        super().__init__(row, files, settings)
        self._hash = checkpoint.weights_id(row, files)
        config = checkpoint.config(files, row.id)
        self.kind: str = config["model_type"]
        self.labels = Labels.of(config)
        processor = checkpoint.preprocessing(files, row.id)
        self.resizing = Resizing.of(processor, row.id, square=self.kind == "eomt")
        side = config.get("image_size", 640)
        if self.kind == "eomt" and (made := self.resizing.side()) != side:
            raise WeightsError(
                f"{row.id}: its preprocessor_config.json makes squares of {made}, its network takes {side}",
                "give a checkpoint whose files belong together",
            )
        self._networks = Sizes(self._blueprint, settings, self._hash)

    def run(self, requests: Sequence[Request], ctx: Context) -> Iterator[Detections]:
        """Yield Detections: ``class_name``, ``class_id`` and ``is_thing`` in ``data``."""
        for request in requests:
            assert isinstance(request, SegmentRequest)
            ctx.check()
            parts, ctx.notes["cache"] = self._queries(request.image, ctx)
            segments = self._segments(request, parts)
            if not segments:
                ctx.notes.setdefault("notes", []).append("no region passes the threshold")
            if request.mode == "panoptic" and not self.labels.known:
                ctx.notes.setdefault("notes", []).append("the checkpoint does not say which classes are stuff")
            yield self._detections(request.image, segments)

    def probe(self) -> Callable[[], np.ndarray]:
        """See :meth:`manylens.models.base.Model.probe`; gives the class logits of a fixed picture."""
        noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
        image = Image.of(noise)
        return lambda: self.raw(image)[0][0]

    def raw(self, image: Image) -> list[tuple[np.ndarray, np.ndarray]]:
        """The network's answer to each window of a picture: class logits ``(Q, C + 1)``, mask logits ``(Q, h, w)``."""
        found = []
        for window in self.resizing.cut(image.size):
            planes = self.resizing.planes(image.array, window)[None]
            classes, masks = self._networks.of(planes.shape[-1], planes.shape[-2])(planes)
            found.append((classes[0], masks[0]))
        return found

    def close(self) -> None:
        """Give the networks' memory back."""
        self._networks.close()

    def _queries(self, image: Image, ctx: Context) -> tuple[list[tuple[np.ndarray, np.ndarray]], str]:
        settings, version = self.settings, f"masks-{self.row.preprocessing}"
        key = Key(image.id, self._hash, version, "queries", settings.engine, settings.precision)

        def encode() -> dict[str, np.ndarray]:
            parts = self.raw(image)
            return {
                "classes": np.stack([classes for classes, _ in parts]),
                "masks": np.stack([masks for _, masks in parts]),
            }

        arrays, hit = ctx.store.get_or_compute(key, encode, check=ctx.check)
        return list(zip(arrays["classes"], arrays["masks"], strict=True)), hit or "miss"

    def _segments(self, request: SegmentRequest, parts: list[tuple[np.ndarray, np.ndarray]]) -> list[Segment]:
        size = request.image.size
        threshold = _THRESHOLDS[self.kind] if request.threshold is None else request.threshold
        if request.mode == "semantic":
            return self._semantic(size, parts, request.threshold or 0.0)
        classes, logits = self._whole(size, parts)
        if request.mode == "instance":
            found = self._instances(size, classes, logits, threshold)
            return [one for one in found if one.label not in self.labels.stuff]
        early = self.kind == "mask2former"
        upsample = partial(_probability, size=size, early=early)
        return queries.panoptic(
            classes, logits, upsample, threshold=threshold, stuff=self.labels.stuff, sure_only=not early
        )

    def _instances(
        self, size: tuple[int, int], classes: np.ndarray, logits: np.ndarray, threshold: float
    ) -> list[Segment]:
        if self.kind == "mask2former":  # judged at the stage, then enlarged pixel by pixel
            judged: queries.Upsample = lambda plane: plane  # noqa: E731
            full: queries.Upsample = lambda plane: nearest(plane > 0, size)  # noqa: E731
        else:
            judged, full = partial(bilinear, size=size), lambda plane: plane > 0
        several = self.kind == "mask2former"
        return queries.instances(classes, logits, judged, full, threshold=threshold, several=several)

    def _whole(
        self, size: tuple[int, int], parts: list[tuple[np.ndarray, np.ndarray]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """All queries of all windows, each mask logit plane at the size that it is judged at."""
        if len(parts) == 1:
            classes, masks = parts[0]
            return classes, self.resizing.unpadded(self.resizing.stage(masks), size)
        # A query of one window says nothing of the others: far below zero there.
        width, height = self.resizing.resized(size)
        planes, every = [], []
        for window, (classes, masks) in zip(self.resizing.cut(size), parts, strict=True):
            staged = self.resizing.stage(masks)
            whole = np.full((len(staged), height, width), -1e4, np.float32)
            part = whole[:, window.y0 : window.y1, window.x0 : window.x1]
            part[:] = staged[:, : part.shape[1], : part.shape[2]]
            planes.append(whole)
            every.append(classes)
        return np.concatenate(every), np.concatenate(planes)

    def _semantic(
        self, size: tuple[int, int], parts: list[tuple[np.ndarray, np.ndarray]], threshold: float
    ) -> list[Segment]:
        maps = [queries.class_planes(classes, self.resizing.stage(masks)) for classes, masks in parts]
        if self.resizing.windows:
            maps = [self._stitched(size, maps)]
        label, best = queries.semantic((bilinear(plane, size) for plane in maps[0]), size)
        found = []
        for number in np.unique(label):
            mask = label == number
            score = float(np.clip(best[mask].mean(), 0, 1))
            if score >= threshold:
                found.append(Segment(mask, int(number), score))
        return found

    def _stitched(self, size: tuple[int, int], maps: list[np.ndarray]) -> np.ndarray:
        """The windows' class planes as one, their mean where they overlap."""
        width, height = self.resizing.resized(size)
        total = np.zeros((len(maps[0]), height, width), np.float32)
        count = np.zeros((height, width), np.float32)
        for window, planes in zip(self.resizing.cut(size), maps, strict=True):
            part = total[:, window.y0 : window.y1, window.x0 : window.x1]
            part += planes[:, : part.shape[1], : part.shape[2]]
            count[window.y0 : window.y1, window.x0 : window.x1] += 1
        return total / np.maximum(count, 1)

    def _detections(self, image: Image, segments: list[Segment]) -> Detections:
        masks = [one.mask for one in segments]
        return detections(
            [bounds(mask) or (0, 0, 0, 0) for mask in masks],
            [one.score for one in segments],
            masks=np.stack(masks) if masks else np.zeros((0, image.height, image.width), bool),
            names=[self.labels.names[one.label] for one in segments],
            class_ids=[one.label for one in segments],
            objects=range(len(segments)),
            things=[one.label not in self.labels.stuff for one in segments],
        )

    def _blueprint(self, width: int, height: int) -> Blueprint:
        def module() -> torch.nn.Module:
            import transformers

            model: Any = checkpoint.load(getattr(transformers, _CLASSES[self.kind]), self.files, self.row.id)
            if self.kind == "eomt":
                # How often training masks the attention of a block, from 1 down to 0. Between them it is a draw for
                # each query, which an answer must not be.
                model.attn_mask_probs.copy_((model.attn_mask_probs >= 0.5).float())
            return network.wrapped(model, _said)

        def example() -> list[torch.Tensor]:
            import torch

            return [torch.zeros((1, 3, height, width))]

        shapes = {"pixels": (1, 3, height, width)}
        return Blueprint("queries", module, example, ("pixels",), ("classes", "masks"), shapes)


def _said(model: Any, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    found = model(pixel_values=pixels)
    return found.class_queries_logits, found.masks_queries_logits


def _probability(plane: np.ndarray, *, size: tuple[int, int], early: bool) -> np.ndarray:
    """A mask's probabilities at the picture's size; ``early``: from logits before, not after, they are resized."""
    return bilinear(queries.sigmoid(plane), size) if early else queries.sigmoid(bilinear(plane, size))
