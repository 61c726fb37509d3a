"""A policy, applied to batches: what a picture becomes does not depend on the pictures beside it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from manylens.training.augment import changes
from manylens.training.augment.draws import generator
from manylens.training.augment.rand import rand
from manylens.training.errors import TrainError

POLICIES = ("none", "flip", "light", "rand")
_VERSION = 1  # raise it when the same draws give another picture: it is a part of the name of kept views


@dataclass(frozen=True)
class Augment:
    """Changes pictures by a policy.

    Attributes:
        policy: ``none``; ``flip`` (half of them mirrored); ``light`` (mirrored, cut a little, slightly other colours);
            ``rand`` (mirrored, then RandAugment).
        strength: 0..1, how far ``light`` and ``rand`` go.
        seed: Of the training.
        mirror: Whether half of the pictures are mirrored; not where left and right differ, as in text.
        operations: How many of RandAugment's a picture gets.

    Raises:
        TrainError: There is no such policy.
    """

    policy: str = "light"
    strength: float = 0.5
    seed: int = 0
    mirror: bool = True
    operations: int = 2

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            near = difflib.get_close_matches(self.policy, POLICIES, 1)
            remedy = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(POLICIES)}"
            raise TrainError(f"augment.policy {self.policy!r}: there is none", remedy)

    @property
    def name(self) -> str:
        """Names how views are made, but for the strength of single pictures: another name, other views."""
        mirror = "" if self.mirror else "-straight"
        return f"{self.policy}{_VERSION}-{self.strength:g}-{self.operations}{mirror}-seed{self.seed}"

    def __call__(
        self, pixels: Tensor, ids: Sequence[int | str], epoch: int, strengths: Sequence[float] | None = None
    ) -> Tensor:
        """The pictures as they are shown in an epoch.

        Args:
            pixels: float32 ``(B, 3, H, W)`` in 0..1; not changed.
            ids: Of the pictures; each has a chance of its own.
            epoch: From 0.
            strengths: Of each picture, such as those of its class; by default the policy's.

        Returns:
            Of the same shape.
        """
        if self.policy == "none" or not len(pixels):
            return pixels
        changed = [
            self.one(picture, generator(self.seed, epoch, id), self.strength if strengths is None else strengths[i])
            for i, (picture, id) in enumerate(zip(pixels, ids, strict=True))
        ]
        return torch.stack(changed)

    def view(
        self,
        squares: npt.NDArray[np.uint8],
        ids: Sequence[int | str],
        number: int,
        strengths: Sequence[float] | None = None,
    ) -> npt.NDArray[np.uint8]:
        """A fixed view of pictures, whose features are kept; number 0 is the pictures as they are.

        Args:
            squares: uint8 ``(B, H, W, 3)``.
            ids: Of the pictures.
            number: Of the view, from 0.
            strengths: Of each picture.
        """
        if number == 0 or self.policy == "none":
            return squares
        pixels = torch.from_numpy(np.array(squares)).permute(0, 3, 1, 2).float().div_(255)
        made = self(pixels, ids, number, strengths).mul(255).round_().clamp_(0, 255).to(torch.uint8)
        return made.permute(0, 2, 3, 1).contiguous().numpy()

    def one(self, picture: Tensor, random: np.random.Generator, strength: float) -> Tensor:
        """One picture ``(3, H, W)``, changed."""
        mirrored = bool(random.random() < 0.5) and self.mirror
        return _MADE[self.policy](self, picture, random, strength, mirrored)


def _flip(_: Augment, picture: Tensor, __: np.random.Generator, ___: float, mirrored: bool) -> Tensor:
    return changes.flip(picture) if mirrored else picture


def _light(_: Augment, picture: Tensor, random: np.random.Generator, strength: float, mirrored: bool) -> Tensor:
    area = 1 - 0.5 * strength * random.random()
    aspect = np.exp(0.2 * strength * random.uniform(-1, 1))
    width, height = min(1.0, np.sqrt(area * aspect)), min(1.0, np.sqrt(area / aspect))
    x, y = (1 - width) * random.random(), (1 - height) * random.random()
    picture = changes.crop(picture, (x, y, x + width, y + height), mirrored=mirrored)
    bright, contrast, colour = 1 + 0.4 * strength * random.uniform(-1, 1, 3)
    picture = changes.contrast(changes.brightness(picture, bright), contrast)
    return changes.saturation(picture, colour)


def _rand(own: Augment, picture: Tensor, random: np.random.Generator, strength: float, mirrored: bool) -> Tensor:
    picture = changes.flip(picture) if mirrored else picture
    return rand(picture, random, strength, own.operations)


_MADE: dict[str, Callable[[Augment, Tensor, np.random.Generator, float, bool], Tensor]] = {
    "none": lambda own, picture, random, strength, mirrored: picture,
    "flip": _flip,
    "light": _light,
    "rand": _rand,
}
