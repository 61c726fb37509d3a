"""SAM's mask decoder: prompts as tokens, in NumPy, and one network that answers them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from manylens.models.network import Network
from manylens.models.promptable.decoder import Decoded, Scene
from manylens.models.promptable.prompts import PADDING

EMBEDDING = "embedding"
"""Name of the array of a scene: float32 ``(1, C, G, G)``."""


class SamDecoder:
    """A :class:`~manylens.models.promptable.decoder.Decoder`.

    Prompts become tokens here, in float32 whatever the precision: the sines of their places turn too fast for less.

    Args:
        side: Side of the network's picture in pixels.
        low_res: Side of its masks.
        tables: As :func:`manylens.models.sam.module.prompt_tables` gives them.
        network: Gives a network by name, called on first use: ``decoder`` takes the embedding and tokens,
            ``masked-decoder`` masks as well.
    """

    threshold = 0.0

    def __init__(
        self, side: int, low_res: int, tables: Mapping[str, np.ndarray], network: Callable[[str], Network]
    ) -> None:
        self.side, self.low_res = side, low_res
        self._tables, self._network = tables, network

    def __call__(
        self, scene: Scene, points: np.ndarray, labels: np.ndarray, masks: np.ndarray | None = None
    ) -> Decoded:
        """See :class:`manylens.models.promptable.decoder.Decoder`."""
        tokens = self.tokens(points, labels)
        if masks is None:
            return Decoded(*self._network("decoder")(scene[EMBEDDING], tokens))
        return Decoded(*self._network("masked-decoder")(scene[EMBEDDING], tokens, np.asarray(masks, np.float32)))

    def tokens(self, points: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """float32 ``(B, outputs + N, C)``: the tokens that are answered in, then one for each point."""
        place = (np.asarray(points, np.float32) + np.float32(0.5)) / np.float32(self.side)
        angle = (2 * place - 1) @ self._tables["frequencies"] * np.float32(2 * np.pi)
        places = np.concatenate([np.sin(angle), np.cos(angle)], axis=-1)
        places[labels == PADDING] = 0
        outputs = np.broadcast_to(self._tables["outputs"], (len(points), *self._tables["outputs"].shape))
        return np.concatenate([outputs, places + self._tables["labels"][labels + 1]], axis=1, dtype=np.float32)
