"""What all adapted models share: the network on its engine, and squares of pictures."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from manylens import models
from manylens.errors import WeightsError
from manylens.models import checkpoint, network
from manylens.models.adapted.encoding import blueprint
from manylens.models.adapted.picture import square
from manylens.models.base import Model, Trainable
from manylens.models.network import Network
from manylens.runtime.engines import EngineSettings

if TYPE_CHECKING:
    from manylens.catalog import Row
    from manylens.media import Image
    from manylens.models.adapted.bundle import Adapted, Spec

BASE = "base/"
"""Before the names of the base model's files."""


class AdaptedModel(Model):
    """A model that ``manylens train`` made: a base model, what was changed in it, and a head.

    Attributes:
        outputs: What the network gives, in order.
    """

    batch_size = 8
    outputs: tuple[str, ...] = ("logits",)

    def __init__(self, row: Row, files: Mapping[str, Path], settings: EngineSettings) -> None:
        super().__init__(row, files, settings)
        from manylens.models.adapted.bundle import Spec

        self.spec: Spec = Spec.read(files, row.id)
        assert row.base is not None
        self._base_files = {name.removeprefix(BASE): path for name, path in files.items() if name.startswith(BASE)}
        found = checkpoint.weights_id(row.base, self._base_files)
        if found != self.spec.base.weights:
            raise WeightsError(
                f"{row.id}: its base {self.spec.base.id} had weights {self.spec.base.weights}, now {found}",
                "give the checkpoint that it was trained on, or train it again",
            )
        self._hash = row.weights_hash
        self._lock = threading.Lock()
        self._network: Network | None = None

    def answers(self, images: Sequence[Image]) -> dict[str, np.ndarray]:
        """What the network says of pictures, by name: float32 ``(N, ...)``."""
        squares = np.stack([square(image.array, self.spec.side) for image in images])
        return dict(zip(self.outputs, self._ready()(squares), strict=True))

    def module(self) -> Adapted:
        """The network in torch, in evaluation mode: pixels ``(B, 3, side, side)`` in 0..1 to what the head gives."""
        from manylens.models.adapted.bundle import assemble

        return assemble(self.spec, self._opened(), self.files, self.row.id)

    def trainable(self) -> Trainable:
        """The base model with what was changed in it, to train further or explain; its head gives ``logits``."""
        from manylens.models.adapted.opened import trainable

        return trainable(self.module(), self.spec)

    def probe(self) -> Callable[[], np.ndarray]:
        """See :meth:`manylens.models.base.Model.probe`; gives the first output of a fixed batch."""
        side = self.spec.side
        squares = np.random.default_rng(0).integers(0, 256, (self.batch_size, side, side, 3), dtype=np.uint8)
        return lambda: self._ready()(squares)[0]

    def close(self) -> None:
        """Give the network's memory back."""
        with self._lock:
            if self._network is not None:
                self._network.close()
                self._network = None

    def _opened(self) -> Trainable:
        assert self.row.base is not None
        loaded = models.load(self.row.base, self._base_files, EngineSettings("torch", threads=self.settings.threads))
        try:
            return loaded.trainable()
        finally:
            loaded.close()

    def _ready(self) -> Network:
        with self._lock:
            if self._network is None:
                drawn = blueprint(f"adapted {self.spec.head}", self.module, self.outputs, self.spec.side)
                self._network = network.build(drawn, self.settings, f"{self._hash} {self.spec.base.weights}")
            return self._network
