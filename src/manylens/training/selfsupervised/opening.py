"""From an opened model to a tower: which network it is, and where that ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from manylens.errors import UnsupportedError
from manylens.models.base import Trainable
from manylens.models.dino.plan import KINDS
from manylens.training.selfsupervised.towers import Opaque, Tower, Vit, blocks_of, not_maskable

_CLOSE = 1e-3
"""How far, by its own size, a vector may be from what the tower makes of the same pixels."""


def tower(trainable: Trainable, name: str = "the model") -> Tower:
    """The tower of an opened model.

    Args:
        trainable: The model; its module is shared, not copied.
        name: What to call it in an error.

    Raises:
        UnsupportedError: It gives no vector.
    """
    if getattr(getattr(trainable.module, "config", None), "model_type", None) in KINDS:
        return Vit(plain(trainable, name))
    with torch.no_grad():
        found = _quietly(trainable, lambda: trainable.forward(_noise(trainable)))
    if "vector" not in found:
        raise UnsupportedError(f"{name}: gives no vector of a picture", "name an encoder, such as manylens/vit-s")
    return Opaque(trainable, found["vector"].shape[-1], "dense" in found)


def vit(trainable: Trainable, name: str = "the model") -> Vit:
    """As :func:`tower`, where patches must be hidden.

    Raises:
        UnsupportedError: It is no vision transformer of a known kind.
    """
    found = tower(trainable, name)
    if not isinstance(found, Vit):
        raise not_maskable(name)
    return found


def plain(trainable: Trainable, name: str = "the model") -> Any:
    """The network of a vision transformer without a classifier, whose last block and final norm give the vector.

    That is the module itself, or its base, but for a checkpoint that is read before its end, as the embedded one is. Of
    that a network is made which ends there; it shares the blocks. Its final norm is new: it takes off what the
    checkpoint's reader took off as the centre.

    Args:
        trainable: The model.
        name: What to call it in an error.

    Raises:
        UnsupportedError: Its vector is not the class token of any block.
    """
    base = without_head(trainable.module)
    pixels = _noise(trainable)
    with torch.no_grad():
        vector = _quietly(trainable, lambda: trainable.forward(pixels))["vector"]
        whole = _quietly(trainable, lambda: Vit(base)(pixels).vector)
        if _near(vector, whole):
            return base
        # No other kind is read before its end.
        early = base.config.model_type == "dinov2"
        tokens = _quietly(trainable, lambda: _class_tokens(base, pixels)) if early else []
    for number, token in enumerate(tokens):
        # What is taken off is the same for every picture.
        if _near(vector - vector[:1], token - token[:1], token):
            return _ended(base, number, (token - vector).mean(dim=0))
    raise UnsupportedError(
        f"{name}: its vector is not the class token of a block", "name a plain vision transformer, such as dinov2"
    )


def without_head(module: Any) -> Any:
    """The network of transformers without its classifier; itself where it has none."""
    return module.base_model if hasattr(module, "classifier") else module


def _ended(base: Any, last: int, centre: Tensor) -> Any:
    """A network that ends with a block; its final norm takes off the centre, as it comes out of the norm."""
    values = base.config.to_dict() | {"num_hidden_layers": last + 1}
    for counted in ("stage_names", "out_features", "out_indices", "architectures"):
        values.pop(counted, None)
    with torch.random.fork_rng(devices=[]):
        made: Any = type(base)(type(base.config).from_dict(values))
    made.embeddings = base.embeddings
    blocks = blocks_of(made)
    for number in range(last + 1):
        blocks[number] = blocks_of(base)[number]
    made.to(centre.device)
    with torch.no_grad():
        made.layernorm.weight.fill_(1.0)
        made.layernorm.bias.zero_()
        made.layernorm.bias.copy_(-made.layernorm(centre))
    return made.train(base.training)


def _class_tokens(base: Any, pixels: Tensor) -> list[Tensor]:
    tokens, found = base.embeddings(pixels), []
    for block in blocks_of(base):
        tokens = block(tokens)
        found.append(tokens[:, 0])
    return found


def _noise(trainable: Trainable) -> Tensor:
    """Two small pictures of smooth noise, normalised or not: what they show does not matter."""
    side = max(trainable.patch * 2, 32) if trainable.patch else trainable.side or 64
    pixels = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    return (2 * pixels - 1).to(next(trainable.module.parameters()))


def _quietly(trainable: Trainable, call: Callable[[], Any]) -> Any:
    """A call with the module in evaluation mode."""
    modes = [(one, one.training) for one in trainable.module.modules()]
    trainable.module.eval()
    try:
        return call()
    finally:
        for one, training in modes:
            one.training = training


def _near(one: Tensor, other: Tensor, scale: Tensor | None = None) -> bool:
    size = (other if scale is None else scale).abs().max().clamp(min=1e-6)
    return one.shape == other.shape and bool((one - other).abs().max() < _CLOSE * size)
