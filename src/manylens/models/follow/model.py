"""The embedded tracker: masks of one frame carried through a video, forwards and backwards."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.errors import PromptError
from manylens.media import Image, Video, bounds, to_rle
from manylens.models.base import Model
from manylens.models.follow.follower import Follower, Sight
from manylens.models.regions.features import PatchEncoder
from manylens.runtime.context import Context
from manylens.runtime.engines import EngineSettings
from manylens.tasks import Request, SegmentRequest, TrackRequest, provenance_of
from manylens.tasks.results import Frame, Tracked, Tracks

if TYPE_CHECKING:
    from manylens.catalog import Row

NEAR, WIDE = 336, 448
"""Pixels of the longer side that the encoder sees: of a view around an object, and of a whole frame."""

_BLOCK = 16
"""Frames that are held at once on the way backwards: a video file can only be read forwards."""


class Follow(Model):
    """Serves ``track`` without weights trained for it; the cost of a frame is that of each object in it.

    What points out an object becomes a mask by ``segment``; a mask that is given is taken as it is. The memory that it
    needs does not grow with the length of the video, but for the masks it returns.
    """

    def __init__(self, row: Row, files: Mapping[str, Path], settings: EngineSettings) -> None:
        super().__init__(row, files, settings)
        self._loading = threading.Lock()
        self._encoders: tuple[PatchEncoder, PatchEncoder] | None = None

    def run(self, requests: Sequence[Request], ctx: Context) -> Iterator[Tracks]:
        """Yield the objects of each video, frame by frame; one that is out of sight is left out of the frame.

        Raises:
            PromptError: Nothing was found to follow.
            MediaError: A frame cannot be read, or is of another size.
        """
        for request in requests:
            assert isinstance(request, TrackRequest)
            yield self._track(request, ctx)

    def _track(self, request: TrackRequest, ctx: Context) -> Tracks:
        video = request.video
        start = video.frame(request.frame)
        masks, names = started(request, start, ctx)
        near, wide = self._loaded()
        whole = wide(start.array)
        done = 0

        def followers() -> list[Follower]:
            return [Follower(start.array, mask, near=near, wide=wide, whole=whole, seed=ctx.seed) for mask in masks]

        def through(frames: Iterator[tuple[int, Image]]) -> Iterator[Frame]:
            nonlocal done
            group: list[Follower] = []
            for index, image in frames:
                ctx.check()
                group = group or followers()
                yield _frame(index, [one.step(image.array) for one in group], names)
                done += 1
                ctx.progress(done / max(1, video.count - 1), f"frame {index} of {video.count}")

        before = list(through(backwards(video, request.frame)))
        given = [Sight(mask.astype(np.float32), 1.0) for mask in masks]
        after = through(enumerate(video.frames(request.frame + 1), request.frame + 1))
        frames = (*reversed(before), _frame(request.frame, given, names), *after)
        return Tracks(frames=frames, width=video.width, height=video.height, fps=video.fps)

    def _loaded(self) -> tuple[PatchEncoder, PatchEncoder]:
        with self._loading:
            if self._encoders is None:
                near = PatchEncoder(
                    self.files["vit_s_focus.onnx"],
                    long_side=NEAR,
                    precision=self.settings.precision,
                    threads=self.settings.threads,
                )
                wide = copy(near)  # one network, which takes pictures of any size
                wide.long_side = WIDE
                self._encoders = (near, wide)
            return self._encoders

    def probe(self) -> Callable[[], np.ndarray]:
        """The patches of fixed noise; see :meth:`manylens.models.base.Model.probe`."""
        noise = np.random.default_rng(0).integers(0, 256, (NEAR, NEAR, 3), np.uint8)
        return lambda: self._loaded()[0](noise)

    def close(self) -> None:
        """Give the network's memory back."""
        if self._encoders is not None:
            self._encoders[0].close()
            self._encoders = None


def started(request: TrackRequest, image: Image, ctx: Context) -> tuple[list[np.ndarray], list[str]]:
    """The masks, bool ``(H, W)``, and names of the objects on the frame that a request speaks of.

    What was asked for and is not there is left out, and the notes say so.

    Raises:
        PromptError: Nothing was found there.
    """
    masks: list[np.ndarray] = []
    names: list[str] = []
    notes: list[str] = []
    for number, prompt in enumerate(request.prompts(), 1):
        if prompt.kinds() == {"mask"} and prompt.mask is not None:
            masks.append(prompt.mask)
        else:
            found = ctx.call("segment", SegmentRequest.of(image=image, objects=[prompt]))
            masks += [] if not len(found) else [found.mask[0]]
            if not len(found):
                notes.append(f"object {number} was not found in frame {request.frame}; later ones move up by a number")
        names += [""] * (len(masks) - len(names))
    if request.text is not None or request.like:
        found = ctx.call("segment", SegmentRequest.of(image=image, text=request.text, like=request.like))
        masks += list(found.mask)
        names += [str(name) for name in found.data["class_name"]]
        about = provenance_of(found)
        notes += about.notes if about is not None else ()
    kept = [(mask, name) for mask, name in zip(masks, names, strict=True) if mask.any()]
    if not kept:
        raise PromptError(
            f"{request.video.name}: nothing to follow was found in frame {request.frame}",
            "point at the object, or name a frame that shows it",
        )
    ctx.notes.setdefault("notes", []).extend(notes)
    return [mask for mask, _ in kept], [name for _, name in kept]


def backwards(video: Video, stop: int) -> Iterator[tuple[int, Image]]:
    """The frames before ``stop`` with their numbers, the last first; a few at a time are in memory."""
    while stop > 0:
        start = max(0, stop - _BLOCK)
        block = list(video.frames(start, stop))
        yield from zip(range(stop - 1, start - 1, -1), reversed(block), strict=True)
        stop = start


def _frame(index: int, sights: Sequence[Sight | None], names: Sequence[str]) -> Frame:
    """A frame's objects, each pixel of at most one: of the one that is surest of it."""
    there = [(number, sight) for number, sight in enumerate(sights) if sight is not None]
    if not there:
        return Frame(index)
    planes = np.stack([sight.soft for _, sight in there])
    owner = np.where(planes.max(axis=0) > 0.5, planes.argmax(axis=0), -1)
    objects = []
    for place, (number, sight) in enumerate(there):
        mask = owner == place
        box: Any = bounds(mask)
        if box is not None:
            corners = tuple(float(corner) for corner in box)
            objects.append(Tracked(number + 1, corners, sight.score, dict(to_rle(mask)), names[number]))  # type: ignore[arg-type]
    return Frame(index, tuple(objects))
