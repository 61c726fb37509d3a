"""What a request asks for in words and examples, one concept after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from manylens.errors import PromptError
from manylens.media import Image, bounds
from manylens.models.composed.words import split_names
from manylens.models.examples import classes
from manylens.tasks.geometry import Box
from manylens.tasks.prompts import Example

VISUAL = "visual"
"""What SAM 3 was trained to read where a concept is shown and not named."""


@dataclass(frozen=True)
class Concept:
    """A thing to find all of.

    Attributes:
        name: What it is called; empty where it is only shown.
        words: What the text tower reads.
        boxes: Boxes ``xyxy`` around examples of it, in pixels of the picture.
    """

    name: str
    words: str
    boxes: tuple[Box, ...] = ()


def named(text: str) -> tuple[str, ...]:
    """The things that a text names, as everywhere in manylens; the whole text where it is no list of things."""
    return split_names(text) or (text.strip(),)


def concepts(text: str | None, like: Sequence[Example], image: Image) -> tuple[Concept, ...]:
    """The concepts of a request, those of its words first.

    An example with a name belongs to that name; one without belongs to the words where these name one thing. An example
    alone is shown, not named: its name is a label.

    Args:
        text: One thing, or several.
        like: Examples in the picture itself.
        image: The picture.

    Raises:
        PromptError: An example is in another picture, or it is not clear what it is an example of.
    """
    for example in like:
        if example.image.id != image.id:
            raise PromptError(
                f"{example.image.name}: an example for SAM 3 has to be in the picture itself, {image.name}",
                "take SegGPT, or the embedded model, which segment by examples of other pictures",
            )
    names = named(text) if text is not None else ()
    shown: dict[str, tuple[Box, ...]] = {}
    for group in classes(like):
        name = _among(group.name, names)
        shown[name] = shown.get(name, ()) + tuple(_box(example) for example in group.examples)
    if len(names) == 1 and "" in shown:
        shown[names[0]] = shown.pop("") + shown.get(names[0], ())
    if names and "" in shown:
        raise PromptError(
            f"{like[0].image.name}: an example without a name, and the text names {len(names)} things",
            "name the example, or ask for one thing at a time",
        )
    told = [Concept(name, name, shown.pop(name, ())) for name in names]
    return (*told, *(Concept(name, VISUAL, boxes) for name, boxes in shown.items()))


def _among(name: str, names: Sequence[str]) -> str:
    """The one of ``names`` that an example's name means (``cats`` means ``cat``); else the name itself."""
    meant = split_names(name)
    return meant[0] if len(meant) == 1 and meant[0] in names else name


def _box(example: Example) -> Box:
    found = bounds(example.mask)
    assert found is not None  # an empty mask was refused with the request
    x0, y0, x1, y1 = found
    return (float(x0), float(y0), float(x1), float(y1))
