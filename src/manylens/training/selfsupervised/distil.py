"""A small encoder learns from a large one: its features, and what it says of pictures by their likeness to others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from manylens.training.selfsupervised.objectives import exact, gathered
from manylens.training.selfsupervised.options import Options
from manylens.training.selfsupervised.towers import Tower


class DistilOptions(Options):
    """What is learnt of the teacher.

    Attributes:
        vector: Weight of the term on vectors: one minus the cosine, and the squared error of standardised features.
        patches: Weight of the same on patches; 0 where one of the two gives none.
        logits: Weight of the term on likenesses to earlier pictures, as DINO compares votes for prototypes.
        anchors: How many earlier pictures there are.
        temperature: Of the teacher's softmax over them.
        student_temperature: Of the student's.
    """

    vector: float = Field(default=1.0, ge=0)
    patches: float = Field(default=0.5, ge=0)
    logits: float = Field(default=1.0, ge=0)
    anchors: int = Field(default=1024, ge=2)
    temperature: float = Field(default=0.04, gt=0)
    student_temperature: float = Field(default=0.1, gt=0)


class Distil(nn.Module):
    """A student, projectors into the teacher's space, and a queue of the teacher's vectors; the teacher stays as it is.

    Feature regression goes through a linear projector, which is not kept (Romero et al., 2015). The likenesses are
    SEED's (Fang et al., 2021), centred and sharpened as in DINO.

    Args:
        student: The encoder that learns.
        teacher: The one that it learns from.
        levels: Mean and deviation of the student's pixels, then of the teacher's, three numbers each.
        options: What is learnt.
    """

    anchors: Tensor
    filled: Tensor
    mean: Tensor
    levels: Tensor

    def __init__(
        self,
        student: Tower,
        teacher: Tower,
        levels: Sequence[Sequence[float]],
        options: DistilOptions | None = None,
    ) -> None:
        super().__init__()
        self.options = options = options or DistilOptions()
        self.student = student
        self.teacher = teacher.requires_grad_(False)
        self.on_vector = nn.Linear(student.width, teacher.width)
        dense = options.patches > 0 and student.dense and teacher.dense
        self.on_patches = nn.Linear(student.width, teacher.width) if dense else None
        self.register_buffer("anchors", torch.zeros(options.anchors, teacher.width))
        self.register_buffer("filled", torch.zeros((), dtype=torch.long))
        self.register_buffer("mean", torch.zeros(teacher.width))
        self.register_buffer("levels", torch.tensor(levels)[..., None, None], persistent=False)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """As of any module; the teacher always answers without dropout and the like."""
        super().train(mode)
        self.teacher.eval()
        return self

    @property
    def encoder(self) -> Tower:
        """The encoder to keep."""
        return self.student

    def forward(self, pixels: Tensor, large: Tensor | None = None) -> dict[str, Tensor]:
        """How far the student is from the teacher.

        Args:
            pixels: In 0..1, ``(B, 3, H, W)``, as the student sees them.
            large: The same pictures as the teacher sees them, where its side is another.

        Returns:
            Scalars: ``loss``, its terms ``vector``, ``patches`` and ``logits`` before they are weighted, and
            ``cosine``, how like the teacher's vectors the student's are. And ``vectors``, the student's own ``(B, D)``.
        """
        options = self.options
        mean, std, teacher_mean, teacher_std = self.levels.unbind(0)
        with torch.no_grad():
            known = self.teacher(((pixels if large is None else large) - teacher_mean) / teacher_std)
        seen = self.student((pixels - mean) / std)
        answer = self.on_vector(seen.vector)
        cosine = functional.cosine_similarity(answer.float(), known.vector.float(), dim=-1)
        found = {"vector": regression(answer, known.vector)}
        if self.on_patches is not None:
            answers = regridded(self.on_patches(seen.patches), seen.grid, known.grid)
            found["patches"] = regression(answers, known.patches)
        if options.logits:
            with exact(answer):
                found["logits"] = self._likenesses(answer.float(), known.vector.float())
        weights = options.model_dump()
        loss = sum((weights[name] * one for name, one in found.items()), start=answer.new_zeros(()))
        return {
            "loss": loss,
            **{name: one.detach() for name, one in found.items()},
            "cosine": cosine.detach().mean(),
            "vectors": seen.vector.detach(),
        }

    def _likenesses(self, answer: Tensor, known: Tensor) -> Tensor:
        """Cross-entropy between softmaxes over likenesses to the anchors; 0 until all anchors are there."""
        options = self.options
        with torch.no_grad():
            anchors = functional.normalize(self.anchors - self.mean, dim=-1)
            likeness = functional.normalize(known - self.mean, dim=-1) @ anchors.T
            # Some anchors are like everything: as with prototypes, none may win for all.
            targets = ((likeness - anchors @ anchors.mean(dim=0)) / options.temperature).softmax(dim=-1)
        said = functional.normalize(answer - self.mean, dim=-1) @ anchors.T / options.student_temperature
        loss = -(targets * said.log_softmax(dim=-1)).sum(dim=-1).mean()
        ready = (self.filled >= options.anchors).float()
        if self.training:
            self._remember(gathered(known))
        return loss * ready

    @torch.no_grad()
    def _remember(self, known: Tensor) -> None:
        """Put the teacher's vectors in the queue, in place of the oldest."""
        known = known[: len(self.anchors)]
        places = (self.filled + torch.arange(len(known), device=known.device)) % len(self.anchors)
        self.anchors[places] = known
        self.filled += len(known)
        self.mean.copy_(self.anchors.sum(dim=0) / self.filled.clamp(max=len(self.anchors)))


def regression(answer: Tensor, known: Tensor) -> Tensor:
    """One minus the cosine, and the squared error after both are standardised over their features; the mean."""
    answer, known = answer.float(), known.float()
    cosine = functional.cosine_similarity(answer, known, dim=-1)
    width = answer.shape[-1:]
    errors = functional.mse_loss(functional.layer_norm(answer, width), functional.layer_norm(known, width))
    return (1 - cosine).mean() + errors


def regridded(patches: Tensor, grid: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """Patches ``(B, N, D)`` of one grid on another, bilinear."""
    if grid == target:
        return patches
    maps = patches.transpose(1, 2).unflatten(2, grid)
    return functional.interpolate(maps, size=target, mode="bilinear", antialias=True).flatten(2).transpose(1, 2)
