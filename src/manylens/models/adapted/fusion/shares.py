"""How much each of several models counts, and their vote on the pixels of a mask."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from manylens.errors import UserError

Floats = npt.NDArray[np.floating]


def shares_of(weights: Sequence[float] | None, count: int) -> npt.NDArray[np.float64]:
    """The weights of models as shares that sum to 1, alike where none are given.

    Raises:
        UserError: There is no model, or the weights do not fit.
    """
    if not count:
        raise UserError("ensemble: has no model", "give one or more")
    given = np.ones(count) if weights is None else np.asarray(weights, np.float64)
    if given.shape != (count,) or not np.isfinite(given).all() or (given < 0).any() or not given.sum():
        raise UserError(
            f"ensemble: {np.size(given)} weights for {count} models, or one below 0", "give one weight a model"
        )
    return np.asarray(given / given.sum())


def vote_masks(
    masks: Floats | npt.NDArray[np.bool_] | Sequence[npt.NDArray[np.bool_]],
    weights: Sequence[float] | None = None,
    *,
    threshold: float = 0.5,
) -> npt.NDArray[np.bool_]:
    """One mask of several of the same object: where the weighted share of the models is more than ``threshold``.

    Args:
        masks: ``(M, H, W)``: bool, or probabilities in 0..1.
        weights: Of the models.
        threshold: In 0..1; exactly half is no majority.

    Returns:
        bool ``(H, W)``.
    """
    given = np.asarray(masks)
    share = np.tensordot(shares_of(weights, len(given)), given.astype(np.float64), axes=1)
    return np.asarray(share > threshold + 1e-9)
