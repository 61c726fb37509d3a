"""Model families (floor 4). One name resolves to one factory; the module is imported on first use."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from manylens.errors import UnsupportedError, WeightsError

if TYPE_CHECKING:
    import numpy as np

    from manylens.catalog import Row
    from manylens.models.base import Model
    from manylens.runtime.engines import EngineSettings

FAMILIES: dict[str, str] = {
    "sam": "manylens.models.sam.model:Sam",
    "sam2": "manylens.models.sam2.model:Sam2",
    "sam3": "manylens.models.sam3.model:Sam3",
    "seggpt": "manylens.models.seggpt.model:SegGpt",
    "dino": "manylens.models.dino:Dino",
    "clip": "manylens.models.clip.model:Clip",
    "clipseg": "manylens.models.clipseg.model:ClipSeg",
    "masks": "manylens.models.masks.model:Masks",
    "depth": "manylens.models.depth:DepthModel",
    "regions": "manylens.models.regions.model:Regions",
    "ssd": "manylens.models.ssd:Ssd",
    "efficientnet": "manylens.models.efficientnet:EfficientNet",
    "lite0": "manylens.models.lite0:Lite0",
    "minilm": "manylens.models.minilm:MiniLm",
    "ppocr": "manylens.models.ppocr:PpOcr",
    "realesrgan": "manylens.models.realesrgan:RealEsrgan",
    "hed": "manylens.models.structure.hed:Hed",
    "movenet": "manylens.models.structure.pose:MoveNet",
    "outlines": "manylens.models.structure.outlines:Outlines",
    "follow": "manylens.models.follow:Follow",
    "adapted-classifier": "manylens.models.adapted.classifier:AdaptedClassifier",
    "adapted-embedder": "manylens.models.adapted.embedder:AdaptedEmbedder",
    "adapted-segmenter": "manylens.models.adapted.dense:AdaptedSegmenter",
    "adapted-masks": "manylens.models.adapted.dense:AdaptedMasks",
    "adapted-detector": "manylens.models.adapted.dense:AdaptedDetector",
    "adapted-promptable": "manylens.models.adapted.promptable:AdaptedPromptable",
    "adapted-ensemble": "manylens.models.adapted.ensemble:AdaptedEnsemble",
    "adapted-segmenter-ensemble": "manylens.models.adapted.ensemble:AdaptedSegmenterEnsemble",
    "adapted-masks-ensemble": "manylens.models.adapted.finders:AdaptedMasksEnsemble",
    "adapted-detector-ensemble": "manylens.models.adapted.finders:AdaptedDetectorEnsemble",
    "words-to-mask": "manylens.models.composed.words_to_mask:WordsToMask",
    "answers": "manylens.models.composed.answers:Answers",
}


def family(name: str, model: str = "") -> type[Model]:
    """The class of a family.

    Args:
        name: The family, as catalog rows name it.
        model: The model that asks, for the message.

    Raises:
        UnsupportedError: If this version has no loader for the family; lists those that it has.
    """
    try:
        module, cls = FAMILIES[name].split(":")
    except KeyError:
        raise UnsupportedError(
            f"{model or name}: this version has no loader for the family {name!r} yet",
            f"the families that load are {', '.join(sorted(FAMILIES))}",
        ) from None
    return getattr(importlib.import_module(module), cls)


def load(row: Row, files: Mapping[str, Path], settings: EngineSettings) -> Model:
    """Load the model of a catalog row from its verified files.

    Raises:
        WeightsError: A checkpoint's own files have a value of a kind that they should not.
    """
    made = family(row.family, row.id)
    try:
        return made(row, files, settings)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        if row.source not in ("folder", "hub"):
            raise
        raise WeightsError(
            f"{row.id}: a value in its config.json or another of its JSON files is not of the kind that it should be "
            f"({type(error).__name__}: {error})",
            "fetch the checkpoint again, or give another",
        ) from error


@dataclass(frozen=True)
class FamilyProbe:
    """A catalog row as ``manylens doctor`` measures it: loaded anew for each engine and precision."""

    row: Row
    files: Mapping[str, Path]

    @property
    def name(self) -> str:
        """The row's id."""
        return self.row.id

    @property
    def weights(self) -> str:
        """The row's weights hash."""
        return self.row.weights_hash

    def build(self, settings: EngineSettings) -> Callable[[], np.ndarray]:
        """Load the model and give the call to time; see :meth:`manylens.models.base.Model.probe`.

        Raises:
            UnsupportedError: The model does not run on that engine.
        """
        if settings.engine not in self.row.engines or settings.device.partition(":")[0] not in self.row.devices:
            raise UnsupportedError(f"{self.row.id} does not run on {settings.engine} on {settings.device}")
        return load(self.row, self.files, settings).probe()
