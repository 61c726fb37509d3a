"""Tiny networks and pictures whose class is what is drawn on them, not their colour."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import transformers

from manylens.models.base import Trainable
from manylens.training.selfsupervised.towers import Vit

SIZE = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.15}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("ViTModel", {"intermediate_size": 96, "layer_norm_eps": 1e-6}),
    "dinov2": ("Dinov2Model", {"mlp_ratio": 2}),
    "dinov2_with_registers": ("Dinov2WithRegistersModel", {"mlp_ratio": 2, "num_register_tokens": 2}),
    "dinov3_vit": ("DINOv3ViTModel", {"intermediate_size": 96, "num_register_tokens": 2}),
}
MEAN, STD = (0.5,) * 3, (0.25,) * 3


def network(kind: str = "dinov2", seed: int = 0, **options: Any) -> Any:
    """A vision transformer of transformers with patches of 8 pixels, 32 pixels a side."""
    name, own = KINDS[kind]
    cls = getattr(transformers, name)
    torch.manual_seed(seed)
    made = cls(cls.config_class(**{**SIZE, "image_size": 32, "patch_size": 8, **own, **options}))
    with torch.no_grad():
        for parameter in made.parameters():  # what begins at 0 or 1 would hide mistakes
            parameter.add_(0.02 * torch.randn_like(parameter))
    return made.eval()


def tower(kind: str = "dinov2", seed: int = 0, **options: Any) -> Vit:
    return Vit(network(kind, seed, **options))


def convolutions(seed: int = 0) -> Trainable:
    """Another kind of encoder, with statistics of batches."""
    torch.manual_seed(seed)
    first, last = torch.nn.Conv2d(3, 8, 4, stride=4), torch.nn.Conv2d(8, 12, 2, stride=2)
    layers = torch.nn.Sequential(first, torch.nn.BatchNorm2d(8), torch.nn.ReLU(), last)

    def forward(pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        maps = layers(pixels)
        return {"vector": maps.mean(dim=(2, 3)), "dense": maps.permute(0, 2, 3, 1)}

    return Trainable(layers, {"encoder": layers}, [first, last], (), lambda images: images, forward, side=32)


def opened(module: Any, forward: Any, **options: Any) -> Any:
    """Something like a Trainable of a module."""
    fields = {"blocks": [], "patch": 8, "side": 32, "mean": MEAN, "std": STD, "module": module, "forward": forward}
    return SimpleNamespace(**{**fields, **options})


def textures(count: int, side: int = 32, seed: int = 1) -> tuple[torch.Tensor, np.ndarray]:
    """Stripes down, stripes across, a board, dots: in two random colours; float ``(n, 3, side, side)`` and classes."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    pictures, classes = [], np.arange(count) % 4
    for number in classes:
        start, period = random.random(2) * 8, random.uniform(4, 7)
        u, v = (np.sin((axis + begin) * 2 * np.pi / period) for axis, begin in ((x, start[0]), (y, start[1])))
        drawn = (u > 0, v > 0, u * v > 0, u + v > 1)[number]
        coloured = np.where(drawn[..., None], random.random(3), random.random(3))
        pictures.append((coloured + random.normal(0, 0.08, coloured.shape)).clip(0, 1))
    return torch.tensor(np.stack(pictures), dtype=torch.float32).permute(0, 3, 1, 2), classes
