"""Words to masks: look for the words, then cut out each box."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.errors import PromptError
from manylens.models.base import Model
from manylens.models.composed.colour import name_colour, split_colour
from manylens.models.composed.look import as_box, notes_of
from manylens.models.composed.words import listed, split_names
from manylens.runtime.context import Context
from manylens.tasks import DetectRequest, Request, SegmentRequest, detections
from manylens.tasks.geometry import clip_box

if TYPE_CHECKING:
    from supervision import Detections

    from manylens.media import Image


class WordsToMask(Model):
    """Serves ``segment`` by words with ``detect`` for the words, then ``segment`` for the boxes.

    Each thing found gets the best mask of its box. Its score is the detector's score times the mask's: the chance that
    the thing is there, and that this is its outline. ``data["object"]`` counts the things, the surest first.
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
        # Detections are ordered by score, so the first mask of an object is its best.
        owner = np.asarray(masks.data["object"])
        first = {number: np.flatnonzero(owner == number)[:1] for number in range(len(boxes))}
        kept = {}
        for number, row in first.items():
            noun = str(found.data["class_name"][number])
            name = _called(names, noun, image, masks.mask[row[0]]) if row.size else ""
            if name:
                kept[number] = (int(row[0]), name)
        things, rows = list(kept), [row for row, _ in kept.values()]
        return detections(
            masks.xyxy[rows],
            found.confidence[things] * masks.confidence[rows],
            masks=masks.mask[rows],
            names=[name for _, name in kept.values()],
            class_ids=[int(found.class_id[number]) for number in things],
            objects=things,
            levels=["whole"] * len(things),
        )


def _called(names: Sequence[str], noun: str, image: Image, mask: np.ndarray) -> str:
    """The first of the names that fits a thing, its colour included; empty where none does."""
    for name in names:
        colour, wanted = split_colour(name)
        if wanted == noun and (not colour or (mask.any() and colour in name_colour(image.array, mask).names)):
            return name
    return ""
