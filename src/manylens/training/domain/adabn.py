"""AdaBN (Li et al., 2016): the statistics of batch norms taken from the target's pictures; no weight learns."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from manylens.training.domain.norms import modes, needed
from manylens.training.errors import TrainError


@dataclass
class _Moments:
    """Mean and variance of all that was seen, by channel, in float64 (Chan et al., 1979)."""

    count: int = 0
    mean: Tensor | None = None
    squares: Tensor | None = None

    def add(self, values: Tensor) -> None:
        """Take values ``(B, C, ...)``."""
        rows = values.detach().double().transpose(0, 1).flatten(1)
        count, mean = rows.shape[1], rows.mean(dim=1)
        squares = ((rows - mean[:, None]) ** 2).sum(dim=1)
        if self.mean is None or self.squares is None:
            self.count, self.mean, self.squares = count, mean, squares
            return
        total, apart = self.count + count, mean - self.mean
        self.mean = self.mean + apart * count / total
        self.squares = self.squares + squares + apart**2 * self.count * count / total
        self.count = total

    @property
    def variance(self) -> Tensor:
        """Unbiased, as torch keeps it."""
        assert self.squares is not None
        return self.squares / max(self.count - 1, 1)


def adabn(
    network: nn.Module,
    batches: Iterable[Tensor],
    *,
    passes: int = 1,
    forward: Callable[[Tensor], Any] | None = None,
) -> int:
    """Replace the statistics of all batch norms by those of the target, over all of its pictures.

    In the first pass each batch is normalised by its own statistics. Every further pass normalises with what the one
    before it found, which makes one more layer exact, from the first on; little is gained after two.

    Args:
        network: Changed in place; its modes (training, evaluation) are kept.
        batches: The target's pictures, gone through once a pass; ``(B, 3, H, W)`` in what ``forward`` takes.
        passes: 1 or more.
        forward: Runs the network on a batch; by default the network itself.

    Returns:
        How many batch norms were changed.

    Raises:
        TrainError: The network has no batch norms, or there are fewer than two pictures.
    """
    norms = needed(network)
    run = network if forward is None else forward
    before = list(modes(network))
    try:
        for number in range(passes):
            network.eval()
            found = {name: _Moments() for name in norms}
            _look(norms, found, run, batches, own=number == 0)
            for name, norm in norms.items():
                _set(norm, found[name])
    finally:
        for module, mode in before:
            module.training = mode
    return len(norms)


def _look(
    norms: dict[str, _BatchNorm],
    found: dict[str, _Moments],
    run: Callable[[Tensor], Any],
    batches: Iterable[Tensor],
    *,
    own: bool,
) -> None:
    """One pass: what goes into each norm."""
    pictures = 0
    with ExitStack() as hooks, torch.no_grad():
        for name, norm in norms.items():
            hooks.enter_context(_Hook(norm, found[name], own))
        for batch in batches:
            pictures += len(batch)
            run(batch)
    if pictures < 2:
        raise TrainError(f"target: has {pictures} pictures, too few for statistics", "give more")


class _Hook:
    """While it is open, what goes into a norm is taken down; and, where asked, the norm goes by the batch alone."""

    def __init__(self, norm: _BatchNorm, moments: _Moments, own: bool) -> None:
        self._norm, self._moments, self._own = norm, moments, own

    def __enter__(self) -> None:
        self._handle = self._norm.register_forward_hook(self._seen)

    def __exit__(self, *_: object) -> None:
        self._handle.remove()

    def _seen(self, norm: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> Tensor | None:
        values = given[0]
        self._moments.add(values)
        if not self._own or values.numel() == values.shape[1]:  # one value a channel has no variance
            return None
        norm_ = self._norm
        return nn.functional.batch_norm(values, None, None, norm_.weight, norm_.bias, True, 0.0, norm_.eps)


def _set(norm: _BatchNorm, moments: _Moments) -> None:
    if moments.mean is None:  # a branch that these pictures never took
        return
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(moments.mean)
    norm.running_var.copy_(moments.variance)
