"""What is to be learnt without labels: terms of DINO, iBOT and DINOv2, each a few lines on tensors."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Centre(nn.Module):
    """A running mean of the teacher's logits, taken off before its softmax so that no prototype wins for all.

    Args:
        prototypes: K.
        momentum: Share of itself that the mean keeps in a step.
    """

    mean: Tensor

    def __init__(self, prototypes: int, momentum: float = 0.9) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(prototypes))

    def forward(self, logits: Tensor, temperature: float) -> Tensor:
        """Probabilities ``(n, K)`` of logits ``(n, K)``, by the mean as it was before them."""
        return ((logits.float() - self.mean) / temperature).softmax(dim=-1)

    @torch.no_grad()
    def update(self, logits: Tensor) -> None:
        """Move the mean towards that of logits ``(n, K)``, over all processes; those that have none count for none."""
        # The number of rows goes along: with masked patches it is not the same everywhere.
        total = torch.cat([logits.float().sum(dim=0), self.mean.new_tensor([len(logits)])])
        total = summed(total)
        if total[-1] > 0:
            self.mean.lerp_(total[:-1] / total[-1], 1 - self.momentum)


@torch.no_grad()
def sinkhorn(logits: Tensor, temperature: float, rounds: int = 3) -> Tensor:
    """Probabilities in which all prototypes are used alike, in place of a centre (Caron et al., 2020, Sinkhorn-Knopp).

    Args:
        logits: ``(n, K)``; over all processes they are balanced together.
        temperature: Of the softmax that they begin with.
        rounds: How often columns and rows are made to sum alike; rows come last.

    Returns:
        float32 ``(n, K)``, rows of sum 1.
    """
    raised = logits.float() / temperature
    # A common factor changes nothing, and so none overflows.
    table = (raised - greatest(raised.max() if len(raised) else raised.new_tensor(-torch.inf))).exp()
    for _ in range(rounds):
        table = table / summed(table.sum(dim=0)).clamp(min=1e-30)
        table = table / table.sum(dim=1, keepdim=True).clamp(min=1e-30)
    return table


def across_views(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of what the student says of each view with what the teacher says of every other large one.

    Args:
        student: Logits ``(V, B, K)``, those of the large views first.
        teacher: Probabilities ``(G, B, K)`` of the large views.
        temperature: Of the student's softmax.

    Returns:
        The mean over pairs of different views and over pictures, a scalar.
    """
    views, pictures = student.shape[:2]
    large = len(teacher)
    said = (student.float() / temperature).log_softmax(dim=-1)
    # One product for all pairs: a loop over pairs would go through the logits once for each.
    with exact(said):
        pairs = teacher.flatten(1) @ said.flatten(1).T
    return (pairs.diagonal().sum() - pairs.sum()) / (pictures * (large * views - large))


def on_patches(student: Tensor, teacher: Tensor, weights: Tensor, pictures: int, temperature: float) -> Tensor:
    """Cross-entropy on masked patches, iBOT's (Zhou et al., 2022): a mean over a picture's, then over pictures.

    Args:
        student: Logits ``(m, K)`` of the masked patches.
        teacher: Probabilities ``(m, K)`` of the same places, which the teacher saw.
        weights: ``(m,)``: one by the number of masked patches of its picture.
        pictures: How many pictures there are, those without a masked patch too.
        temperature: Of the student's softmax.
    """
    said = (student.float() / temperature).log_softmax(dim=-1)
    return -((teacher * said).sum(dim=-1) * weights).sum() / max(pictures, 1)


def koleo(vectors: Tensor) -> Tensor:
    """Minus the mean logarithm of each unit vector's distance to its nearest (Sablayrolles et al., 2019).

    It keeps the vectors ``(B, D)`` of different pictures apart. Of fewer than two it is 0.
    """
    if len(vectors) < 2:
        return vectors.sum() * 0.0
    unit = functional.normalize(vectors.float(), dim=-1, eps=1e-8)
    with torch.no_grad():
        cosines = unit @ unit.T
        cosines.fill_diagonal_(-1.0)
        nearest = cosines.argmax(dim=1)
    distances = functional.pairwise_distance(unit, unit[nearest], eps=1e-8)
    return -(distances + 1e-8).log().mean()


def exact(values: Tensor) -> torch.autocast:
    """A block in which products of float32 are of float32, also where the training runs in half precision."""
    return torch.autocast(values.device.type, enabled=False)


def summed(values: Tensor) -> Tensor:
    """The sum over all processes; the values themselves where there is one."""
    return _reduced(values, torch.distributed.ReduceOp.SUM) if _several() else values


def greatest(values: Tensor) -> Tensor:
    """The maximum over all processes."""
    return _reduced(values, torch.distributed.ReduceOp.MAX) if _several() else values


def gathered(values: Tensor) -> Tensor:
    """The rows ``(n, ...)`` of all processes, of which each has as many; the values themselves where there is one."""
    if not _several():
        return values
    found = [torch.empty_like(values) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(found, values.contiguous())
    return torch.cat(found)


def _reduced(values: Tensor, how: torch.distributed.ReduceOp.RedOpType) -> Tensor:
    values = values.clone()
    torch.distributed.all_reduce(values, how)
    return values


def _several() -> bool:
    return (
        torch.distributed.is_available()
        and torch.distributed.is_initialized()
        and torch.distributed.get_world_size() > 1
    )
