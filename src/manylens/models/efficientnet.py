"""EfficientNet-Lite3 (Tan & Le, 2019): the 1,000 classes of ImageNet, and any names by way of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.errors import WeightsError
from manylens.models import names
from manylens.models.base import Model
from manylens.runtime.context import Context
from manylens.runtime.engines import EngineSettings, compile, core
from manylens.tasks import Classification, ClassifyRequest, EmbedRequest, Label, Request

if TYPE_CHECKING:
    import openvino as ov

    from manylens.catalog import Row

_CENTRE = 0.875  # the part of the shorter side that the usual evaluation crop shows
_RELATED = 0.5  # cosine of two words from which they speak of like things: "jewelry" and "necklace" have 0.8
_NOISE = 0.005  # labels below this share of the best one are the noise that a softmax leaves; hundreds would add up
_SEEN = 0.02  # below this share of the probability the given names say little about the picture


class EfficientNet(Model):
    """Says what a picture shows, from ImageNet's labels or from given names."""

    def __init__(self, row: Row, files: Mapping[str, Path], settings: EngineSettings) -> None:
        super().__init__(row, files, settings)
        lines = files["efficientnet_labels.txt"].read_text(encoding="utf-8").splitlines()
        if len(lines) != 1000:
            raise WeightsError(f"efficientnet_labels.txt: has {len(lines)} labels, not 1000", "pull the model again")
        self._imagenet = names.imagenet(lines)
        self._net = compile(_logits(files["efficientnet_lite3.tflite"]), settings)
        self._side = int(core().read_model(str(files["efficientnet_lite3.tflite"])).inputs[0].shape[1])

    def run(self, requests: Sequence[Request], ctx: Context) -> Iterator[Classification]:
        """Serve ``classify`` requests; see :meth:`manylens.models.base.Model.run`."""
        for request in requests:
            assert isinstance(request, ClassifyRequest)
            ctx.check()
            probabilities = self._probabilities(request.image.array)
            if request.names is None:
                shown: Sequence[str] = self._imagenet.labels
            else:
                shown = request.names
                probabilities = self._by_names(probabilities, request.names, ctx)
            best = np.argsort(-probabilities, kind="stable")[: request.top]
            yield Classification(labels=tuple(Label(shown[i], float(probabilities[i])) for i in best))

    def probe(self) -> Callable[[], np.ndarray]:
        """See :meth:`manylens.models.base.Model.probe`; gives the probabilities of the labels."""
        picture = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
        return lambda: self._probabilities(picture)

    def close(self) -> None:
        """Give the network's memory back."""
        self._net.close()

    def _probabilities(self, rgb: np.ndarray) -> np.ndarray:
        """The mean over the centre and the whole picture, so that what stands aside counts too: float32 ``(1000,)``."""
        views = [self._softmax(_square(view, self._side)) for view in (_centre(rgb), rgb)]
        return np.mean(views, axis=0)

    def _softmax(self, square: np.ndarray) -> np.ndarray:
        logits = self._net(square[None])[0].ravel()
        raised = np.exp(logits - logits.max())
        return raised / raised.sum()

    def _by_names(self, probabilities: np.ndarray, asked: Sequence[str], ctx: Context) -> np.ndarray:
        """Probabilities of the given names, which sum to 1: what their kinds among the labels have together."""
        notes = ctx.notes.setdefault("notes", [])
        probabilities = np.where(probabilities >= _NOISE * probabilities.max(), probabilities, 0)
        mass = np.zeros(len(asked))
        for i, name in enumerate(asked):
            found = self._imagenet.members(name)
            if found is not None:
                numbers, meaning = found
                mass[i] = probabilities[numbers].sum()
                notes += [meaning.note] if meaning.note else []
            else:
                relation = _related(name, ctx)
                mass[i] = relation @ probabilities
                near = self._imagenet.labels[int(relation.argmax())]
                notes.append(
                    f"{name!r}: no label of this model is called so; judged by labels like {near!r}"
                    if relation.any()
                    else f"{name!r}: no label of this model is like it, so it cannot be recognised"
                )
        if mass.sum() < _SEEN:
            notes.append("none of the given names fits what the model sees; their order says little")
        return (mass + 1e-6) / (mass + 1e-6).sum()


def _logits(path: Path) -> ov.Model:
    """The network without its last step: its softmax is quantised to 1/256, which loses what zero-shot names need."""
    import openvino as ov

    graph = core().read_model(str(path))
    last = next(node for node in graph.get_ops() if node.get_type_name() == "Softmax")
    return ov.Model([last.input_value(0)], graph.get_parameters(), path.stem)


def _centre(rgb: np.ndarray) -> np.ndarray:
    height, width = rgb.shape[:2]
    side = max(1, round(min(height, width) * _CENTRE))
    top, left = (height - side) // 2, (width - side) // 2
    return rgb[top : top + side, left : left + side]


def _square(rgb: np.ndarray, side: int) -> np.ndarray:
    import cv2

    shrinks = min(rgb.shape[:2]) > side
    return cv2.resize(rgb, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def _related(name: str, ctx: Context) -> np.ndarray:
    """How much each label speaks of what a name means, 0..1, from the likeness of the words: ``(1000,)``."""
    answer = ctx.call("embed", EmbedRequest.of(text=name))
    space, vectors = label_vectors()
    if answer.space != space:  # another text encoder was chosen: its vectors cannot be compared with those kept here
        return np.zeros(len(vectors), np.float32)
    likeness = vectors @ answer.vector
    return np.clip((likeness - _RELATED) / (1 - _RELATED), 0, 1)


@cache
def label_vectors() -> tuple[str, np.ndarray]:
    """MiniLM's vectors of the labels: the name of their space, and float32 ``(1000, 384)``."""
    with resources.as_file(resources.files("manylens.models.data").joinpath("imagenet-minilm.npz")) as path:
        kept: Any = np.load(path, allow_pickle=False)
        return str(kept["space"]), kept["vectors"].astype(np.float32)
