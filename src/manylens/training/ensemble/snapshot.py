"""Snapshot ensembles (Huang et al., 2017): one training whose rate falls and rises again gives several models."""

from __future__ import annotations

import math

from manylens.training.errors import TrainError


def cyclic_share(step: int, total: int, cycles: int, floor: float = 0.0) -> float:
    """The rate at a step as a share of its peak: in each cycle half a cosine from 1 towards ``floor``.

    Args:
        step: From 0.
        total: Steps of the whole training.
        cycles: How many.
        floor: The lowest share.
    """
    ends = snapshot_steps(total, cycles)
    start = 0
    for end in ends:
        if step <= end:
            done = (step - start) / (end + 1 - start)
            return floor + (1 - floor) * (1 + math.cos(math.pi * done)) / 2
        start = end + 1
    return floor


def snapshot_steps(total: int, cycles: int) -> tuple[int, ...]:
    """The last step of each cycle, after which the model is kept; cycles differ by at most one step.

    Raises:
        TrainError: There are fewer steps than cycles.
    """
    if not 1 <= cycles <= total:
        raise TrainError(f"schedule.cycles {cycles}: do not fit in {total} steps", f"give 1 to {max(total, 1)}")
    return tuple((number + 1) * total // cycles - 1 for number in range(cycles))
