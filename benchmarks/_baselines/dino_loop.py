"""DINO in one plain loop on torch and transformers: what a step costs with no framework around it.

As the authors' own code goes (Caron et al., 2021), with the fast form of each part where torch has one (all weights of
the teacher moved at once, fused norms of gradients), so that nothing is gained by a slow peer.
"""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch import nn
from torch.nn import functional


class Net(nn.Module):
    """A vision transformer of transformers with DINO's head."""

    def __init__(self, model: Any, prototypes: int, hidden: int = 2048, bottleneck: int = 256) -> None:
        super().__init__()
        self.model = model
        width = model.config.hidden_size
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        self.last = nn.Parameter(torch.randn(prototypes, bottleneck))

    def forward(self, sizes: list[torch.Tensor]) -> torch.Tensor:
        """Logits of views, each tensor of one size run at once and the head once for all."""
        tokens = torch.cat([self.model(pixel_values=views).last_hidden_state[:, 0] for views in sizes])
        return functional.normalize(self.mlp(tokens), dim=-1) @ functional.normalize(self.last, dim=-1).T


def train(
    student: Net,
    teacher: Net,
    batches: list[tuple[torch.Tensor, torch.Tensor]],
    mean: torch.Tensor,
    std: torch.Tensor,
    lr: float,
    decay: float,
) -> tuple[list[float], list[float]]:
    """Train on batches of large and small views in 0..1.

    Returns:
        When each step ended, in seconds, and its loss.
    """
    teacher.load_state_dict(student.state_dict())
    teacher.eval().requires_grad_(False)
    student.train()
    matrices = [one for one in student.parameters() if one.ndim > 1]
    rest = [one for one in student.parameters() if one.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=lr)
    centre = torch.zeros(student.last.shape[0], device=mean.device)
    ended, losses = [], []
    for step, (large, small) in enumerate(batches):
        large, small = (large - mean) / std, (small - mean) / std
        with torch.no_grad():
            raw = teacher([large])
            target = ((raw - centre) / 0.04).softmax(dim=-1).chunk(2)
            centre.mul_(0.9).add_(raw.mean(dim=0), alpha=0.1)
        pictures = len(large) // 2
        answers = [one.log_softmax(dim=-1) for one in (student([large, small]) / 0.1).split(pictures)]
        terms = [
            torch.sum(-target[g] * answers[v], dim=-1).mean() for g in range(2) for v in range(len(answers)) if v != g
        ]
        loss = torch.stack(terms).mean()
        optimiser.zero_grad()
        loss.backward()
        student.last.grad = None  # the first epoch
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        for group in optimiser.param_groups:
            group["lr"] = lr * (step + 1) / len(batches)
        optimiser.step()
        with torch.no_grad():
            follows = 0.004 * 0.5 * (1 + math.cos(math.pi * step / len(batches)))  # less and less
            torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), follows)
        losses.append(float(loss.detach()))
        ended.append(time.perf_counter())
    return ended, losses
