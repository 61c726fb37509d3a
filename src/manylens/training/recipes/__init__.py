"""What can be trained, by task: one recipe a module, found here by name."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from manylens.training.errors import TrainError

if TYPE_CHECKING:
    from manylens.training.recipes.base import Recipe


@dataclass(frozen=True)
class Known:
    """A recipe before it is imported.

    Attributes:
        task: What it trains for.
        place: Its module and class.
        says: One line for people.
    """

    task: str
    place: str
    says: str


RECIPES: dict[str, Known] = {
    "classify": Known("classify", "classify:Classify", "a head that names what a whole picture shows"),
    "semantic": Known("segment", "semantic:Semantic", "a class for each pixel: linear, or like UPerNet"),
    "masks": Known(
        "segment", "masks:Masks", "regions with classes by queries, like EoMT: instance, panoptic, semantic"
    ),
    "promptable": Known(
        "segment", "promptable:Promptable", "clicks, boxes and masks: a decoder like SAM's on an encoder"
    ),
    "sam": Known("segment", "sam:Sam", "clicks, boxes and masks: a SAM checkpoint itself"),
    "incontext": Known("segment", "incontext:InContextPainting", "masks by example: a SegGPT checkpoint itself"),
    "detect": Known("detect", "detect:Detect", "boxes with classes: an anchor-free head"),
    "dino": Known("embed", "dino:DinoRecipe", "an encoder from pictures without labels: DINO, iBOT, KoLeo"),
    "mae": Known("embed", "mae:MaeRecipe", "an encoder from pictures without labels: masked autoencoder"),
    "distil": Known("embed", "distil:DistilRecipe", "a small encoder from a large one"),
    "metric": Known("embed", "metric:Metric", "vectors from pictures with labels: near for one class, far for others"),
}
"""By name; the first one of a task is its default."""


def find(task: str, name: str | None) -> tuple[str, type[Recipe]]:
    """Name and class of a task's recipe.

    Raises:
        TrainError: The task has no recipe of that name.
    """
    names = [one for one, known in RECIPES.items() if known.task == task]
    chosen = name or (names[0] if names else "")
    if chosen not in names:
        raise TrainError(f"recipe {chosen or 'any'!r}: {task} has none of that name", f"name one of {', '.join(names)}")
    module, _, cls = RECIPES[chosen].place.partition(":")
    return chosen, getattr(importlib.import_module(f"{__name__}.{module}"), cls)
