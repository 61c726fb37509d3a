"""A SAM checkpoint of transformers as Meta's own model, for the tests and the peers of the benchmarks."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import torch
from benchmarks._baselines.torchvision_stub import segment_anything

# What transformers calls what; the first rule that fits a name is used.
_RULES: tuple[tuple[str, str], ...] = (
    (r"^shared_image_embedding\..*", ""),
    (
        r"^prompt_encoder\.shared_embedding\.positional_embedding",
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
    ),
    (r"^prompt_encoder\.point_embed\.", "prompt_encoder.point_embeddings."),
    (r"^prompt_encoder\.mask_embed\.conv1\.", "prompt_encoder.mask_downscaling.0."),
    (r"^prompt_encoder\.mask_embed\.layer_norm1\.", "prompt_encoder.mask_downscaling.1."),
    (r"^prompt_encoder\.mask_embed\.conv2\.", "prompt_encoder.mask_downscaling.3."),
    (r"^prompt_encoder\.mask_embed\.layer_norm2\.", "prompt_encoder.mask_downscaling.4."),
    (r"^prompt_encoder\.mask_embed\.conv3\.", "prompt_encoder.mask_downscaling.6."),
    (r"^vision_encoder\.patch_embed\.projection\.", "image_encoder.patch_embed.proj."),
    (r"^vision_encoder\.layers\.(\d+)\.layer_norm", r"image_encoder.blocks.\1.norm"),
    (r"^vision_encoder\.layers\.", "image_encoder.blocks."),
    (r"^vision_encoder\.neck\.conv1\.", "image_encoder.neck.0."),
    (r"^vision_encoder\.neck\.layer_norm1\.", "image_encoder.neck.1."),
    (r"^vision_encoder\.neck\.conv2\.", "image_encoder.neck.2."),
    (r"^vision_encoder\.neck\.layer_norm2\.", "image_encoder.neck.3."),
    (r"^vision_encoder\.", "image_encoder."),
    (r"^mask_decoder\.upscale_conv1\.", "mask_decoder.output_upscaling.0."),
    (r"^mask_decoder\.upscale_layer_norm\.", "mask_decoder.output_upscaling.1."),
    (r"^mask_decoder\.upscale_conv2\.", "mask_decoder.output_upscaling.3."),
    (r"^mask_decoder\.transformer\.layer_norm_final_attn\.", "mask_decoder.transformer.norm_final_attn."),
    (r"^(mask_decoder\.transformer\.layers\.\d+)\.layer_norm", r"\1.norm"),
)


def meta_sam(sam: Any) -> Any:
    """Meta's ``Sam`` with the weights of a ``SamModel``, strictly: each tensor finds its place, and none is left.

    The pixel means are the published ones; the checkpoint's own image processor must have the same.
    """
    segment_anything()
    from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

    vision, prompt, mask = sam.config.vision_config, sam.config.prompt_encoder_config, sam.config.mask_decoder_config
    grid = prompt.image_size // prompt.patch_size
    found = Sam(
        ImageEncoderViT(
            img_size=vision.image_size,
            patch_size=vision.patch_size,
            embed_dim=vision.hidden_size,
            depth=vision.num_hidden_layers,
            num_heads=vision.num_attention_heads,
            mlp_ratio=vision.mlp_dim / vision.hidden_size,
            out_chans=vision.output_channels,
            qkv_bias=vision.qkv_bias,
            norm_layer=partial(torch.nn.LayerNorm, eps=vision.layer_norm_eps),
            use_rel_pos=vision.use_rel_pos,
            window_size=vision.window_size,
            global_attn_indexes=tuple(vision.global_attn_indexes),
        ),
        PromptEncoder(
            embed_dim=prompt.hidden_size,
            image_embedding_size=(grid, grid),
            input_image_size=(prompt.image_size, prompt.image_size),
            mask_in_chans=prompt.mask_input_channels,
        ),
        MaskDecoder(
            transformer_dim=mask.hidden_size,
            transformer=TwoWayTransformer(
                depth=mask.num_hidden_layers,
                embedding_dim=mask.hidden_size,
                num_heads=mask.num_attention_heads,
                mlp_dim=mask.mlp_dim,
            ),
            num_multimask_outputs=mask.num_multimask_outputs,
            iou_head_depth=mask.iou_head_depth,
            iou_head_hidden_dim=mask.iou_head_hidden_dim,
        ),
    )
    found.load_state_dict({name: tensor for name, tensor in _renamed(sam) if name}, strict=True)
    return found.eval()


def _renamed(sam: Any) -> list[tuple[str, torch.Tensor]]:
    return [(_name(name, sam), tensor.detach().clone()) for name, tensor in sam.state_dict().items()]


def _name(name: str, sam: Any) -> str:
    for pattern, new in _RULES:
        if re.search(pattern, name):
            name = re.sub(pattern, new, name)
            break
    # Meta numbers the layers of a small feed-forward part, first and last included.
    last = sam.config.mask_decoder_config.iou_head_depth - 1 if "iou_prediction_head" in name else 2
    name = re.sub(r"\.layers\.(\d+)\.(weight|bias)$", lambda m: f".layers.{int(m[1]) + 1}.{m[2]}", name)
    return name.replace(".proj_in.", ".layers.0.").replace(".proj_out.", f".layers.{last}.")
