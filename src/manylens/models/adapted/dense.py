"""Adapted models that answer for each pixel or object: classes of pixels, regions, boxes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from manylens.errors import UnsupportedError
from manylens.media import bounds
from manylens.models.adapted.classifier import few
from manylens.models.adapted.heads import readout
from manylens.models.adapted.model import AdaptedModel
from manylens.models.masks.queries import Segment
from manylens.runtime.context import Context
from manylens.tasks import DetectRequest, Request, SegmentRequest, detections

if TYPE_CHECKING:
    from supervision import Detections

    from manylens.media import Image

_SURE = 0.5
"""The least score of a region where the request says none."""

_LEAST = 0.3
"""The least score of a box where the request says none."""


class AdaptedSegmenter(AdaptedModel):
    """Serves ``segment`` in the mode semantic: a region for each class that the picture shows."""

    def run(self, requests: Sequence[Request], ctx: Context) -> Iterator[Detections]:
        """Yield Detections, whose regions do not overlap and, but for background, cover the picture."""
        for request in requests:
            assert isinstance(request, SegmentRequest)
            ctx.check()
            label, sure = self.classes(request.image)
            ground = int(self.spec.details.get("ground", -1))
            found = []
            for number in np.unique(label).tolist():
                mask = label == number
                score = float(sure[mask].mean())
                if number != ground and score >= (request.threshold or 0.0):
                    found.append(Segment(mask, number, score))
            yield regions(request.image, found, self.spec.labels, frozenset(_stuff(self)))

    def classes(self, image: Image) -> tuple[np.ndarray, np.ndarray]:
        """The class of each pixel int32 ``(H, W)``, and how probable it is, float32 ``(H, W)``."""
        return readout.class_map(self.answers([image])["logits"][0], image.size)


class AdaptedMasks(AdaptedModel):
    """Serves ``segment`` in the modes instance, panoptic and semantic; best in the one that it was trained for."""

    outputs = ("classes", "masks")

    def run(self, requests: Sequence[Request], ctx: Context) -> Iterator[Detections]:
        """Yield Detections: ``class_name``, ``class_id`` and ``is_thing`` in ``data``."""
        stuff = frozenset(_stuff(self))
        for request in requests:
            assert isinstance(request, SegmentRequest)
            ctx.check()
            threshold = _SURE if request.threshold is None else request.threshold
            kind = request.mode if request.mode in ("instance", "panoptic", "semantic") else self.spec.details["kind"]
            found = self.found(self.answers([request.image]), request.image.size, kind, threshold)
            yield regions(request.image, found, self.spec.labels, stuff)

    def found(
        self, answers: Mapping[str, np.ndarray], size: tuple[int, int], kind: readout.Kind, threshold: float
    ) -> list[Segment]:
        """What the network's answers to one picture of a size say; see :func:`.heads.readout.regions`."""
        classes, masks = answers["classes"][0], answers["masks"][0]
        stuff = frozenset(_stuff(self))
        return readout.regions(classes, masks, size, kind, threshold=threshold, stuff=stuff)


class AdaptedDetector(AdaptedModel):
    """Serves ``detect`` with the classes that it was trained for; given names choose among them."""

    outputs = ("scores", "boxes")

    def run(self, requests: Sequence[Request], ctx: Context) -> Iterator[Detections]:
        """Yield Detections, the best first.

        Raises:
            UnsupportedError: A given name is none of its classes.
        """
        asked = [request for request in requests if isinstance(request, DetectRequest)]
        for start in range(0, len(asked), self.batch_size):
            ctx.check()
            batch = asked[start : start + self.batch_size]
            answers = self.answers([request.image for request in batch])
            for place, request in enumerate(batch):
                threshold = _LEAST if request.threshold is None else request.threshold
                found = self.found(answers, place, request.image.size, threshold)
                yield self._detections(request, *found)

    def found(
        self, answers: Mapping[str, np.ndarray], place: int, size: tuple[int, int], threshold: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What the network's answers to one of several pictures say; see :func:`.heads.readout.boxes`."""
        seen = (self.spec.side, self.spec.side)
        return readout.boxes(answers["scores"][place], answers["boxes"][place], seen, size, threshold=threshold)

    def _detections(
        self, request: DetectRequest, found: np.ndarray, chances: np.ndarray, numbers: np.ndarray
    ) -> Detections:
        labels = self.spec.labels
        if request.names is not None:
            wanted = {name.strip().lower() for name in request.names}
            unknown = sorted(wanted - {label.lower() for label in labels})
            if unknown:
                raise UnsupportedError(
                    f"{self.row.id}: was not trained for {', '.join(unknown)}", f"its classes are {few(labels)}"
                )
            keep = np.array([labels[number].lower() in wanted for number in numbers], bool)
            found, chances, numbers = found[keep], chances[keep], numbers[keep]
        return detections(
            found,
            chances,
            names=[labels[number] for number in numbers],
            class_ids=numbers.tolist(),
            objects=range(len(found)),
        )


def regions(image: Image, found: Sequence[Segment], labels: Sequence[str], stuff: frozenset[int]) -> Detections:
    """Regions in the house's form."""
    masks = [one.mask for one in found]
    return detections(
        [bounds(mask) or (0, 0, 0, 0) for mask in masks],
        [one.score for one in found],
        masks=np.stack(masks) if masks else np.zeros((0, image.height, image.width), bool),
        names=[labels[one.label] for one in found],
        class_ids=[one.label for one in found],
        objects=range(len(found)),
        things=[one.label not in stuff for one in found],
    )


def _stuff(model: AdaptedModel) -> list[int]:
    """Numbers of the classes that have no instances."""
    return [number for number, thing in enumerate(model.spec.details.get("things", ())) if not thing]
