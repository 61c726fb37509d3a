"""Objects of a video, frame by frame: prompted, then followed with the memory of earlier frames.

As in the paper's section 4 and transformers' ``Sam2VideoModel``, with differences that are all as in Meta's own
predictor: whether a mask is taken as certain is decided for each object by itself; a prompt on a frame that was already
followed makes it a prompted frame, and looks back the way that it was followed; clicks that are added to what was found
in a frame refine that mask, which goes in as a prompt. A frame is decoded, encoded and let go; what stays is the memory
of prompted frames and, of all others, of the latest sixteen (and the sixteen after the start, for going backwards from
there).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import cv2
import numpy as np

from manylens.media import Image, Video, to_rle
from manylens.models.promptable import masks as full
from manylens.models.promptable.decoder import Scene
from manylens.models.promptable.prompts import Canvas, batches
from manylens.models.sam2.memory import Bank, Memory, Seen, narrow
from manylens.models.sam2.networks import EMBEDDING, VIDEO, Found, Networks, best, clear
from manylens.runtime.context import Context
from manylens.tasks.prompts import ObjectPrompt
from manylens.tasks.results import Frame, Tracked

_ABSENT = -1024.0
"""Logit of every pixel of an object that is out of sight."""
_INSIDE, _OUTSIDE = 10.0, -10.0
"""Logits of a mask that was given."""
_SURE = 32.0
"""Logits of an earlier answer that is refined are cut here."""
_CHUNK = 24
"""Frames held at once on the way backwards, since videos decode forwards."""

Encode = Callable[[Image, Context], Scene]


class Tracker:
    """Follows objects through one video.

    Args:
        networks: The checkpoint's pieces.
        video: The video.
        kept: Encodes a frame, and keeps the encoding: for frames that are prompted, perhaps again.
        passing: Encodes a frame that is looked at once.
    """

    def __init__(self, networks: Networks, video: Video, kept: Encode, passing: Encode) -> None:
        self._networks, self._spec = networks, networks.spec
        self._video, self._kept, self._passing = video, kept, passing
        self._canvas = Canvas.filled(video.size, networks.spec.side)
        self._banks: dict[int, Bank] = {}

    @property
    def ids(self) -> tuple[int, ...]:
        """The objects."""
        return tuple(self._banks)

    @property
    def start(self) -> int:
        """The first prompted frame."""
        return min(frame for bank in self._banks.values() for frame in bank.prompted)

    def prompt(
        self, number: int, frame: int, image: Image, prompt: ObjectPrompt, ctx: Context, *, refine: bool = False
    ) -> Tracked | None:
        """Say what an object is in a frame; what was said there before no longer counts.

        Args:
            number: The object's tracker id.
            frame: The frame's number.
            image: The frame.
            prompt: All that is said of the object there, checked.
            ctx: The call's context.
            refine: Whether what was found in that frame, by a prompt or by following, goes in as a mask.

        Returns:
            The object as the network now sees it; None where it sees none.
        """
        self._networks.prepare(*VIDEO)
        scene = self._kept(image, ctx)
        bank = self._banks.get(number) or Bank()
        if prompt.mask is not None and prompt.kinds() == {"mask"}:
            memory = self._given(scene, prompt.mask)
        else:
            memory = self._clicked(scene, bank, frame, prompt, refine)
        bank.prompted[frame] = memory
        bank.followed.pop(frame, None)
        self._banks[number] = bank
        return self._tracked(number, memory.seen)

    def forget(self, number: int | None = None) -> None:
        """Forget an object; with None, what was followed of all of them, not what was prompted."""
        if number is not None:
            self._banks.pop(number, None)
            return
        for bank in self._banks.values():
            bank.followed, bank.passed = {}, {}

    def forwards(self, start: int, ctx: Context) -> Iterator[Frame]:
        """The frames from ``start`` to the end, in order.

        Raises:
            MediaError: The video is cut in the middle or changes its size; the frames before that were given.
        """
        for frame, image in enumerate(self._video.frames(start), start):
            yield self._step(frame, image, 1, start, ctx)

    def backwards(self, start: int, ctx: Context) -> Iterator[Frame]:
        """The frames before ``start``, the last first. The file is read anew for every 24 of them."""
        for stop in range(start, 0, -_CHUNK):
            first = max(0, stop - _CHUNK)
            images = list(self._video.frames(first, stop))
            for frame in range(stop - 1, first - 1, -1):
                if frame - first < len(images):
                    yield self._step(frame, images[frame - first], -1, start, ctx)
                    images.pop()

    def _step(self, frame: int, image: Image, step: int, start: int, ctx: Context) -> Frame:
        ctx.check()
        scene: Scene | None = None
        objects = []
        for number, bank in self._banks.items():
            memory = bank.prompted.get(frame)
            if memory is None:
                scene = self._passing(image, ctx) if scene is None else scene
                ctx.check()
                memory = bank.followed[frame] = self._followed(scene, bank, frame, step)
                bank.passed[frame] = step
                bank.prune(frame, start, self._spec.reach)
            tracked = self._tracked(number, memory.seen)
            objects += [tracked] if tracked is not None else []
        return Frame(frame, tuple(objects))

    def _followed(self, scene: Scene, bank: Bank, frame: int, step: int) -> Memory:
        nothing = np.zeros((1, 0, 2), np.float32), np.zeros((1, 0), np.int64)
        found = self._networks.decode(self._recalled(scene, bank, frame, step), *nothing, fresh=False)
        several = self._spec.several_tracked and self._several(0)
        return self._concluded(scene, found, several, sure=False)

    def _clicked(self, scene: Scene, bank: Bank, frame: int, prompt: ObjectPrompt, refine: bool) -> Memory:
        before = (bank.prompted.get(frame) or bank.followed.get(frame)) if refine else None
        previous = None if before is None else np.clip(before.seen.low_res, -_SURE, _SURE)
        (batch,) = batches([prompt], self._canvas, self._spec.low_res, previous, box_first=True, pad_boxes=True)
        # What was already followed here is corrected in the light of the memory, else the object begins here.
        fresh = frame not in bank.passed or not bank.prompted
        look = scene if fresh else self._recalled(scene, bank, frame, bank.passed[frame])
        found = self._networks.decode(look, batch.points, batch.labels, batch.masks, fresh=fresh)
        told = batch.labels.shape[1] - 1  # less the padding
        several = self._several(told) and (fresh or self._spec.several_tracked)
        return self._concluded(scene, found, several, sure=True)

    def _given(self, scene: Scene, mask: np.ndarray) -> Memory:
        """A mask that is given is the answer; the decoder only tells what pointer it makes."""
        spec = self._spec
        square = fitted(mask, spec.side)
        points, labels = np.zeros((1, 0, 2), np.float32), np.zeros((1, 0), np.int64)
        found = self._networks.decode(scene, points, labels, self._networks.shrink(square), fresh=False)
        assert found.pointers is not None
        logits = np.where(square, np.float32(_INSIDE), np.float32(_OUTSIDE))
        low_res = _shrunk(logits, spec.low_res)
        features = self._networks.remember(scene[EMBEDDING], logits, True, _INSIDE)
        return Memory(narrow(features), found.pointers[0, int(best(found)[0])], Seen(low_res, _INSIDE))

    def _concluded(self, scene: Scene, found: Found, several: bool, sure: bool) -> Memory:
        """The mask that is meant, and what is remembered of it."""
        assert found.pointers is not None
        mask = int((best if several else lambda one: clear(one, self._spec))(found)[0])
        # The reference's pointer of a single answer is that of mask 0, whichever mask stands in for it.
        pointer = found.pointers[0, mask if several else 0]
        there = float(found.there[0, 0])
        low_res = found.low_res[0, mask].copy() if there > 0 else np.full_like(found.low_res[0, mask], _ABSENT)
        side = self._spec.side
        logits = cv2.resize(low_res, (side, side), interpolation=cv2.INTER_LINEAR)
        features = self._networks.remember(scene[EMBEDDING], logits, sure, there)
        return Memory(narrow(features), pointer, Seen(low_res, there))

    def _recalled(self, scene: Scene, bank: Bank, frame: int, step: int) -> Mapping[str, np.ndarray]:
        recalled = bank.recall(frame, step, self._video.count, self._spec)
        return {**scene, EMBEDDING: self._networks.recall(scene[EMBEDDING], *recalled)}

    def _several(self, points: int) -> bool:
        least, most = self._spec.several_points
        return self._spec.several and least <= points <= most

    def _tracked(self, number: int, seen: Seen) -> Tracked | None:
        """An object in sight, at the video's size."""
        if seen.there <= 0:
            return None
        mask = full.full_size(seen.low_res[None], self._canvas)[0]
        if not mask.any():
            return None
        x0, y0, x1, y1 = (float(v) for v in full.boxes(mask[None])[0])
        return Tracked(number, (x0, y0, x1, y1), float(1 / (1 + np.exp(-seen.there))), dict(to_rle(mask)))


def fitted(mask: np.ndarray, side: int) -> np.ndarray:
    """A mask of a frame, bool ``(H, W)``, in the network's square: bool ``(side, side)``.

    A pixel belongs to it where half is covered; one that is too fine for that keeps the pixel at its middle.
    """
    from PIL import Image as Pictures

    share = Pictures.fromarray(np.asarray(mask, np.float32)).resize((side, side), Pictures.Resampling.BILINEAR)
    square = np.asarray(share) >= 0.5
    if not square.any():
        square = square.copy()
        rows, columns = np.nonzero(mask)
        middle = len(rows) // 2
        square[rows[middle] * side // mask.shape[0], columns[middle] * side // mask.shape[1]] = True
    return square


def _shrunk(logits: np.ndarray, side: int) -> np.ndarray:
    """float32 logits as ``(side, side)``, bilinear with antialiasing."""
    from PIL import Image as Pictures

    return np.asarray(Pictures.fromarray(logits).resize((side, side), Pictures.Resampling.BILINEAR))
