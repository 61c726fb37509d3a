"""Rounds of asking about the same objects: a first prompt, then clicks where the answer before was wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from manylens.models.adapted.heads.promptable import Prompts
from manylens.models.promptable.prompts import BOTTOM_RIGHT, OBJECT, PADDING, TOP_LEFT
from manylens.training.promptable import boxes, clicks, losses
from manylens.training.promptable.coarse import coarse
from manylens.training.promptable.losses import Weights

Ask = Callable[[Prompts], Mapping[str, Tensor]]


class Head(Protocol):
    """What can be prompted: :class:`.promptable.Promptable` of the heads, or the parts of a checkpoint."""

    def embed(self, features: Mapping[str, Tensor]) -> Any:
        """What prompts are asked of."""
        ...

    def decode(self, embedding: Any, size: tuple[int, int], prompts: Prompts) -> dict[str, Tensor]:
        """``masks`` ``(P, 1 + M, h, w)`` logits and ``iou`` ``(P, 1 + M)``; the first for a clear prompt."""
        ...

    def low_res(self, embedding: Any) -> tuple[int, int]:
        """``(h, w)`` of its masks."""
        ...


@dataclass(frozen=True, eq=False)
class Objects:
    """What is asked about.

    Attributes:
        masks: bool ``(P, H, W)``; none of them is empty.
        picture: int64 ``(P,)``: of which picture of the batch each is.
        size: ``(H, W)`` of the pixels that prompts are given in; masks may be of another resolution.
    """

    masks: Tensor
    picture: Tensor
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.masks)

    @property
    def shape(self) -> tuple[int, int]:
        """``(H, W)`` of the masks."""
        return int(self.masks.shape[1]), int(self.masks.shape[2])

    def placed(self, points: Tensor) -> Tensor:
        """Points ``(P, 2)`` in pixels of the masks as pixels of the picture."""
        height, width = self.shape
        return points * points.new_tensor([self.size[1] / width, self.size[0] / height])


@dataclass(frozen=True)
class Schedule:
    """How often an object is asked about in one step, and how; the defaults are SAM's, but for the last two.

    Attributes:
        clicks: Rounds after the first that bring a new click.
        refinements: Rounds that bring nothing new but the answer before: the last one always, the others at random.
        boxes: Share of objects whose first prompt is a box, not a click.
        coarse: Share of steps whose first prompt is a coarse mask.
        forget: Share of rounds with a new click that do not bring the answer before, as where several clicks are given
            at once.
    """

    clicks: int = 8
    refinements: int = 2
    boxes: float = 0.5
    coarse: float = 0.05
    forget: float = 0.2

    def rounds(self, generator: torch.Generator | None = None) -> list[bool]:
        """The rounds after the first: whether each brings a new click."""
        plan = [True] * self.clicks
        for number in range(self.refinements):
            places = int(torch.randint(len(plan) + 1, (), generator=generator))
            plan.insert(len(plan) if number == 0 else min(places, len(plan) - 1), False)
        return plan


@dataclass
class Asking:
    """What has been asked about some objects so far; all have as many points at any time.

    A click without a box is followed by a padding point, which a box takes the place of with its two corners.
    """

    objects: Objects
    points: list[Tensor] = field(default_factory=list)
    labels: list[Tensor] = field(default_factory=list)

    def box_or_click(self, boxed: Tensor, box: Tensor, click: Tensor) -> None:
        """The first prompt: a box ``(P, 4)`` where ``boxed`` bool ``(P,)``, else a click ``(P, 2)`` on the object."""
        corners = self.objects.placed(box[:, :2]), self.objects.placed(box[:, 2:])
        which, click = boxed[:, None], self.objects.placed(click)
        self.points += [torch.where(which, corners[0], click), torch.where(which, corners[1], torch.zeros_like(click))]
        for corner, other in ((TOP_LEFT, OBJECT), (BOTTOM_RIGHT, PADDING)):
            self.labels.append(torch.where(boxed, corner, other))

    def click(self, points: Tensor, labels: Tensor) -> None:
        """A click on each object, ``(P, 2)`` and ``(P,)``."""
        if not self.points:  # after a coarse mask
            self.points.append(torch.zeros_like(points))
            self.labels.append(torch.full_like(labels, PADDING))
        self.points.append(self.objects.placed(points))
        self.labels.append(labels)

    def prompts(self, masks: Tensor | None = None) -> Prompts:
        """All that was asked, with the logits of an earlier answer ``(P, 1, h, w)``."""
        count, picture = len(self.objects), self.objects.picture
        if not self.points:
            nothing = picture.new_zeros(count, 0)
            return Prompts(nothing[..., None].expand(-1, -1, 2).float(), nothing, picture, masks)
        return Prompts(torch.stack(self.points, dim=1), torch.stack(self.labels, dim=1), picture, masks)


@dataclass(frozen=True, eq=False)
class Played:
    """What came of some rounds.

    Attributes:
        loss: A scalar: the mean over rounds and objects.
        parts: Its parts, to log: ``focal``, ``dice``, ``quality``.
        iou: ``(rounds, P)``: of the mask that was thought to be the best, after each round; without a gradient.
    """

    loss: Tensor
    parts: dict[str, Tensor]
    iou: Tensor


def play(
    head: Head,
    embedding: Any,
    objects: Objects,
    schedule: Schedule | None = None,
    weights: Weights | None = None,
    generator: torch.Generator | None = None,
) -> Played:
    """Ask about objects in rounds and judge each answer.

    Args:
        head: Answers.
        embedding: Of the pictures, as the head made it.
        objects: What is asked about.
        schedule: How often and how.
        weights: Of the loss.
        generator: Of all random choices; torch's own by default.
    """
    schedule = schedule or Schedule()
    ask = partial(head.decode, embedding, objects.size)
    asking, count = Asking(objects), len(objects)
    device = objects.masks.device
    random = torch.rand(count + 1, generator=generator, device=device)
    boxed = random[1:] < schedule.boxes
    ambiguous, given = ~boxed, None
    if schedule.coarse > 0 and bool(random[0] < schedule.coarse):
        ambiguous, given = torch.zeros_like(boxed), coarse(objects.masks, head.low_res(embedding), generator)
    else:
        box = boxes.jittered(boxes.around(objects.masks), objects.shape, generator=generator)
        asking.box_or_click(boxed, box, clicks.first(objects.masks, "anywhere", generator))
    judged = []
    logits, wrong = _ask(ask, asking, given, ambiguous, weights)
    judged.append(wrong)
    for new in schedule.rounds(generator):
        given = logits
        if new:
            found = losses.enlarged(logits, objects.shape)[:, 0] > 0
            asking.click(*clicks.correcting(objects.masks, found, "anywhere", generator))
            if float(torch.rand((), generator=generator, device=device)) < schedule.forget:
                given = None
        logits, wrong = _ask(ask, asking, given, torch.zeros_like(boxed), weights)
        judged.append(wrong)
    mean = {name: torch.stack([one[name] for one in judged]).mean() for name in ("loss", "focal", "dice", "quality")}
    loss = mean.pop("loss")
    return Played(loss, {name: one.detach() for name, one in mean.items()}, torch.stack([one["iou"] for one in judged]))


def examined(head: Head, embedding: Any, objects: Objects, rounds: int = 3) -> dict[str, Tensor]:
    """How good the answers are where nothing is left to chance; run it without gradients.

    Args:
        head: Answers.
        embedding: Of the pictures, as the head made it.
        objects: What is asked about.
        rounds: How many clicks.

    Returns:
        float ``(P,)`` IoU by name: ``click``, ``click_2`` and so on, of the best mask by its own word after so many
        clicks, the first in the object's middle, each next one in the middle of the largest error; ``best``, of the
        best mask in truth after one click; ``box``, of the mask for the smallest box.
    """
    found: dict[str, Tensor] = {}
    ask = partial(head.decode, embedding, objects.size)
    middles, around = clicks.first(objects.masks, "middle"), boxes.around(objects.masks)
    unboxed = torch.zeros(len(objects), dtype=torch.bool, device=objects.masks.device)
    asking = Asking(objects)
    asking.box_or_click(unboxed, around, middles)
    logits, judged = _ask(ask, asking, None, ~unboxed)
    found |= {"click": judged["iou"], "best": judged["best"]}
    for number in range(2, rounds + 1):
        wrong = losses.enlarged(logits, objects.shape)[:, 0] > 0
        asking.click(*clicks.correcting(objects.masks, wrong, "middle"))
        logits, judged = _ask(ask, asking, logits, unboxed)
        found[f"click_{number}"] = judged["iou"]
    boxing = Asking(objects)
    boxing.box_or_click(~unboxed, around, middles)
    return found | {"box": _ask(ask, boxing, None, unboxed)[1]["iou"]}


def _ask(
    ask: Ask, asking: Asking, given: Tensor | None, ambiguous: Tensor, weights: Weights | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Ask once and judge: the logits ``(P, 1, h, w)`` to go on from, and what was wrong, ``(P,)`` by name.

    Of the masks that answer each kind of prompt, the one that is thought to be the best is gone on from.
    """
    answer = ask(asking.prompts(given))
    logits: Tensor = answer["masks"].new_zeros(len(ambiguous), 1, *answer["masks"].shape[-2:])
    named: dict[str, Tensor] = {}
    for rows, kept in ((ambiguous, slice(1, None)), (~ambiguous, slice(0, 1))):
        numbers = rows.nonzero().flatten()
        if not len(numbers):
            continue
        masks, predicted = answer["masks"][numbers, kept], answer["iou"][numbers, kept]
        judged = losses.judge(masks, predicted, asking.objects.masks[numbers], weights)
        chosen = predicted.detach().argmax(dim=1)[:, None]
        logits[numbers] = masks.detach().take_along_dim(chosen[..., None, None], dim=1)
        values = {"loss": judged.loss, "focal": judged.focal, "dice": judged.dice, "quality": judged.quality}
        values |= {"iou": judged.iou.take_along_dim(chosen, dim=1)[:, 0], "best": judged.iou.amax(dim=1)}
        for name, one in values.items():
            named[name] = named.get(name, one.new_zeros(len(ambiguous))).index_copy(0, numbers, one)
    return logits, named
