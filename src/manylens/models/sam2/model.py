"""SAM 2 and 2.1 (Ravi et al., 2024, https://arxiv.org/abs/2408.00714): what is pointed out, in pictures and videos."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.errors import UnsupportedError
from manylens.media import Image, Video
from manylens.models import checkpoint
from manylens.models.base import Model, Trainable
from manylens.models.promptable import answer, everything
from manylens.models.promptable.decoder import Scene
from manylens.models.promptable.prompts import Canvas, batches
from manylens.models.sam2 import spec as specs
from manylens.models.sam2.networks import PICTURE, Networks, Sam2Decoder
from manylens.models.sam2.stream import OpenVideo, followed
from manylens.models.sam2.tracker import Tracker
from manylens.runtime.context import Context
from manylens.runtime.engines import EngineSettings
from manylens.runtime.store import Key
from manylens.tasks import Request
from manylens.tasks.regions import SegmentRequest, TrackRequest
from manylens.tasks.results import Provenance

if TYPE_CHECKING:
    from manylens.catalog import Row

_TOGETHER = 8
"""Objects that one run of the decoder asks for: each has its own copy of the picture, and more leave the cache."""
_GOOD = 0.8
"""The predicted IoU that mode everything asks for, as Meta's ``SAM2AutomaticMaskGenerator``; SAM asks for 0.88."""


class Sam2(Model):
    """Segments what is pointed out in a picture, and follows it through a video.

    A picture is encoded once and kept in the session's store; prompts ask the small decoder only.
    """

    def __init__(self, row: Row, files: Mapping[str, Path], settings: EngineSettings) -> None:
        super().__init__(row, files, settings)
        self.spec = specs.read(files, row.id)
        self._hash = checkpoint.weights_id(row, files)
        self.networks = Networks(files, row.id, self.spec, settings, self._hash)
        self._decoder = Sam2Decoder(self.networks)

    def run(self, requests: Sequence[Request], ctx: Context) -> Iterator[Any]:
        """Serve ``segment`` and ``track`` requests, one after the other."""
        for request in requests:
            ctx.check()
            if isinstance(request, SegmentRequest):
                yield self._segment(request, ctx)
            elif isinstance(request, TrackRequest):
                yield self._track(request, ctx)
            else:
                raise UnsupportedError(f"{self.row.id} does not do {request.task}", "name another model")

    def open(self, media: Any, ctx: Context) -> OpenVideo:
        """A video to point things out in, follow, and correct; see :class:`manylens.models.sam2.stream.OpenVideo`."""
        video = Video.of(media)
        about = self.settings
        provenance = Provenance(
            "track", self.row.id, self._hash, device=about.device, engine=about.engine, precision=about.precision
        )
        return OpenVideo(video, self._tracker(video), ctx, provenance)

    def probe(self) -> Callable[[], np.ndarray]:
        """See :meth:`manylens.models.base.Model.probe`; gives the embedding of one picture, channels last."""
        side = self.spec.side
        picture = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
        pixels = specs.prepared(picture, self.spec)
        return lambda: np.moveaxis(self.networks.encode(pixels)["embedding"], 1, -1)

    def trainable(self) -> Trainable:
        """See :class:`manylens.models.base.Trainable`; ``dense`` is the embedding that prompts are asked of."""
        from manylens.models.sam2 import training

        return training.opened(self.networks.load(), self.spec)

    def close(self) -> None:
        """Give the networks' memory back."""
        self.networks.close()

    def _segment(self, request: SegmentRequest, ctx: Context) -> Any:
        scene, hit = self._scene(request.image, ctx)
        ctx.notes["cache"] = hit
        ctx.check()
        canvas = Canvas.filled(request.image.size, self.spec.side)
        if request.mode == "everything":
            options = everything.Everything.of(request, pred_iou_thresh=_GOOD)
            return everything.generate(self._decoder, scene, canvas, options, ctx.check)
        asked = batches(request.prompts(), canvas, self.spec.low_res, request.previous, box_first=True, pad_boxes=True)
        found = []
        for part in (part for batch in asked for part in batch.parts(_TOGETHER)):
            ctx.check()
            found.append((part, self._decoder(scene, part.points, part.labels, part.masks)))
        return answer.detections_of(found, canvas, self._decoder.threshold, request.threshold)

    def _track(self, request: TrackRequest, ctx: Context) -> Any:
        tracker = self._tracker(request.video)
        image = request.video.frame(request.frame)
        for number, prompt in enumerate(request.prompts(), 1):
            ctx.check()
            tracker.prompt(number, request.frame, image, prompt, ctx)
        return followed(tracker, request.video, ctx)

    def _tracker(self, video: Video) -> Tracker:
        if not self.spec.video:
            raise UnsupportedError(
                f"{self.row.id} is a checkpoint for pictures, without the memory of a video",
                "name one whose model_type is sam2_video, such as facebook/sam2.1-hiera-tiny",
            )
        return Tracker(self.networks, video, lambda image, ctx: self._scene(image, ctx)[0], self._encoded)

    def _scene(self, image: Image, ctx: Context) -> tuple[Scene, str]:
        """An encoded picture, and where it was found."""
        key = Key(
            image.id,
            self._hash,
            f"sam2-{self.row.preprocessing}",
            "maps",
            self.settings.engine,
            self.settings.precision,
        )
        found, hit = ctx.store.get_or_compute(key, partial(self._encoded, image, ctx), check=ctx.check)
        return found, hit or "miss"

    def _encoded(self, image: Image, ctx: Context) -> Mapping[str, np.ndarray]:
        ctx.check()
        self.networks.prepare(*PICTURE)
        return self.networks.encode(specs.prepared(image.array, self.spec))
