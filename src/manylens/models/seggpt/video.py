"""Following classes and objects through a video, with a memory of frames already painted.

Each frame is asked about with the first examples and with the latest frames whose answer was sure, as further examples
of the feature ensemble (the paper's way for videos). What is kept does not grow with the video.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from manylens.media import Image, bounds, to_rle
from manylens.models.dense.matching import masks
from manylens.models.examples import classes
from manylens.models.seggpt import colours
from manylens.models.seggpt.answers import Answers, Tokens
from manylens.models.seggpt.passes import Pass, Shown, passes
from manylens.runtime.context import Context
from manylens.tasks.regions import TrackRequest
from manylens.tasks.results import Frame, Tracked, Tracks

MEMORY = 4
"""Frames remembered. The paper takes 8; each costs a processor about as much as another example."""

SURE = 0.75
"""Mean likeness under a mask from which a frame is remembered: three times as near to its colour as to black."""


@dataclass
class _Followed:
    """A pass, the tokens of its examples, and the frames remembered for it."""

    run: Pass
    first: Tokens
    memory: deque[tuple[np.ndarray, np.ndarray]] = field(default_factory=deque)

    def examples(self) -> Tokens:
        """The tokens of the first examples and of the remembered frames."""
        if not self.memory:
            return self.first
        pictures, planes = (np.stack(parts) for parts in zip(*self.memory, strict=True))
        return np.concatenate([self.first[0], pictures]), np.concatenate([self.first[1], planes])


def track(answers: Answers, request: TrackRequest, ctx: Context, memory: int = MEMORY, sure: float = SURE) -> Tracks:
    """Follow what masks of a frame, or examples, show through a video.

    Every frame is answered in order from the first, also those before the frame that the masks speak of: an example
    does not have to come before what is asked. That frame itself shows the masks as they were given.

    Args:
        answers: The network.
        request: A video with masks of one frame, with examples, or both; objects come before named classes.
        ctx: Its store keeps the examples' tokens; frames are not kept.
        memory: Frames remembered; see :data:`MEMORY`.
        sure: See :data:`SURE`.
    """
    video, given = request.video, [prompt.mask for prompt in request.prompts() if prompt.mask is not None]
    shown: list[list[Shown]] = []
    if given:
        marked = video.frame(request.frame)
        shown = [[(marked, mask)] for mask in given]
    named = classes(request.like)
    shown += [[(example.image, example.mask) for example in one.examples] for one in named]
    names = [""] * len(given) + [one.name for one in named]
    followed = []
    for run in passes(shown, colours.MOST):
        ctx.check()
        tokens = answers.tokens(run, answers.planes(run), ctx)
        followed.append(_Followed(run, tokens, deque(maxlen=memory)))
    frames = []
    for index, frame in enumerate(video):
        ctx.check()
        marked_here = bool(given) and index == request.frame
        if marked_here and not named:
            found, scores = np.stack(given), np.ones(len(given), np.float32)
        else:
            # The marked frame is an example already: its own answer would only be a worse one.
            found, scores = _seen(answers, followed, len(shown), frame, ctx, np.inf if marked_here else sure)
        if marked_here:
            found[: len(given)], scores[: len(given)] = given, 1
            found[len(given) :] &= ~np.any(given, axis=0)
        frames.append(_frame(index, found, scores, names))
        ctx.progress((index + 1) / video.count, f"frame {index + 1} of {video.count}")
    return Tracks(tuple(frames), video.width, video.height, video.fps)


def _seen(
    answers: Answers, followed: Sequence[_Followed], count: int, frame: Image, ctx: Context, sure: float
) -> tuple[np.ndarray, np.ndarray]:
    """Masks bool ``(count, H, W)`` and scores of one frame, which is remembered where it is sure."""
    networks = answers.networks
    width, height = networks.size
    query = networks.tokens([networks.processor.pixels(frame.array)])[0]
    likeness = np.zeros((count, height, width), np.float32)
    for one in followed:
        ctx.check()
        painted = networks.paint(*one.examples(), query)
        likeness[list(one.run.classes)] = colours.likeness(painted, len(one.run.classes))
    small, scores = masks(likeness, networks.size, colours.NEARER)
    for one in followed:
        plane = _sure_plane(small, scores, one.run, sure)
        if plane is not None and one.memory.maxlen:
            one.memory.append((query, networks.tokens([plane])[0]))
    return masks(likeness, frame.size, colours.NEARER)


def _sure_plane(small: np.ndarray, scores: np.ndarray, run: Pass, sure: float) -> np.ndarray | None:
    """The painted mask of what a frame shows of a pass; None where it shows nothing, or something that is not sure."""
    seen = [number for number in run.classes if small[number].any()]
    if not seen or min(scores[seen]) < sure:
        return None
    numbers = np.zeros(small.shape[1:], np.uint8)
    for place, number in enumerate(run.classes):
        numbers[small[number]] = place + 1
    return colours.coloured(numbers, len(run.classes))


def _frame(index: int, found: np.ndarray, scores: np.ndarray, names: Sequence[str]) -> Frame:
    objects = []
    for number, (mask, score) in enumerate(zip(found, scores, strict=True)):
        box = bounds(mask)
        if box is not None:
            left, top, right, bottom = map(float, box)
            rle = dict(to_rle(mask))
            objects.append(Tracked(number + 1, (left, top, right, bottom), float(score), rle, names[number]))
    return Frame(index, tuple(objects))
