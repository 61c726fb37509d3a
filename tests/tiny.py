"""A vision transformer so small that a test can make one, as a folder in the hub's format."""

from __future__ import annotations

import json
from pathlib import Path


def dinov2(folder: Path, *, width: int = 16, blocks: int = 2, side: int = 28, patch: int = 7) -> Path:
    """Write a seeded DINOv2, which sees the middle square of a picture.

    Args:
        folder: Where to.
        width: Numbers a token.
        blocks: How many.
        side: Of the square.
        patch: Of a patch.
    """
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.Dinov2Config(
        hidden_size=width,
        num_hidden_layers=blocks,
        num_attention_heads=2,
        mlp_ratio=2,
        image_size=side,
        patch_size=patch,
    )
    transformers.Dinov2Model(config).save_pretrained(folder)
    prepares = {
        "image_processor_type": "BitImageProcessor",
        "size": {"shortest_edge": side},
        "crop_size": {"height": side, "width": side},
        "resample": 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(prepares))
    return folder
