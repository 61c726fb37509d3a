"""Optimisers: which weights decay, and which learn at which rate."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from manylens.training.config import OptimiserSection, TransferSection


def groups(
    parameters: Iterable[tuple[str, nn.Parameter]],
    depth: Callable[[str], int | None],
    blocks: int,
    lr: float,
    weight_decay: float,
    transfer: TransferSection,
) -> list[dict[str, Any]]:
    """Parameter groups, one for each rate and decay.

    Norms and biases, all that has one dimension, do not decay. The head learns at the full rate, the encoder's last
    block at ``encoder_rate`` of it, each block before at ``layer_decay`` of the one after (ELECTRA; BEiT). From scratch
    all of it learns at the full rate.

    Args:
        parameters: By name.
        depth: Number of the block that a parameter belongs to; -1 before the blocks, None in the head.
        blocks: How many blocks the encoder has.
        lr: Of the head.
        weight_decay: Of what decays.
        transfer: Of the config.
    """
    found: dict[tuple[float, float], dict[str, Any]] = {}
    scratch = transfer.mode == "scratch"
    for name, parameter in parameters:
        place = depth(name)
        # A block's distance from the last: 0 for the last one.
        scale = (
            1.0 if place is None or scratch else transfer.encoder_rate * transfer.layer_decay ** (blocks - 1 - place)
        )
        decays = weight_decay if parameter.ndim > 1 and not name.endswith(("bias", "mask_token")) else 0.0
        group = found.setdefault((scale, decays), {"params": [], "names": [], "lr": lr * scale, "weight_decay": decays})
        group["params"].append(parameter)
        group["names"].append(name)
    for group in found.values():
        group.pop("names")
    return list(found.values())


def build(section: OptimiserSection, found: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
    """The optimiser of a config."""
    if section.kind == "sgd":
        return torch.optim.SGD(found, lr=lr, momentum=section.momentum, nesterov=section.momentum > 0)
    return torch.optim.AdamW(found, lr=lr, betas=(section.momentum, 0.999))
