"""Deep CORAL (Sun & Saenko, 2016): source and target features shall have one covariance."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from manylens.training.errors import TrainError


def coral(source: Tensor, target: Tensor) -> Tensor:
    """The squared distance of the two covariances, by 4 D squared; a scalar of float32.

    Args:
        source: Features ``(n, D)``, n of 2 or more.
        target: Features ``(m, D)``, m of 2 or more.

    Raises:
        TrainError: A batch has one row, which has no covariance.
    """
    width = source.shape[1]
    apart = _covariance(source) - _covariance(target)
    return (apart**2).sum() / (4 * width**2)


class Coral(nn.Module):
    """:func:`coral` as a term of a loss; learns nothing itself."""

    def forward(self, source: Tensor, target: Tensor, done: float = 1.0) -> Tensor:
        """See :func:`coral`; ``done``, the share of the training that is done, does not matter."""
        return coral(source, target)


def _covariance(rows: Tensor) -> Tensor:
    if len(rows) < 2:
        raise TrainError(f"domain 'coral': a batch of {len(rows)} has no covariance", "raise loop.batch_size")
    with torch.autocast(rows.device.type, enabled=False):  # differences of products need all digits
        centred = rows.float() - rows.float().mean(dim=0)
        return centred.T @ centred / (len(rows) - 1)
