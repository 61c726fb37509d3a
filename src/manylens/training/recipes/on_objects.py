"""What recipes share whose pictures hold objects: where these are kept, how pictures are changed, what is shown."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from manylens.data import Dataset
from manylens.data.records import BACKGROUND, Category
from manylens.evaluation.measure import Measure, Regions
from manylens.models.adapted.heads.pyramid import spread
from manylens.models.base import Trainable
from manylens.training.augment import strengths
from manylens.training.balance import losses, sampling
from manylens.training.balance.names import check_name
from manylens.training.dense.paste import paste_rates
from manylens.training.dense.scene import Scene
from manylens.training.dense.scenes import Augmentation, Scenes
from manylens.training.dense.source import ObjectSource, SceneViews
from manylens.training.dense.store import ObjectStore
from manylens.training.dense.targets import Classes
from manylens.training.errors import TrainError
from manylens.training.inputs.pictures import Pictures
from manylens.training.recipes.base import Given, Source, refuse
from manylens.training.recipes.on_encoder import OnEncoder

_SCALES = {"none": (0.0, 0.0), "flip": (0.0, 0.0), "light": (0.5, 1.0), "rand": (0.9, 1.0)}
"""How much smaller and larger a policy makes pictures at full strength; ``rand`` as Ghiasi et al. (2021) do."""

_AUGMENT_OPTIONS = ("mirror", "most", "soft", "power")


class OnObjects(OnEncoder):
    """A recipe that learns from objects.

    Attributes:
        classes: Of the head.
        store: Objects of the training pictures.
    """

    options_of: ClassVar[tuple[str, ...]] = ()
    """Names of ``options`` in the config."""
    masks: ClassVar[bool] = True
    """Whether objects must have masks."""
    mode = "max"
    idle: ClassVar[tuple[str, ...]] = ("regularise.mixup", "regularise.cutmix", "imbalance.synthetic")

    def __init__(self, given: Given) -> None:
        config = given.config
        refuse(config, self)  # before anything is read
        for name in config.options:
            check_name(f"option of the recipe {self.name!r}", name, self.options_of)
        train = given.of(config.data.train)
        assert train is not None
        self.classes, self.store = self.found(given, train)
        self.check_objects(self.store, train, config.data.train)
        super().__init__(given, self.classes.names)
        val = given.of(config.data.val)
        self._val = None if val is None else ObjectStore.of(val, self.classes.names)
        if val is not None and self._val is not None:
            self.check_objects(self._val, val, config.data.val, learn=False)
        self.counts = np.bincount(self.store.classes[self.store.classes >= 0], minlength=len(self.labels))
        self._sources: dict[str, Source] = {}

    # ------------------------------------------------------------------ what recipes say

    def found(self, given: Given, train: Dataset) -> tuple[Classes, ObjectStore]:
        """The classes, and the objects of the training pictures; here those that have instances."""
        things = [one for one in given.data.categories if one.is_thing and one.name != BACKGROUND]
        if not things:
            raise TrainError(
                f"{given.data.name or 'data'}: none of its categories has instances, all are stuff",
                "train for segment with recipe=semantic",
            )
        classes = Classes.of(things)
        return classes, ObjectStore.of(train, classes.names)

    @abstractmethod
    def targets(self) -> Callable[[Sequence[Scene]], dict[str, Any]]:
        """What the network shall answer to scenes; a function that knows nothing of the recipe."""

    # ------------------------------------------------------------------ what the loop asks

    def train_source(self) -> Source:
        """Features or pixels, with targets."""
        if "train" not in self._sources:
            self._sources["train"] = self._source(self.store, self._augmentations())
        return self._sources["train"]

    def val_source(self) -> Source | None:
        """Likewise, as they are."""
        if self._val is None:
            return None
        if "val" not in self._sources:
            self._sources["val"] = self._source(self._val, None)
        return self._sources["val"]

    def draws(self, epoch: int) -> np.ndarray:
        """As the config's sampling says, by the classes that each picture holds."""
        section = self.config.imbalance
        return sampling.draw(
            section.sampling, self._held, seed=self.config.seed, epoch=epoch, **section.sampling_options
        )

    def judged(self, found: list[tuple[int, Regions]], measure: Measure, names: Mapping[str, str]) -> dict[str, float]:
        """Figures of what was found in pictures of the validation split, over all processes; forgets it.

        Args:
            found: Numbers of pictures, with what was found in each.
            measure: A fresh one.
            names: What it calls each figure; one that it cannot tell, as there is no object, is 0.
        """
        assert self._val is not None
        for number, regions in sorted(gathered(found), key=lambda row: row[0]):
            measure.add(self._val.record(number), regions)
        found.clear()
        figures = measure.tally().all()
        return {name: float(np.nan_to_num(figures[of])) for name, of in names.items()}

    def own_categories(self) -> list[Category]:
        """Those that the head knows."""
        return [one for one in self.given.data.categories if one.name in self.labels]

    # ------------------------------------------------------------------ parts

    def class_weights(self) -> Tensor | None:
        """Weights of the classes that the config's loss asks for, by their objects.

        Raises:
            TrainError: It asks for another loss than the recipe's own.
        """
        section = self.config.imbalance
        if section.loss == "cross_entropy":
            return None
        check_name(f"imbalance.loss of the recipe {self.name!r}", section.loss, _WEIGHING)
        return losses.build(section.loss, self.counts, **section.loss_options).weights

    def check_objects(self, store: ObjectStore, data: Dataset, split: str, *, learn: bool = True) -> None:
        """Raise where there is nothing to learn from, or where masks are missing."""
        where = f"{data.name or 'data'}, split {split!r}"
        if learn and not (store.classes >= 0).any():
            raise TrainError(f"{where}: no picture has an object of a class", "give boxes or masks with categories")
        if self.masks and not store.has_mask.all():
            lacking = int((~store.has_mask).sum())
            raise TrainError(
                f"{where}: {lacking} of {store.objects} objects have a box but no mask",
                "train for detect, or make masks of the boxes with 'manylens segment'",
            )

    @cached_property
    def _held(self) -> list[set[int]]:
        """Classes that each training picture holds."""
        starts, classes = self.store.starts, self.store.classes
        return [set(classes[a:b][classes[a:b] >= 0].tolist()) for a, b in pairwise(starts.tolist())]

    def _augmentations(self) -> list[Augmentation] | None:
        """How each picture is changed: those that hold rare classes more, where the config says so."""
        section = self.config.augment
        for name in section.options:
            check_name(f"augment.options of the recipe {self.name!r}", name, _AUGMENT_OPTIONS)
        if section.policy == "none" and not section.copy_paste:
            return None
        options = dict(section.options)
        power, mirror = float(options.pop("power", 0.5)), bool(options.pop("mirror", True))
        if section.copy_paste and not self.store.has_mask.any():
            raise TrainError("augment.copy_paste: no object has a mask to be cut out by", "set it to 0")
        rates = paste_rates(self.counts.tolist(), power, self.classes.things)
        # A class without objects, such as what is left over as background, is not the rarest of them.
        met = np.where(self.counts > 0, self.counts, self.counts.max())
        of_class = strengths(met.tolist(), section.strength, section.rare)
        made = []
        for held in self._held:
            strength = max((float(of_class[one]) for one in held), default=section.strength)
            less, more = (part * strength for part in _SCALES[section.policy])
            made.append(
                Augmentation(
                    flip=0.5 if mirror and section.policy != "none" else 0.0,
                    scale=(1 - less, 1 + more),
                    paste=section.copy_paste,
                    rates=rates,
                    colour=strength if section.policy in ("light", "rand") else 0.0,
                    **options,
                )
            )
        return made

    def _source(self, store: ObjectStore, augmentations: list[Augmentation] | None) -> ObjectSource:
        pictures = Pictures(store.paths, self.side)
        scenes = Scenes(
            store,
            self.side,
            masks=self.masks,
            augmentation=augmentations,
            seed=self.config.seed,
            squares=pictures.of,
        )
        views = SceneViews(scenes, self.config.augment.views if augmentations is not None else 1)
        kept = self.features(pictures, views) if self.cached else None  # type: ignore[arg-type]
        return ObjectSource(views, kept, pictures, self.targets())


_WEIGHING = ("cross_entropy", "weighted", "class_balanced")


def usual_features(trainable: Trainable, count: int) -> tuple[str, ...]:
    """The maps that a head is given where the config names none.

    Args:
        trainable: The base model, opened.
        count: How many: 1 is the last map, 2 that of a block in the middle too, more are blocks evenly spaced. Models
            without tokens have the last map alone, as their blocks' are of many sizes.
    """
    depth = blocks_that_run(trainable) if trainable.patch and count > 1 else 0
    if depth < count or count == 1:
        return ("dense",)
    return (f"block.{depth // 2}", "dense") if count == 2 else spread(depth, count)


def blocks_that_run(trainable: Trainable) -> int:
    """How many of an encoder's blocks its features are made by; the last ones of some models are not used."""
    ran: list[int] = []
    hooks = [
        block.register_forward_hook(lambda *_, number=number: ran.append(number))
        for number, block in enumerate(trainable.blocks)
    ]
    side = max(2 * trainable.patch, 32) // max(trainable.patch, 1) * max(trainable.patch, 1)
    try:
        with torch.no_grad():
            trainable.forward(torch.zeros(1, 3, side, side))
    finally:
        for hook in hooks:
            hook.remove()
    return max(ran, default=-1) + 1


def gathered(rows: list[Any]) -> list[Any]:
    """The rows of all processes."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return rows
    of_all: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(of_all, rows)
    return [row for part in of_all for row in part]
