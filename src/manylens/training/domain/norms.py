"""The norms of a network: which they are, and what they hold."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from manylens.training.errors import TrainError


def batch_norms(network: nn.Module) -> dict[str, _BatchNorm]:
    """The batch norms that keep statistics, by name, in the order in which they were made."""
    found = network.named_modules()
    return {name: one for name, one in found if isinstance(one, _BatchNorm) and one.running_mean is not None}


def norm_parameters(network: nn.Module) -> dict[str, nn.Parameter]:
    """Scales and shifts of all norms (batch, layer, group, instance, RMS), by name.

    A layer counts as a norm by its class; a model family's own by its class's name, where all that it holds is vectors.
    """
    found: dict[str, nn.Parameter] = {}
    for name, module in network.named_modules():
        if _is_norm(module):
            for own, parameter in module.named_parameters(recurse=False):
                found[f"{name}.{own}" if name else own] = parameter
    return found


def needed(network: nn.Module) -> dict[str, _BatchNorm]:
    """The batch norms.

    Raises:
        TrainError: There are none.
    """
    found = batch_norms(network)
    if not found:
        raise TrainError("domain 'adabn': the model has no batch norms", "name coral, dann or self-training")
    return found


def _is_norm(module: nn.Module) -> bool:
    if isinstance(module, _BatchNorm | _InstanceNorm | nn.LayerNorm | nn.GroupNorm | nn.RMSNorm):
        return True
    leaf = next(iter(module.children()), None) is None
    vectors = all(one.ndim == 1 for one in module.parameters(recurse=False))
    return leaf and vectors and "norm" in type(module).__name__.lower()


def modes(network: nn.Module) -> Iterator[tuple[nn.Module, bool]]:
    """Each module with whether it is in training mode, to be put back later."""
    for module in network.modules():
        yield module, module.training
