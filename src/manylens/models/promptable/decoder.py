"""What a mask decoder is, for all that asks one: clicks, a grid of points, frames of a video."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np

Scene = Mapping[str, np.ndarray]
"""An encoded picture, as its decoder wants it: named arrays, opaque to everyone else."""


class Decoded(NamedTuple):
    """What a decoder finds for ``B`` prompts.

    Attributes:
        low_res: float32 ``(B, M, S, S)`` logits. Mask 0 is the answer to a prompt that is clear; masks 1 and up are
            the answers to one that is not (whole, part, subpart), in no order.
        iou: float32 ``(B, M)``, how well each mask is thought to fit; a little beyond 0..1 at times.
    """

    low_res: np.ndarray
    iou: np.ndarray


class Decoder(Protocol):
    """Prompts to masks on an encoded picture. Safe under threads.

    :func:`manylens.models.promptable.everything.generate` asks one for a whole grid::

        generate(decoder, scene, canvas, options, check) -> Detections

    with ``scene`` what the decoder takes, ``canvas`` a :class:`~manylens.models.promptable.prompts.Canvas`,
    ``options`` its own dataclass and ``check`` the context's ``ctx.check``.

    Attributes:
        side: Side of the network's square picture in pixels, in which points are given.
        low_res: Side of its masks.
        threshold: Logit above which a pixel belongs to the mask.
    """

    @property
    def side(self) -> int: ...  # noqa: D102

    @property
    def low_res(self) -> int: ...  # noqa: D102

    @property
    def threshold(self) -> float: ...  # noqa: D102

    def __call__(
        self, scene: Scene, points: np.ndarray, labels: np.ndarray, masks: np.ndarray | None = None
    ) -> Decoded:
        """Find the masks of prompts that all have as many points.

        Args:
            scene: The encoded picture.
            points: float32 ``(B, N, 2)`` pixels of the network's square, not yet shifted to their centres; ``N`` may
                be 0 where ``masks`` are given.
            labels: int64 ``(B, N)``: 1 object, 0 background, 2 and 3 the corners of a box, -1 padding.
            masks: float32 ``(B, 1, S, S)`` logits of an earlier answer or a coarse mask.
        """
        ...
