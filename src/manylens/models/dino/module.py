"""The ViT as a torch module: for the torch engine, for training and for explanation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.errors import WeightsError
from manylens.models.base import Trainable
from manylens.models.dino.graph import MEAN, STD
from manylens.models.dino.weights import Vit
from manylens.runtime.engines import EngineSettings

if TYPE_CHECKING:
    import torch
    from transformers import Dinov2Model

    from manylens.media import Image

_LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2")


def load(vit: Vit) -> Dinov2Model:
    """The network with its weights, in evaluation mode.

    Raises:
        WeightsError: A weight is missing, left over or of another shape.
    """
    import torch
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(
        hidden_size=vit.width,
        num_hidden_layers=vit.depth,
        num_attention_heads=vit.heads,
        mlp_ratio=vit.arrays["encoder.layer.0.mlp.fc1.bias"].size // vit.width,
        image_size=vit.grid * vit.patch,
        patch_size=vit.patch,
        layer_norm_eps=vit.epsilon,
    )
    model: Any = Dinov2Model(config)
    # Only pre-training uses the mask token; exported networks do not have it.
    arrays = {"embeddings.mask_token": np.zeros((1, vit.width), np.float32), **vit.arrays}
    try:
        # Strictly: a name that transformers has changed would else leave random weights in place without a word.
        model.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}, strict=True)
    except RuntimeError as error:
        lines = str(error).splitlines()
        raise WeightsError(f"vision transformer: {lines[-1].strip()}", "pull the model again") from error
    return model.eval()


def features(model: Dinov2Model, vit: Vit, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Class tokens ``(B, D)`` and patch tokens ``(B, cells, D)`` of pixels ``(B, 3, H, W)``; differentiable."""
    state = model.embeddings(pixels)
    vector = dense = state
    for number, block in enumerate(model.encoder.layer[: vit.taps.last + 1]):
        state = block(state)
        vector = state if number == vit.taps.vector else vector
        dense = state if number == vit.taps.dense else dense
    if vit.taps.normed:
        vector = dense = model.layernorm(state)
    return vector[:, 0], dense[:, 1:]


def attention(model: Dinov2Model, vit: Vit, pixels: torch.Tensor) -> list[torch.Tensor]:
    """Attention probabilities ``(B, heads, tokens, tokens)`` of the blocks that the picture's vector is made by."""
    state, found = model.embeddings(pixels), []
    for block in model.encoder.layer[: vit.taps.vector + 1]:
        part: Any = block.attention
        norm: Any = block.norm1
        seen = norm(state)
        # The fused kernels give no probabilities; these few lines do, and leave the network as it is set.
        query, key = (
            layer(seen).unflatten(-1, (-1, part.head_dim)).transpose(1, 2) for layer in (part.q_proj, part.k_proj)
        )
        found.append((query @ key.transpose(-1, -2) * part.scaling).softmax(dim=-1))
        state = block(state)
    return found


class TorchEncoder:
    """The network on the torch engine: uint8 pictures in, arrays out, as the compiled graph does."""

    def __init__(self, vit: Vit, settings: EngineSettings) -> None:
        import torch

        self._torch, self._vit, self._settings = torch, vit, settings
        if settings.device == "cpu":
            torch.set_num_threads(settings.threads)
        model: Any = load(vit)
        self._model = model.to(settings.device)

    def __call__(self, pictures: np.ndarray) -> list[np.ndarray]:
        """Encode uint8 ``(N, S, S, 3)``: class tokens ``(N, D)`` and patch tokens ``(N, cells, D)``, float32."""
        torch, device = self._torch, self._settings.device
        half = self._settings.precision == "bf16"
        with torch.inference_mode(), torch.autocast(torch.device(device).type, torch.bfloat16, enabled=half):
            vector, dense = features(self._model, self._vit, normalised(pictures).to(device))
        return [vector.float().cpu().numpy(), dense.float().cpu().numpy()]

    def close(self) -> None:
        """Give the memory back."""
        self._model = None


def normalised(pictures: np.ndarray) -> torch.Tensor:
    """uint8 ``(N, H, W, 3)`` to the network's float32 ``(N, 3, H, W)``."""
    import torch

    pixels = torch.from_numpy(np.ascontiguousarray(pictures)).float() / 255
    return ((pixels - torch.from_numpy(MEAN)) / torch.from_numpy(STD)).permute(0, 3, 1, 2)


def trainable(vit: Vit, centre: np.ndarray, squares: Any) -> Trainable:
    """The network opened for training.

    Args:
        vit: The weights.
        centre: What is taken from class tokens, ``(D,)``.
        squares: Makes uint8 ``(N, S, S, 3)`` of pictures.
    """
    import torch

    model = load(vit)
    offset = torch.from_numpy(np.array(centre))

    def preprocess(images: Sequence[Image]) -> torch.Tensor:
        return normalised(squares(images))

    def forward(pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        token, patches = features(model, vit, pixels)
        rows, columns = (side // vit.patch for side in pixels.shape[-2:])
        vector = token - offset.to(token)
        return {
            "image": torch.nn.functional.normalize(vector, dim=-1),
            "vector": vector,
            "dense": patches.unflatten(1, (rows, columns)),
        }

    blocks: list[Any] = list(model.encoder.layer)
    taps: dict[str, torch.nn.Module] = {f"block.{i}": block for i, block in enumerate(blocks)}
    taps |= {f"attention.{i}": block.attention for i, block in enumerate(blocks)}
    return Trainable(
        model,
        {"encoder": model},
        blocks,
        _LORA_TARGETS,
        preprocess,
        forward,
        taps,
        patch=vit.patch,
        prefix=1,
        attention=lambda pixels: attention(model, vit, pixels),
    )
