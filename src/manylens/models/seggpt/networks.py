"""The networks of SegGPT on an engine: planes to tokens, tokens to colours. They load when something is not kept."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.errors import WeightsError
from manylens.models import checkpoint, network
from manylens.models.network import Blueprint, Network
from manylens.models.processor import Processor
from manylens.models.seggpt.shape import Shape
from manylens.runtime.engines import EngineSettings

if TYPE_CHECKING:
    import torch

_PREPROCESSOR = "preprocessor_config.json"


class Networks:
    """One checkpoint on one engine. Safe under threads.

    Args:
        files: The checkpoint's files by name.
        name: What to call it in an error.
        settings: Engine, precision, threads and device.
        weights: Hash of the weights.

    Raises:
        WeightsError: A config is missing, or they do not fit each other.
        UnsupportedError: A config asks for what is not known here.
    """

    def __init__(self, files: Mapping[str, Path], name: str, settings: EngineSettings, weights: str) -> None:
        self._files, self._name, self._settings, self._weights = files, name, settings, weights
        self.shape = Shape.of(checkpoint.config(files, name), name)
        size = {"size": {"height": self.shape.height, "width": self.shape.width}}
        told = checkpoint.config(files, name, _PREPROCESSOR) if _PREPROCESSOR in files else {}
        self.processor = Processor.of(size | told, name, self.shape.width, "bicubic")
        if self.processor.exact != self.size or self.processor.crop is not None:
            raise WeightsError(
                f"{name}: its preprocessor_config.json makes pictures of {self.processor.exact}, its network takes "
                f"{self.size}",
                "give a checkpoint whose files belong together",
            )
        self._loading = threading.Lock()
        self._networks: tuple[Network, Network] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """``(width, height)`` of a picture as the network sees it."""
        return self.shape.width, self.shape.height

    def tokens(self, planes: Sequence[np.ndarray]) -> np.ndarray:
        """The patch embedding of pictures and painted masks: all that does not depend on what they are shown with.

        Args:
            planes: uint8 RGB ``(h, w, 3)`` of the network's size.

        Returns:
            float32 ``(N, rows * columns, D)``.
        """
        (found,) = self._built()[0](self.processor.normalised(np.stack(planes)))
        return found

    def paint(self, pictures: np.ndarray, masks: np.ndarray, query: np.ndarray) -> np.ndarray:
        """The mask of a picture, painted as the examples' masks are; several examples are a feature ensemble.

        Args:
            pictures: Tokens ``(N, n, D)`` of the example pictures.
            masks: Tokens ``(N, n, D)`` of their painted masks.
            query: Tokens ``(n, D)`` of the picture asked about.

        Returns:
            float32 ``(3, h, w)``, colours of 0..255.
        """
        ensemble = np.array([float(len(pictures) > 1)], np.float32)
        (found,) = self._built()[1](pictures, masks, np.stack([query]), ensemble)
        return self.levels(found)

    def levels(self, found: np.ndarray) -> np.ndarray:
        """The network's output ``(3, h, w)``, normalised as the planes are, as colours of 0..255, cut to that range."""
        mean, std = (
            np.array(values, np.float32)[:, None, None] for values in (self.processor.mean, self.processor.std)
        )
        return np.clip((found.astype(np.float32) * std + mean) / np.float32(self.processor.scale), 0, 255)

    def close(self) -> None:
        """Give the networks' memory back."""
        with self._loading:
            for one in self._networks or ():
                one.close()
            self._networks = None

    def load(self) -> Any:
        """The checkpoint as transformers' ``SegGptForImageSegmentation``, float32."""
        from transformers import SegGptForImageSegmentation

        return checkpoint.load(SegGptForImageSegmentation, self._files, self._name)

    def _built(self) -> tuple[Network, Network]:
        with self._loading:
            if self._networks is None:
                model = cache(self.load)  # read at most once, and not at all where both compiled forms are kept
                blueprints = (self._patches(model), self._painter(model))
                first, second = (network.build(one, self._settings, self._weights) for one in blueprints)
                self._networks = first, second
            return self._networks

    def _patches(self, model: Any) -> Blueprint:
        width, height = self.size

        def module() -> torch.nn.Module:
            from manylens.models.seggpt.module import Patches

            return Patches(model())

        def example() -> Sequence[torch.Tensor]:
            import torch

            return (torch.zeros(1, 3, height, width),)

        return Blueprint("patches", module, example, ("planes",), ("tokens",), {"planes": (-1, 3, height, width)})

    def _painter(self, model: Any) -> Blueprint:
        count, channels = self.shape.rows * self.shape.columns, self.shape.channels

        def module() -> torch.nn.Module:
            from manylens.models.seggpt.module import Painter

            return Painter(model(), self.shape)

        def example() -> Sequence[torch.Tensor]:
            import torch

            tokens = torch.zeros(1, count, channels)  # one example traces fastest; their number stays free
            return tokens, tokens, tokens, torch.ones(1)

        free = (-1, count, channels)
        names = ("pictures", "masks", "query", "ensemble")
        return Blueprint("painter", module, example, names, ("colours",), {"pictures": free, "masks": free})
