"""The pieces of a SAM 2 checkpoint on an engine, each built when it is first needed."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from manylens.errors import WeightsError
from manylens.models import checkpoint
from manylens.models.network import Blueprint, Pieces
from manylens.models.promptable.decoder import Decoded, Scene
from manylens.models.promptable.prompts import PADDING
from manylens.models.sam2.spec import Spec
from manylens.runtime.engines import EngineSettings

if TYPE_CHECKING:
    import torch

FINEST, MIDDLE, EMBEDDING = "finest", "middle", "embedding"
"""The maps of an encoded picture: ``(1, C / 8, 4h, 4w)``, ``(1, C / 4, 2h, 2w)`` and ``(1, C, h, w)``, float32."""

PICTURE = ("encoder", "decoder")
"""The pieces that prompts on a picture need."""
VIDEO = (*PICTURE, "memory_encoder", "memory_attention", "mask_shrinker")
"""Those that a video needs."""

_TRACE_POINTS, _TRACE_FRAMES, _TRACE_POINTERS = 3, 2, 3


class Found(NamedTuple):
    """All that a decoder says of ``B`` prompts.

    Attributes:
        low_res: float32 ``(B, M, S, S)`` logits, mask 0 for a clear prompt.
        iou: float32 ``(B, M)``.
        there: float32 ``(B, 1)``: a logit, above 0 where the object is in the picture.
        pointers: float32 ``(B, M, C)``, what each mask would leave for later frames; None without a memory.
    """

    low_res: np.ndarray
    iou: np.ndarray
    there: np.ndarray
    pointers: np.ndarray | None


class Networks:
    """The pieces of one checkpoint.

    Args:
        files: The checkpoint's files.
        name: What to call it in an error.
        spec: Its numbers.
        settings: Engine, precision, threads and device.
        weights: Hash of its weights.
    """

    _tensors = ""
    """What stands before the names of the tensors."""

    def __init__(
        self, files: Mapping[str, Path], name: str, spec: Spec, settings: EngineSettings, weights: str
    ) -> None:
        self.spec = spec
        self._files, self._name = files, name
        self._pieces = Pieces(self._blueprint, self.load, settings, weights)
        self._frequencies: np.ndarray | None = None
        self._lock = threading.Lock()

    def encode(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """Pixels ``(1, 3, side, side)`` as a scene, by the names of the maps."""
        return dict(zip((FINEST, MIDDLE, EMBEDDING), self._pieces.of("encoder")(pixels), strict=True))

    def decode(
        self,
        scene: Scene,
        points: np.ndarray,
        labels: np.ndarray,
        masks: np.ndarray | None = None,
        *,
        fresh: bool = True,
    ) -> Found:
        """Masks of prompts; see :class:`manylens.models.promptable.decoder.Decoder` for the arguments.

        Args:
            scene: The encoded picture; of a video, with the embedding that has attended to the memory.
            points: float32 ``(B, N, 2)``.
            labels: int64 ``(B, N)``.
            masks: float32 ``(B, 1, S, S)`` logits.
            fresh: Whether the embedding has attended to no memory.
        """
        side = self.spec.low_res
        if points.shape[1] == 0:
            # The reference asks with two points that are none.
            points = np.zeros((len(points), 2, 2), np.float32)
            labels = np.full((len(points), 2), PADDING, np.int64)
        found = self._pieces.of("decoder")(
            scene[EMBEDDING],
            scene[FINEST],
            scene[MIDDLE],
            np.array([fresh], np.float32),
            self._sines(points),
            labels.astype(np.int64),
            np.zeros((1, 1, side, side), np.float32) if masks is None else masks.astype(np.float32),
            np.array([masks is not None], np.float32),
        )
        return Found(found[0], found[1], found[2], found[3] if len(found) > 3 else None)

    def remember(self, embedding: np.ndarray, logits: np.ndarray, sure: bool, there: float) -> np.ndarray:
        """What is remembered of a frame: float32 ``(cells * cells, D)``; see :class:`.parts.MemoryEncoder`."""
        flags = np.array([sure], np.float32), np.array([[there]], np.float32)
        return self._pieces.of("memory_encoder")(embedding, logits[None, None], *flags)[0]

    def recall(
        self, embedding: np.ndarray, memory: np.ndarray, slots: np.ndarray, pointers: np.ndarray, times: np.ndarray
    ) -> np.ndarray:
        """An embedding in the light of the memory; see :class:`.parts.MemoryAttention`."""
        return self._pieces.of("memory_attention")(embedding, memory, slots, pointers, times)[0]

    def shrink(self, mask: np.ndarray) -> np.ndarray:
        """A mask ``(side, side)`` as the logits ``(1, 1, S, S)`` that make its pointer."""
        return self._pieces.of("mask_shrinker")(mask.astype(np.float32)[None, None])[0]

    def _sines(self, points: np.ndarray) -> np.ndarray:
        """Points float32 ``(B, N, 2)`` as the sines and cosines of their places, float32 ``(B, N, C)``."""
        with self._lock:
            if self._frequencies is None:
                self._frequencies = self._read_frequencies()
        # A point is the middle of its pixel.
        place = (np.asarray(points, np.float32) + np.float32(0.5)) / np.float32(self.spec.side)
        angle = (2 * place - 1) @ self._frequencies * np.float32(2 * np.pi)
        return np.concatenate([np.sin(angle), np.cos(angle)], axis=-1)

    def _read_frequencies(self) -> np.ndarray:
        """float32 ``(2, C / 2)``; from the file, since all else may be kept in compiled form."""
        # A checkpoint may have the table twice, or once where the two are the same.
        for part in ("prompt_encoder.shared_embedding", "shared_image_embedding"):
            found = checkpoint.tensor(self._files, f"{self._tensors}{part}.positional_embedding")
            if found is not None:
                return found
        shared: Any = self._pieces.module().prompt_encoder.shared_embedding
        table: np.ndarray = shared.positional_embedding.float().cpu().numpy()
        return table

    def load(self) -> Any:
        """The network of transformers, strictly loaded; float32 on the processor.

        Raises:
            WeightsError: The weights are not those that the config describes; the tensors are named.
        """
        from transformers import Sam2Model, Sam2VideoModel

        if not self.spec.video:
            return checkpoint.load(Sam2Model, self._files, self._name)
        model: Any = checkpoint.load(Sam2VideoModel, self._files, self._name)
        # transformers passes over what only videos need, for the sake of Sam2Model, here too.
        passed = re.compile("|".join(model._keys_to_ignore_on_load_unexpected or ["$^"]))
        known = set(model.state_dict())
        for tensor, _, _ in checkpoint.headers(self._files, self._name):
            if tensor not in known and passed.search(tensor):
                raise WeightsError(
                    f"{self._name}: its weights are not those that its config describes; it has too many: {tensor}",
                    "fetch the checkpoint again, or give another",
                )
        return model

    def prepare(self, *parts: str) -> None:
        """Build several pieces with one reading of the weights."""
        self._pieces.prepare(*parts)

    def close(self) -> None:
        """Give the memory back."""
        self._pieces.close()

    def _blueprint(self, part: str) -> Blueprint:
        outputs: tuple[str, ...]
        if part == "decoder":
            outputs = ("logits", "iou", "there", *(("pointers",) if self.spec.video else ()))
        else:
            outputs = _OUTPUTS[part]
        return Blueprint(
            name=part,
            module=partial(_made, part, self._pieces.module),
            example=partial(_example, part, self.spec, self._widths),
            inputs=_INPUTS[part],
            outputs=outputs,
            shapes=self._shapes(part),
            changes=2 if part == "decoder" else 1,
        )

    def _shapes(self, part: str) -> dict[str, list[int]]:
        """Free sides. The widths of the maps stand in the network, so what has them is given in full."""
        spec = self.spec
        if part == "decoder":
            side, width = spec.low_res, self._widths()[0]
            return {"points": [-1, -1, width], "labels": [-1, -1], "masks": [-1, 1, side, side]}
        if part == "memory_attention":
            width, depth = self._widths()
            cells = spec.cells * spec.cells
            return {"memory": [-1, cells, depth], "slots": [-1], "pointers": [-1, width], "times": [-1]}
        return {}

    def _widths(self) -> tuple[int, int]:
        """Channels of the embedding and of the memory, as the config says."""
        about = checkpoint.config(self._files, self._name)
        width = (about.get("vision_config") or {}).get("fpn_hidden_size", 256)
        return int(width), int(about.get("memory_encoder_output_channels", 64))


class Sam2Decoder:
    """The mask decoder of pictures; a :class:`manylens.models.promptable.decoder.Decoder`.

    Mask 0 is the decoder's own single mask where that is stable, else the best of the others (the reference's "dynamic
    multimask via stability").
    """

    threshold = 0.0

    def __init__(self, networks: Networks) -> None:
        self._networks = networks
        self.side, self.low_res = networks.spec.side, networks.spec.low_res

    def __call__(
        self, scene: Scene, points: np.ndarray, labels: np.ndarray, masks: np.ndarray | None = None
    ) -> Decoded:
        """See :class:`manylens.models.promptable.decoder.Decoder`."""
        found = self._networks.decode(scene, points, labels, masks)
        low_res, iou = found.low_res.copy(), found.iou.copy()
        for row, mask in enumerate(clear(found, self._networks.spec)):
            low_res[row, 0], iou[row, 0] = found.low_res[row, mask], found.iou[row, mask]
        return Decoded(low_res, iou)


def clear(found: Found, spec: Spec) -> np.ndarray:
    """Which mask answers a clear prompt, int ``(B,)``: the single one if its edge is stable, else the best other."""
    single = found.low_res[:, 0]
    if spec.stability_least is None or found.iou.shape[1] == 1:
        return np.zeros(len(single), int)
    inner = (single > spec.stability_delta).sum(axis=(1, 2))
    outer = (single > -spec.stability_delta).sum(axis=(1, 2))
    # As float32, in which the reference compares.
    stability = np.where(outer > 0, inner.astype(np.float32) / np.maximum(outer, 1).astype(np.float32), np.float32(1))
    return np.where(stability >= np.float32(spec.stability_least), 0, best(found))


def best(found: Found) -> np.ndarray:
    """Which of the several masks is thought the best, int ``(B,)``."""
    return 1 + np.argmax(found.iou[:, 1:], axis=1)


_INPUTS: Mapping[str, tuple[str, ...]] = {
    "encoder": ("pixels",),
    "decoder": ("embedding", "finest", "middle", "fresh", "points", "labels", "masks", "given"),
    "memory_encoder": ("embedding", "logits", "sure", "there"),
    "memory_attention": ("embedding", "memory", "slots", "pointers", "times"),
    "mask_shrinker": ("mask",),
}
_OUTPUTS: Mapping[str, tuple[str, ...]] = {
    "encoder": (FINEST, MIDDLE, EMBEDDING),
    "memory_encoder": ("memory",),
    "memory_attention": ("seen",),
    "mask_shrinker": ("logits",),
}


def _made(part: str, loaded: Callable[[], Any]) -> torch.nn.Module:
    from manylens.models.sam2 import parts

    made: Mapping[str, Callable[[Any], torch.nn.Module]] = {
        "encoder": parts.Encoder,
        "decoder": parts.MaskDecoder,
        "memory_encoder": parts.MemoryEncoder,
        "memory_attention": parts.MemoryAttention,
        "mask_shrinker": parts.MaskShrinker,
    }
    return made[part](loaded()).eval()


def _example(part: str, spec: Spec, widths: Callable[[], tuple[int, int]]) -> tuple[torch.Tensor, ...]:
    """Tensors to trace a piece with, of sizes that no other side has by chance."""
    import torch

    width, depth = widths()
    cells, side = spec.cells, spec.side
    embedding = torch.randn(1, width, cells, cells)
    if part == "encoder":
        return (torch.randn(1, 3, side, side),)
    if part == "decoder":
        return (
            embedding,
            torch.randn(1, width // 8, 4 * cells, 4 * cells),
            torch.randn(1, width // 4, 2 * cells, 2 * cells),
            torch.ones(1),
            torch.randn(2, _TRACE_POINTS, width),
            torch.tensor([[1, 0, -1], [2, 3, -1]]),
            torch.randn(2, 1, spec.low_res, spec.low_res),
            torch.ones(1),
        )
    if part == "memory_encoder":
        return embedding, torch.randn(1, 1, side, side), torch.ones(1), torch.ones(1, 1)
    if part == "memory_attention":
        memory = torch.randn(_TRACE_FRAMES, cells * cells, depth)
        pointers, times = torch.randn(_TRACE_POINTERS, width), torch.rand(_TRACE_POINTERS)
        return embedding, memory, torch.arange(_TRACE_FRAMES), pointers, times
    return (torch.rand(1, 1, side, side),)
