"""What is remembered of an object in a video: a memory of each frame that was prompted, and of the latest others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from manylens.models.sam2.spec import Spec


class Seen(NamedTuple):
    """An object in one frame.

    Attributes:
        low_res: float32 ``(S, S)`` logits of its mask.
        there: A logit, above 0 where it is in sight.
    """

    low_res: np.ndarray
    there: float


@dataclass(frozen=True, eq=False)
class Memory:
    """What one frame leaves.

    Attributes:
        features: uint16 ``(cells * cells, D)``: the bits of bfloat16, in which the reference keeps them too.
        pointer: float32 ``(C,)``: the object, as the decoder meant it.
        seen: What was found in that frame, which a later click there refines.
    """

    features: np.ndarray
    pointer: np.ndarray
    seen: Seen


class Recalled(NamedTuple):
    """What the memory attention is given; see :class:`manylens.models.sam2.parts.MemoryAttention`."""

    memory: np.ndarray
    slots: np.ndarray
    pointers: np.ndarray
    times: np.ndarray


@dataclass(eq=False)
class Bank:
    """The memories of one object.

    Attributes:
        prompted: By frame, where a person said what the object is; all are kept.
        followed: By frame, where the network found it; kept only near the frames that still need them.
        passed: The frames that it was followed through, and which way, 1 or -1: a prompt there corrects, elsewhere it
            begins.
    """

    prompted: dict[int, Memory] = field(default_factory=dict)
    followed: dict[int, Memory] = field(default_factory=dict)
    passed: dict[int, int] = field(default_factory=dict)

    def recall(self, frame: int, step: int, count: int, spec: Spec) -> Recalled:
        """What is remembered at a frame: prompted frames, the latest others, and the pointers of more.

        What was found in that frame itself, which is being corrected, is not.

        Args:
            frame: The frame, from 0.
            step: 1 where the video is followed forwards, -1 backwards.
            count: Frames of the video.
            spec: How far back, and how many.
        """
        prompted = {one: found for one, found in self.prompted.items() if one != frame}
        near = _nearest(prompted, frame, spec.most_prompted)
        # The last row of the temporal table is that of prompted frames, whenever they were.
        frames = [(spec.memories - 1, prompted[one]) for one in near]
        for ago in range(spec.memories - 1, 0, -1):
            earlier = frame - step * ago
            found = self.followed.get(earlier) or (None if earlier in near else prompted.get(earlier))
            if found is not None:
                frames.append((ago - 1, found))
        most = max(1, min(count, spec.pointers))
        told = [((frame - one) * step, found) for one, found in prompted.items() if (frame - one) * step >= 0]
        for ago in range(1, most):
            found = self.followed.get(frame - step * ago)
            if found is not None:
                told.append((ago, found))
        width = next(iter(prompted.values())).pointer.shape
        return Recalled(
            np.stack([wide(found.features) for _, found in frames]),
            np.array([slot for slot, _ in frames], np.int64),
            np.stack([found.pointer for _, found in told]) if told else np.zeros((0, *width), np.float32),
            np.array([ago for ago, _ in told], np.float32) / np.float32(max(1, most - 1)),
        )

    def prune(self, frame: int, start: int, reach: int) -> None:
        """Forget the followed frames that are far from a frame and from where following began.

        Backwards begins where forwards did, and sees the frames just after it.
        """
        near = {one for one in self.followed if min(abs(one - frame), abs(one - start)) < reach}
        self.followed = {one: found for one, found in self.followed.items() if one in near}


def _nearest(prompted: Iterable[int], frame: int, most: int) -> list[int]:
    """The prompted frames that are attended to: all, or the nearest before, the nearest after, and the nearest."""
    frames = list(prompted)
    if most == -1 or len(frames) <= most:
        return frames
    before = max((one for one in frames if one < frame), default=None)
    after = min((one for one in frames if one >= frame), default=None)
    chosen = [one for one in (before, after) if one is not None]
    rest = sorted((one for one in frames if one not in chosen), key=lambda one: abs(one - frame))
    return chosen + rest[: most - len(chosen)]


def narrow(features: np.ndarray) -> np.ndarray:
    """float32 as the bits of the nearest bfloat16, ties to even."""
    bits = np.ascontiguousarray(features, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def wide(bits: np.ndarray) -> np.ndarray:
    """The bits of bfloat16 as float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
