"""Which of several processes this one is: under ``torchrun``, or started by Lightning for several devices."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Processes:
    """The processes of a training.

    Attributes:
        rank: Number of this one; the first one writes.
        local: How many there are on this machine; 0 where the config says.
        nodes: How many machines there are; 0 where the config says.
    """

    rank: int
    local: int
    nodes: int

    @property
    def first(self) -> bool:
        """Whether this one writes the run's files."""
        return self.rank == 0


def processes() -> Processes:
    """As the environment says."""
    rank = int(os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or 0)
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return Processes(rank, 0, 0)
    world, local = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    return Processes(rank, local, max(world // local, 1))
