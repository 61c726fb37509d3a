"""The page of a robustness audit: the figure against severity, what is kept, and what the pictures looked like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from manylens.audit.corruptions import named
from manylens.evaluation.page import digits
from manylens.render import plot
from manylens.render.page import Picture, jpeg
from manylens.render.page import page as html

if TYPE_CHECKING:
    from manylens.audit.robustness import Robustness
    from manylens.media import Image

_SHOWN = 240


@dataclass(frozen=True)
class Sample:
    """One picture as it is, then at the severities of a corruption."""

    name: str
    pictures: Sequence[Picture]


def samples(image: Image, corruptions: Sequence[str], severities: Sequence[int], seed: int = 0) -> list[Sample]:
    """What the corruptions do to one picture.

    Args:
        image: The picture.
        corruptions: Names or groups, see :func:`manylens.audit.corruptions.named`.
        severities: Of 1 to 5.
        seed: Of the corruptions.
    """
    pixels = np.asarray(image.array)
    clean = jpeg(pixels, "clean", _SHOWN)
    return [
        Sample(one.name, [clean, *(jpeg(one.apply(pixels, at, seed), f"{one.name} {at}", _SHOWN) for at in severities)])
        for one in named(corruptions)
    ]


def page(found: Robustness, shown: Sequence[Sample] = ()) -> str:
    """The page as HTML, with everything in it."""
    report = found.to_json()
    worst = sorted((line for line in found.lines), key=lambda line: line.area.value, reverse=found.lower)
    return html(
        "manylens.audit",
        "robustness.html.j2",
        {"digits": digits},
        report=report,
        headline=f"{found.figure} {digits(found.clean.value)} falls to {digits(found.area.value)}"
        if not found.lower
        else f"{found.figure} {digits(found.clean.value)} grows to {digits(found.area.value)}",
        worst=worst[0].name.replace("_", " ") if worst else "",
        best=worst[-1].name.replace("_", " ") if worst else "",
        plots=[{"title": name, "svg": plot.curve(curve)} for name, curve in found.curves().items()],
        areas=plot.intervals(
            {line.name: (line.area.value, line.area.low, line.area.high) for line in reversed(worst)},
            f"mean {found.figure} over severities",
        )
        if worst
        else "",
        samples=shown,
    )
