"""The classifier: ImageNet's labels, or given names, from EfficientNet-Lite0."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.models import names
from manylens.models.base import Trainable
from manylens.models.imagenet import ImageNetClassifier
from manylens.runtime.engines import EngineSettings

if TYPE_CHECKING:
    from manylens.catalog import Row

_FILE = "efficientnet-lite0-57934424.pth"
SIDE = 224
"""The whole picture is resized to this square; a second view shows its centre."""


class Lite0(ImageNetClassifier):
    """The network on the torch engine."""

    batch_size = 8

    def __init__(self, row: Row, files: Mapping[str, Path], settings: EngineSettings) -> None:
        import torch

        from manylens.models.lite0 import module

        # Its checkpoint brings no labels: the first name of each stands in the package, synonyms do not.
        super().__init__(row, files, settings, imagenet=names.imagenet(names.imagenet_names()), side=SIDE)
        if settings.device == "cpu":
            torch.set_num_threads(settings.threads)
        self._net: Any = module.load(files[_FILE]).to(settings.device)

    def logits(self, squares: np.ndarray) -> np.ndarray:
        """See :meth:`manylens.models.imagenet.ImageNetClassifier.logits`."""
        import torch

        from manylens.models.lite0.module import normalised

        device, half = self.settings.device, self.settings.precision == "bf16"
        with torch.inference_mode(), torch.autocast(torch.device(device).type, torch.bfloat16, enabled=half):
            return self._net(normalised(squares).to(device)).float().cpu().numpy()

    def trainable(self) -> Trainable:
        """A fresh copy of the network as a torch module; see :class:`manylens.models.base.Trainable`."""
        from manylens.models.lite0 import module

        return module.trainable(self.files[_FILE], self._imagenet.labels)

    def close(self) -> None:
        """Give the network's memory back."""
        self._net = None
