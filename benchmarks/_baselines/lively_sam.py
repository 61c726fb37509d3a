"""A SAM of random weights that behaves as a trained one in what mode everything costs.

Masks of pure noise cover all of the picture, none is stable and none passes a threshold. Here the noise is shifted and
scaled, so that masks are small and differ from point to point, and so that as many pass each threshold as of a trained
SAM on a photograph. Every weight still matters, and both sides of a comparison are given the same ones.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

_LEVEL = 4.0
"""Of the channel that is made constant before the masks' logits, to shift them by."""
_STEEPEST = 1e4
_ENLARGED = 2.5
"""From a mask's own size to that of a photo, about."""
_QUIET = 0.05
"""What is left of that channel's noise."""


def lively(
    sam: Any,
    embedding: torch.Tensor,
    *,
    covered: float = 0.05,
    pull: float = 2.0,
    steep: float | None = None,
    stable: float = 0.5,
    good: float = 0.38,
    spread: float = 0.1,
    least: float = 0.88,
    points: int = 64,
    seed: int = 0,
) -> Any:
    """Shift and scale the heads of a ``SamModel`` of noise, in place.

    Args:
        sam: The model.
        embedding: Of a picture, ``(1, C, G, G)``, to measure on.
        covered: Share of the picture that a mask covers.
        pull: How much the picture looks at a click that is near, against the noise.
        steep: Standard deviation of the logits: steeper masks are more stable. None: as ``stable`` asks.
        stable: Share of the masks whose stability score is at least 0.95, at the size of a photo.
        good: Share of the masks whose predicted IoU is above ``least``.
        spread: Standard deviation of the predicted IoU.
        least: The threshold of the predicted IoU.
        points: How many random points to measure on.
        seed: Of the points.
    """
    decoder = sam.mask_decoder
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        # As wide as in the published models: it says how far two places are told apart.
        sam.prompt_encoder.shared_embedding.positional_embedding.normal_(generator=generator)
        for layer in decoder.transformer.layers:
            part = layer.cross_attn_image_to_token
            part.k_proj.weight += pull * part.q_proj.weight
        decoder.upscale_conv2.weight[:, 0] *= _QUIET
        decoder.upscale_conv2.bias[0] = _LEVEL
        for mlp in decoder.output_hypernetworks_mlps:
            mlp.proj_out.weight[0] *= _QUIET
            mlp.proj_out.bias[0] = 0
        logits, quality = _found(sam, embedding, points, seed)
        head = decoder.iou_prediction_head.proj_out
        for number, mlp in enumerate(decoder.output_hypernetworks_mlps):
            found = max(0, number - 1)  # mask 0 answers no unclear click: it is scaled as mask 1
            level = _quantile(logits[:, found], 1 - covered)
            scale = (_steepness(logits[:, found] - level, stable) if steep is None else steep) / logits[:, found].std()
            mlp.proj_out.weight *= scale
            mlp.proj_out.bias *= scale
            mlp.proj_out.bias[0] -= scale * level / _LEVEL
            scale = spread / quality[:, found].std()
            head.weight[number] *= scale
            head.bias[number] = (head.bias[number] - _quantile(quality[:, found], 1 - good)) * scale + least
    return sam


def _found(sam: Any, embedding: torch.Tensor, points: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits ``(points, M - 1, S, S)`` and predicted IoU ``(points, M - 1)`` of random clicks."""
    side = sam.config.prompt_encoder_config.image_size
    places = torch.rand(1, points, 1, 2, generator=torch.Generator().manual_seed(seed)) * side
    logits, quality = [], []
    for some in places.split(4, dim=1):
        sparse, dense = sam.prompt_encoder(some, torch.ones(some.shape[:3], dtype=torch.int), None, None)
        masks, iou = sam.mask_decoder(embedding, sam.get_image_wide_positional_embeddings(), sparse, dense, True)
        logits.append(masks[0])
        quality.append(iou[0])
    return torch.cat(logits), torch.cat(quality)


def _steepness(logits: torch.Tensor, stable: float) -> float:
    """The standard deviation that logits ``(points, S, S)`` need for a share of them to be stable.

    Between the pixels of noise lie values nearer to zero: enlarged, a mask is less stable.
    """
    unit = functional.interpolate(logits[:, None] / logits.std(), scale_factor=_ENLARGED, mode="bilinear").flatten(1)
    steep = 1.0
    while steep < _STEEPEST:
        scores = (unit > 1 / steep).sum(1) / (unit > -1 / steep).sum(1)
        if float((scores >= 0.95).float().mean()) >= stable:
            break
        steep *= 1.1
    return steep


def _quantile(values: torch.Tensor, share: float) -> torch.Tensor:
    flat = values.flatten()
    return flat.kthvalue(max(1, round(share * flat.numel()))).values
