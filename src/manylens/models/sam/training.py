"""SAM opened for training and explanation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from manylens.models.base import Trainable
from manylens.models.sam.spec import Vision

if TYPE_CHECKING:
    from transformers import SamModel

    from manylens.media import Image

_LORA_TARGETS = ("attn.qkv", "attn.proj", "mlp.lin1", "mlp.lin2")


def trainable(sam: SamModel, vision: Vision) -> Trainable:
    """The network with its parts named.

    Args:
        sam: The checkpoint's module.
        vision: What its encoder is like.
    """
    encoder: Any = sam.vision_encoder
    mean, deviation = torch.tensor(vision.mean), torch.tensor(vision.deviation)

    def preprocess(images: Sequence[Image]) -> torch.Tensor:
        found = torch.zeros(len(images), 3, vision.side, vision.side)
        for picture, image in zip(found, images, strict=True):
            width, height = vision.canvas(image.size).inner
            inner = torch.from_numpy(np.array(vision.picture(image.array)[:height, :width]))
            picture[:, :height, :width] = ((inner - mean) / deviation).permute(2, 0, 1)
        return found

    def forward(pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        dense = encoder(pixels).last_hidden_state
        vector = dense.mean(dim=(2, 3))
        return {
            "image": torch.nn.functional.normalize(vector, dim=-1),
            "vector": vector,
            "dense": dense.permute(0, 2, 3, 1),
        }

    blocks: list[Any] = list(encoder.layers)
    taps: dict[str, torch.nn.Module] = {f"block.{i}": block for i, block in enumerate(blocks)}
    taps |= {f"attention.{i}": block.attn for i, block in enumerate(blocks)}
    parts: dict[str, Any] = {"encoder": encoder, "prompt_encoder": sam.prompt_encoder, "decoder": sam.mask_decoder}
    return Trainable(
        sam.requires_grad_(True), parts, blocks, _LORA_TARGETS, preprocess, forward, taps | {"features": encoder.neck}
    )
