"""SAM's mask decoder: prompts as tokens, in NumPy, and what answers them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from manylens.models.network import Network
from manylens.models.promptable.decoder import Decoded, Scene
from manylens.models.promptable.prompts import PADDING

EMBEDDING = "embedding"
"""Name of the array of a scene: float32 ``(1, G, G, C)``."""

Answers = Callable[[np.ndarray, np.ndarray, "np.ndarray | None"], Sequence[np.ndarray]]
"""An embedding, tokens, and masks float32 or None, to logits ``(B, M, S, S)`` and predicted IoU ``(B, M)``."""


class SamDecoder:
    """A :class:`~manylens.models.promptable.decoder.Decoder`.

    Prompts become tokens here, in float32 whatever the precision: the sines of their places turn too fast for less.

    Args:
        side: Side of the network's picture in pixels.
        low_res: Side of its masks.
        tables: As :func:`manylens.models.sam.module.prompt_tables` gives them.
        answers: :func:`whole`, or :class:`manylens.models.sam.halves.Halves`.
    """

    threshold = 0.0

    def __init__(self, side: int, low_res: int, tables: Mapping[str, np.ndarray], answers: Answers) -> None:
        self.side, self.low_res = side, low_res
        self._tables, self._answers = tables, answers

    def __call__(
        self, scene: Scene, points: np.ndarray, labels: np.ndarray, masks: np.ndarray | None = None
    ) -> Decoded:
        """See :class:`manylens.models.promptable.decoder.Decoder`."""
        given = None if masks is None else np.asarray(masks, np.float32)
        return Decoded(*self._answers(scene[EMBEDDING], self.tokens(points, labels), given))

    def tokens(self, points: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """float32 ``(B, outputs + N, C)``: the tokens that are answered in, then one for each point."""
        place = (np.asarray(points, np.float32) + np.float32(0.5)) / np.float32(self.side)
        angle = (2 * place - 1) @ self._tables["frequencies"] * np.float32(2 * np.pi)
        places = np.concatenate([np.sin(angle), np.cos(angle)], axis=-1)
        places[labels == PADDING] = 0
        outputs = np.broadcast_to(self._tables["outputs"], (len(points), *self._tables["outputs"].shape))
        return np.concatenate([outputs, places + self._tables["labels"][labels + 1]], axis=1, dtype=np.float32)


def whole(network: Callable[[str], Network]) -> Answers:
    """One network of the whole decoder.

    Args:
        network: Gives it by name, called on first use: ``decoder`` takes the embedding and tokens, ``masked-decoder``
            masks as well.
    """

    def answers(embedding: np.ndarray, tokens: np.ndarray, masks: np.ndarray | None) -> Sequence[np.ndarray]:
        if masks is None:
            return network("decoder")(embedding, tokens)
        return network("masked-decoder")(embedding, tokens, masks)

    return answers
