"""A batch that lies on several processes, as one."""

from __future__ import annotations

import torch
from torch import Tensor


def whole(rows: Tensor) -> Tensor:
    """The rows ``(n, ...)`` of all processes, of which each has as many; the rows themselves where there is one.

    Only the own rows have a gradient, multiplied with the number of processes: the mean over processes, which the
    training takes, is then the gradient of one process that has the whole batch. What else learns in a loss of all rows
    has the same gradient everywhere already.
    """
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return rows
    world = distributed.get_world_size()
    found = [torch.empty_like(rows) for _ in range(world)]
    distributed.all_gather(found, rows.detach().contiguous())
    if rows.requires_grad:
        found[distributed.get_rank()] = world * rows - (world - 1) * rows.detach()
    return torch.cat(found)
