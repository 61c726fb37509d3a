"""What every model is: files in, requests in, results out.

A model is one checkpoint of one family. It knows nothing of the session; what it needs from other tasks it asks through
``ctx.call``, which the session injects. Adding a family is one module here and rows in the catalog.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from manylens.errors import UnsupportedError
from manylens.runtime.context import Context
from manylens.runtime.engines import EngineSettings
from manylens.tasks import Request

if TYPE_CHECKING:
    import numpy as np
    import torch

    from manylens.catalog import Row
    from manylens.media import Image


class Model(ABC):
    """Base of all models.

    Args:
        row: The catalog row that the model was made from.
        files: The row's files by name, verified.
        settings: Engine, precision, threads and device to run on.
    """

    batch_size: ClassVar[int] = 1
    """How many requests one batch of :meth:`run` should bring; more costs memory without gaining speed."""

    def __init__(self, row: Row, files: Mapping[str, Path], settings: EngineSettings) -> None:
        self.row = row
        self.files = files
        self.settings = settings

    @abstractmethod
    def run(self, requests: Sequence[Request], ctx: Context) -> Iterator[Any]:
        """Serve a batch of requests of one task, yielding one result for each, in order, as they are ready.

        Args:
            requests: Validated requests whose needs the row's capabilities cover.
            ctx: Seed, deadline, cancellation, cost cap, progress, embedding store and ``call``.
        """

    def open(self, media: Any, ctx: Context) -> Any:
        """Begin work that keeps state of its own (a video, an audio stream).

        Raises:
            UnsupportedError: If the model keeps no state.
        """
        raise UnsupportedError(f"{self.row.id} keeps no state between calls", "use run instead of open")

    def trainable(self) -> Trainable:
        """The model as a torch module with named parts, for training and explanation.

        Raises:
            UnsupportedError: If the checkpoint has no differentiable form.
        """
        raise UnsupportedError(
            f"{self.row.id} has no trainable form", "name a model whose weights load into torch, such as manylens/vit-s"
        )

    def probe(self) -> Callable[[], np.ndarray]:
        """A call that runs the encoder once on a fixed input and returns its features, float ``(..., D)``.

        ``manylens doctor`` times it on every engine and precision, and holds its features to those of f32.

        Raises:
            UnsupportedError: If there is nothing to choose for this model.
        """
        raise UnsupportedError(f"{self.row.id} has no engine to choose", "leave it out")

    def close(self) -> None:  # noqa: B027 - most models hold nothing that the garbage collector does not free
        """Give memory back; the model is not used afterwards."""


@dataclass(frozen=True)
class Trainable:
    """A model opened for training and explanation; nothing here bears a family's own names.

    Attributes:
        module: The whole torch module.
        parts: Named parts: ``encoder``, ``prompt_encoder``, ``decoder``, ``text_tower``, ``denoiser``, ``vae``,
            ``head``.
        blocks: The encoder's blocks in order, first to last, for freezing up to a layer and layer-wise rates.
        lora_targets: Names (suffixes of module paths) of the linear layers that LoRA adapts.
        preprocess: Pictures to a float tensor ``(B, 3, H, W)`` in the module's own normalisation.
        forward: Pixels ``(B, 3, H, W)`` to a dict of tensors, differentiable: ``image`` ``(B, D)`` of length 1,
            ``vector`` the same before it is given that length, and ``dense`` ``(B, h, w, D)`` for an encoder;
            ``logits`` ``(B, len(labels))`` for a classifier.
        taps: Name to module whose output is worth looking at (attention, block outputs; ``features`` are the last
            maps of a network that pools them).
        labels: What each of the ``logits`` stands for.
        patch: Side of a patch in pixels where blocks give tokens ``(B, prefix + cells, D)``, row by row; 0 where they
            give maps ``(B, C, h, w)``.
        prefix: Tokens before the patches, the class token first.
        attention: Pixels ``(B, 3, H, W)`` to the attention probabilities ``(B, heads, tokens, tokens)`` of each block
            that ``image`` is made by, first to last (row: who looks, column: at what); None where there are none.
        mean: What is taken from each channel of pixels in 0..1; empty where pictures can only be prepared by
            ``preprocess``.
        std: What the rest is then divided by.
        side: Side in pixels of the square pictures that ``preprocess`` gives; 0 where it is not fixed.
    """

    module: torch.nn.Module
    parts: Mapping[str, torch.nn.Module]
    blocks: Sequence[torch.nn.Module]
    lora_targets: tuple[str, ...]
    preprocess: Callable[[Sequence[Image]], torch.Tensor]
    forward: Callable[[torch.Tensor], dict[str, torch.Tensor]]
    taps: Mapping[str, torch.nn.Module] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    patch: int = 0
    prefix: int = 0
    attention: Callable[[torch.Tensor], list[torch.Tensor]] | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    side: int = 0
