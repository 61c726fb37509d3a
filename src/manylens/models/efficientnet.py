"""EfficientNet-Lite3 (Tan & Le, 2019): the 1,000 classes of ImageNet, and any names by way of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from manylens.errors import WeightsError
from manylens.models import names
from manylens.models.imagenet import ImageNetClassifier
from manylens.runtime.engines import EngineSettings, compile, core

if TYPE_CHECKING:
    import openvino as ov

    from manylens.catalog import Row


class EfficientNet(ImageNetClassifier):
    """The network of a TensorFlow Lite file, compiled."""

    def __init__(self, row: Row, files: Mapping[str, Path], settings: EngineSettings) -> None:
        lines = files["efficientnet_labels.txt"].read_text(encoding="utf-8").splitlines()
        if len(lines) != 1000:
            raise WeightsError(f"efficientnet_labels.txt: has {len(lines)} labels, not 1000", "pull the model again")
        path = files["efficientnet_lite3.tflite"]
        side = int(core().read_model(str(path)).inputs[0].shape[1])
        super().__init__(row, files, settings, imagenet=names.imagenet(lines), side=side)
        self._net = compile(_without_softmax(path), settings)

    def logits(self, squares: np.ndarray) -> np.ndarray:
        """See :meth:`manylens.models.imagenet.ImageNetClassifier.logits`; the file takes one picture at a time."""
        return np.stack([self._net(square[None])[0].ravel() for square in squares])

    def close(self) -> None:
        """Give the network's memory back."""
        self._net.close()


def _without_softmax(path: Path) -> ov.Model:
    """The network without its last step: its softmax is quantised to 1/256, which loses what zero-shot names need."""
    import openvino as ov

    graph = core().read_model(str(path))
    last = next(node for node in graph.get_ops() if node.get_type_name() == "Softmax")
    return ov.Model([last.input_value(0)], graph.get_parameters(), path.stem)
