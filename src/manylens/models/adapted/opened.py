"""An adapted model opened once more: to be trained further, or explained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from manylens.models.adapted.bundle import Adapted, Spec
from manylens.models.adapted.picture import square
from manylens.models.base import Trainable

if TYPE_CHECKING:
    from manylens.media import Image


def trainable(network: Adapted, spec: Spec) -> Trainable:
    """The base model's form, with the head's ``logits`` beside its features, or the head's vector in place of its own.

    Args:
        network: Put together from the folder.
        spec: Of the folder.
    """
    base = network.backbone.trainable
    network.requires_grad_(True)
    mean, std = (torch.tensor(one).view(1, 3, 1, 1) for one in (base.mean, base.std))

    def preprocess(images: Sequence[Image]) -> Tensor:
        squares = np.stack([square(image.array, spec.side) for image in images])
        return (torch.from_numpy(squares).permute(0, 3, 1, 2).float() / 255 - mean) / std

    def forward(pixels: Tensor) -> dict[str, Tensor]:
        found = base.forward(pixels)
        answer = network((pixels * std.to(pixels)) + mean.to(pixels))
        made = {name: one for name, one in answer.items() if name in ("logits", "vector")}
        return {**found, **made, **({"image": made["vector"]} if "vector" in made else {})}

    return replace(
        base,
        parts={**base.parts, "head": network.head},
        preprocess=preprocess,
        forward=forward,
        labels=spec.labels,
        side=spec.side,
    )
