"""The two towers of a CLIP-like checkpoint as networks: pictures and words to vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.errors import WeightsError
from manylens.models import checkpoint, network, pixels
from manylens.models.clip import naflex
from manylens.models.network import Blueprint, Network
from manylens.models.pixels import How
from manylens.models.processor import Processor
from manylens.runtime.engines import EngineSettings

if TYPE_CHECKING:
    import torch

    from manylens.media import Image

_CLASSES = {"clip": "CLIPModel", "siglip": "SiglipModel", "siglip2": "Siglip2Model"}
_HOW: dict[str, How] = {"clip": "bicubic", "siglip": "bicubic", "siglip2": "bilinear"}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "clip": {"image_mean": pixels.CLIP_MEAN, "image_std": pixels.CLIP_STD},
    "siglip": {"image_mean": pixels.HALF, "image_std": pixels.HALF},
    "siglip2": {"image_mean": pixels.HALF, "image_std": pixels.HALF},
}
"""What the hub's processors do where a checkpoint's own file does not say."""

_BATCH = 2


class Towers:
    """Pictures and token ids to vectors (not yet of length 1), each tower loaded when it is first needed.

    Args:
        files: The checkpoint's files by name.
        name: What to call the checkpoint in an error.
        settings: Where it runs.
        weights: Hash of the weights.
    """

    def __init__(self, files: Mapping[str, Path], name: str, settings: EngineSettings, weights: str) -> None:
        self._files, self._name, self._settings, self._weights = files, name, settings, weights
        self._config = checkpoint.config(files, name)
        self.kind: str = self._config["model_type"]
        self._vision: dict[str, Any] = self._config.get("vision_config", {})
        processor = checkpoint.preprocessing(files, name)
        self._patches = int(processor.get("max_num_patches", 256))
        self._flexible = self.kind == "siglip2"
        self._patch = int(processor.get("patch_size", 16))
        side = self._vision.get("image_size", 224)
        if self._flexible and (self._patches < 1 or self._patch != self._vision.get("patch_size", 16)):
            raise WeightsError(
                f"{name}: its preprocessor_config.json makes {self._patches} patches of {self._patch} pixels, "
                f"its network takes some of {self._vision.get('patch_size', 16)}",
                "give a checkpoint whose files belong together",
            )
        if self._flexible:  # the size follows from each picture's aspect
            processor |= {"do_resize": False, "do_center_crop": False}
        elif self.kind == "clip":
            processor = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}} | processor
        self.processor = Processor.of(_DEFAULTS[self.kind] | processor, name, side, _HOW[self.kind])
        if not self._flexible and self.processor.fixed(name) != (side, side):
            width, height = self.processor.fixed(name)
            raise WeightsError(
                f"{name}: its preprocessor_config.json makes pictures of {width}x{height}, its network takes "
                f"{side}x{side}",
                "give a checkpoint whose files belong together",
            )

    @cached_property
    def _module(self) -> Any:
        import transformers

        return checkpoint.load(getattr(transformers, _CLASSES[self.kind]), self._files, self._name)

    @cached_property
    def _image(self) -> Network:
        return network.build(self._image_blueprint(), self._settings, self._weights)

    @cached_property
    def _text(self) -> Network:
        def module() -> torch.nn.Module:
            return network.wrapped(self._module, _text_vector)

        def example() -> list[torch.Tensor]:
            import torch

            text = self._config.get("text_config", {})
            length = text.get("max_position_embeddings", 64 if self.kind.startswith("siglip") else 77)
            return [torch.ones((_BATCH, length), dtype=torch.int64)]

        shapes = {"ids": (-1, -1)}
        return network.build(
            Blueprint("text", module, example, ("ids",), ("vector",), shapes), self._settings, self._weights
        )

    @cached_property
    def scale(self) -> tuple[float, float]:
        """What cosines are multiplied with and what is added, for logits."""
        scale, bias = (self._tensor(name) for name in ("logit_scale", "logit_bias"))
        return float(np.exp(scale.reshape(-1)[0])), float(bias.reshape(-1)[0]) if bias.size else 0.0

    def images(self, images: Sequence[Image]) -> np.ndarray:
        """Vectors float32 ``(N, D)`` of pictures."""
        if self._flexible:
            return self._image(*self._flexible_inputs(images))[0]
        return self._image(np.stack([self.processor.normalised(self.processor.pixels(i.array)) for i in images]))[0]

    def texts(self, ids: np.ndarray) -> np.ndarray:
        """Vectors float32 ``(N, D)`` of token ids ``(N, L)``."""
        return self._text(ids)[0]

    def preprocess(self, images: Sequence[Image]) -> torch.Tensor:
        """Pictures to float32 ``(N, 3, h, w)``, for training."""
        import torch

        return torch.from_numpy(np.stack([self.processor.normalised(self.processor.pixels(i.array)) for i in images]))

    @property
    def module(self) -> Any:
        """The whole torch module, for training."""
        return self._module

    @property
    def flexible(self) -> bool:
        """Whether pictures keep their aspect (NaFlex)."""
        return self._flexible

    def close(self) -> None:
        """Give the memory back."""
        for part in ("_image", "_text"):
            if part in self.__dict__:
                self.__dict__.pop(part).close()
        self.__dict__.pop("_module", None)

    def _image_blueprint(self) -> Blueprint:
        if self._flexible:
            return self._flexible_blueprint()

        def example() -> list[torch.Tensor]:
            import torch

            width, height = self.processor.fixed(self._name)
            return [torch.zeros((_BATCH, 3, height, width))]

        width, height = self.processor.fixed(self._name)
        return Blueprint(
            "image",
            lambda: network.wrapped(self._module, _image_vector),
            example,
            ("pixels",),
            ("vector",),
            {"pixels": (-1, 3, height, width)},
        )

    def _flexible_blueprint(self) -> Blueprint:
        width = 3 * self._patch**2
        states = self._vision.get("hidden_size", 768)

        def example() -> list[torch.Tensor]:
            import torch

            mask = torch.ones((_BATCH, self._patches), dtype=torch.int64)
            mask[0, self._patches // 2 :] = 0
            shape = (_BATCH, self._patches)
            return [torch.zeros((*shape, width)), torch.zeros((*shape, states)), mask]

        shapes = {
            "patches": (-1, self._patches, width),
            "positions": (-1, self._patches, states),
            "mask": (-1, self._patches),
        }
        return Blueprint(
            "image",
            lambda: network.wrapped(self._module, _flexible_vector),
            example,
            tuple(shapes),
            ("vector",),
            shapes,
        )

    def _flexible_inputs(self, images: Sequence[Image]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        table = self._table
        cut, places, masks = [], [], []
        for image in images:
            columns, rows = naflex.grid(image.size, self._patch, self._patches)
            sized = replace(self.processor, exact=(columns * self._patch, rows * self._patch))
            found, mask = naflex.patches(sized.normalised(sized.pixels(image.array)), self._patch, self._patches)
            cut.append(found)
            masks.append(mask)
            places.append(naflex.positions(table, columns, rows, self._patches))
        return np.stack(cut), np.stack(places), np.stack(masks)

    def _tensor(self, name: str) -> np.ndarray:
        """A tensor of the checkpoint; empty where it has none of that name. Needs no torch where it is safetensors."""
        found = checkpoint.tensor(self._files, name)
        if found is None and not any(file.endswith(".safetensors") for file in self._files):
            state = self._module.state_dict()
            found = state[name].float().numpy() if name in state else None
        return np.empty(0, np.float32) if found is None else found

    @cached_property
    def _table(self) -> np.ndarray:
        weights = self._tensor("vision_model.embeddings.position_embedding.weight")
        side = round(len(weights) ** 0.5)
        return weights.reshape(side, side, -1)


def _image_vector(model: Any, planes: torch.Tensor) -> Any:
    found = model.get_image_features(pixel_values=planes)
    return getattr(found, "pooler_output", found)


def _text_vector(model: Any, ids: torch.Tensor) -> Any:
    found = model.get_text_features(input_ids=ids)
    return getattr(found, "pooler_output", found)


def _flexible_vector(model: Any, patches: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor) -> Any:
    import torch

    vision = model.vision_model
    hidden = vision.embeddings.patch_embedding(patches) + positions
    # Minus a large number where there is no patch: nothing is left of it after the softmax.
    hiding = (1.0 - mask[:, None, None, :].to(hidden.dtype)) * torch.finfo(torch.float32).min
    hidden = vision.post_layernorm(
        vision.encoder(inputs_embeds=hidden, attention_mask=hiding.expand(-1, 1, mask.shape[1], -1)).last_hidden_state
    )
    head = vision.head
    heads, width = head.num_heads, hidden.shape[-1]
    probe = head.probe.expand(hidden.shape[0], -1, -1)
    weight, bias = head.attention.in_proj_weight, head.attention.in_proj_bias
    query, key, value = (
        torch.nn.functional.linear(states, weight[i * width : (i + 1) * width], bias[i * width : (i + 1) * width])
        .unflatten(-1, (heads, -1))
        .transpose(1, 2)
        for i, states in enumerate((probe, hidden, hidden))
    )
    pooled = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=hiding)
    pooled = head.attention.out_proj(pooled.transpose(1, 2).flatten(2))
    return (pooled + head.mlp(head.layernorm(pooled)))[:, 0]
