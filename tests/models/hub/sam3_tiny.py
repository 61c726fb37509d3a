"""A SAM 3 checkpoint of the true architecture at a small size, and what stands in for torchvision in its reference."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from tests.models.hub import kit

SIDE, WIDTH = 64, 128
"""The memory of a video is 64 channels wide in transformers, whatever the config says, and maps have to be wider."""
WORDS = ("cat", "dog", "red", "cup", "visual", "picture", "of", "a")


def config() -> Any:
    """Two layers and a few channels of everything; windows, a global layer and tiled positions in the trunk."""
    from transformers import Sam3VideoConfig

    heads: dict[str, Any] = {"hidden_size": WIDTH, "num_attention_heads": 2}
    small = {**heads, "intermediate_size": 32, "num_layers": 2}
    backbone = {
        "model_type": "sam3_vit_model", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
        "num_attention_heads": 2, "image_size": SIDE, "patch_size": 8, "window_size": 4, "global_attn_indexes": [1],
        "pretrain_image_size": 32,
    }  # fmt: skip
    vision = {
        "model_type": "sam3_vision_model", "backbone_config": backbone, "fpn_hidden_size": WIDTH,
        "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
    }  # fmt: skip
    text = {
        "model_type": "clip_text_model", "vocab_size": len(WORDS) + 3, "hidden_size": 24, "intermediate_size": 32,
        "projection_dim": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 32,
        "hidden_act": "gelu", "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1,
    }  # fmt: skip
    detector = {
        "model_type": "sam3", "vision_config": vision, "text_config": text,
        "geometry_encoder_config": {**small, "roi_size": 3}, "detr_encoder_config": small,
        "detr_decoder_config": {**small, "num_queries": 12}, "mask_decoder_config": heads,
    }  # fmt: skip
    tracker = {
        "model_type": "sam3_tracker_video", "image_size": SIDE, "vision_config": vision, "num_maskmem": 3,
        "prompt_encoder_config": {
            # A quarter of the channels are normalised together first: of one alone nothing would be left.
            "hidden_size": WIDTH, "image_size": SIDE, "patch_size": 8, "mask_input_channels": 16,
        },
        "mask_decoder_config": {**heads, "mlp_dim": 32, "iou_head_hidden_dim": 16},
        "memory_attention_hidden_size": WIDTH, "memory_attention_num_layers": 2,
        "memory_attention_feed_forward_hidden_size": 32, "memory_attention_rope_feat_sizes": [8, 8],
        "memory_encoder_hidden_size": WIDTH, "memory_encoder_output_channels": 64,
        "mask_downsampler_embed_dim": WIDTH, "memory_fuser_embed_dim": WIDTH,
        "memory_fuser_intermediate_dim": 24,
    }  # fmt: skip
    return Sam3VideoConfig(detector_config=detector, tracker_config=tracker, low_res_mask_size=32)


def save(folder: Path, seed: int = 9) -> Path:
    """Write a noisy checkpoint, named as the published one is, whose scores lie on both sides of the threshold."""
    from transformers.models.sam3_video.modeling_sam3_video import Sam3VideoModel

    about = config()
    model = kit.noisy(Sam3VideoModel(about), seed)
    with torch.no_grad():
        decoder, scoring = model.detector_model.detr_decoder, model.detector_model.dot_product_scoring
        decoder.presence_head.layer3.bias.fill_(3.0)
        model.tracker_model.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(3.0)  # else nothing stays in sight
        decoder.query_embed.weight.mul_(8)
        for layer in decoder.layers:  # else all queries come to see the same, and find the same
            for attention in (layer.self_attn, layer.text_cross_attn, layer.vision_cross_attn):
                attention.o_proj.weight.mul_(0.5)
                attention.o_proj.bias.mul_(0.05)
        decoder.reference_points.weight.mul_(4)
        scoring.query_proj.weight.mul_(3)
        scoring.query_proj.bias.mul_(0.05)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    about.save_pretrained(folder)
    tokenizer(folder)
    return folder


def tokenizer(folder: Path) -> None:
    """A tokenizer of whole words, with a start and an end as CLIP's."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = {"<start>": 0, "<end>": 1, "<unknown>": 2} | {word: number + 3 for number, word in enumerate(WORDS)}
    made = Tokenizer(models.WordLevel(words, unk_token="<unknown>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 0), ("<end>", 1)]
    )
    made.save(str(folder / "tokenizer.json"))
    pixels = {"image_mean": [0.5, 0.45, 0.4], "image_std": [0.5, 0.4, 0.6]}
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": pixels}))


def roi_align(features: torch.Tensor, boxes: Any, bins: int) -> torch.Tensor:
    """torchvision's RoI align, sample by sample (not ``aligned``, as many samples in a bin as it has cells)."""
    found = []
    for picture, mine in zip(features, boxes, strict=True):
        high, wide = picture.shape[-2:]
        for x0, y0, x1, y1 in mine.tolist():
            width, height = max(x1 - x0, 1.0), max(y1 - y0, 1.0)
            across, down = int(np.ceil(width / bins)), int(np.ceil(height / bins))
            pooled = torch.zeros(len(picture), bins, bins)
            for row, column, j, i in np.ndindex(bins, bins, down, across):
                y = y0 + (row + (j + 0.5) / down) * height / bins
                x = x0 + (column + (i + 0.5) / across) * width / bins
                if -1 <= y <= high and -1 <= x <= wide:
                    pooled[:, row, column] += _bilinear(picture, x, y) / (across * down)
            found.append(pooled)
    return torch.stack(found)


def _bilinear(picture: torch.Tensor, x: float, y: float) -> torch.Tensor:
    high, wide = picture.shape[-2:]
    x, y = min(max(x, 0), wide - 1), min(max(y, 0), high - 1)
    left, top = int(x), int(y)
    right, low = min(left + 1, wide - 1), min(top + 1, high - 1)
    a, b = x - left, y - top
    upper = (1 - a) * picture[:, top, left] + a * picture[:, top, right]
    lower = (1 - a) * picture[:, low, left] + a * picture[:, low, right]
    return (1 - b) * upper + b * lower


def boxes_of(masks: torch.Tensor) -> torch.Tensor:
    """torchvision's masks_to_boxes: the last pixel counts as the edge."""
    rows = []
    for mask in masks:
        y, x = torch.where(mask)
        rows.append([x.min(), y.min(), x.max(), y.max()])
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


TORCHVISION = SimpleNamespace(ops=SimpleNamespace(roi_align=roi_align))
"""What transformers' SAM 3 takes from torchvision."""
