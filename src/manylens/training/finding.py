"""``--lr-find`` and ``--find-batch-size``: what to set before a training, measured on a few steps of it."""

from __future__ import annotations

import gc
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from manylens.training.errors import TrainError
from manylens.training.run import Job

_GAIN = 1.05
"""A larger batch must be this much faster to be worth its memory."""


@dataclass(frozen=True)
class Rates:
    """What a range test of the learning rate found (Smith, 2017).

    Attributes:
        rates: Learning rates that were tried, rising.
        losses: The loss at each, smoothed.
        suggestion: Where the loss falls most steeply.
    """

    rates: list[float]
    losses: list[float]
    suggestion: float

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {"suggestion": self.suggestion, "rates": self.rates, "losses": self.losses}


@dataclass(frozen=True)
class Sizes:
    """What the search of a batch size found.

    Attributes:
        rows: Batch size, things a second, MiB of memory at the peak.
        suggestion: The smallest size that is about as fast as any.
        ended: Why no larger one was tried.
        steps: Of an epoch, at that size.
    """

    rows: list[tuple[int, float, float]]
    suggestion: int
    ended: str
    steps: int

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        rows = [list(row) for row in self.rows]
        return {"suggestion": self.suggestion, "steps": self.steps, "ended": self.ended, "rows": rows}


def find_rate(job: Job, steps: int = 100, low: float = 1e-6, high: float = 1.0) -> Rates:
    """Raise the learning rate from step to step and look where the loss falls fastest.

    Args:
        job: What would be trained; nothing of it is kept.
        steps: How many rates are tried.
        low: The first.
        high: The last.

    Raises:
        TrainError: The loss falls nowhere.
    """
    import torch

    with _prepared(job) as (module, batches):
        optimiser = torch.optim.AdamW([one for _, one in module.recipe.parameters()], lr=low)
        losses: list[float] = []
        rates = np.geomspace(low, high, steps).tolist()
        mean = 0.0
        for number, rate in enumerate(rates):
            optimiser.param_groups[0]["lr"] = rate
            loss = _step(module, optimiser, batches(number))
            mean = 0.9 * mean + 0.1 * loss
            losses.append(mean / (1 - 0.9 ** (number + 1)))
            job.progress((number + 1) / steps, f"rate {rate:.2g}")
            if not np.isfinite(loss) or losses[-1] > 4 * min(losses):
                break
    rates = rates[: len(losses)]
    # The ends are noise: the first steps have no mean yet, the last ones run away.
    inner = slice(5, max(len(losses) - 5, 6))
    slope = np.gradient(np.array(losses), np.log(rates))[inner]
    if len(slope) < 2 or slope.min() >= 0:
        raise TrainError("--lr-find: the loss falls at no rate", "look at the data, or try another head")
    return Rates(rates, losses, float(rates[inner][int(np.argmin(slope))]))


def find_batch_size(job: Job, budget: int, most: int = 4096) -> Sizes:
    """Double the batch until memory or speed speaks against it, or it would hold more than there is to learn from.

    Args:
        job: What would be trained; nothing of it is kept.
        budget: Bytes that the process may take.
        most: No larger one is tried.
    """
    import psutil
    import torch

    from manylens.training.loop.batches import Batches

    process = psutil.Process()
    rows: list[tuple[int, float, float]] = []
    ended = "no larger one was tried"
    with _prepared(job) as (module, batches):
        on_gpu = next(module.network.parameters()).is_cuda
        optimiser = torch.optim.AdamW([one for _, one in module.recipe.parameters()], lr=1e-8)
        size, things = 1, len(module.recipe.train_source())
        if things < most:
            most, ended = things, f"there are {things} to learn from"
        while size <= most:
            try:
                batch = batches(0, size)
                _step(module, optimiser, batch)  # the first one of a size makes room
                began, done = time.perf_counter(), 0
                while done < 3 or time.perf_counter() - began < 0.3:
                    _step(module, optimiser, batches(done, size))
                    done += 1
                speed = done * size / (time.perf_counter() - began)
            except (MemoryError, RuntimeError) as error:
                if "memory" not in str(error).lower() and not isinstance(error, MemoryError):
                    raise
                ended = f"{size} does not fit in memory"
                break
            used = torch.cuda.max_memory_allocated() if on_gpu else process.memory_info().rss
            rows.append((size, round(speed, 1), round(used / (1 << 20), 1)))
            job.progress(min(len(rows) / 13, 1.0), f"{size} at a time: {speed:.0f} a second")
            if used > budget:
                ended = f"{size} takes more than the budget"
                rows.pop()
                break
            if len(rows) > 3 and max(row[1] for row in rows[:-2]) * _GAIN > max(row[1] for row in rows[-2:]):
                ended = "larger ones are no faster"
                break
            size *= 2
            gc.collect()
        best = max((row[1] for row in rows), default=0.0)
        suggestion = next((row[0] for row in rows if row[1] * _GAIN >= best), 0)
        if rows:
            shown = Batches(module.recipe.draws, suggestion, job.config.seed, 0, 1, drop_last=True)
            steps = -(-len(shown) // job.config.optimiser.accumulate)
    if not rows:
        raise TrainError("--find-batch-size: not even one thing fits in memory", "give a smaller model or side")
    return Sizes(rows, suggestion, ended, steps)


class _prepared:  # noqa: N801 - used as a statement
    """A job's recipe outside of the loop: the module, and batches of it by number."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def __enter__(self) -> tuple[Any, Any]:
        from manylens.training.loop.fit import Fit
        from manylens.training.recipes.base import Draw

        job = self._job
        self._folder = tempfile.TemporaryDirectory()
        self._opened = job.opened(Path(self._folder.name) / "run", False)
        _, recipe, blocks = self._opened.__enter__()
        source = recipe.train_source()
        module = Fit(recipe, job.config, 1e-3, blocks, source)
        module.train()

        def batches(number: int, size: int = job.config.loop.batch_size) -> Any:
            order = recipe.draws(number * size // max(len(source), 1))
            places = np.arange(number * size, (number + 1) * size) % len(order)
            return source.__getitems__([Draw(int(order[one]), number, job.config.seed) for one in places])

        return module, batches

    def __exit__(self, *error: Any) -> None:
        try:
            self._opened.__exit__(None, None, None)
        finally:
            self._folder.cleanup()


def _step(module: Any, optimiser: Any, batch: Any) -> float:
    from manylens.training.recipes.base import Step

    loss = module.recipe.loss(batch, Step(0, 1, 0, 1))["loss"]
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
    return float(loss.detach())
