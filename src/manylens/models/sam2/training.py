"""SAM 2 opened for training and explanation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.models.base import Trainable
from manylens.models.sam2.spec import Spec, prepared

if TYPE_CHECKING:
    import torch

    from manylens.media import Image

_LORA_TARGETS = ("attn.qkv", "attn.proj", "mlp.proj_in", "mlp.proj_out")


def opened(model: Any, spec: Spec) -> Trainable:
    """The network with named parts.

    ``dense`` is the embedding that the decoder is asked of ``(B, h, w, C)``; ``image`` its mean, of length 1. Blocks
    give maps with their channels last.

    Args:
        model: transformers' network.
        spec: Its numbers.
    """
    import torch

    model.requires_grad_(True)

    def preprocess(images: Sequence[Image]) -> torch.Tensor:
        return torch.from_numpy(np.concatenate([prepared(image.array, spec) for image in images]))

    def forward(pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        # Not through get_image_embeddings, which takes no gradient.
        maps = model.vision_encoder(pixels).fpn_hidden_states
        dense = (maps[-1] + model.no_memory_embedding.reshape(1, -1, 1, 1)).permute(0, 2, 3, 1)
        vector = dense.mean(dim=(1, 2))
        return {"image": torch.nn.functional.normalize(vector, dim=-1), "vector": vector, "dense": dense}

    backbone = model.vision_encoder.backbone
    return Trainable(
        model,
        {"encoder": model.vision_encoder, "prompt_encoder": model.prompt_encoder, "decoder": model.mask_decoder},
        list(backbone.blocks),
        _LORA_TARGETS,
        preprocess,
        forward,
        {f"blocks.{number}": block for number, block in enumerate(backbone.blocks)},
    )
