"""Networks of noise: for the tests and the claims that need a checkpoint's true shape and not its weights."""

from __future__ import annotations

import re
from typing import Any

import torch


def noisy(module: torch.nn.Module, seed: int = 0, scale: float = 1.0) -> Any:
    """Fill every parameter and floating buffer with noise; matrices by their fan-in, so that signals neither die nor
    explode; norms around one. In evaluation mode.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            if not tensor.is_floating_point():
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("running_var"):
                tensor.copy_(1 + 0.2 * noise.abs())
            elif tensor.ndim >= 2:
                fan = tensor[0].numel() if tensor.ndim > 2 or tensor.shape[0] > 1 else tensor.shape[-1]
                tensor.copy_(scale * noise / max(1, fan) ** 0.5)
            elif re.search(r"norm.*weight|layer_?scale|lambda|gamma", name):
                tensor.copy_(1 + 0.2 * noise)
            else:
                tensor.copy_(0.2 * noise)
    return module.eval()
