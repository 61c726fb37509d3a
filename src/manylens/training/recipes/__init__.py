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
        batch: Things in one step where the config says no number: enough for its losses, and few enough that a folder
            of some hundred pictures makes many steps.
        figure: The figure of validation that its best epoch is usually chosen by.
    """

    task: str
    place: str
    says: str
    batch: int = 32
    figure: str = ""

    @property
    def name(self) -> str:
        """That it is found by."""
        return self.place.partition(":")[0]


RECIPES: dict[str, Known] = {
    "classify": Known(
        "classify", "classify:Classify", "a head that names what a whole picture shows", figure="balanced_accuracy"
    ),
    "semantic": Known("segment", "semantic:Semantic", "a class for each pixel: linear, or like UPerNet", 8, "miou"),
    "masks": Known(
        "segment", "masks:Masks", "regions with classes by queries, like EoMT: instance, panoptic, semantic", 8, "map"
    ),
    "promptable": Known(
        "segment", "promptable:Promptable", "clicks, boxes and masks: a decoder like SAM's on an encoder", 4, "iou"
    ),
    "sam": Known("segment", "sam:Sam", "clicks, boxes and masks: a SAM checkpoint itself", 2, "iou"),
    "incontext": Known(
        "segment", "incontext:InContextPainting", "masks by example: a SegGPT checkpoint itself", 4, "iou"
    ),
    "detect": Known("detect", "detect:Detect", "boxes with classes: an anchor-free head", 8, "map"),
    "dino": Known(
        "embed", "dino:DinoRecipe", "an encoder from pictures without labels: DINO, iBOT, KoLeo", figure="knn"
    ),
    "mae": Known("embed", "mae:MaeRecipe", "an encoder from pictures without labels: masked autoencoder", figure="knn"),
    "distil": Known("embed", "distil:DistilRecipe", "a small encoder from a large one", figure="knn"),
    "metric": Known(
        "embed",
        "metric:Metric",
        "vectors from pictures with labels: near for one class, far for others",
        figure="map_at_r",
    ),
}
"""By name; the first one of a task is its default."""


def usual(task: str, name: str | None = None) -> Known:
    """What is known of a task's recipe, of its default where none is named; of one that does not exist, no name."""
    fitting = [known for one, known in RECIPES.items() if known.task == task and name in (None, one)]
    return fitting[0] if fitting else Known(task, "", "")


def usual_batch(task: str, name: str | None) -> int:
    """Things in one step of a recipe where nothing else is said; of one that does not exist, any number."""
    return usual(task, name).batch


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
