"""One look at one picture through other tasks: what a composed answer rests on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.errors import UnsupportedError
from manylens.models.composed.colour import name_colour, split_colour
from manylens.models.composed.words import data
from manylens.runtime.context import Context
from manylens.tasks import (
    ClassifyRequest,
    DetectRequest,
    Evidence,
    Label,
    ReadRequest,
    SegmentRequest,
    TextLine,
    provenance_of,
)
from manylens.tasks.geometry import Box, clip_box

if TYPE_CHECKING:
    from manylens.media import Image

FAINT = 0.25
"""Below this score a detection is not even mentioned."""
SEEN = 0.4
"""From this score on a thing counts as seen."""
SURE = 0.6
"""From this score on it is said without "probably"."""


class UnknownWordError(Exception):
    """No model at hand knows what the word looks like; the word is the argument."""


@dataclass(frozen=True)
class Thing:
    """A thing that was detected: its everyday name, score and box."""

    name: str
    score: float
    box: Box

    @property
    def centre(self) -> tuple[float, float]:
        """Middle of the box, ``(x, y)`` in pixels."""
        x0, y0, x1, y1 = self.box
        return (x0 + x1) / 2, (y0 + y1) / 2

    @property
    def evidence(self) -> Evidence:
        """The thing as evidence."""
        return Evidence("box", self.name, round(self.score, 4), self.box, "detect")


@dataclass
class Look:
    """Asks other tasks about one picture.

    Attributes:
        image: The picture.
        ctx: The context of the answer.
        notes: What the detector said of the words, such as that it set an adjective aside.
    """

    image: Image
    ctx: Context
    notes: list[str] = field(default_factory=list)
    _found: dict[str, list[Thing]] = field(default_factory=dict)

    def things(self, name: str = "") -> list[Thing]:
        """What is there by that name (a group such as ``animal`` will do), or all; the surest first, faint ones too.

        Raises:
            UnknownWordError: If the detector does not know the word.
        """
        colour, noun = split_colour(name)
        if colour:
            return [thing for thing in self.things(noun) if thing.score >= SEEN and colour in self._colours(thing)]
        group = data("categories.toml").get(name)
        if name and group is None:
            return self._detect(name)
        return [thing for thing in self._detect("") if group is None or thing.name in group]

    def _colours(self, thing: Thing) -> set[str]:
        """The names of the colours of a thing, by its mask."""
        masks = self.ctx.call("segment", SegmentRequest.of(image=self.image, objects=[{"box": thing.box}])).mask
        if masks is None or not len(masks) or not masks[0].any():
            return set()
        return name_colour(self.image.array, masks[0]).names

    def _detect(self, name: str) -> list[Thing]:
        if name not in self._found:
            names = (name,) if name else None
            try:
                found = self.ctx.call("detect", DetectRequest.of(image=self.image, names=names, threshold=FAINT))
            except UnsupportedError as failure:
                raise UnknownWordError(name) from failure
            self.notes += [note for note in notes_of(found) if note not in self.notes]
            self._found[name] = [
                Thing(str(label) or name, float(score), clip_box(as_box(box), self.image.size))
                for box, score, label in zip(found.xyxy, found.confidence, found.data["class_name"], strict=True)
            ]
        return self._found[name]

    def seen(self, name: str = "") -> list[Thing]:
        """The things that score enough to count as seen."""
        return [thing for thing in self.things(name) if thing.score >= SEEN]

    def main(self, name: str = "") -> Thing | None:
        """The thing that a person would mean: sure and large."""
        area = self.image.width * self.image.height
        weigh = lambda thing: thing.score * (_area(thing.box) / area) ** 0.15  # noqa: E731
        return max(self.seen(name), key=weigh, default=None)

    def mask(self, name: str) -> tuple[np.ndarray | None, list[Evidence]]:
        """Union of the masks of that name, bool ``(H, W)``, or None where there is none; and the evidence."""
        try:
            found: Any = self.ctx.call("segment", SegmentRequest.of(image=self.image, text=name))
        except UnsupportedError as failure:
            raise UnknownWordError(name) from failure
        if len(found) == 0 or found.mask is None or not found.mask.any():
            return None, []
        evidence = [
            Evidence("region", str(label), round(float(score), 4), as_box(box), "segment")
            for box, score, label in zip(found.xyxy, found.confidence, found.data["class_name"], strict=True)
        ]
        return found.mask.any(axis=0), evidence

    def labels(self, box: Box | None = None) -> tuple[Label, ...]:
        """The classifier's labels of the picture, or of a box with a tenth of its size around it."""
        image = self.image if box is None else crop(self.image, box)
        return self.ctx.call("classify", ClassifyRequest.of(image=image)).labels

    def lines(self, box: Box | None = None) -> list[TextLine]:
        """Read lines, or those whose middle lies in a box."""
        lines = self.ctx.call("read", ReadRequest.of(image=self.image)).lines
        return [line for line in lines if box is None or _inside(line.box, box)]


def notes_of(found: Any) -> tuple[str, ...]:
    """What the model behind a result had to say about it."""
    provenance = provenance_of(found)
    return provenance.notes if provenance else ()


def as_box(row: np.ndarray) -> Box:
    """A row of ``Detections.xyxy`` as a box of plain numbers."""
    x0, y0, x1, y1 = (float(value) for value in row)
    return x0, y0, x1, y1


def crop(image: Image, box: Box, margin: float = 0.1) -> Image:
    """The part of a picture in a box, with a margin (a share of the box's size) around it."""
    x0, y0, x1, y1 = box
    dx, dy = margin * (x1 - x0), margin * (y1 - y0)
    x0, y0, x1, y1 = clip_box((x0 - dx, y0 - dy, x1 + dx, y1 + dy), image.size)
    left, top = int(x0), int(y0)
    part = image.array[top : max(top + 1, round(y1)), left : max(left + 1, round(x1))]
    return type(image).of(np.ascontiguousarray(part))


def _area(box: Box) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def _inside(line: Box, box: Box) -> bool:
    x, y = (line[0] + line[2]) / 2, (line[1] + line[3]) / 2
    return box[0] <= x <= box[2] and box[1] <= y <= box[3]
