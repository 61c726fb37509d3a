"""The detector of SAM 3 in the pieces that run: torch modules made of those of transformers.

Each takes and gives plain tensors of one picture, so that either engine can run it. Prompts come without padding, so no
piece needs a mask over tokens; tables of sines are computed once. Follows ``Sam3Model`` of transformers and "SAM 3:
Segment Anything with Concepts" (Carion et al., 2025).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Trunk(nn.Module):
    """Pixels ``(B, 3, side, side)`` to patch tokens ``(B, h * w, C)``: what detector and tracker share."""

    def __init__(self, vision: Any) -> None:
        super().__init__()
        self.backbone = vision.backbone

    def forward(self, pixels: Tensor) -> Tensor:  # noqa: D102
        return self.backbone(pixels).last_hidden_state


class Neck(nn.Module):
    """Patch tokens ``(1, h * w, C)`` to maps, fine to coarse: ``(1, D, 4h, 4w)``, ``(1, D, 2h, 2w)`` ``(1, D, h, w)``.

    The neck's coarsest map is used by nothing and not computed.
    """

    def __init__(self, vision: Any) -> None:
        super().__init__()
        self.layers = vision.neck.fpn_layers[:-1]
        self.cells = _cells(vision)

    def forward(self, tokens: Tensor) -> tuple[Tensor, ...]:  # noqa: D102
        picture = tokens.transpose(1, 2).reshape(tokens.shape[0], -1, *self.cells)
        return tuple(layer(picture) for layer in self.layers)


class TrackerNeck(nn.Module):
    """Patch tokens to the three maps of the clicking decoder, the finest first; the last is the embedding."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.neck = Neck(model.vision_encoder)
        self.finest, self.middle = model.mask_decoder.conv_s0, model.mask_decoder.conv_s1

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: D102
        finest, middle, embedding = self.neck(tokens)
        return self.finest(finest), self.middle(middle), embedding


class Words(nn.Module):
    """Token ids int64 ``(1, L)`` to a prompt ``(1, L, D)``; none sees those after it, so padding is harmless."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.tower, self.projection = model.text_encoder, model.text_projection

    def forward(self, ids: Tensor) -> Tensor:  # noqa: D102
        return self.projection(self.tower(input_ids=ids).last_hidden_state)


class Exemplars(nn.Module):
    """Boxes around examples, as a prompt.

    Inputs of :meth:`forward`: ``coarse`` ``(1, D, h, w)``; ``boxes`` ``(1, N, 4)``, centre and size as shares of the
    picture; ``labels`` int64 ``(1, N)``, 1 for what is meant and 0 for what is not; ``rows`` ``(N, R, h)`` and
    ``columns`` ``(N, R, w)`` of :func:`manylens.models.sam3.boxes.pooling`. Output: ``(1, N + 1, D)``.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.geometry = model.geometry_encoder
        self.register_buffer("places", _places(model))

    def forward(self, coarse: Tensor, boxes: Tensor, labels: Tensor, rows: Tensor, columns: Tensor) -> Tensor:  # noqa: D102
        part = self.geometry
        flat = coarse.flatten(2).transpose(1, 2)
        normed = part.vision_layer_norm(flat).transpose(1, 2).reshape(coarse.shape)[0]
        pooled = torch.einsum("nyh,chw,nxw->ncyx", rows, normed, columns)
        x, y, width, height = boxes[0].unbind(-1)
        told = part.boxes_direct_project(boxes)
        told = told + part.boxes_pool_project(pooled).flatten(1).unsqueeze(0)
        told = told + part.boxes_pos_enc_project(part._encode_box_coordinates(x, y, width, height)).unsqueeze(0)
        told = part.label_embed(labels) + told
        prompt = part.prompt_layer_norm(part.final_proj(torch.cat([told, part.cls_embed.weight.unsqueeze(0)], dim=1)))
        for layer in part.layers:
            prompt = layer(prompt_feats=prompt, vision_feats=flat, vision_pos_encoding=self.places, prompt_mask=None)
        return part.output_layer_norm(prompt)


class Finder(nn.Module):
    """Everything in the picture that a prompt means.

    Inputs of :meth:`forward`: the maps of :class:`Neck` and ``prompt`` ``(1, P, D)``.

    Outputs: scores ``(Q,)`` in 0..1, weighted by whether the picture shows such a thing at all; boxes ``(Q, 4)`` xyxy
    as shares of the picture; mask logits ``(Q, 4h, 4w)``.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder, self.decoder = model.detr_encoder, model.detr_decoder
        self.scoring, self.masks = model.dot_product_scoring, model.mask_decoder
        self.register_buffer("places", _places(model))
        self.cells = _cells(model.vision_encoder)

    def forward(self, fine: Tensor, middle: Tensor, coarse: Tensor, prompt: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: D102
        state = coarse.flatten(2).transpose(1, 2)
        for layer in self.encoder.layers:
            state = layer(state, prompt_feats=prompt, vision_pos_encoding=self.places, prompt_cross_attn_mask=None)
        queries, boxes, presence = self._decoded(state, prompt)
        found = self.scoring(decoder_hidden_states=queries.unsqueeze(0), text_features=prompt)[0, 0, :, 0]
        masks = self.masks(
            decoder_queries=queries,
            backbone_features=[fine, middle, coarse],
            encoder_hidden_states=state,
            prompt_features=prompt,
        ).pred_masks
        return found.sigmoid() * presence.sigmoid(), boxes[0], masks[0]

    def _decoded(self, state: Tensor, prompt: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries ``(1, Q, D)``, their boxes ``(1, Q, 4)`` xyxy and the logit ``(1,)`` that there is anything.

        As ``Sam3DetrDecoder.forward``, which gives all layers' answers and keeps tables from call to call.
        """
        part = self.decoder
        hidden = torch.cat([part.presence_token.weight, part.query_embed.weight]).unsqueeze(0)
        boxes = part.reference_points.weight.unsqueeze(0).sigmoid()
        for layer in part.layers:
            near = nn.functional.pad(self._near(boxes), (0, 0, 1, 0))
            hidden = layer(
                hidden,
                query_pos=part.ref_point_head(part.position_encoding.encode_boxes(boxes)),
                text_features=prompt,
                vision_features=state,
                vision_pos_encoding=self.places,
                vision_cross_attn_mask=near,
            )
            queries = part.output_layer_norm(hidden[:, 1:])
            boxes = (part.box_head(queries) + _logit(boxes)).sigmoid()
        most = part.clamp_presence_logit_max_val
        presence = part.presence_head(part.presence_layer_norm(hidden[:, :1])).clamp(-most, most)
        centre, half = boxes[..., :2], boxes[..., 2:] / 2
        return queries, torch.cat([centre - half, centre + half], dim=-1), presence.reshape(1)

    def _near(self, boxes: Tensor) -> Tensor:
        """What is added to a query's attention ``(1, heads, Q, h * w)`` by how a place lies to the query's box."""
        part = self.decoder
        low, high = boxes[0, :, :2] - boxes[0, :, 2:] / 2, boxes[0, :, :2] + boxes[0, :, 2:] / 2
        told = []
        for axis, (cells, embed) in enumerate(
            zip(self.cells[::-1], (part.box_rpb_embed_x, part.box_rpb_embed_y), strict=True)
        ):
            steps = torch.arange(cells, dtype=boxes.dtype, device=boxes.device) / cells
            away = 8 * (steps[None, :, None] - torch.stack([low[:, axis], high[:, axis]], dim=-1)[:, None])
            told.append(embed(torch.sign(away) * torch.log2(away.abs() + 1) / 3))
        across, down = told
        bias = down.unsqueeze(2) + across.unsqueeze(1)  # (Q, h, w, heads)
        return bias.flatten(1, 2).permute(2, 0, 1).unsqueeze(0)


def _logit(share: Tensor, least: float = 1e-3) -> Tensor:
    """The inverse of the sigmoid, its argument kept from 0 and 1 as in DETR."""
    return torch.log(share.clamp(least, 1) / (1 - share).clamp(min=least))


def _cells(vision: Any) -> tuple[int, int]:
    """Rows and columns of patches."""
    config = vision.config.backbone_config
    side, patch = (_pair(config.image_size), _pair(config.patch_size))
    return side[0] // patch[0], side[1] // patch[1]


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _places(model: Any) -> Tensor:
    """The table of sines ``(1, h * w, D)`` of the coarsest map's places."""
    vision = model.vision_encoder
    shape = (1, vision.config.fpn_hidden_size, *_cells(vision))
    table = vision.neck.position_encoding(
        torch.Size(shape), vision.neck.fpn_layers[0].proj1.weight.device, torch.float32
    )
    return table.detach().flatten(2).transpose(1, 2)
