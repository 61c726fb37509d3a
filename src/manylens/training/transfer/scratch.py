"""A model's network with new weights: what is learnt from one's own pictures alone."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from manylens.errors import UnsupportedError


def renew(module: nn.Module) -> None:
    """Give a network of transformers new weights, drawn from torch's generator as its own code draws them.

    Args:
        module: Changed in place; its shape stays.

    Raises:
        UnsupportedError: It is no network of transformers, so how its weights begin is not known.
    """
    from transformers import PreTrainedModel

    if not isinstance(module, PreTrainedModel):
        raise UnsupportedError(
            f"transfer.mode 'scratch': how the weights of {type(module).__name__} begin is not known",
            "name a model that transformers builds, such as manylens/vit-s",
        )
    kind: Any = type(module)
    made = kind(copy.deepcopy(module.config))
    with torch.no_grad():
        module.load_state_dict(made.state_dict())
