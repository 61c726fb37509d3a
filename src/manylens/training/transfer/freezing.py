"""Which of the encoder's weights learn, from when, and what its batch norms do meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from manylens.errors import UnsupportedError
from manylens.training.errors import TrainError
from manylens.training.extras import need
from manylens.training.transfer.scratch import renew

if TYPE_CHECKING:
    from manylens.models.base import Trainable
    from manylens.training.config import TransferSection

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class Places:
    """Where each parameter of an opened model stands: before, in or after its blocks.

    Args:
        trainable: The model.
    """

    def __init__(self, trainable: Trainable) -> None:
        self.blocks = len(trainable.blocks)
        owner = {id(one): number for number, block in enumerate(trainable.blocks) for one in block.parameters()}
        met = False
        self._places: dict[str, int] = {}
        for name, parameter in trainable.module.named_parameters():
            place = owner.get(id(parameter))
            met = met or place is not None
            # What comes after the last block (a norm, a neck) goes with it.
            self._places[name] = place if place is not None else (self.blocks - 1 if met else -1)

    def of(self, name: str) -> int:
        """The block's number of a parameter of the model's module; -1 before the first block."""
        # LoRA wraps layers: its names have the wrapped layer's in them.
        plain = name.replace(".base_layer", "").split(".lora_")[0]
        found = self._places.get(name, self._places.get(plain, self._places.get(f"{plain}.weight")))
        return self.blocks - 1 if found is None else found


def freeze(trainable: Trainable, section: TransferSection) -> dict[str, int]:
    """Set which weights of an opened model learn.

    Args:
        trainable: Its module is changed in place; with LoRA its layers are wrapped.
        section: Of the config.

    Returns:
        In mode ``gradual``: the epoch from which each parameter learns, by its name in the module; else empty.

    Raises:
        TrainError: There are not that many blocks.
        UnsupportedError: The model names no layer that LoRA could adapt, or cannot be begun anew.
    """
    module, places = trainable.module, Places(trainable)
    if section.mode == "scratch":
        renew(module)
    module.requires_grad_(section.mode in ("full", "gradual", "scratch"))
    if section.mode == "partial":
        if section.train_blocks > places.blocks:
            raise TrainError(
                f"transfer.train_blocks: {section.train_blocks} of {places.blocks} blocks", "give fewer, or mode full"
            )
        first = places.blocks - section.train_blocks
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(places.of(name) >= first)
    if section.mode == "lora":
        _adapt(trainable, section)
    if section.mode != "gradual":
        return {}
    last = places.blocks - 1
    return {
        name: section.unfreeze_from + (last - places.of(name)) * section.unfreeze_every
        for name, _ in module.named_parameters()
    }


def _adapt(trainable: Trainable, section: TransferSection) -> None:
    peft = need("peft")
    targets = section.lora.targets or trainable.lora_targets
    encoder = trainable.parts.get("encoder", trainable.module)
    inside = {name for name, one in trainable.module.named_modules() for part in encoder.modules() if part is one}
    ends = tuple(f".{target}" for target in targets)  # a target may have dots itself: SAM's is attn.qkv
    # A text tower has layers of the same names, which a head on pictures never reaches.
    wanted = [
        name
        for name, one in trainable.module.named_modules()
        if name in inside and f".{name}".endswith(ends) and isinstance(one, nn.Linear | nn.Conv2d)
    ]
    if not wanted:
        raise UnsupportedError(
            f"transfer.lora.targets {', '.join(targets) or 'none'}: the model has no such layers",
            "name suffixes of its layers, or choose another transfer.mode",
        )
    peft.inject_adapter_in_model(
        peft.LoraConfig(
            r=section.lora.rank,
            lora_alpha=section.lora.alpha,
            lora_dropout=section.lora.dropout,
            target_modules=wanted,
        ),
        trainable.module,
    )


def merged(module: nn.Module) -> dict[str, Tensor]:
    """The state of a module with LoRA's updates added into its weights, under the names that it had before."""
    state: dict[str, Tensor] = {}
    layers = {
        name: one for name, one in module.named_modules() if hasattr(one, "lora_A") and hasattr(one, "base_layer")
    }
    for name, value in module.state_dict().items():
        owner = next((one for one in layers if name.startswith(f"{one}.")), None)
        if owner is None:
            state[name] = value
            continue
        rest = name.removeprefix(f"{owner}.")
        if not rest.startswith("base_layer."):
            continue
        layer: Any = layers[owner]
        if rest == "base_layer.weight":
            with torch.no_grad():
                value = value + sum(layer.get_delta_weight(one) for one in layer.active_adapters)
        state[f"{owner}.{rest.removeprefix('base_layer.')}"] = value
    return state


class FrozenNorms:
    """Keeps batch norms of what does not learn in evaluation, so that their statistics stay as they were.

    Args:
        module: The encoder.
        policy: ``frozen``, ``train`` or ``sync``.
    """

    def __init__(self, module: nn.Module, policy: str) -> None:
        self._norms = [
            one
            for one in module.modules()
            if isinstance(one, _NORMS)
            and policy == "frozen"
            and not any(parameter.requires_grad for parameter in one.parameters())
        ]

    def hold(self) -> None:
        """Call it after the module was put in training mode."""
        for one in self._norms:
            one.eval()


def drop_path(blocks: Any, share: float) -> list[Any]:
    """Hooks that pass over blocks at random; the share rises from the first block to the last.

    Hooks and not wrapped blocks: the names of the weights stay.

    Args:
        blocks: Of the encoder, first to last, each with a residual connection over the whole.
        share: Of the last one.
    """
    found = []
    for number, block in enumerate(blocks):
        mine = share * (number + 1) / len(blocks)

        def passed(module: nn.Module, given: Any, made: Any, mine: float = mine) -> Any:
            if not module.training:
                return made
            state = given[0]
            first = made[0] if isinstance(made, tuple) else made
            if first.shape != state.shape:
                return made
            keep = torch.rand(len(state), *[1] * (state.ndim - 1), device=state.device) >= mine
            mixed = state + (first - state) * keep / (1 - mine)
            return (mixed, *made[1:]) if isinstance(made, tuple) else mixed

        found.append(block.register_forward_hook(passed))
    return found
