"""Words to masks: look for the words, then cut out each box."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.errors import PromptError
from manylens.media import Image
from manylens.models.base import Model
from manylens.models.composed.colour import name_colour, split_colour
from manylens.models.composed.look import as_box, notes_of
from manylens.models.composed.words import listed, split_names
from manylens.runtime.context import Context
from manylens.tasks import DetectRequest, Request, SegmentRequest, detections
from manylens.tasks.geometry import Box, clip_box

if TYPE_CHECKING:
    from supervision import Detections

_GREY = np.uint8(127)
_LEAST = 0.05  # below the usual threshold: a doubtful sight of the thing still counts


class WordsToMask(Model):
    """Serves ``segment`` by words with ``detect`` for the words, then ``segment`` for the boxes.

    Each thing found gets the best mask of its box. A box may be filled in several ways, the background in it being
    one, so the detector looks again: at each mask alone, and at the picture without it. Its score is the detector's
    score times the mask's: the chance that the thing is there, and that this is its outline. ``data["object"]`` counts
    the things, the surest first.
    """

    def run(self, requests: Sequence[Request], ctx: Context) -> Iterator[Detections]:
        """Yield Detections with masks and ``class_name``; empty, with a note, where nothing was found.

        Raises:
            PromptError: If the words hold no name.
            UnsupportedError: If the detector does not know a name.
        """
        for request in requests:
            assert isinstance(request, SegmentRequest)
            yield self._segment(request, ctx)

    def _segment(self, request: SegmentRequest, ctx: Context) -> Detections:
        image = request.image
        names = split_names(request.text or "")
        if not names:
            raise PromptError(f"{request.text!r} names no thing", "name it, such as 'cat' or 'cat and dog'")
        nouns = tuple(dict.fromkeys(split_colour(name)[1] for name in names))
        found = ctx.call("detect", DetectRequest.of(image=image, names=nouns))
        notes = ctx.notes.setdefault("notes", [])
        notes += notes_of(found)
        cut = self._cut(image, found, names, ctx)
        seen = {str(name) for name in cut.data["class_name"]}
        if missing := [name for name in names if name not in seen]:
            said = listed([f"'{name}'" for name in missing], "or")
            notes.append(f"no {said} was found in {image.name}")
        return cut

    def _cut(self, image: Image, found: Any, names: Sequence[str], ctx: Context) -> Detections:
        """Masks of the boxes, with the names that were asked for; a thing of another colour than asked is left out."""
        boxes = [clip_box(as_box(box), image.size) for box in found.xyxy]
        if not boxes:
            return detections([], [], masks=np.zeros((0, image.height, image.width), dtype=bool), names=[])
        masks: Any = ctx.call("segment", SegmentRequest.of(image=image, objects=[{"box": box} for box in boxes]))
        owner = np.asarray(masks.data["object"])
        kept = {}
        for number, box in enumerate(boxes):
            noun = str(found.data["class_name"][number])
            rows = np.flatnonzero(owner == number)
            if not rows.size:
                continue
            looks = [_looks_like(image, masks.mask[row], box, noun, ctx) for row in rows]
            best = int(rows[np.argmax(masks.confidence[rows] + looks)])
            name = _called(names, noun, image, masks.mask[best])
            if name:
                kept[number] = (best, name)
        things, chosen = list(kept), [row for row, _ in kept.values()]
        return detections(
            masks.xyxy[chosen],
            found.confidence[things] * masks.confidence[chosen],
            masks=masks.mask[chosen],
            names=[name for _, name in kept.values()],
            class_ids=[int(found.class_id[number]) for number in things],
            objects=things,
            levels=["whole"] * len(things),
        )


def _looks_like(image: Image, mask: np.ndarray, box: Box, noun: str, ctx: Context) -> float:
    """How much surer the detector is of the masked part alone than of the rest, -1/2..1/2."""
    alone, without = (np.where(side[..., None], image.array, _GREY) for side in (mask, ~mask))
    scores = [_best_score(Image.of(picture), box, noun, ctx) for picture in (alone, without)]
    return (scores[0] - scores[1]) / 2


def _best_score(image: Image, box: Box, noun: str, ctx: Context) -> float:
    found = ctx.call("detect", DetectRequest.of(image=image, names=[noun], threshold=_LEAST))
    near = [score for other, score in zip(found.xyxy, found.confidence, strict=True) if _meet(as_box(other), box)]
    return float(max(near, default=0.0))


def _meet(one: Box, other: Box) -> bool:
    """Whether the middle of one box lies in the other: other things of the same name do not count."""
    x, y = (one[0] + one[2]) / 2, (one[1] + one[3]) / 2
    return other[0] <= x < other[2] and other[1] <= y < other[3]


def _called(names: Sequence[str], noun: str, image: Image, mask: np.ndarray) -> str:
    """The first of the names that fits a thing, its colour included; empty where none does."""
    for name in names:
        colour, wanted = split_colour(name)
        if wanted == noun and (not colour or (mask.any() and colour in name_colour(image.array, mask).names)):
            return name
    return ""
