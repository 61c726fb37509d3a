"""What classifiers over ImageNet's 1,000 labels share: views of a picture, and any names by way of the labels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.errors import UnsupportedError
from manylens.models.base import Model
from manylens.models.names import ImageNet, quoted
from manylens.runtime.context import Context
from manylens.runtime.engines import EngineSettings
from manylens.tasks import Classification, ClassifyRequest, EmbedRequest, Label, Request

if TYPE_CHECKING:
    from manylens.catalog import Row

_CENTRE = 0.875  # the part of the shorter side that the usual evaluation crop shows
_RELATED = 0.5  # cosine of two words from which they speak of like things: "jewelry" and "necklace" have 0.8
_NOISE = 0.005  # labels below this share of the best one are the noise that a softmax leaves; hundreds would add up
_SEEN = 0.02  # below this share of the probability the given names say little about the picture


class ImageNetClassifier(Model):
    """Says what a picture shows, from ImageNet's labels or from given names.

    Args:
        row: As of every model, like the two that follow.
        files: The row's files.
        settings: Engine and precision.
        imagenet: The labels, in the order of the network's outputs.
        side: Side in pixels of the square pictures that the network takes.
    """

    def __init__(
        self, row: Row, files: Mapping[str, Path], settings: EngineSettings, *, imagenet: ImageNet, side: int
    ) -> None:
        super().__init__(row, files, settings)
        self._imagenet, self._side = imagenet, side

    @abstractmethod
    def logits(self, squares: np.ndarray) -> np.ndarray:
        """The network's outputs before the softmax, ``(N, 1000)``, of uint8 RGB ``(N, side, side, 3)``."""

    def run(self, requests: Sequence[Request], ctx: Context) -> Iterator[Classification]:
        """Serve ``classify`` requests; those of a batch run together. See :meth:`manylens.models.base.Model.run`."""
        asked = [request for request in requests if isinstance(request, ClassifyRequest)]
        for start in range(0, len(asked), self.batch_size):
            ctx.check()
            batch = asked[start : start + self.batch_size]
            for request, probabilities in zip(batch, self._probabilities([r.image.array for r in batch]), strict=True):
                yield self._classification(request, probabilities, ctx)

    def probe(self) -> Callable[[], np.ndarray]:
        """See :meth:`manylens.models.base.Model.probe`; gives the probabilities of the labels."""
        picture = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
        return lambda: self._probabilities([picture])[0]

    def _classification(self, request: ClassifyRequest, probabilities: np.ndarray, ctx: Context) -> Classification:
        if request.names is None:
            shown: Sequence[str] = self._imagenet.labels
        else:
            shown = request.names
            probabilities = self._by_names(probabilities, request.names, ctx)
        best = np.argsort(-probabilities, kind="stable")[: request.top]
        return Classification(labels=tuple(Label(shown[i], float(probabilities[i])) for i in best))

    def _probabilities(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """The mean over the centre and the whole picture, so that what stands aside counts too: ``(N, 1000)``."""
        views = [square(view, self._side) for rgb in pictures for view in (_centre(rgb), rgb)]
        logits = self.logits(np.stack(views))
        raised = np.exp(logits - logits.max(axis=1, keepdims=True))
        return (raised / raised.sum(axis=1, keepdims=True)).reshape(len(pictures), 2, -1).mean(axis=1)

    def _by_names(self, probabilities: np.ndarray, asked: Sequence[str], ctx: Context) -> np.ndarray:
        """Probabilities of the given names, which sum to 1: what their kinds among the labels have together.

        A name that no label is like has exactly 0: the model cannot tell it, so a share would be invented.

        Raises:
            UnsupportedError: No label is like any of them.
        """
        notes = ctx.notes.setdefault("notes", [])
        probabilities = np.where(probabilities >= _NOISE * probabilities.max(), probabilities, 0)
        mass, known = np.zeros(len(asked)), np.ones(len(asked), bool)
        for i, name in enumerate(asked):
            found = self._imagenet.members(name)
            if found is not None:
                numbers, meaning = found
                mass[i] = probabilities[numbers].sum()
                notes += [meaning.note] if meaning.note else []
            else:
                relation = _related(name, ctx)
                mass[i] = relation @ probabilities
                known[i] = bool(relation.any())
                near = self._imagenet.labels[int(relation.argmax())]
                notes.append(
                    f"{name!r}: no label of this model is called so; judged by labels like {near!r}"
                    if known[i]
                    else f"{name!r}: no label of this model is like it, so it cannot be recognised"
                )
        if not known.any():
            raise UnsupportedError(
                f"{quoted(asked)}: the model knows none of them",
                "give names of things like its labels, such as 'cat' or 'cup', or name a model that takes any words",
            )
        if mass.sum() < _SEEN:
            notes.append("none of the given names fits what the model sees; their order says little")
        mass = np.where(known, mass + 1e-6, 0)
        return mass / mass.sum()


def _centre(rgb: np.ndarray) -> np.ndarray:
    height, width = rgb.shape[:2]
    side = max(1, round(min(height, width) * _CENTRE))
    top, left = (height - side) // 2, (width - side) // 2
    return rgb[top : top + side, left : left + side]


def square(rgb: np.ndarray, side: int) -> np.ndarray:
    """A picture ``(H, W, 3)`` as a square, its aspect not kept: nothing is cut off."""
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
