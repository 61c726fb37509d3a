"""SegGPT as a module to train and explain."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from manylens.media import Image
from manylens.models.base import Trainable
from manylens.models.seggpt.networks import Networks

_LORA_TARGETS = ("qkv", "proj", "lin1", "lin2")


def trainable(networks: Networks) -> Trainable:
    """The checkpoint with named parts; ``module`` takes examples and labels as transformers' class does.

    ``forward`` takes pictures alone, as an encoder does: each is its own example and all of the mask is hidden, so that
    the tokens say what the network sees in a picture before it is told what to paint. They are those of the asked half
    of the last layer that the decoder reads.
    """
    model = networks.load().requires_grad_(True)
    rows = networks.shape.rows

    def preprocess(images: Sequence[Image]) -> torch.Tensor:
        planes = np.stack([networks.processor.pixels(image.array) for image in images])
        return torch.from_numpy(networks.processor.normalised(planes))

    def forward(pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = torch.ones(1, model.model.embeddings.patch_embeddings.num_patches, dtype=torch.bool)
        states = model.model(
            pixel_values=pixels,
            prompt_pixel_values=pixels,
            prompt_masks=torch.zeros_like(pixels),
            bool_masked_pos=hidden.to(pixels.device),
        ).intermediate_hidden_states[-1]
        dense = states[:, rows:]
        vector = dense.mean(dim=(1, 2))
        return {"image": torch.nn.functional.normalize(vector, dim=-1), "vector": vector, "dense": dense}

    return Trainable(
        model,
        {"encoder": model.model, "decoder": model.decoder},
        list(model.model.encoder.layers),
        _LORA_TARGETS,
        preprocess,
        forward,
        patch=networks.shape.patch,
    )
