"""CLIPSeg (Lüddecke and Ecker, 2022): masks of what words name, from a decoder on CLIP's features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.errors import PromptError
from manylens.media import Image, bounds
from manylens.models import checkpoint, network, pixels
from manylens.models.base import Model
from manylens.models.clip.text import Tokens, template
from manylens.models.composed.words import split_names
from manylens.models.network import Blueprint, Network
from manylens.models.processor import Processor
from manylens.runtime.context import Context
from manylens.runtime.engines import EngineSettings
from manylens.runtime.store import Key
from manylens.tasks import Request, SegmentRequest, detections

if TYPE_CHECKING:
    import torch
    from supervision import Detections

    from manylens.catalog import Row

THRESHOLD = 0.5
"""Probability above which a pixel belongs to the thing."""


class ClipSeg(Model):
    """Serves ``segment`` with words: one mask for each thing named, of all that the words fit.

    The picture is encoded once and kept; each further word costs the text tower and a small decoder. A mask's score is
    the mean probability of its pixels; words that fit nothing give no mask, and a note.
    """

    def __init__(self, row: Row, files: Mapping[str, Path], settings: EngineSettings) -> None:
        super().__init__(row, files, settings)
        self._hash = checkpoint.weights_id(row, files)
        self._tokens = Tokens(files, row.id)
        self._config = checkpoint.config(files, row.id)
        config = checkpoint.preprocessing(files, row.id)
        left_out = {"image_mean": pixels.HALF, "image_std": pixels.HALF}  # as in the hub's processor of a ViT
        self.processor = Processor.of(left_out | config, row.id, 352)
        self._size = self.processor.fixed(row.id)
        self._vision: dict[str, Any] = self._config.get("vision_config", {})

    def run(self, requests: Sequence[Request], ctx: Context) -> Iterator[Detections]:
        """Yield Detections with masks and ``class_name`` for each request."""
        for request in requests:
            assert isinstance(request, SegmentRequest)
            ctx.check()
            names = split_names(request.text or "")
            if not names:
                raise PromptError(f"segment: {request.text!r} names nothing", "give words such as 'cat'")
            vectors = self._text(self._tokens([template("clipseg").format(name) for name in names]))[0]
            states, ctx.notes["cache"] = self._states(request.image, ctx)
            threshold = THRESHOLD if request.threshold is None else request.threshold
            logits = []
            for vector in vectors:
                ctx.check()
                logits.append(self._decoder(states, vector[None])[0][0])
            yield _answer(request.image, names, np.stack(logits), threshold, ctx)

    def logits(self, image: Image, ids: np.ndarray) -> np.ndarray:
        """The network's own answer, float32 ``(N, side, side)``, for token ids ``(N, L)``."""
        states = self._encoder(self.processor.normalised(self.processor.pixels(image.array))[None])[0]
        return np.concatenate([self._decoder(states, vector[None])[0] for vector in self._text(ids)[0]])

    def close(self) -> None:
        """Give the networks' memory back."""
        for part in ("_encoder", "_decoder", "_text"):
            if part in self.__dict__:
                self.__dict__.pop(part).close()
        self.__dict__.pop("_module", None)

    def _states(self, image: Image, ctx: Context) -> tuple[np.ndarray, str]:
        """What the decoder reads of a picture: float32 ``(layers, 1, tokens, D)``."""
        settings, version = self.settings, f"clipseg-{self.row.preprocessing}"
        key = Key(image.id, self._hash, version, "states", settings.engine, settings.precision)

        def encode() -> dict[str, np.ndarray]:
            return {"states": self._encoder(self.processor.normalised(self.processor.pixels(image.array))[None])[0]}

        arrays, hit = ctx.store.get_or_compute(key, encode, check=ctx.check)
        return arrays["states"], hit or "miss"

    @cached_property
    def _module(self) -> Any:
        from transformers import CLIPSegForImageSegmentation

        return checkpoint.load(CLIPSegForImageSegmentation, self.files, self.row.id)

    def _network(self, name: str, example: Any, inputs: tuple[str, ...], shapes: dict[str, tuple[int, ...]]) -> Network:
        def module() -> torch.nn.Module:
            from manylens.models.clipseg.parts import part

            return part(self._module, name)

        return network.build(Blueprint(name, module, example, inputs, ("out",), shapes), self.settings, self._hash)

    @cached_property
    def _encoder(self) -> Network:
        width, height = self._size
        return self._network(
            "encoder", lambda: [_zeros(1, 3, height, width)], ("pixels",), {"pixels": (1, 3, height, width)}
        )

    @cached_property
    def _decoder(self) -> Network:
        patch, states = self._vision.get("patch_size", 32), self._vision.get("hidden_size", 768)
        width, height = self._size
        layers = len(self._config.get("extract_layers", (3, 6, 9)))
        shape = (layers, 1, (width // patch) * (height // patch) + 1, states)
        vector = (1, self._config.get("projection_dim", 512))
        return self._network(
            "decoder",
            lambda: [_zeros(*shape), _zeros(*vector)],
            ("states", "vector"),
            {"states": shape, "vector": vector},
        )

    @cached_property
    def _text(self) -> Network:
        def example() -> list[torch.Tensor]:
            import torch

            return [torch.ones((2, self._tokens.most), dtype=torch.int64)]

        return self._network("text", example, ("ids",), {"ids": (-1, -1)})


def _zeros(*shape: int) -> torch.Tensor:
    import torch

    return torch.zeros(shape)


def _answer(image: Image, names: Sequence[str], logits: np.ndarray, threshold: float, ctx: Context) -> Detections:
    import cv2

    width, height = image.size
    masks, boxes, scores, found = [], [], [], []
    for number, plane in enumerate(logits):
        chances = 1 / (1 + np.exp(-cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR)))
        mask = chances.reshape(height, width) > threshold
        box = bounds(mask)
        if box is None:
            ctx.notes.setdefault("notes", []).append(f"{names[number]}: not found")
            continue
        masks.append(mask)
        boxes.append(box)
        scores.append(float(chances.reshape(height, width)[mask].mean()))
        found.append(number)
    stacked = np.stack(masks) if masks else np.zeros((0, height, width), bool)
    return detections(boxes, scores, masks=stacked, names=[names[i] for i in found], class_ids=found, objects=found)
