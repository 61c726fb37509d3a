"""Objects followed through a video by their patches, as DINO (Caron et al. 2021) does on DAVIS."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from manylens.errors import PromptError
from manylens.media import Image, Video, bounds, to_rle
from manylens.models.dense.grids import upsampled
from manylens.models.dense.propagation import Propagation, shares
from manylens.models.dino.encoder import Features
from manylens.models.dino.views import View
from manylens.runtime.context import Context
from manylens.tasks import Frame, Tracked, TrackRequest, Tracks

HOW = Propagation(neighbours=5, temperature=0.1, radius=12, context=7)
"""DINO's own figures: topk 5, size_mask_neighborhood 12, n_last_frames 7."""

_LEAST = 0.25
"""Share that an object still has, in any patch, of the most that it had of one at first: below it is out of sight."""

_CHUNK = 16
"""Frames that are in memory at once where a video is followed backwards."""


def follow(request: TrackRequest, features: Features, view: View, ctx: Context) -> Tracks:
    """Carry the masks of one frame through the video, forwards and back; memory does not grow with its length."""
    video, start = request.video, request.frame
    prompts = request.prompts()
    masks = [prompt.mask for prompt in prompts]
    if any(mask is None for mask in masks):
        raise PromptError(f"track: an object of {video.name} has no mask", "give a mask of each object")
    given = [np.asarray(mask) for mask in masks if mask is not None]
    frames = {start: _frame(start, np.stack(given).astype(np.float32))}
    for order in (range(start, video.count), range(start, -1, -1)):
        done = iter(order[1:])
        stream = features.stream(_pictures(video, order), view, ctx)
        for labels in _carried(stream, given, len(order)):
            number = next(done)
            frames[number] = _frame(number, _sharp(labels, video.size))
            ctx.progress(len(frames) / video.count, f"frame {len(frames)} of {video.count}")
    return Tracks(
        frames=tuple(frames[number] for number in sorted(frames)), width=video.width, height=video.height, fps=video.fps
    )


def _carried(stream: Iterator[np.ndarray], masks: Sequence[np.ndarray], count: int) -> Iterator[np.ndarray]:
    """Labels ``(rows, columns, 1 + objects)`` of each frame after the first, as parts of the most they had there.

    A thing that is smaller than a patch never has the whole of one.
    """
    if count < 2:
        return
    first = next(stream)

    def all_frames() -> Iterator[np.ndarray]:
        yield first
        yield from stream

    known = shares(masks, first.shape[:2])
    most = known.max(axis=(0, 1))
    for labels in HOW.through(all_frames(), known):
        yield labels / np.where(most > 0, most, 1)


def _sharp(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """How much of each pixel is each object's, 0 where another's or the background's is more: ``(objects, H, W)``.

    An object's share is stretched to 1 over the frame before shares are compared, as DINO does, unless the object is
    out of sight.
    """
    seen = labels.max(axis=(0, 1)) >= _LEAST
    seen[0] = True
    planes = upsampled(np.moveaxis(np.where(seen, labels, 0), 2, 0), size)
    most = planes.max(axis=(1, 2), keepdims=True)
    least = planes.min(axis=(1, 2), keepdims=True)
    stretched = np.where(most > least, (planes - least) / np.maximum(most - least, 1e-12), planes)
    best = stretched.argmax(axis=0)
    return np.stack([np.where(best == number, planes[number], 0) for number in range(1, len(planes))])


def _frame(index: int, planes: np.ndarray) -> Frame:
    """The objects that a frame shows; ``planes`` are their shares ``(objects, H, W)``."""
    found = []
    for number, plane in enumerate(planes):
        mask = plane > 0
        box = bounds(mask)
        if box is not None:
            score = float(np.clip(plane[mask].mean(), 0, 1))
            found.append(Tracked(tracker_id=number + 1, box=box, score=score, mask=dict(to_rle(mask))))
    return Frame(index=index, objects=tuple(found))


def _pictures(video: Video, order: range) -> Iterator[Image]:
    """The frames of a range, also backwards; a video is read in one direction, so backwards in pieces."""
    if order.step > 0:
        yield from video.frames(order.start, order.stop)
        return
    for stop in range(order.start + 1, 0, -_CHUNK):
        yield from reversed(list(video.frames(max(0, stop - _CHUNK), stop)))
