"""A promptable mask decoder on the features of any encoder: clicks, boxes and an earlier mask to masks.

After "Segment Anything" (Kirillov et al., 2023): a prompt encoder, and a decoder of two-way attention that answers with
one mask for a clear prompt and three for one that is not, each with the IoU that it is thought to have. Both are
transformers' own modules of SAM. Before them comes a neck that makes SAM's embedding of an encoder's maps, and beside
them what lets the decoder learn from few masks: see :mod:`.guides`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from manylens.errors import UnsupportedError
from manylens.models.adapted.heads.guides import Guides, keys
from manylens.models.promptable.prompts import PADDING

MASKS = 3
"""Masks that answer a prompt that is not clear; mask 0, before them, answers one that is."""

UPSCALED = 4
"""Logits along a side of one cell of the embedding."""


class Prompts(NamedTuple):
    """``P`` prompts on the pictures of a batch; all have as many points.

    Attributes:
        points: float ``(P, N, 2)``, x and y in pixels, not yet shifted to their centres.
        labels: int64 ``(P, N)``: 1 object, 0 background, 2 and 3 the corners of a box, -1 padding, which follows the
            clicks of a prompt without a box.
        picture: int64 ``(P,)``: of which picture of the batch each prompt is.
        masks: float ``(P, 1, 4h, 4w)``, logits of an earlier answer; None where no prompt has one.
    """

    points: Tensor
    labels: Tensor
    picture: Tensor
    masks: Tensor | None = None


class Embedding(NamedTuple):
    """What prompts are asked of.

    Attributes:
        picture: ``(B, C, h, w)``, SAM's embedding.
        keys: ``(B, D, h, w)``, what cells are compared by.
    """

    picture: Tensor
    keys: Tensor


class Promptable(nn.Module):
    """The decoder with its neck; by default of a size for hundreds of masks, a quarter of SAM's width.

    Args:
        widths: Width of each feature that the backbone gives.
        labels: Not used: a prompt says which object is meant, whatever its class.
        features: Maps that the neck takes, such as ``dense`` or ``block.5``; several are summed. Cells are compared by
            the first one.
        width: Channels of the embedding; a multiple of 8 and of ``heads``.
        finer: The embedding has so many cells along the side of a cell of the encoder: 1, 2 or 4.
        mixing: Blocks of the neck that look at a neighbourhood of cells.
        layers: Of two-way attention.
        heads: Of attention.
        hidden: Width of the layers' feed-forward parts.
        guided: Whether prompts are shown as maps, too; see :mod:`.guides`. Without them it is SAM's decoder.
        dropout: Share of the channels of the encoder's maps that are dropped while it trains.

    Raises:
        UnsupportedError: The numbers do not go together.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        labels: int = 0,
        *,
        features: Sequence[str] = ("dense",),
        width: int = 64,
        finer: int = 1,
        mixing: int = 1,
        layers: int = 2,
        heads: int = 4,
        hidden: int = 256,
        guided: bool = True,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if width % 8 or width % (2 * heads):
            raise UnsupportedError(
                f"promptable head: a width of {width} for {heads} heads", "give a multiple of 8 and of twice the heads"
            )
        if finer not in (1, 2, 4):
            raise UnsupportedError(f"promptable head: finer is {finer}", "give 1, 2 or 4")
        self.needs = tuple(features)
        self.width, self.finer = width, finer
        self.neck = Neck([widths[name] for name in self.needs], width, finer, mixing, dropout)
        self.prompt_encoder, self.mask_decoder = _sam(width, layers, heads, hidden)
        self.guides = Guides(width, 1 + MASKS) if guided else None

    def forward(self, features: Mapping[str, Tensor], size: tuple[int, int], prompts: Prompts) -> dict[str, Tensor]:
        """Masks of prompts.

        Args:
            features: Maps ``(B, h, w, D)`` by name.
            size: ``(H, W)`` of the pixels that the features are of, in which points are given.
            prompts: What is asked.

        Returns:
            ``masks`` ``(P, 1 + 3, 4h, 4w)`` logits, ``h`` and ``w`` of the embedding, and ``iou`` ``(P, 1 + 3)``; of
            both the first is for a clear prompt and the others for one that is not.
        """
        return self.decode(self.embed(features), size, prompts)

    def embed(self, features: Mapping[str, Tensor]) -> Embedding:
        """The embedding that prompts are asked of; made once for each picture."""
        return Embedding(self.neck([features[name] for name in self.needs]), keys(features[self.needs[0]], self.finer))

    def decode(self, embedding: Embedding, size: tuple[int, int], prompts: Prompts) -> dict[str, Tensor]:
        """As :meth:`forward`, of what :meth:`embed` gave."""
        if not prompts.labels.shape[1]:  # a mask alone
            nothing = prompts.labels.new_full((len(prompts.labels), 1), PADDING)
            prompts = prompts._replace(labels=nothing, points=nothing[..., None].expand(-1, -1, 2) * 0.0)
        if self.guides is None:
            return decoded(self.prompt_encoder, self.mask_decoder, embedding.picture, size, prompts)
        asked = embedding.keys[prompts.picture]
        more, hints = self.guides(asked, relative(prompts.points.to(asked), size), prompts.labels)
        found = decoded(self.prompt_encoder, self.mask_decoder, embedding.picture, size, prompts, more)
        hints = F.interpolate(hints, scale_factor=float(UPSCALED), mode="bilinear", align_corners=False)
        return {"masks": found["masks"] + hints, "iou": found["iou"]}

    def low_res(self, embedding: Embedding) -> tuple[int, int]:
        """``(h, w)`` of the masks."""
        height, width = embedding.picture.shape[-2:]
        return UPSCALED * height, UPSCALED * width


class Neck(nn.Module):
    """Maps of an encoder to one embedding: projected, summed, made finer, mixed; as SAM's own neck where it is plain.

    Args:
        widths: Of the maps.
        width: Of the embedding.
        finer: As of :class:`Promptable`.
        mixing: As there.
        dropout: As there.
    """

    def __init__(self, widths: Sequence[int], width: int, finer: int, mixing: int, dropout: float) -> None:
        super().__init__()
        self.finer = finer
        # Maps of a block are not normalised, and a few of their channels outweigh all others.
        self.norms = nn.ModuleList(nn.LayerNorm(one) for one in widths)
        self.projections = nn.ModuleList(nn.Linear(one, width * finer**2) for one in widths)
        self.dropout = nn.Dropout2d(dropout)
        self.mixers = nn.ModuleList(Mixer(width) for _ in range(mixing))
        self.last = nn.LayerNorm(width)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """``(B, h, w, D)`` each, to ``(B, C, finer * h, finer * w)``."""
        parts = [
            project(self.dropout(norm(one.float()).permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
            for one, norm, project in zip(maps, self.norms, self.projections, strict=True)
        ]
        x = torch.stack(parts).sum(dim=0).permute(0, 3, 1, 2)
        if self.finer > 1:
            x = F.pixel_shuffle(x, self.finer)
        for mixer in self.mixers:
            x = mixer(x)
        return self.last(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Mixer(nn.Module):
    """A block of ConvNeXt (Liu et al., 2022) on ``(B, C, h, w)``: cells look at their neighbours, then think."""

    def __init__(self, width: int, reach: int = 7) -> None:
        super().__init__()
        self.look = nn.Conv2d(width, width, reach, padding=reach // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.think = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 - the class says it
        return x + self.think(self.norm(self.look(x).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


class Doubled(nn.Module):
    """A map at twice its sides: enlarged, then convolved.

    SAM has transposed convolutions there, whose answers are a chessboard until they have seen very many masks (Odena et
    al., 2016, "Deconvolution and checkerboard artifacts").
    """

    def __init__(self, width: int, made: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, made, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 - the class says it
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False))


def decoded(
    prompt_encoder: Any,
    mask_decoder: Any,
    embedding: Tensor,
    size: tuple[int, int],
    prompts: Prompts,
    more: Tensor | None = None,
    placing: Any = None,
) -> dict[str, Tensor]:
    """What SAM's two modules answer: all masks, of a clear prompt and of one that is not.

    Args:
        prompt_encoder: transformers' ``SamPromptEncoder``.
        mask_decoder: transformers' ``SamMaskDecoder``.
        embedding: ``(B, C, h, w)`` of the pictures.
        size: As of :meth:`Promptable.forward`.
        prompts: As there.
        more: ``(P, C, h, w)``, added to the embedding for each prompt.
        placing: Gives the sines of a picture's places; by default it is the same that gives those of points.
    """
    # Sizes are asked of the shapes, which a trace keeps free; len() is a constant there.
    sparse, dense = encoded(prompt_encoder, embedding, size, prompts)
    pictures = embedding[prompts.picture] + dense
    if more is not None:
        pictures = pictures + more
    outputs = torch.cat([mask_decoder.iou_token.weight, mask_decoder.mask_tokens.weight])
    tokens = torch.cat([outputs.expand(sparse.shape[0], -1, -1), sparse], dim=1)
    # The parts of ``SamMaskDecoder.forward``, which gives either kind of mask but not both.
    queries, keys = mask_decoder.transformer(
        point_embeddings=tokens[:, None],
        image_embeddings=pictures,
        image_positional_embeddings=places(placing or prompt_encoder.shared_embedding, embedding).expand(
            pictures.shape[0], -1, -1, -1
        ),
        attention_similarity=None,
    )
    queries = queries[:, 0]
    x = keys[:, 0].transpose(1, 2).reshape(pictures.shape)
    x = mask_decoder.activation(mask_decoder.upscale_layer_norm(mask_decoder.upscale_conv1(x)))
    x = mask_decoder.activation(mask_decoder.upscale_conv2(x))
    drawn = [mlp(queries[:, 1 + number]) for number, mlp in enumerate(mask_decoder.output_hypernetworks_mlps)]
    masks = (torch.stack(drawn, dim=1) @ x.flatten(2)).unflatten(2, (x.shape[2], x.shape[3]))
    return {"masks": masks, "iou": mask_decoder.iou_prediction_head(queries[:, 0])}


def encoded(prompt_encoder: Any, embedding: Tensor, size: tuple[int, int], prompts: Prompts) -> tuple[Tensor, Tensor]:
    """Tokens ``(P, N, C)`` of prompts, and what is added to the embedding ``(P or 1, C, h, w)``; of SAM or SAM 2."""
    kinds: Any = prompt_encoder.point_embed
    named: list[Any] = [one.weight for one in kinds] if isinstance(kinds, nn.ModuleList) else [kinds.weight]
    table = torch.cat([prompt_encoder.not_a_point_embed.weight, *named])
    sines = prompt_encoder.shared_embedding(relative(prompts.points.to(embedding), size)[None])[0]
    tokens = sines * (prompts.labels >= 0)[..., None] + table[prompts.labels + 1]
    if prompts.masks is None:
        return tokens, prompt_encoder.no_mask_embed.weight[:, :, None, None]
    return tokens, prompt_encoder.mask_embed(prompts.masks.to(embedding))


def relative(points: Tensor, size: tuple[int, int]) -> Tensor:
    """Points ``(..., 2)`` in pixels as shares of the picture's width and height, of the middles of their pixels."""
    return (points + 0.5) / points.new_tensor([size[1], size[0]])


def places(placing: Any, embedding: Tensor) -> Tensor:
    """The sines of where each cell of an embedding ``(B, C, h, w)`` is, ``(1, C, h, w)``."""
    height, width = embedding.shape[-2:]
    along = [(torch.arange(side, device=embedding.device) + 0.5) / side for side in (height, width)]
    down, across = torch.meshgrid(*along, indexing="ij")
    return placing(torch.stack([across, down], dim=-1)[None, None])[0].permute(0, 3, 1, 2)


def _sam(width: int, layers: int, heads: int, hidden: int) -> tuple[nn.Module, nn.Module]:
    """SAM's prompt encoder and mask decoder, new."""
    from transformers import SamConfig
    from transformers.models.sam.modeling_sam import SamMaskDecoder, SamPromptEncoder

    config: Any = SamConfig(
        vision_config={"output_channels": width, "num_pos_feats": width // 2},
        prompt_encoder_config={"hidden_size": width},
        mask_decoder_config={
            "hidden_size": width,
            "num_multimask_outputs": MASKS,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "mlp_dim": hidden,
            "iou_head_hidden_dim": width,
        },
    )
    config.mask_decoder_config._attn_implementation = "sdpa"
    prompt_encoder: Any = SamPromptEncoder(config)
    decoder: Any = SamMaskDecoder(config.mask_decoder_config)
    decoder.upscale_conv1 = Doubled(width, width // 4)
    decoder.upscale_conv2 = Doubled(width // 4, width // 8)
    # The frequencies of places do not learn, and are drawn as SAM's authors did.
    frequencies = prompt_encoder.shared_embedding.positional_embedding.requires_grad_(False)
    nn.init.normal_(frequencies)
    return prompt_encoder, decoder
