"""What the recipes that train to be prompted share: their options, which objects are shown, how they are judged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from manylens.training.errors import TrainError
from manylens.training.promptable.losses import Weights
from manylens.training.promptable.rounds import Head, Objects, Schedule, examined, play

ROUNDS = 3
"""Clicks by which objects are judged."""

FIGURES = ("iou", "click", "click_2", "click_3", "best", "box")
"""Names of the figures of validation."""

_MOST = 32
_SHARES = ("boxes", "coarse", "forget", "others", "alpha")
_COUNTS = ("clicks", "refinements")


def options_of() -> tuple[str, ...]:
    """Names of the options of a recipe."""
    return ("objects", *(one.name for kind in (Schedule, Weights) for one in fields(kind)))


def split_options(options: Mapping[str, Any]) -> tuple[int, Schedule, Weights]:
    """How many objects are asked about in one step, how, and how answers are judged.

    Raises:
        TrainError: A value does not fit; unknown names are left to the recipe.
    """
    for name, value in options.items():
        if name in _COUNTS or name == "objects":
            least = 1 if name == "objects" else 0
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise TrainError(f"options.{name}: {value!r} does not fit", f"give a whole number of at least {least}")
        elif name in options_of():
            most = 1.0 if name in _SHARES else float("inf")
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
                says = "a share of 0 to 1" if name in _SHARES else "a number of at least 0"
                raise TrainError(f"options.{name}: {value!r} does not fit", f"give {says}")
    schedule = {one.name: options[one.name] for one in fields(Schedule) if one.name in options}
    weights = {one.name: options[one.name] for one in fields(Weights) if one.name in options}
    return int(options.get("objects", _MOST)), Schedule(**schedule), Weights(**weights)


def shown(objects: Objects, most: int) -> Objects:
    """Some of the objects, drawn from torch's generator where there are more than so many."""
    if len(objects) <= most:
        return objects
    kept = torch.randperm(len(objects))[:most].sort().values.to(objects.picture.device)
    return Objects(objects.masks[kept], objects.picture[kept], objects.size)


def loss(
    head: Head,
    embedding: Any,
    objects: Objects,
    schedule: Schedule,
    weights: Weights,
    learning: Iterable[Tensor],
) -> dict[str, Tensor]:
    """``loss``, and its parts to log.

    All that learns is touched in each step, whichever prompts were drawn: processes wait for each other's gradients.

    Args:
        head: Answers.
        embedding: Of the pictures.
        objects: What is asked about; there may be none.
        schedule: How often and how.
        weights: Of the loss.
        learning: The parameters.
    """
    nothing = torch.stack([one.sum() for one in learning if one.requires_grad]).sum() * 0.0
    if not len(objects):
        return {"loss": nothing}
    played = play(head, embedding, objects, schedule, weights)
    return {"loss": played.loss + nothing, **played.parts, "iou": played.iou.mean()}


def judged_rounds(head: Head, embedding: Any, objects: Objects, together: int) -> list[dict[str, float]]:
    """The figures of :func:`.rounds.examined` for each object.

    Args:
        head: Answers.
        embedding: Of the pictures.
        objects: What is asked about.
        together: How many at a time.
    """
    rows: list[dict[str, float]] = []
    for start in range(0, len(objects), together):
        some = slice(start, start + together)
        part = Objects(objects.masks[some], objects.picture[some], objects.size)
        found = {name: one.tolist() for name, one in examined(head, embedding, part, ROUNDS).items()}
        rows += [dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True)]
    return rows


def figures(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean IoU over objects: after one, two and three clicks, of the best mask in truth after one, and for a box;
    ``iou`` is the mean of one and three clicks and a box. Zeros where there is no object.
    """
    found = {name: float(np.mean([row[name] for row in rows])) if rows else 0.0 for name in FIGURES[1:]}
    return {"iou": (found["click"] + found["click_3"] + found["box"]) / 3, **found}
