"""The vision transformers of transformers as torch modules: for the torch engine, for training and for explanation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.errors import WeightsError
from manylens.models import checkpoint
from manylens.models.base import Trainable
from manylens.models.dino import weights
from manylens.models.dino.plan import Plan
from manylens.models.dino.weights import Vit

if TYPE_CHECKING:
    import torch

    from manylens.media import Image

_CLASSES = {
    "vit": ("ViTModel", "ViTForImageClassification"),
    "dinov2": ("Dinov2Model", "Dinov2ForImageClassification"),
    "dinov2_with_registers": ("Dinov2WithRegistersModel", "Dinov2WithRegistersForImageClassification"),
    "dinov3_vit": ("DINOv3ViTModel", ""),
}
"""By kind: the plain network of transformers, and the one with a classifier."""

# The parts of an MLP that LoRA adapts, by kind; a gate comes with up_proj and down_proj.
_MLP = {"vit": ("fc1", "fc2"), "dinov2": ("fc1", "fc2"), "dinov2_with_registers": ("fc1", "fc2"), "dinov3_vit": ()}


def load(files: Mapping[str, Path], name: str = "vision transformer") -> Any:
    """The network of a checkpoint, of transformers' own class, float32, in evaluation mode.

    Args:
        files: ``vit_s_focus.onnx``, or those of a folder in the hub's format.
        name: What to call the checkpoint in an error.

    Raises:
        WeightsError: A tensor is missing, left over or of another shape.
        UnsupportedError: The checkpoint is of another kind of network.
    """
    if weights.exported(files) is not None:
        return _of_arrays(weights.read(files, name))
    plan = weights.shape(files, name)
    cls = network_class(plan)
    options: dict[str, Any] = {}
    if plan.kind == "vit" and not plan.head:
        # Whether a plain ViT has these does not stand in its config; they are loaded, and not used.
        tensors = {key.removeprefix("vit.") for key in checkpoint.names(files, name)}
        options["add_pooling_layer"] = "pooler.dense.weight" in tensors
        options["use_mask_token"] = "embeddings.mask_token" in tensors
    return checkpoint.load(cls, files, name, **options)


def network_class(plan: Plan) -> Any:
    """The class of transformers that a plan's checkpoint is of."""
    import transformers

    return getattr(transformers, _CLASSES[plan.kind][bool(plan.head)])


def _of_arrays(vit: Vit) -> Any:
    """The embedded network, which is a DINOv2."""
    import torch
    from transformers import Dinov2Config, Dinov2Model

    plan = vit.plan
    config = Dinov2Config(
        hidden_size=plan.width,
        num_hidden_layers=plan.depth,
        num_attention_heads=plan.heads,
        mlp_ratio=vit.arrays["blocks.0.mlp.up.bias"].size // plan.width,
        image_size=plan.grid * plan.patch,
        patch_size=plan.patch,
        layer_norm_eps=plan.epsilon,
    )
    model: Any = Dinov2Model(config)
    wanted = {weights.named(key): key for key in model.state_dict()}
    try:
        # Strictly: a name that transformers has changed would else leave random weights in place without a word.
        state = {wanted.get(name, name): torch.from_numpy(np.array(array)) for name, array in vit.arrays.items()}
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        lines = str(error).splitlines()
        raise WeightsError(f"vision transformer: {lines[-1].strip()}", "pull the model again") from error
    return model.eval().requires_grad_(False)


class Opened:
    """One way to the parts of every kind of network, all of it differentiable.

    Args:
        model: A network as :func:`load` gives.
        plan: Its shape.
    """

    def __init__(self, model: Any, plan: Plan) -> None:
        self.model, self.plan = model, plan
        self.base: Any = getattr(model, model.base_model_prefix, model) if plan.head else model
        self.head: Any = model.classifier if plan.head else None

    @property
    def blocks(self) -> Any:
        """The blocks, first to last."""
        base, kind = self.base, self.plan.kind
        return base.layers if kind == "vit" else base.model.layer if kind == "dinov3_vit" else base.encoder.layer

    def features(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        """What the network gives of pixels ``(B, 3, H, W)``, by the names of :data:`graph.OUTPUTS`."""
        taps, found = self.plan.taps, {}
        vector = dense = pixels
        for number, state, made in self._states(pixels):
            if number == taps.vector:
                found["attention"] = self._attention(number, state, pixels, asking=1)[:, :, 0, self.plan.prefix :]
                vector = made
            dense = made if number == taps.dense else dense
        if taps.normed:
            vector = dense = (self.base.norm if self.plan.kind == "dinov3_vit" else self.base.layernorm)(vector)
        found |= {"token": vector[:, 0], "patches": dense[:, self.plan.prefix :]}
        if self.head is not None:
            mean = [found["patches"].mean(dim=1)] if self.plan.head == "both" else []
            import torch

            found["logits"] = self.head(torch.cat([found["token"], *mean], dim=1))
        return found

    def attention(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Attention probabilities ``(B, heads, tokens, tokens)`` of the blocks that the picture's vector is made by."""
        last = self.plan.taps.vector
        return [self._attention(i, state, pixels) for i, state, _ in self._states(pixels) if i <= last]

    def _states(self, pixels: torch.Tensor) -> Any:
        """Number of each block that runs, what goes into it, and what comes out."""
        interpolate = {"interpolate_pos_encoding": True} if self.plan.kind == "vit" else {}
        state = self.base.embeddings(pixels, **interpolate)
        turns = {} if self.plan.theta is None else {"position_embeddings": self.base.rope_embeddings(pixels)}
        for number, block in enumerate(self.blocks[: self.plan.taps.last + 1]):
            made = block(state, **turns)
            yield number, state, made
            state = made

    def _attention(
        self, number: int, state: torch.Tensor, pixels: torch.Tensor, asking: int | None = None
    ) -> torch.Tensor:
        """The probabilities with which the first ``asking`` tokens (or all) attend, in one block.

        The fused kernels give none; these few lines do, and leave the network as it is set.
        """
        block = self.blocks[number]
        part = block.attention
        seen = (block.layernorm_before if self.plan.kind == "vit" else block.norm1)(state)
        query, key = (
            layer(seen).unflatten(-1, (self.plan.heads, -1)).transpose(1, 2) for layer in (part.q_proj, part.k_proj)
        )
        if self.plan.theta is not None:
            from transformers.models.dinov3_vit.modeling_dinov3_vit import apply_rotary_pos_emb

            query, key = apply_rotary_pos_emb(query, key, *self.base.rope_embeddings(pixels))
        scale: float = (self.plan.width // self.plan.heads) ** -0.5
        probabilities: torch.Tensor = (query[:, :, :asking] @ key.transpose(-1, -2) * scale).softmax(dim=-1)
        return probabilities


def encoder(
    files: Mapping[str, Path], name: str, mean: Sequence[float], std: Sequence[float], scale: float
) -> torch.nn.Module:
    """The network as the torch engine runs it: pictures ``(N, H, W, 3)`` to what the graph gives."""
    import torch

    opened = Opened(load(files, name), weights.shape(files, name))

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = opened.model

        def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, ...]:
            # Not buffers: those would become half precision with the weights.
            offset, factor = (torch.tensor(values, device=pictures.device) for values in (mean, std))
            pixels = (pictures.float() * scale - offset) / factor
            found = opened.features(pixels.permute(0, 3, 1, 2).to(next(self.model.parameters()).dtype))
            return tuple(found[name] for name in ("token", "patches", "attention", "logits") if name in found)

    return Encoder()


def trainable(
    files: Mapping[str, Path],
    name: str,
    centre: np.ndarray,
    preprocess: Callable[[Sequence[Image]], np.ndarray],
    levels: tuple[tuple[float, ...], tuple[float, ...]],
    side: int,
) -> Trainable:
    """The network opened for training.

    Args:
        files: The checkpoint's files.
        name: What to call it in an error.
        centre: What is taken from class tokens, ``(D,)``.
        preprocess: Pictures to the network's float32 ``(N, 3, H, W)``.
        levels: Mean and deviation of each channel of pixels in 0..1.
        side: Of the pictures that ``preprocess`` gives.
    """
    import torch

    plan = weights.shape(files, name)
    opened = Opened(load(files, name).requires_grad_(True), plan)
    offset = torch.from_numpy(np.array(centre))

    def forward(pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        found = opened.features(pixels)
        rows, columns = (side // plan.patch for side in pixels.shape[-2:])
        vector = found["token"] - offset.to(found["token"])
        given = {
            "image": torch.nn.functional.normalize(vector, dim=-1),
            "vector": vector,
            "dense": found["patches"].unflatten(1, (rows, columns)),
        }
        return given | ({"logits": found["logits"]} if plan.head else {})

    blocks: list[Any] = list(opened.blocks)
    taps: dict[str, torch.nn.Module] = {f"block.{i}": block for i, block in enumerate(blocks)}
    taps |= {f"attention.{i}": block.attention for i, block in enumerate(blocks)}
    mlp = ("gate_proj", "up_proj", "down_proj") if plan.gated else _MLP[plan.kind] or ("up_proj", "down_proj")
    return Trainable(
        opened.model,
        {"encoder": opened.base} | ({"head": opened.head} if plan.head else {}),
        blocks,
        ("q_proj", "k_proj", "v_proj", "o_proj", *mlp),
        lambda images: torch.from_numpy(preprocess(images)),
        forward,
        taps,
        labels=plan.labels,
        patch=plan.patch,
        prefix=plan.prefix,
        attention=opened.attention,
        mean=levels[0],
        std=levels[1],
        side=side,
    )
