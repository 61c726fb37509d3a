"""What a transformer's class token attends to: the last block, all blocks rolled out, and each head by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from manylens.audit.explain.options import Options
from manylens.audit.explain.saliency import Opened, Saliency

if TYPE_CHECKING:
    import torch


def attention(opened: Opened, options: Options) -> Saliency:
    """Attention of the class token in the last block that the vector is made by; the map is the mean of the heads."""
    blocks = _probabilities(opened)
    maps = _class_token(opened, blocks[-1][0])
    return Saliency(maps.mean(axis=0), heads=maps, details={"block": len(blocks) - 1})


def heads(opened: Opened, options: Options) -> Saliency:
    """Each head of the last block with the region that holds most of its attention (Caron et al., 2021, figure 3).

    The map is the mean over heads of what they attend to inside their regions.
    """
    maps = _class_token(opened, _probabilities(opened)[-1][0])
    regions = np.stack([mass_region(one, options.mass) for one in maps])
    return Saliency((maps * regions).mean(axis=0), heads=maps, regions=regions, details={"mass": options.mass})


def rollout(opened: Opened, options: Options) -> Saliency:
    """How attention flows through all blocks (Abnar & Zuidema, 2020).

    The blocks' attention, averaged over heads, half of it the residual connection, multiplied up. Where ``discard`` is
    set, each token's weakest attention is dropped first, the class token's place never.
    """
    flow: torch.Tensor | None = None
    blocks = _probabilities(opened)
    for probabilities in blocks:
        step = rolled(probabilities[0].mean(dim=0), options.discard)
        flow = step if flow is None else step @ flow
    assert flow is not None
    found = _grid(opened, flow[0, opened.trainable.prefix :].numpy()[None])[0]
    return Saliency(found, details={"blocks": len(blocks), "discard": options.discard})


def rolled(probabilities: torch.Tensor, discard: float = 0.0) -> torch.Tensor:
    """One block's step of the rollout: ``(tokens, tokens)``, rows sum to 1.

    Args:
        probabilities: Mean attention of the heads, ``(tokens, tokens)``.
        discard: Share of each row that is set to 0, the weakest first; column 0 stays.
    """
    import torch

    tokens = probabilities.shape[0]
    dropped = int(tokens * discard)
    kept = probabilities.clone()
    if dropped:
        weakest = kept[:, 1:].argsort(dim=1)[:, :dropped] + 1
        kept.scatter_(1, weakest, 0.0)
    step = 0.5 * kept + 0.5 * torch.eye(tokens)
    return step / step.sum(dim=1, keepdim=True)


def mass_region(attention: np.ndarray, mass: float) -> np.ndarray:
    """The smallest set of cells that holds a share of all attention: bool, of the shape given."""
    order = np.argsort(-attention, axis=None, kind="stable")
    held = np.cumsum(attention.ravel()[order])
    count = int(np.searchsorted(held, mass * held[-1] * (1 - 1e-6))) + 1
    region = np.zeros(attention.size, dtype=bool)
    region[order[:count]] = True
    return region.reshape(attention.shape)


def _probabilities(opened: Opened) -> list[torch.Tensor]:
    import torch

    assert opened.trainable.attention is not None
    with torch.no_grad():
        return opened.trainable.attention(opened.pixels)


def _class_token(opened: Opened, probabilities: torch.Tensor) -> np.ndarray:
    """``(heads, tokens, tokens)`` to what the class token looks at, ``(heads, rows, columns)``."""
    return _grid(opened, probabilities[:, 0, opened.trainable.prefix :].numpy())


def _grid(opened: Opened, tokens: np.ndarray) -> np.ndarray:
    rows, columns = (side // opened.trainable.patch for side in opened.pixels.shape[-2:])
    return tokens.reshape(len(tokens), rows, columns).astype(np.float32)
