"""TENT (Wang et al., 2021): at test time the model makes itself surer, by its norms' scales and shifts alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from manylens.training.domain.adabn import adabn
from manylens.training.domain.norms import batch_norms, modes, norm_parameters
from manylens.training.errors import DivergedError, TrainError


@dataclass(frozen=True)
class Tented:
    """What an adaptation did.

    Attributes:
        steps: How many.
        before: Mean entropy of what the network said of the target before, in nats.
        after: Likewise afterwards.
        parameters: Names of what was adapted.
    """

    steps: int
    before: float
    after: float
    parameters: tuple[str, ...]


def entropy(logits: Tensor) -> Tensor:
    """Of each prediction, in nats; classes are axis 1: ``(B, C)`` to ``(B,)``, ``(B, C, H, W)`` to ``(B, H, W)``."""
    logs = logits.float().log_softmax(dim=1)
    return -(logs.exp() * logs).sum(dim=1)


def tent(
    network: nn.Module,
    batches: Iterable[Tensor],
    *,
    predict: Callable[[Tensor], Tensor] | None = None,
    rate: float = 1e-3,
    passes: int = 1,
    momentum: float = 0.9,
) -> Tented:
    """Adapt a network to the target by stepping down the entropy of what it says there.

    While it adapts, batch norms go by each batch; at the end they take the statistics of the whole target
    (:func:`manylens.training.domain.adabn.adabn`), so that the network then answers for one picture as for many.

    Args:
        network: Changed in place. Its modes and what asked for gradients are kept.
        batches: The target's pictures, gone through ``passes`` times and two or three times more.
        predict: Gives logits ``(B, C, ...)`` of a batch; by default the network itself.
        rate: Of the steps (Adam).
        passes: Through the target.
        momentum: First beta of Adam.

    Raises:
        TrainError: The network has no norm with weights, or there is no picture.
        DivergedError: The entropy is no number any more; the network is as it was.
    """
    parameters = norm_parameters(network)
    if not parameters:
        raise TrainError("domain 'tent': the model has no norm whose scale can be adapted", "leave it out")
    run = network if predict is None else predict
    before, asked = list(modes(network)), [(one, one.requires_grad) for one in network.parameters()]
    changed = [*parameters.values(), *(one for norm in batch_norms(network).values() for one in norm.buffers())]
    kept = [one.detach().clone() for one in changed]
    try:
        network.eval()
        first = _entropy(run, batches)
        steps = _adapt(network, parameters, run, batches, rate, passes, momentum)
        network.eval()
        if batch_norms(network):
            adabn(network, batches, forward=run)
        return Tented(steps, first, _entropy(run, batches), tuple(parameters))
    except BaseException:
        with torch.no_grad():
            for one, value in zip(changed, kept, strict=True):
                one.copy_(value)
        raise
    finally:
        for one in parameters.values():
            one.grad = None
        for module, mode in before:
            module.training = mode
        for one, wanted in asked:
            one.requires_grad_(wanted)


def _adapt(
    network: nn.Module,
    parameters: dict[str, nn.Parameter],
    run: Callable[[Tensor], Tensor],
    batches: Iterable[Tensor],
    rate: float,
    passes: int,
    momentum: float,
) -> int:
    """How many steps were made."""
    for norm in batch_norms(network).values():
        norm.training = True
    network.requires_grad_(False)
    for one in parameters.values():
        one.requires_grad_(True)
    optimiser = torch.optim.Adam(parameters.values(), lr=rate, betas=(momentum, 0.999))
    steps = 0
    for _ in range(passes):
        for batch in batches:
            with torch.enable_grad():
                loss = entropy(run(batch)).mean()
                if not math.isfinite(said := float(loss.detach())):
                    raise DivergedError(f"tent: the entropy of batch {steps} is {said}", "lower its rate")
                optimiser.zero_grad()
                loss.backward()
            optimiser.step()
            steps += 1
    return steps


def _entropy(run: Callable[[Tensor], Tensor], batches: Iterable[Tensor]) -> float:
    total, pictures = 0.0, 0
    with torch.no_grad():
        for batch in batches:
            total += float(entropy(run(batch)).mean()) * len(batch)
            pictures += len(batch)
    if not pictures:
        raise TrainError("target: has no pictures", "give some")
    return total / pictures
