"""DINO: a student learns to say of one view what a slow copy of itself says of another (Caron et al., 2021).

With the terms of DINOv2 (Oquab et al., 2023) behind options: iBOT on masked patches, KoLeo, Sinkhorn-Knopp.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from manylens.errors import UnsupportedError
from manylens.training.selfsupervised import masking, objectives
from manylens.training.selfsupervised.crops import Crops
from manylens.training.selfsupervised.heads import DinoHead
from manylens.training.selfsupervised.objectives import Centre
from manylens.training.selfsupervised.options import Options
from manylens.training.selfsupervised.schedules import Schedule, usual_momentum
from manylens.training.selfsupervised.towers import Tower, Vit


class DinoOptions(Options):
    """How student and teacher learn.

    The defaults are those of the paper (Caron et al., 2021), but where those are made for millions of pictures: there
    are 4,096 prototypes and not 65,536; Sinkhorn-Knopp and KoLeo, which are DINOv2's; and a momentum that fits the
    length. With ``centring=centre`` and ``koleo=0`` a short training on a few thousand pictures mostly stays where the
    teacher says the same of all.

    Attributes:
        prototypes: How many the head has.
        hidden: Width of the head's hidden layers.
        bottleneck: Width in which cosines with prototypes are taken.
        layers: Linear layers of the head before the prototypes.
        student_temperature: Of the student's softmax.
        temperature: Of the teacher's softmax.
        first_temperature: The same at the first step.
        warmup_epochs: In which the one becomes the other.
        momentum: Share of itself that the teacher keeps in a step, at first; it rises to 1. By default such that it
            remembers a tenth of the training, at most the paper's 0.996.
        weight_decay: Of the student, at first; it counts in place of ``optimiser.weight_decay``.
        last_weight_decay: At last.
        freeze_last_epochs: In which the prototypes stay as they are.
        centring: What keeps one prototype from winning for all: ``sinkhorn``, ``centre``, or ``none``.
        centre_momentum: Share of itself that the centre keeps in a step.
        koleo: Weight of the term that keeps vectors apart.
        ibot: Weight of the term on masked patches; DINOv2 has 1.
        ibot_probability: Of a large view to have masked patches.
        ibot_share: Share of its patches that are masked, least and most.
        ibot_own_head: Whether patches have a head of their own.
    """

    prototypes: int = Field(default=4096, ge=2)
    hidden: int = Field(default=2048, ge=1)
    bottleneck: int = Field(default=256, ge=1)
    layers: int = Field(default=3, ge=1)
    student_temperature: float = Field(default=0.1, gt=0)
    temperature: float = Field(default=0.04, gt=0)
    first_temperature: float | None = Field(default=None, gt=0)
    warmup_epochs: float = Field(default=0.0, ge=0)
    momentum: float | None = Field(default=None, ge=0, le=1)
    weight_decay: float = Field(default=0.04, ge=0)
    last_weight_decay: float = Field(default=0.4, ge=0)
    freeze_last_epochs: float = Field(default=1.0, ge=0)
    centring: Literal["centre", "sinkhorn", "none"] = "sinkhorn"
    centre_momentum: float = Field(default=0.9, ge=0, lt=1)
    koleo: float = Field(default=0.1, ge=0)
    ibot: float = Field(default=0.0, ge=0)
    ibot_probability: float = Field(default=0.5, ge=0, le=1)
    ibot_share: tuple[float, float] = (0.1, 0.5)
    ibot_own_head: bool = False

    def schedule(self, total: int, per_epoch: int) -> Schedule:
        """The numbers that change, for a training of so many steps."""
        return Schedule(
            total=total,
            per_epoch=per_epoch,
            momentum=usual_momentum(total) if self.momentum is None else self.momentum,
            temperature=self.temperature,
            first_temperature=self.temperature if self.first_temperature is None else self.first_temperature,
            warmup_epochs=self.warmup_epochs,
            weight_decay=self.weight_decay,
            last_weight_decay=self.last_weight_decay,
            freeze_last_epochs=self.freeze_last_epochs,
        )

    def masks(self, numbers: Tensor, shape: tuple[int, int]) -> Tensor:
        """Which patches of large views are masked, bool ``(B, rows * columns)``.

        Args:
            numbers: In 0..1, ``(B, masking.RECTANGLES + 1, 4)``.
            shape: Rows and columns of patches.
        """
        whether, where = numbers[:, -1, 0] < self.ibot_probability, numbers[:, -1, 1]
        least, most = self.ibot_share
        return masking.blocks(numbers[:, :-1], shape, (least + (most - least) * where) * whether)


class Branch(nn.Module):
    """An encoder with its head or heads.

    Args:
        tower: The encoder.
        head: For vectors.
        patch_head: For patches, where they have one of their own.
    """

    def __init__(self, tower: Tower, head: DinoHead, patch_head: DinoHead | None = None) -> None:
        super().__init__()
        self.tower, self.head = tower, head
        self.patch_head = patch_head

    def on_patches(self, patches: Tensor) -> Tensor:
        """Logits ``(m, K)`` of patches ``(m, D)``."""
        found: Tensor = (self.head if self.patch_head is None else self.patch_head)(patches)
        return found


class Dino(nn.Module):
    """Student and teacher. All state is in parameters and buffers, so a checkpoint of it continues where it stood.

    Args:
        tower: The student's encoder; the teacher's is a copy of it.
        mean: What is taken from each channel of pixels in 0..1.
        std: What the rest is then divided by.
        options: How they learn.
        name: What to call the encoder in an error.

    Raises:
        UnsupportedError: Patches are to be masked, and this encoder cannot do that.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        tower: Tower,
        mean: Sequence[float],
        std: Sequence[float],
        options: DinoOptions | None = None,
        name: str = "the model",
    ) -> None:
        super().__init__()
        self.options = options = options or DinoOptions()
        if options.ibot:
            if not isinstance(tower, Vit):
                raise UnsupportedError(
                    f"{name}: is no vision transformer whose patches can be masked", "leave ibot out (options.ibot=0)"
                )
            tower.needs_mask_token()

        def head() -> DinoHead:
            return DinoHead(tower.width, options.prototypes, options.hidden, options.bottleneck, options.layers)

        self.student = Branch(tower, head(), head() if options.ibot and options.ibot_own_head else None)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.centre = Centre(options.prototypes, options.centre_momentum)
        self.patch_centre = Centre(options.prototypes, options.centre_momentum) if options.ibot else None
        scale = 1 / torch.tensor(std, dtype=torch.float32)
        self.register_buffer("scale", scale[:, None, None], persistent=False)
        self.register_buffer("shift", (-torch.tensor(mean) * scale)[:, None, None], persistent=False)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """As of any module; the teacher always answers without dropout and the like."""
        super().train(mode)
        self.teacher.eval()
        return self

    @property
    def encoder(self) -> Tower:
        """The encoder to keep: the teacher's, which is the better one all through the training (Caron et al., 2021)."""
        return self.teacher.tower

    def normalised(self, pixels: Tensor) -> Tensor:
        """Pixels in 0..1 as the encoder takes them."""
        return torch.addcmul(self.shift, pixels, self.scale)

    def forward(self, crops: Crops, temperature: float, masks: Tensor | None = None) -> dict[str, Tensor]:
        """What is wrong with the student's answers.

        The teacher runs once, for the large views; the student once for each size of view; each head once.

        Args:
            crops: The views of B pictures.
            temperature: Of the teacher's softmax now.
            masks: Patches of the large views that the student does not see, bool ``(2 * B, N)``; with ``options.ibot``.

        Returns:
            Scalars: ``loss``; its terms ``dino``, ``ibot`` and ``koleo`` where they are asked for, before they are
            weighted; and what :func:`entropies` tells of the teacher's answers. And ``vectors`` ``(B, D)``, those that
            the teacher gives of the first views.
        """
        options, pictures = self.options, len(crops.large) // 2
        masks = masks if options.ibot else None
        large = self.normalised(crops.large)
        with torch.no_grad():
            known = self.teacher.tower(large)
            targets = self._targets(self.teacher.head(known.vector), self.centre, temperature)
        seen = self.student.tower(large, masked=masks)
        vectors = [seen.vector]
        if len(crops.small):
            vectors.append(self.student.tower(self.normalised(crops.small)).vector)
        logits = self.student.head(torch.cat(vectors))
        found = {
            "dino": objectives.across_views(
                logits.unflatten(0, (-1, pictures)), targets.unflatten(0, (2, pictures)), options.student_temperature
            )
        }
        loss = found["dino"]
        if masks is not None:
            found["ibot"] = self._on_patches(seen.patches, known.patches, masks, temperature)
            loss = loss + options.ibot * found["ibot"]
        if options.koleo:
            # Each large view for itself: two views of one picture should be near.
            found["koleo"] = sum((objectives.koleo(one) for one in seen.vector.chunk(2)), start=loss.new_zeros(()))
            loss = loss + options.koleo * found["koleo"]
        told = {key: one.detach() for key, one in found.items()}
        return {"loss": loss, **told, **entropies(targets), "vectors": known.vector[:pictures]}

    @torch.no_grad()
    def follow(self, momentum: float) -> None:
        """Move the teacher towards the student: it keeps ``momentum`` of itself. Statistics of norms are taken over."""
        torch._foreach_lerp_(list(self.teacher.parameters()), list(self.student.parameters()), 1 - momentum)
        for mine, its in zip(self.teacher.buffers(), self.student.buffers(), strict=True):
            mine.copy_(its)

    def freeze_last(self) -> None:
        """Cancel the gradients of the prototypes; between the backward pass and the step (Caron et al., 2021)."""
        for head in (self.student.head, self.student.patch_head):
            if head is not None:
                head.prototypes.grad = None

    @torch.no_grad()
    def judged(self, pixels: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """The teacher's vectors ``(B, D)`` and probabilities ``(B, K)`` of pixels in 0..1; changes nothing."""
        vectors = self.teacher.tower(self.normalised(pixels)).vector
        logits = self.teacher.head(vectors)
        return vectors, self.centre(logits, temperature)

    def _on_patches(self, seen: Tensor, known: Tensor, masks: Tensor, temperature: float) -> Tensor:
        """The term of iBOT; only masked patches go through the heads."""
        assert self.patch_centre is not None
        where = masks.flatten().nonzero()[:, 0]
        with torch.no_grad():
            logits = self.teacher.on_patches(known.flatten(0, 1)[where])
            targets = self._targets(logits, self.patch_centre, temperature)
            counts = masks.sum(dim=1, keepdim=True)
            weights = (1 / counts.clamp(min=1)).expand_as(masks).flatten()[where]
        answers = self.student.on_patches(seen.flatten(0, 1)[where])
        return objectives.on_patches(answers, targets, weights, len(masks), self.options.student_temperature)

    def _targets(self, logits: Tensor, centre: Centre, temperature: float) -> Tensor:
        if self.options.centring == "sinkhorn":
            return objectives.sinkhorn(logits, temperature)
        targets: Tensor = centre(logits, temperature)
        if self.training and self.options.centring == "centre":
            centre.update(logits)
        return targets


@torch.no_grad()
def entropies(probabilities: Tensor) -> dict[str, Tensor]:
    """Of answers ``(n, K)``: ``mean_entropy``, that of their mean, and ``entropy``, the mean of theirs.

    Both are shares of log K, the greatest there is.
    A teacher that says the same of every picture has both 1 (a bit of everything) or both 0 (one prototype).
    """
    most = math.log(probabilities.shape[1])
    mean = probabilities.mean(dim=0)
    return {
        "mean_entropy": torch.special.entr(mean).sum() / most,
        "entropy": torch.special.entr(probabilities).sum(dim=1).mean() / most,
    }
