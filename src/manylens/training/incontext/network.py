"""SegGPT as it is trained: canvases in, paint out; and paint read again as masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from manylens.errors import UnsupportedError
from manylens.media import Image
from manylens.models.base import Trainable
from manylens.models.seggpt import colours
from manylens.models.seggpt.shape import Shape
from manylens.training.incontext.hiding import spread
from manylens.training.incontext.losses import hidden_loss

Batch = Mapping[str, Tensor]
"""Canvases: ``example``, ``asked``, ``example_paint``, ``asked_paint`` float ``(B, 3, h, w)``, normalised; ``hidden``
bool ``(B, 2 * patches)``; ``judged`` bool ``(B, 1, 2 * h, w)``."""


class InContext(nn.Module):
    """A SegGPT checkpoint.

    Args:
        trainable: The checkpoint, opened; its module becomes the part ``model``.
        kind: Whether colours stand for classes or for things; SegGPT was taught to tell the network, and the published
            network is always told ``instance`` when it is used.

    Raises:
        UnsupportedError: The model does not paint.
    """

    def __init__(self, trainable: Trainable, kind: str = "instance") -> None:
        super().__init__()
        model: Any = trainable.module
        if not hasattr(getattr(model, "decoder", None), "decoder_pred"):
            raise UnsupportedError("the model does not paint what examples show", "name a SegGPT checkpoint")
        self.model, self.kind = model, kind
        config = model.config
        self.shape = Shape.of(config.to_dict(), "the checkpoint")
        self.beta = float(config.beta)
        self._opened: Any = (trainable,)  # in a tuple, so that torch does not look for modules in it
        black, white = trainable.preprocess(
            [Image.of(np.full((*self.cells, 3), level, np.uint8)) for level in (0, 255)]
        )
        self._offset, self._scale = black[:, :1, :1], (white - black)[:, :1, :1] / 255

    @property
    def cells(self) -> tuple[int, int]:
        """``(h, w)`` of a picture in pixels."""
        return self.shape.height, self.shape.width

    @property
    def patches(self) -> tuple[int, int]:
        """Rows and columns of patches of a picture."""
        return self.shape.rows, self.shape.columns

    def normalised(self, planes: Sequence[npt.NDArray[np.uint8]]) -> Tensor:
        """Pictures and paint, uint8 ``(H, W, 3)``, as the network takes them: float ``(n, 3, h, w)``."""
        found: Tensor = self._opened[0].preprocess([Image.of(plane) for plane in planes])
        return found

    def levels(self, painted: Tensor) -> npt.NDArray[np.float32]:
        """Paint ``(3, h, w)`` as colours of 0..255, cut to that range."""
        found = (painted.detach().float().cpu() - self._offset) / self._scale
        return np.asarray(found.clamp(0, 255).numpy(), np.float32)

    def forward(self, batch: Batch) -> Tensor:
        """The paint of whole canvases, ``(B, 3, 2 * h, w)``, normalised; only what is hidden is the network's own."""
        states = self.model.model(
            pixel_values=batch["asked"],
            prompt_pixel_values=batch["example"],
            prompt_masks=batch["example_paint"],
            labels=batch["asked_paint"],
            bool_masked_pos=batch["hidden"],
            embedding_type=self.kind,
        ).intermediate_hidden_states
        painted: Tensor = self.model.decoder(torch.cat(states, dim=-1))
        return painted

    def loss(self, batch: Batch, painted: Tensor) -> Tensor:
        """What is wrong with the paint where it was hidden."""
        wanted = torch.cat([batch["example_paint"], batch["asked_paint"]], dim=2)
        counted = spread(batch["hidden"], self.patches, self.shape.patch) & batch["judged"]
        return hidden_loss(painted, wanted, counted, self.beta)

    def read(self, painted: Tensor, count: int) -> npt.NDArray[np.bool_]:
        """The masks of so many classes in the asked half of a canvas painted with :func:`colours.palette`.

        Args:
            painted: ``(3, 2 * h, w)``.
            count: Classes, 1 to :data:`colours.MOST`.

        Returns:
            bool ``(count, h, w)``, each pixel of at most one class.
        """
        likeness = colours.likeness(self.levels(painted[:, self.shape.height :]), count)
        best = likeness.argmax(axis=0)
        sure = likeness.max(axis=0) >= colours.NEARER
        return np.stack([(best == number) & sure for number in range(count)])
