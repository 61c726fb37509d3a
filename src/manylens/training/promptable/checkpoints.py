"""SAM and SAM 2 checkpoints, asked as our own promptable head is: the same rounds train them whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from manylens.errors import UnsupportedError
from manylens.models.adapted.heads.promptable import UPSCALED, Prompts, decoded, encoded, places
from manylens.models.base import Trainable
from manylens.models.promptable.prompts import BOTTOM_RIGHT, PADDING, Canvas


def of_checkpoint(trainable: Trainable) -> SamHead:
    """The promptable parts of an opened checkpoint.

    Raises:
        UnsupportedError: It has none, or they are of another kind.
    """
    if not {"encoder", "prompt_encoder", "decoder"} <= set(trainable.parts):
        raise UnsupportedError(
            "the model has no parts that answer prompts", "name a SAM checkpoint, or train a promptable head on it"
        )
    decoder: Any = trainable.parts["decoder"]
    if hasattr(decoder, "conv_s0"):
        return Sam2Head(trainable)
    if hasattr(decoder, "output_hypernetworks_mlps"):
        return SamHead(trainable)
    raise UnsupportedError(
        "the model answers prompts in a way that is not trained here", "name a SAM or SAM 2 checkpoint"
    )


class SamHead(nn.Module):
    """SAM's own prompt encoder and mask decoder, called as the promptable head is.

    Args:
        trainable: The checkpoint, opened; its modules become parts of this one.
    """

    needs: tuple[str, ...] = ("dense",)

    def __init__(self, trainable: Trainable) -> None:
        super().__init__()
        self.prompt_encoder: Any = trainable.parts["prompt_encoder"]
        self.mask_decoder: Any = trainable.parts["decoder"]
        module: Any = trainable.module
        # A checkpoint may have its table of frequencies twice; they do not learn, as in the authors' own code.
        self.placing: Any = module.shared_image_embedding
        self.hold()
        self._opened: Any = (trainable,)  # in a tuple, so that torch does not look for modules in it

    def hold(self) -> None:
        """Keep from learning what shall not, whatever was said to all parameters."""
        for one in (self.placing, self.prompt_encoder.shared_embedding):
            one.requires_grad_(False)

    @property
    def patch(self) -> int:
        """Side in pixels of a cell of the embedding."""
        return self.side // int(self.prompt_encoder.image_embedding_size[0])

    @property
    def side(self) -> int:
        """Side in pixels of the square that pictures lie in."""
        return int(self.prompt_encoder.input_image_size)

    def canvas(self, size: tuple[int, int]) -> Canvas:
        """How a picture of ``(width, height)`` lies in that square."""
        return Canvas.padded(size, self.side)

    def features(self, pixels: Tensor) -> dict[str, Tensor]:
        """What :meth:`embed` takes, of pixels ``(B, 3, H, W)`` in the checkpoint's own normalisation."""
        found: dict[str, Tensor] = self._opened[0].forward(pixels)
        return {name: found[name] for name in self.needs}

    def forward(self, features: Mapping[str, Tensor], size: tuple[int, int], prompts: Prompts) -> dict[str, Tensor]:
        """See :meth:`manylens.models.adapted.heads.promptable.Promptable.forward`."""
        return self.decode(self.embed(features), size, prompts)

    def embed(self, features: Mapping[str, Tensor]) -> Any:
        """The checkpoint's embedding ``(B, C, h, w)``."""
        return features["dense"].float().permute(0, 3, 1, 2)

    def decode(self, embedding: Any, size: tuple[int, int], prompts: Prompts) -> dict[str, Tensor]:
        """As :meth:`forward`, of what :meth:`embed` gave."""
        return decoded(self.prompt_encoder, self.mask_decoder, embedding, size, prompts, placing=self.placing)

    def low_res(self, embedding: Any) -> tuple[int, int]:
        """``(h, w)`` of the masks."""
        height, width = (embedding if isinstance(embedding, Tensor) else embedding["dense"]).shape[-2:]
        return UPSCALED * height, UPSCALED * width


class Sam2Head(SamHead):
    """The same of SAM 2, whose decoder also sees the encoder's finer maps.

    A box is followed by a padding point, too, so that prompts with a box have a point more than others: the two are
    asked apart.
    """

    needs = ("dense", "finest", "middle")

    def canvas(self, size: tuple[int, int]) -> Canvas:
        """See :meth:`SamHead.canvas`."""
        return Canvas.filled(size, self.side)

    def features(self, pixels: Tensor) -> dict[str, Tensor]:
        """See :meth:`SamHead.features`; all maps ``(B, h, w, C)``."""
        model: Any = self._opened[0].module
        finest, middle, coarsest = model.vision_encoder(pixels).fpn_hidden_states[-3:]
        dense = coarsest + model.no_memory_embedding.reshape(1, -1, 1, 1)
        maps = {"dense": dense, "finest": finest, "middle": middle}
        return {name: one.permute(0, 2, 3, 1) for name, one in maps.items()}

    def embed(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The maps as the decoder takes them, ``(B, C, h, w)`` each."""
        maps = {name: features[name].float().permute(0, 3, 1, 2) for name in self.needs}
        finest, middle = self.mask_decoder.conv_s0(maps["finest"]), self.mask_decoder.conv_s1(maps["middle"])
        return {"dense": maps["dense"], "finest": finest, "middle": middle}

    def decode(self, embedding: Any, size: tuple[int, int], prompts: Prompts) -> dict[str, Tensor]:
        """See :meth:`SamHead.decode`."""
        boxed = (prompts.labels == BOTTOM_RIGHT).any(dim=1)
        found: dict[str, Tensor] = {}
        for rows in (boxed.nonzero().flatten(), (~boxed).nonzero().flatten()):
            if not len(rows):
                continue
            some = Prompts(*(None if one is None else one[rows] for one in prompts))  # type: ignore[arg-type]
            if bool(boxed[rows[0]]) or not some.labels.shape[1]:
                some = _padded(some, 1 if some.labels.shape[1] else 2)
            for name, one in self._decoded(embedding, size, some).items():
                whole = found.setdefault(name, one.new_zeros(len(boxed), *one.shape[1:]))
                found[name] = whole.index_copy(0, rows, one)
        return found

    def _decoded(self, embedding: Mapping[str, Tensor], size: tuple[int, int], prompts: Prompts) -> dict[str, Tensor]:
        """All masks and their qualities: the parts of ``Sam2MaskDecoder.forward``, which leaves some out."""
        decoder = self.mask_decoder
        sparse, dense = encoded(self.prompt_encoder, embedding["dense"], size, prompts)
        pictures = embedding["dense"][prompts.picture] + dense
        outputs = torch.cat([decoder.obj_score_token.weight, decoder.iou_token.weight, decoder.mask_tokens.weight])
        queries, keys = decoder.transformer(
            point_embeddings=torch.cat([outputs.expand(len(sparse), -1, -1), sparse], dim=1)[:, None],
            image_embeddings=pictures,
            image_positional_embeddings=places(self.placing, pictures).expand(len(pictures), -1, -1, -1),
            attention_similarity=None,
        )
        queries = queries[:, 0]
        x = keys[:, 0].transpose(1, 2).reshape(pictures.shape)
        x = decoder.upscale_conv1(x) + embedding["middle"][prompts.picture]
        x = decoder.activation(decoder.upscale_layer_norm(x))
        x = decoder.activation(decoder.upscale_conv2(x) + embedding["finest"][prompts.picture])
        drawn = [mlp(queries[:, 2 + number]) for number, mlp in enumerate(decoder.output_hypernetworks_mlps)]
        masks = (torch.stack(drawn, dim=1) @ x.flatten(2)).unflatten(2, (x.shape[2], x.shape[3]))
        return {"masks": masks, "iou": decoder.iou_prediction_head(queries[:, 1])}


def _padded(prompts: Prompts, count: int) -> Prompts:
    """Prompts with padding points at their end."""
    rows = len(prompts.labels)
    labels = torch.cat([prompts.labels, prompts.labels.new_full((rows, count), PADDING)], dim=1)
    points = torch.cat([prompts.points, prompts.points.new_zeros(rows, count, 2)], dim=1)
    return prompts._replace(points=points, labels=labels)
