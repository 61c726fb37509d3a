"""SAM 3: all that words or examples mean, in a picture or a video; and one object at a time by clicks, as SAM 2."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.errors import PromptError, UnsupportedError
from manylens.media import Image
from manylens.media.identity import content_id
from manylens.models import checkpoint
from manylens.models.base import Model
from manylens.models.examples import arranged
from manylens.models.promptable import masks as full
from manylens.models.promptable.prompts import Canvas
from manylens.models.sam3 import boxes as roi
from manylens.models.sam3 import spec as specs
from manylens.models.sam3.clicks import Clicks, tracker_spec
from manylens.models.sam3.concepts import Concept, concepts, named
from manylens.models.sam3.networks import Found, Networks
from manylens.models.sam3.words import Tokens
from manylens.runtime.context import Context
from manylens.runtime.engines import EngineSettings
from manylens.runtime.store import Key
from manylens.tasks import Request
from manylens.tasks.regions import SegmentRequest, TrackRequest
from manylens.tasks.results import Tracks, detections

if TYPE_CHECKING:
    from supervision import Detections

    from manylens.catalog import Row
    from manylens.models.sam3.following import Follower

_NAMING = ("neck", "words", "finder")
_FAR = 80.0
"""Logits beyond this are as good as sure; their exponential would not fit."""


class Sam3(Model):
    """A SAM 3 checkpoint.

    Kept in the store are a picture's patch tokens (21 MB in float32 at 1008 pixels, half of that beside bf16) and a
    text's prompt. The detector's maps are 110 MB, more than reading them from a disk would gain: they are made from the
    tokens in well under a tenth of the encoder's time, and those of the last picture stay in memory.
    """

    def __init__(self, row: Row, files: Mapping[str, Path], settings: EngineSettings) -> None:
        super().__init__(row, files, settings)
        self._spec = specs.read(files, row.id)
        self._hash = checkpoint.weights_id(row, files)
        self._networks = Networks(files, row.id, self._spec, settings, self._hash)
        self._last: tuple[str, list[np.ndarray]] | None = None
        self._lock, self._following = threading.Lock(), threading.Lock()

    @cached_property
    def _clicks(self) -> Clicks:
        return Clicks(self.row, self.files, self.settings, self._spec, self._tokens_of)

    @cached_property
    def _follower(self) -> Follower:
        from manylens.models.sam3.following import Follower

        tracker_spec(self._spec, self.row.id)  # refuses a checkpoint without one
        return Follower(self.files, self.row.id, self._spec, self.settings, self._networks)

    @cached_property
    def _tokenizer(self) -> Tokens:
        return Tokens(self.files, self.row.id, self._spec.tokens)

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

    def open(self, media: Any, ctx: Context) -> Any:
        """A video to point things out in, follow, and correct; see :class:`manylens.models.sam2.stream.OpenVideo`."""
        return self._clicks.open(media, ctx)

    def probe(self) -> Callable[[], np.ndarray]:
        """See :meth:`manylens.models.base.Model.probe`; gives the patch tokens of one picture."""
        side = self._spec.side
        picture = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
        pixels = self._spec.processor.normalised(picture)[None]
        return lambda: self._networks.trunk(pixels)

    def close(self) -> None:
        """Give the networks' memory back."""
        self._networks.close()
        if "_clicks" in self.__dict__:
            self._clicks.close()
        self.__dict__.pop("_follower", None)
        self._last = None

    def _segment(self, request: SegmentRequest, ctx: Context) -> Detections:
        if request.text is None and not request.like:
            return next(self._clicks.run([request], ctx))
        _one_way(request, request.image.name)
        return self._named(request, ctx)

    def _track(self, request: TrackRequest, ctx: Context) -> Tracks:
        if request.text is None:
            return next(self._clicks.run([request], ctx))
        _one_way(request, request.video.name)
        asked = [(name, *self._tokenizer(name)) for name in named(request.text)]
        with self._following:  # the network keeps tables between frames
            return self._follower.run(request.video, asked, ctx)

    def _named(self, request: SegmentRequest, ctx: Context) -> Detections:
        """All that the words and examples of a request mean, the best first; ``object`` numbers the concepts."""
        image = request.image
        asked = concepts(request.text, request.like, image)
        least = self._spec.threshold if request.threshold is None else request.threshold
        ids = [self._tokenizer(concept.words) for concept in asked]
        maps = self._maps(image, ctx)
        self._networks.prepare(*_NAMING)
        told = [self._told(concept.words, *tokens, ctx) for concept, tokens in zip(asked, ids, strict=True)]
        kept: list[tuple[int, Found]] = []
        for number, (concept, words) in enumerate(zip(asked, told, strict=True)):
            ctx.check()
            found = self._networks.find(maps, self._prompt(concept, words, maps, image))
            good = found.scores > least
            kept.append((number, Found(found.scores[good], found.boxes[good], found.low_res[good])))
        return arranged(_answer(kept, asked, image), request, ctx, counted=True)

    def _prompt(self, concept: Concept, words: np.ndarray, maps: Sequence[np.ndarray], image: Image) -> np.ndarray:
        if not concept.boxes:
            return words
        shown = self._networks.exemplars(maps[-1], roi.shares(concept.boxes, image.size))
        return np.concatenate([words, shown], axis=1)

    def _told(self, words: str, ids: np.ndarray, length: int, ctx: Context) -> np.ndarray:
        """The prompt ``(1, length, D)`` of a text."""
        found, _ = ctx.store.get_or_compute(
            self._key(content_id("text", [words]), "words"),
            lambda: {"prompt": self._networks.words(ids)[:, :length]},
            check=ctx.check,
        )
        return np.array(found["prompt"])

    def _maps(self, image: Image, ctx: Context) -> list[np.ndarray]:
        """The detector's maps of a picture; those of the last one are at hand."""
        tokens = self._tokens_of(image, ctx, also=_NAMING)
        with self._lock:
            if self._last is None or self._last[0] != image.id:
                self._last = None
                self._last = image.id, self._networks.maps(tokens)
            return self._last[1]

    def _tokens_of(self, image: Image, ctx: Context, keep: bool = True, also: Sequence[str] = ()) -> np.ndarray:
        """The patch tokens ``(1, N, C)`` of a picture.

        Args:
            image: The picture.
            ctx: The context.
            keep: Whether the store keeps them; frames of a video are looked at once.
            also: Pieces to build beside the trunk where that has to run: the weights are then read once.
        """

        def encode() -> dict[str, np.ndarray]:
            ctx.check()
            self._networks.prepare("trunk", *also)
            processor = self._spec.processor
            tokens = self._networks.trunk(processor.normalised(processor.pixels(image.array))[None])
            return {"tokens": tokens.astype(np.float16 if self.settings.precision == "bf16" else np.float32)}

        key = self._key(image.id, "trunk")
        if keep:
            found, hit = ctx.store.get_or_compute(key, encode, check=ctx.check)
        else:
            known, hit = ctx.store.find(key)
            found = encode() if known is None else known
        ctx.notes["cache"] = hit or "miss"
        return found["tokens"].astype(np.float32)

    def _key(self, content: str, layer: str) -> Key:
        about = self.settings
        return Key(content, self._hash, f"sam3-{self.row.preprocessing}", layer, about.engine, about.precision)


def _one_way(request: SegmentRequest | TrackRequest, name: str) -> None:
    if request.prompts():
        raise PromptError(
            f"{name}: words or examples together with clicks, boxes or masks",
            "ask for what is named and for what is pointed out in two requests",
        )


def _answer(kept: Sequence[tuple[int, Found]], asked: Sequence[Concept], image: Image) -> Detections:
    """What was found for each concept, at the picture's size."""
    of = np.concatenate([np.full(len(found.scores), number) for number, found in kept])
    scores, shares, low_res = (np.concatenate(parts) for parts in zip(*(found for _, found in kept), strict=True))
    # The reference resizes probabilities, not logits.
    sure = 1 / (1 + np.exp(-np.clip(low_res, -_FAR, _FAR)))
    canvas = Canvas.filled(image.size, low_res.shape[-1])
    masks = full.full_size(sure, canvas, 0.5)
    some = masks.reshape(len(masks), -1).any(axis=1) if len(masks) else np.zeros(0, bool)
    sizes = np.array([*image.size, *image.size], np.float32)
    return detections(
        np.clip(shares[some], 0, 1) * sizes,
        scores[some],
        masks=masks[some],
        names=[asked[number].name for number in of[some]],
        class_ids=of[some].tolist(),
        objects=of[some].tolist(),
        low_res=low_res[some],
    )
