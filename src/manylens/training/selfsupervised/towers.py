"""An encoder as self-supervision wants it: it can be copied, and of a vision transformer patches can be hidden.

What a tower takes is normalised pixels; what it gives is one vector a picture and one a patch. It shares the modules of
the :class:`~manylens.models.base.Trainable` that it is made from, so that what it learns is learnt there.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from manylens.errors import UnsupportedError
from manylens.models.base import Trainable
from manylens.models.dino.plan import KINDS
from manylens.models.dino.plan import plan as read_plan
from manylens.training.transfer.freezing import Places


class Seen(NamedTuple):
    """What a tower gives.

    Attributes:
        vector: ``(B, D)``.
        patches: ``(B, N, D)``, row by row; those that were kept, where some were dropped.
        grid: Rows and columns of patches, dropped ones too.
    """

    vector: Tensor
    patches: Tensor
    grid: tuple[int, int]


class Tower(nn.Module):
    """An encoder.

    Attributes:
        width: D.
        patch: Side of a patch in pixels; 0 where it has none.
        depth: How many blocks it has.
        dense: Whether it gives patches.
    """

    width: int
    patch: int
    depth: int
    dense: bool = True

    @abstractmethod
    def forward(self, pixels: Tensor, masked: Tensor | None = None, keep: Tensor | None = None) -> Seen:
        """Encode.

        Args:
            pixels: Normalised, float ``(B, 3, H, W)``.
            masked: bool ``(B, N)``: patches whose content is replaced by the mask token (Bao et al., 2022).
            keep: int64 ``(B, n)``: the only patches that the blocks see (He et al., 2022).

        Raises:
            UnsupportedError: Patches cannot be hidden in this kind of network.
        """

    @abstractmethod
    def block_of(self, name: str) -> int:
        """The block that a parameter (by its name here) belongs to: -1 before the first one.

        What comes after the last one goes with it.
        """


class Vit(Tower):
    """A vision transformer of transformers: ``vit``, ``dinov2``, ``dinov2_with_registers`` or ``dinov3_vit``.

    Args:
        model: The plain network, whose last block and final norm make the vector, as :func:`plain` gives.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        shape = read_plan(model.config.to_dict(), "the model")
        self.model = model
        self.width, self.depth, self.patch = shape.width, shape.depth, shape.patch
        self._kind, self._prefix = shape.kind, shape.prefix

    @property
    def blocks(self) -> Any:
        """The blocks, first to last."""
        return blocks_of(self.model)

    def needs_mask_token(self) -> None:
        """Give a network without a mask token one, of zeros, as new networks have."""
        embeddings, config = self.model.embeddings, self.model.config
        if embeddings.mask_token is None:
            like = torch.zeros_like(embeddings.cls_token)
            embeddings.mask_token = nn.Parameter(like if self._kind == "vit" else like[0])
            if hasattr(config, "use_mask_token"):
                config.use_mask_token = True

    def forward(self, pixels: Tensor, masked: Tensor | None = None, keep: Tensor | None = None) -> Seen:
        """See :meth:`Tower.forward`."""
        model, prefix = self.model, self._prefix
        options: dict[str, Any] = {"interpolate_pos_encoding": True} if self._kind == "vit" else {}
        tokens = model.embeddings(pixels, bool_masked_pos=masked, **options)
        turns: dict[str, Any] = {}
        if self._kind == "dinov3_vit":
            turns = {"position_embeddings": _kept_turns(model.rope_embeddings(pixels), keep)}
        if keep is not None:
            patches = tokens[:, prefix:].gather(1, keep[..., None].expand(-1, -1, self.width))
            tokens = torch.cat([tokens[:, :prefix], patches], dim=1)
        for block in self.blocks:
            tokens = block(tokens, **turns)
        tokens = (model.norm if self._kind == "dinov3_vit" else model.layernorm)(tokens)
        rows, columns = (side // self.patch for side in pixels.shape[-2:])
        return Seen(tokens[:, 0], tokens[:, prefix:], (rows, columns))

    def block_of(self, name: str) -> int:
        """See :meth:`Tower.block_of`."""
        parts = name.removeprefix("model.").removeprefix("encoder.").removeprefix("model.").split(".")
        if parts[0] in ("layer", "layers"):
            return int(parts[1])
        return -1 if parts[0] == "embeddings" else self.depth - 1


class Opaque(Tower):
    """Any other encoder that gives a vector, through its own ``forward``; nothing in it can be hidden.

    A copy has weights of its own, which are put in place of the first one's while it runs: the way from pixels to the
    vector is a function that knows only the first one's modules.

    Args:
        trainable: The encoder.
        width: D.
        dense: Whether it gives patches.
    """

    def __init__(self, trainable: Trainable, width: int, dense: bool) -> None:
        super().__init__()
        self.dense = dense
        self.model = trainable.module
        self.width, self.patch, self.depth = width, 0, len(trainable.blocks)
        self._shell = (_Shell(trainable),)  # in a tuple, so that its weights are not counted here
        self._places = Places(trainable)

    def __deepcopy__(self, memo: dict[int, Any]) -> Opaque:
        made: Opaque = copy.copy(self)
        made._modules = {"model": copy.deepcopy(self.model, memo)}
        return made

    def forward(self, pixels: Tensor, masked: Tensor | None = None, keep: Tensor | None = None) -> Seen:
        """See :meth:`Tower.forward`."""
        if masked is not None or keep is not None:
            raise not_maskable()
        shell = self._shell[0]
        if self.model is shell.module:
            return shell(pixels)
        state = {f"module.{name}": one for name, one in _tensors(self.model).items()}
        modes = [(one, one.training) for one in shell.modules()]
        shell.train(self.training)
        try:
            found: Seen = functional_call(shell, state, (pixels,))
        finally:
            for one, training in modes:
                one.training = training
        return found

    def block_of(self, name: str) -> int:
        """See :meth:`Tower.block_of`."""
        return self._places.of(name.removeprefix("model."))


class _Shell(nn.Module):
    """A trainable's module with its ``forward``."""

    def __init__(self, trainable: Trainable) -> None:
        super().__init__()
        self.module = trainable.module
        self._forward = trainable.forward

    def forward(self, pixels: Tensor) -> Seen:
        found = self._forward(pixels)
        vector, dense = found["vector"], found.get("dense")
        if dense is None:
            return Seen(vector, vector[:, None][:, :0], (0, 0))
        return Seen(vector, dense.flatten(1, 2), (dense.shape[1], dense.shape[2]))


def blocks_of(model: Any) -> Any:
    """The blocks of a plain network of transformers, first to last."""
    kind = model.config.model_type
    return model.layers if kind == "vit" else model.model.layer if kind == "dinov3_vit" else model.encoder.layer


def _kept_turns(turns: tuple[Tensor, Tensor], keep: Tensor | None) -> tuple[Tensor, Tensor]:
    """The rotary tables of the kept patches: ``(N, d)`` for all of them, else ``(B, 1, n, d)``."""
    cos, sin = turns
    return (cos, sin) if keep is None else (cos[keep][:, None], sin[keep][:, None])


def _tensors(module: nn.Module) -> Mapping[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def not_maskable(name: str = "the model") -> UnsupportedError:
    """Says that patches cannot be hidden."""
    return UnsupportedError(
        f"{name}: is no vision transformer of a kind whose patches can be hidden",
        f"name one of the kinds {', '.join(KINDS)}, or leave masking out",
    )
