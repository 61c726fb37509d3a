"""The pieces of a SAM 3 checkpoint on an engine, each built when it is first needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from manylens.models import checkpoint
from manylens.models.network import Blueprint, Pieces
from manylens.models.sam3 import boxes as roi
from manylens.models.sam3.spec import Spec
from manylens.runtime.engines import EngineSettings

if TYPE_CHECKING:
    import torch

_TRACE_PROMPT, _TRACE_BOXES = 5, 2


class Found(NamedTuple):
    """What the detector finds for one prompt, one row a query, most of them nothing.

    Attributes:
        scores: float32 ``(Q,)``, 0..1.
        boxes: float32 ``(Q, 4)`` xyxy, shares of the picture.
        low_res: float32 ``(Q, S, S)`` logits.
    """

    scores: np.ndarray
    boxes: np.ndarray
    low_res: np.ndarray


class Networks:
    """The pieces of one checkpoint's detector, and the trunk that its tracker shares.

    Args:
        files: The checkpoint's files.
        name: What to call it in an error.
        spec: Its numbers.
        settings: Engine, precision, threads and device.
        weights: Hash of its weights.
    """

    def __init__(
        self, files: Mapping[str, Path], name: str, spec: Spec, settings: EngineSettings, weights: str
    ) -> None:
        self.spec = spec
        self._files, self._name = files, name
        self._pieces = Pieces(self._blueprint, self.load, settings, weights)

    def trunk(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels ``(1, 3, side, side)`` as patch tokens float32 ``(1, cells * cells, C)``."""
        return self._pieces.of("trunk")(pixels)[0]

    def maps(self, tokens: np.ndarray) -> list[np.ndarray]:
        """Patch tokens as the detector's maps, the finest first; see :class:`.parts.Neck`."""
        return self._pieces.of("neck")(tokens)

    def words(self, ids: np.ndarray) -> np.ndarray:
        """Token ids int64 ``(1, tokens)`` as a prompt ``(1, tokens, D)``."""
        return self._pieces.of("words")(ids)[0]

    def exemplars(self, coarse: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """Boxes around examples as a prompt ``(1, N + 1, D)``.

        Args:
            coarse: The coarsest of the maps.
            boxes: float32 ``(N, 4)`` of :func:`manylens.models.sam3.boxes.shares`.
        """
        rows, columns = roi.pooling(boxes, (self.spec.cells, self.spec.cells), self.spec.bins)
        meant = np.ones((1, len(boxes)), np.int64)
        return self._pieces.of("exemplars")(coarse, boxes[None], meant, rows, columns)[0]

    def find(self, maps: Sequence[np.ndarray], prompt: np.ndarray) -> Found:
        """All that a prompt ``(1, P, D)`` means in a picture."""
        return Found(*self._pieces.of("finder")(*maps, prompt))

    def load(self) -> Any:
        """The detector of transformers, strictly loaded; float32 on the processor."""
        from transformers.models.sam3.modeling_sam3 import Sam3Model

        return checkpoint.load(Sam3Model, self._files, self._name)

    def prepare(self, *parts: str) -> None:
        """Build several pieces with one reading of the weights."""
        self._pieces.prepare(*parts)

    def close(self) -> None:
        """Give the memory back."""
        self._pieces.close()

    def _blueprint(self, part: str) -> Blueprint:
        spec = self.spec
        shapes: Mapping[str, Sequence[int]] = {
            "boxes": (1, -1, 4),
            "labels": (1, -1),
            "rows": (-1, spec.bins, spec.cells),
            "columns": (-1, spec.bins, spec.cells),
            "prompt": (1, -1, spec.width),
        }
        inputs = _INPUTS[part]
        return Blueprint(
            name=f"sam3-{part}",
            module=partial(_made, part, self._pieces.module),
            example=partial(_example, part, spec),
            inputs=inputs,
            outputs=_OUTPUTS[part],
            shapes={name: shapes[name] for name in inputs if name in shapes},
        )


_INPUTS: Mapping[str, tuple[str, ...]] = {
    "trunk": ("pixels",),
    "neck": ("tokens",),
    "words": ("ids",),
    "exemplars": ("coarse", "boxes", "labels", "rows", "columns"),
    "finder": ("fine", "middle", "coarse", "prompt"),
}
_OUTPUTS: Mapping[str, tuple[str, ...]] = {
    "trunk": ("tokens",),
    "neck": ("fine", "middle", "coarse"),
    "words": ("told",),
    "exemplars": ("shown",),
    "finder": ("scores", "found", "masks"),
}


def _made(part: str, loaded: Callable[[], Any]) -> torch.nn.Module:
    from manylens.models.sam3 import parts

    model = loaded()
    made: Mapping[str, Callable[[], torch.nn.Module]] = {
        "trunk": lambda: parts.Trunk(model.vision_encoder),
        "neck": lambda: parts.Neck(model.vision_encoder),
        "words": lambda: parts.Words(model),
        "exemplars": lambda: parts.Exemplars(model),
        "finder": lambda: parts.Finder(model),
    }
    return made[part]().eval()


def _example(part: str, spec: Spec) -> tuple[torch.Tensor, ...]:
    """Tensors to trace a piece with."""
    import torch

    cells, side, width = spec.cells, spec.side, spec.width
    fine, middle, coarse = (torch.randn(1, width, scale * cells, scale * cells) for scale in (4, 2, 1))
    if part == "trunk":
        return (torch.randn(1, 3, side, side),)
    if part == "neck":
        return (torch.randn(1, cells * cells, spec.depth),)
    if part == "words":
        return (torch.zeros(1, spec.tokens, dtype=torch.int64),)
    if part == "exemplars":
        pooling = torch.rand(2, _TRACE_BOXES, spec.bins, cells)
        return coarse, torch.rand(1, _TRACE_BOXES, 4), torch.ones(1, _TRACE_BOXES, dtype=torch.int64), *pooling
    return fine, middle, coarse, torch.randn(1, _TRACE_PROMPT, width)
