"""What two processes find that share the pictures of a step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Computed = Callable[[torch.Tensor], dict[str, Any]]


def parts(computed: Computed, count: int, folder: Path) -> list[dict[str, Any]]:
    """What each of two processes computes, of its half of so many numbers; a function of a module, to be sent there."""
    torch.multiprocessing.spawn(_work, args=(computed, count, str(folder)), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def _work(rank: int, computed: Computed, count: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save(computed(torch.arange(count).chunk(2)[rank]), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()
