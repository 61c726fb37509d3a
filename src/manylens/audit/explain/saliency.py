"""What every method gives, before it is laid over the picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.errors import UnsupportedError
from manylens.media import Image

if TYPE_CHECKING:
    import torch

    from manylens.audit.explain.options import Options
    from manylens.audit.explain.score import TaskScore
    from manylens.models.base import Trainable

PixelScore = Callable[["torch.Tensor"], "torch.Tensor"]
"""Pixels ``(B, 3, H, W)``, as the module takes them, to scores ``(B,)``, differentiable."""


@dataclass(frozen=True, eq=False)
class Saliency:
    """How much each place of a picture counts, in the method's own resolution and units.

    Attributes:
        map: float32 ``(h, w)``; the whole picture, upright.
        signed: Whether places below 0 speak against the score; else the least value is no more than "not at all".
        heads: float32 ``(heads, rows, columns)``: each attention head by itself.
        regions: bool, of the same shape: where most of a head's attention lies.
        details: What the method found on the way, JSON-ready.
    """

    map: np.ndarray
    signed: bool = False
    heads: np.ndarray | None = None
    regions: np.ndarray | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Opened:
    """A picture and a model opened to look inside.

    Attributes:
        image: The picture.
        trainable: The model.
        score: What is explained.
    """

    image: Image
    trainable: Trainable
    score: PixelScore

    @cached_property
    def pixels(self) -> torch.Tensor:
        """The picture as the module takes it, ``(1, 3, H, W)``."""
        return self.trainable.preprocess([self.image])


ModuleMethod = Callable[[Opened, "Options"], Saliency]
"""A method that looks inside: attention, gradients, or occlusion on tensors."""


def pixel_score(trainable: Trainable, image: Image, score: TaskScore) -> PixelScore:
    """The differentiable form of a task's score.

    ``classify``: log-sum-exp of the logits of the labels, which for one label is its logit, as Grad-CAM takes it (a
    softmax would let the other classes speak too). ``embed``: cosine to the reference; to the picture's own vector the
    length along it, since the cosine's gradient is 0 there.

    Raises:
        UnsupportedError: The module gives nothing that the task's score could be made of.
    """
    import torch

    forward = trainable.forward
    if score.task == "classify" and trainable.labels:
        wanted = set(score.labels)
        numbers = [i for i, label in enumerate(trainable.labels) if label in wanted]
        return lambda pixels: forward(pixels)["logits"][:, numbers].logsumexp(dim=1)
    if score.task == "embed":
        if score.reference is not None:
            reference = torch.from_numpy(np.array(score.reference, dtype=np.float32))
            return lambda pixels: forward(pixels)["image"] @ reference.to(pixels.device)
        with torch.no_grad():
            own = forward(trainable.preprocess([image]))["image"][0]
        return lambda pixels: forward(pixels)["vector"] @ own
    raise UnsupportedError(f"{score.provenance.model}: its module has no differentiable score for {score.task}")
