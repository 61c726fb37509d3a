"""SegGPT: segments what examples show, several classes at once, and follows it through a video."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.models import checkpoint
from manylens.models.base import Model, Trainable
from manylens.models.dense.matching import masks
from manylens.models.examples import arranged, classes
from manylens.models.promptable.masks import boxes
from manylens.models.seggpt import colours, video
from manylens.models.seggpt.answers import Answers
from manylens.models.seggpt.networks import Networks
from manylens.models.seggpt.passes import passes
from manylens.runtime.context import Context
from manylens.runtime.engines import EngineSettings
from manylens.tasks import Request
from manylens.tasks.regions import SegmentRequest, TrackRequest
from manylens.tasks.results import detections

if TYPE_CHECKING:
    from supervision import Detections

    from manylens.catalog import Row


class SegGpt(Model):
    """Segments pictures and videos by example.

    An answer is semantic: one mask for each class that is present, of all that is like the examples; it is not split
    into instances. Several pictures with the same classes are a feature ensemble; classes with masks in the same
    pictures are painted in one pass, each in its own colour; other classes have a pass of their own
    (:mod:`manylens.models.seggpt.passes`). A pixel goes to the class whose colour it is most like, in whichever pass,
    or to none where black is nearer. The colours' likeness is brought to the photo's size before that decision: mixed
    colours at a border would read as a third class.
    """

    def __init__(self, row: Row, files: Mapping[str, Path], settings: EngineSettings) -> None:
        super().__init__(row, files, settings)
        weights = checkpoint.weights_id(row, files)
        self._networks = Networks(files, row.id, settings, weights)
        self._answers = Answers(self._networks, settings, weights, row.preprocessing)

    def run(self, requests: Sequence[Request], ctx: Context) -> Iterator[Any]:
        """Serve ``segment`` with examples, and ``track`` with examples or masks of a frame."""
        for request in requests:
            ctx.check()
            if isinstance(request, TrackRequest):
                yield video.track(self._answers, request, ctx)
            else:
                assert isinstance(request, SegmentRequest)
                yield self._segment(request, ctx)

    def probe(self) -> Callable[[], np.ndarray]:
        """See :meth:`manylens.models.base.Model.probe`; gives the colours painted for one picture, 0..1."""
        width, height = self._networks.size
        noise = np.random.default_rng(0).integers(0, 256, (3, height, width, 3), dtype=np.uint8)

        def run() -> np.ndarray:
            tokens = self._networks.tokens(list(noise))
            return np.moveaxis(self._networks.paint(tokens[:1], tokens[1:2], tokens[2]), 0, -1) / 255

        return run

    def trainable(self) -> Trainable:
        """See :meth:`manylens.models.base.Trainable`; the ``module`` is transformers' own, with its in-context loss."""
        from manylens.models.seggpt.training import trainable

        return trainable(self._networks)

    def close(self) -> None:
        """Give the networks' memory back."""
        self._networks.close()

    def _segment(self, request: SegmentRequest, ctx: Context) -> Detections:
        asked = classes(request.like)
        shown = [[(example.image, example.mask) for example in one.examples] for one in asked]
        width, height = self._networks.size
        likeness = np.zeros((len(asked), height, width), np.float32)
        hits = set()
        for run in passes(shown, colours.MOST):
            ctx.check()
            likeness[list(run.classes)], hit = self._answers.likeness(request.image, run, ctx)
            hits.add(hit or "miss")
        ctx.notes["cache"] = next(where for where in ("miss", "disk", "memory") if where in hits)
        found, scores = masks(likeness, request.image.size, colours.NEARER)
        least = request.threshold or 0
        kept = [number for number, mask in enumerate(found) if mask.any() and scores[number] >= least]
        if not kept:
            ctx.notes.setdefault("notes", []).append("nothing in the picture is like the examples")
        answer = detections(
            boxes(found[kept]),
            scores[kept],
            masks=found[kept],
            names=[asked[number].name for number in kept],
            class_ids=kept,
            objects=kept,
        )
        return arranged(answer, request, ctx)
