"""A video held open: prompts on any frame, following, corrections by further clicks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.errors import PromptError
from manylens.media import Video
from manylens.models.sam2.tracker import Tracker
from manylens.runtime.context import Context
from manylens.tasks.prompts import ObjectPrompt
from manylens.tasks.regions import TrackRequest
from manylens.tasks.results import Frame, Provenance, Tracks

if TYPE_CHECKING:
    from supervision import Detections


class OpenVideo:
    """What ``session.open("track", video)`` gives as ``state``.

    Attributes:
        video: The video.
    """

    def __init__(self, video: Video, tracker: Tracker, ctx: Context, provenance: Provenance) -> None:
        self.video = video
        self._tracker, self._ctx, self._provenance = tracker, ctx, provenance
        self._said: dict[tuple[int, int], ObjectPrompt] = {}

    @property
    def ids(self) -> tuple[int, ...]:
        """Tracker ids of the objects."""
        return self._tracker.ids

    def add(
        self,
        frame: int,
        *,
        points: Any = (),
        background_points: Any = (),
        box: Any = None,
        mask: np.ndarray | None = None,
        tracker_id: int | None = None,
    ) -> Detections:
        """Point out an object in a frame, or correct it there.

        Clicks add to those that the object has in this frame, and refine the mask that was found there; a box takes the
        place of an earlier one, and a mask that of all that was said. Call :meth:`propagate` afterwards.

        Args:
            frame: The frame, from 0.
            points: Clicks on the object, ``(x, y)`` in pixels.
            background_points: Clicks on what is not the object.
            box: ``xyxy`` around the object, in pixels.
            mask: The object, bool ``(H, W)`` of the video's size.
            tracker_id: Which object; None begins a new one.

        Returns:
            The object in that frame; empty where it is not seen.

        Raises:
            PromptError: There is no such frame or object, or the prompt does not lie in the picture.
        """
        if tracker_id is not None and tracker_id not in self.ids:
            known = ", ".join(map(str, self.ids)) or "none"
            raise PromptError(f"track: there is no object {tracker_id}", f"the objects are {known}")
        new = ObjectPrompt.model_construct(points=(), background_points=(), box=None, mask=None)
        number = tracker_id if tracker_id is not None else max(self.ids, default=0) + 1
        old = self._said.get((number, frame), new) if mask is None else new
        request = TrackRequest.of(
            video=self.video,
            frame=frame,
            points=(*old.points, *_several(points)),
            background_points=(*old.background_points, *_several(background_points)),
            box=old.box if box is None else box,
            mask=old.mask if mask is None else mask,
        )
        (prompt,) = request.prompts()
        image = self.video.frame(frame)
        seen = self._tracker.prompt(number, frame, image, prompt, self._ctx, refine=mask is None)
        self._said[number, frame] = prompt
        return Frame(frame, () if seen is None else (seen,)).detections(self.video.size)

    def remove(self, tracker_id: int) -> None:
        """Forget an object."""
        self._tracker.forget(tracker_id)
        self._said = {key: prompt for key, prompt in self._said.items() if key[0] != tracker_id}

    def propagate(self, start: int | None = None, *, reverse: bool = False) -> Iterator[Frame]:
        """Follow all objects, frame by frame; stop where it goes wrong, :meth:`add` a click, and go on from there.

        Args:
            start: The frame to go from; None for the first prompted one.
            reverse: Go to the start of the video, not to its end; ``start`` itself is not given again.

        Raises:
            PromptError: Nothing was pointed out yet.
        """
        self._check()
        begin = self._tracker.start if start is None else start
        self.video.frame(begin)
        yield from (self._tracker.backwards if reverse else self._tracker.forwards)(begin, self._ctx)

    def tracks(self) -> Tracks:
        """Follow all objects anew through the whole video, with all that was said so far.

        Raises:
            PromptError: Nothing was pointed out yet.
        """
        self._check()
        self._tracker.forget()
        return followed(self._tracker, self.video, self._ctx, self._provenance)

    def _check(self) -> None:
        if not self.ids:
            raise PromptError(f"track: no prompt for {self.video.name}", "add a point, a box or a mask first")


def followed(tracker: Tracker, video: Video, ctx: Context, provenance: Provenance | None = None) -> Tracks:
    """The whole video: from the first prompted frame to the end, then from there back to the start."""
    found: dict[int, Frame] = {}
    start = tracker.start
    for way in (tracker.forwards(start, ctx), tracker.backwards(start, ctx)):
        for frame in way:
            found[frame.index] = frame
            ctx.progress(len(found) / max(video.count, len(found)), f"frame {len(found)} of {video.count}")
    frames = tuple(found[index] for index in sorted(found))
    return Tracks(frames=frames, width=video.width, height=video.height, fps=video.fps, provenance=provenance)


def _several(points: Any) -> tuple[Any, ...]:
    """One point or several, as several."""
    points = tuple(points)
    return (points,) if points and np.isscalar(points[0]) else points
