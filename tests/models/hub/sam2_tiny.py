"""SAM 2 of the true architecture at a small size, every tensor noisy; and a video of two things that move."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from tests.models.hub import kit

SIDE = 64
SIZE = (80, 48)
"""Of the video, ``(width, height)``."""


def video_model(*, newer: bool = True, seed: int = 1) -> Any:
    """A checkpoint for videos.

    Three memories and four pointers are few enough for eight frames to go beyond them. The score of an object is moved
    so that it is in sight in some frames and out of sight in others.

    Args:
        newer: SAM 2.1, else SAM 2: no places in time for pointers, nothing that marks a hidden object in the memory.
        seed: Of the noise.
    """
    import torch
    from transformers import Sam2VideoConfig, Sam2VideoModel

    config = Sam2VideoConfig(
        **_common(),
        image_size=SIDE,
        num_maskmem=3,
        max_object_pointers_in_encoder=4,
        memory_attention_hidden_size=128,
        memory_attention_num_layers=2,
        memory_attention_num_attention_heads=2,
        memory_attention_feed_forward_hidden_size=64,
        memory_attention_rope_feat_sizes=[4, 4],
        memory_encoder_hidden_size=128,
        mask_downsampler_embed_dim=128,
        memory_fuser_embed_dim=128,
        memory_fuser_intermediate_dim=32,
        enable_temporal_pos_encoding_for_object_pointers=newer,
        enable_occlusion_spatial_embedding=newer,
    )
    model = kit.noisy(Sam2VideoModel(config), seed=seed)
    with torch.no_grad():
        head = model.mask_decoder.pred_obj_score_head.proj_out
        head.weight.mul_(_SPREAD)
        head.bias.sub_(_MIDDLE).mul_(_SPREAD)
    return model


_MIDDLE, _SPREAD = 0.366, 20.0
"""Objects that are followed have scores about the first, a little apart; the second takes them clear of zero."""


def picture_model() -> Any:
    """A checkpoint for pictures only."""
    from transformers import Sam2Config, Sam2Model

    return kit.noisy(Sam2Model(Sam2Config(**_common())), seed=2)


def parts_of(config: Any) -> dict[str, Any]:
    """The parts of a video checkpoint's config that one for pictures has too."""
    kept = config.to_dict()
    return {name: kept[name] for name in ("vision_config", "prompt_encoder_config", "mask_decoder_config")}


def frames(count: int = 8) -> np.ndarray:
    """A red disc and a blue block that move over noise: uint8 ``(count, 48, 80, 3)``."""
    down, across = np.mgrid[: SIZE[1], : SIZE[0]]
    made = np.repeat(np.random.default_rng(0).integers(0, 80, (1, *SIZE[::-1], 3), dtype=np.uint8), count, axis=0)
    for number, frame in enumerate(made):
        frame[disc(number)] = (220, 40, 30)
        x0, y0, x1, y1 = block(number)
        frame[(across >= x0) & (across < x1) & (down >= y0) & (down < y1)] = (30, 200, 220)
    return made


def centre(number: int) -> tuple[int, int]:
    """``(x, y)`` of the disc's centre in a frame."""
    return 15 + 5 * number, 15 + 2 * number


def disc(number: int) -> np.ndarray:
    """The disc in a frame: bool ``(48, 80)``."""
    down, across = np.mgrid[: SIZE[1], : SIZE[0]]
    x, y = centre(number)
    return (across - x) ** 2 + (down - y) ** 2 < 80


def block(number: int) -> tuple[int, int, int, int]:
    """The block's box in a frame."""
    return 50 - 3 * number, 30 - 2 * number, 65 - 3 * number, 42 - 2 * number


def save(model: Any, folder: Path) -> Path:
    """The checkpoint's folder, with pixel means that no other family has."""
    return kit.save(model, folder, preprocessor_config={"image_mean": [0.5, 0.45, 0.4], "image_std": [0.3, 0.25, 0.2]})


def _common() -> dict[str, Any]:
    from transformers import Sam2HieraDetConfig, Sam2VisionConfig

    backbone = Sam2HieraDetConfig(
        hidden_size=8,
        image_size=[SIDE, SIDE],
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 2, 4, 8],
        window_size_per_stage=[4, 4, 3, 2],  # 3 does not divide the side, so that a padded window is met
        global_attention_blocks=[3],
        window_positional_embedding_background_size=[3, 3],
    )
    vision = Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[64, 32, 16, 8],
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        fpn_hidden_size=128,
    )
    prompts = {"hidden_size": 128, "image_size": SIDE}
    decoder = {"hidden_size": 128, "mlp_dim": 32, "num_attention_heads": 4, "iou_head_hidden_dim": 32}
    return {"vision_config": vision, "prompt_encoder_config": prompts, "mask_decoder_config": decoder}
