"""How wrong paint is: smooth L1 of the hidden pixels, as in Painter and SegGPT (Wang et al., 2023)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

BETA = 0.01
"""Below this difference, of normalised colours, the loss is square."""


def hidden_loss(painted: Tensor, wanted: Tensor, hidden: Tensor, beta: float = BETA) -> Tensor:
    """The mean over hidden pixels of all canvases; what is not hidden does not count. 0 where nothing is hidden.

    Args:
        painted: ``(B, 3, H, W)``, normalised colours.
        wanted: The same.
        hidden: bool ``(B, 1, H, W)``: pixels that were hidden, and of which it is known what they are.
        beta: See :data:`BETA`.
    """
    each = F.smooth_l1_loss(painted.float(), wanted.float(), reduction="none", beta=beta)
    counted = hidden.expand_as(each)
    return (each * counted).sum() / counted.sum().clamp(min=1)
