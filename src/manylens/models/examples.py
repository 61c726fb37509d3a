"""Examples of a request, gathered by the class that they show, and answers by class, by instance or panoptic."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.media import bounds
from manylens.tasks import SegmentRequest, detections
from manylens.tasks.prompts import Example

if TYPE_CHECKING:
    from supervision import Detections

    from manylens.runtime.context import Context

LEAST_PART, FEWEST_PIXELS = 0.01, 16
"""Parts of less than this share of a class's largest part, or of fewer pixels, are specks and no instances."""


@dataclass(frozen=True)
class Class:
    """A class that examples show.

    Attributes:
        name: Its name; empty where the examples have none.
        examples: Those that show it, in the order in which they were given; at least one.
    """

    name: str
    examples: tuple[Example, ...]


def classes(like: Sequence[Example]) -> tuple[Class, ...]:
    """The classes of a request's examples, in the order of first mention.

    Args:
        like: The examples; those without a name are all of one class, which is called "".
    """
    found: dict[str, list[Example]] = {}
    for example in like:
        found.setdefault(example.name or "", []).append(example)
    return tuple(Class(name, tuple(examples)) for name, examples in found.items())


def arranged(found: Detections, request: SegmentRequest, ctx: Context, *, counted: bool = False) -> Detections:
    """What examples found, as the request's mode says.

    ``semantic``: one mask a class. ``instance``: the parts of a class that do not touch are instances, each with its
    class's score; touching ones stay one. ``panoptic``: as ``instance``, but classes whose names mean stuff (sky, road)
    stay whole, and no pixel is in two masks: the better score has it. Any other mode: as found.

    Args:
        found: Masks bool ``(N, H, W)`` with ``class_name`` and ``object``, the number of the class.
        request: Says the mode.
        ctx: Takes a note of what passes for stuff.
        counted: Whether the rows are instances already, so that parts belong together.
    """
    if request.mode not in ("semantic", "instance", "panoptic") or not len(found):
        return found
    masks: Any = found.mask
    scores: Any = found.confidence
    class_ids: Any = found.class_id
    names: list[str] = np.asarray(found.data["class_name"]).tolist()
    numbers: list[int] = np.asarray(found.data["object"]).tolist()
    stuff = {name for name in names if is_stuff(name)} if request.mode == "panoptic" else set()
    if stuff:
        ctx.notes.setdefault("notes", []).append(f"taken as stuff, which is not counted: {', '.join(sorted(stuff))}")
    whole = request.mode == "semantic"
    rows: list[tuple[np.ndarray, float, int]] = []
    for number in dict.fromkeys(numbers):
        own = [i for i, other in enumerate(numbers) if other == number]
        if whole or names[own[0]] in stuff:
            rows.append((np.any([masks[i] for i in own], axis=0), scores[own].max(), own[0]))
        else:
            rows += [(part, scores[i], i) for i in own for part in _parts(masks[i], counted)]
    if request.mode == "panoptic":
        rows = _apart(rows)
    rows = [row for row in rows if row[0].any()]
    return detections(
        np.array([bounds(mask) for mask, _, _ in rows], np.float32).reshape(-1, 4),
        [score for _, score, _ in rows],
        masks=np.stack([mask for mask, _, _ in rows]) if rows else masks[:0],
        names=[names[i] for _, _, i in rows],
        class_ids=[int(class_ids[i]) for _, _, i in rows],
        objects=[numbers[i] for _, _, i in rows],
        things=[not is_stuff(names[i]) for _, _, i in rows],
    )


def is_stuff(name: str) -> bool:
    """Whether a class's name means what is not counted: "sky", "blue sky"."""
    words = name.lower().split()
    return bool(words) and (" ".join(words) in _stuff() or words[-1] in _stuff())


@cache
def _stuff() -> frozenset[str]:
    text = resources.files("manylens.models.data").joinpath("stuff.toml").read_text("utf-8")
    return frozenset(tomllib.loads(text)["names"])


def _parts(mask: np.ndarray, counted: bool) -> list[np.ndarray]:
    """The parts of a mask that do not touch, the largest first, without specks; itself where it is an instance."""
    if counted:
        return [mask]
    import cv2

    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    sizes = stats[1:, cv2.CC_STAT_AREA]
    least = max(LEAST_PART * sizes.max(initial=0), min(FEWEST_PIXELS, sizes.max(initial=0)))
    return [parts == 1 + i for i in np.argsort(-sizes, kind="stable") if sizes[i] >= least]


def _apart(rows: Sequence[tuple[np.ndarray, Any, int]]) -> list[tuple[np.ndarray, Any, int]]:
    """The same without overlap: the better score has a pixel, the earlier of equals."""
    if not rows:
        return []
    taken = np.zeros(rows[0][0].shape, bool)
    found = []
    for mask, score, row in sorted(rows, key=lambda one: -one[1]):
        found.append((mask & ~taken, score, row))
        taken = taken | mask
    return found
