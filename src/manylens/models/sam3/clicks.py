"""SAM 3's tracker: that of SAM 2, on the patch tokens that the detector shares.

transformers' ``Sam3TrackerModel`` adds the learnt "no memory" vector to the neck's coarsest map, which the decoder does
not read, so that with the published config it is lost; here it is added to the embedding, as in Meta's own predictor
and in transformers' ``Sam3TrackerVideoModel``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.errors import UnsupportedError
from manylens.media import Image, Video
from manylens.models import checkpoint
from manylens.models.base import Model
from manylens.models.network import Blueprint
from manylens.models.sam2 import spec as sam2_spec
from manylens.models.sam2.model import Sam2
from manylens.models.sam2.networks import PICTURE, Networks, Sam2Decoder
from manylens.models.sam2.tracker import Tracker
from manylens.models.sam3.spec import Spec
from manylens.runtime.context import Context
from manylens.runtime.engines import EngineSettings

if TYPE_CHECKING:
    from manylens.catalog import Row

Trunk = Callable[[Image, Context, bool], np.ndarray]
"""A picture's patch tokens float32 ``(1, N, C)``; the last argument says whether the store keeps them."""


class Clicks(Sam2):
    """Segments and follows what is pointed out, on a trunk that is not its own.

    Args:
        row: The catalog row.
        files: Its files.
        settings: Engine, precision, threads and device.
        spec: The checkpoint's numbers; it has a tracker.
        trunk: Encodes a picture.
    """

    def __init__(self, row: Row, files: Mapping[str, Path], settings: EngineSettings, spec: Spec, trunk: Trunk) -> None:
        Model.__init__(self, row, files, settings)
        self.spec = tracker_spec(spec, row.id)
        self._hash = checkpoint.weights_id(row, files)
        self.networks: TrackerNetworks = TrackerNetworks(files, row.id, self.spec, settings, self._hash, spec)
        self._decoder = Sam2Decoder(self.networks)
        self._trunk = trunk

    def _tracker(self, video: Video) -> Tracker:
        kept: Callable[[Image, Context], Any] = lambda image, ctx: self._scene(image, ctx)[0]  # noqa: E731
        return Tracker(self.networks, video, kept, partial(self._encoded, keep=False))

    def _encoded(self, image: Image, ctx: Context, keep: bool = True) -> Mapping[str, np.ndarray]:
        tokens = self._trunk(image, ctx, keep)
        ctx.check()
        self.networks.prepare(*PICTURE)
        return self.networks.encode(tokens)


class TrackerNetworks(Networks):
    """The pieces of the tracker; the encoder begins with patch tokens."""

    _tensors = "tracker_model."

    def __init__(
        self,
        files: Mapping[str, Path],
        name: str,
        spec: sam2_spec.Spec,
        settings: EngineSettings,
        weights: str,
        whole: Spec,
    ) -> None:
        super().__init__(files, name, spec, settings, weights)
        self._whole = whole

    def load(self) -> Any:
        """The tracker of transformers, strictly loaded; float32 on the processor."""
        from transformers.models.sam3_tracker_video.modeling_sam3_tracker_video import Sam3TrackerVideoModel

        return checkpoint.load(Sam3TrackerVideoModel, self._files, self._name)

    def remember(self, embedding: np.ndarray, logits: np.ndarray, sure: bool, there: float) -> np.ndarray:
        """As SAM 2's, whose masks have the picture's own side; here they are a little larger than that."""
        return super().remember(embedding, _resized(logits, self._remembered), sure, there)

    def shrink(self, mask: np.ndarray) -> np.ndarray:
        """As SAM 2's; the convolution leaves a quarter of the picture's side, which is not that of a prompt."""
        return _resized(super().shrink(mask)[0, 0], self.spec.low_res)[None, None]

    @property
    def _remembered(self) -> int:
        """Side of the mask that the memory encoder takes: sixteen pixels a patch, whatever a patch has."""
        return 4 * self.spec.low_res

    def _widths(self) -> tuple[int, int]:
        assert self._whole.tracker is not None
        return self._whole.width, int(self._whole.tracker.get("memory_encoder_output_channels", 64))

    def _blueprint(self, part: str) -> Blueprint:
        if part == "memory_encoder":
            return replace(super()._blueprint(part), example=self._memory_example)
        if part != "encoder":
            return super()._blueprint(part)

        def module() -> Any:
            from manylens.models.sam3.parts import TrackerNeck

            return TrackerNeck(self._pieces.module()).eval()

        def example() -> Any:
            import torch

            return (torch.randn(1, self._whole.cells**2, self._whole.depth),)

        return Blueprint("sam3-tracker-neck", module, example, ("tokens",), ("finest", "middle", "embedding"))

    def _memory_example(self) -> Any:
        import torch

        spec, width = self.spec, self._whole.width
        masks = torch.randn(1, 1, self._remembered, self._remembered)
        return torch.randn(1, width, spec.cells, spec.cells), masks, torch.ones(1), torch.ones(1, 1)


def _resized(logits: np.ndarray, side: int) -> np.ndarray:
    import cv2

    return cv2.resize(np.ascontiguousarray(logits), (side, side), interpolation=cv2.INTER_LINEAR)


def tracker_spec(spec: Spec, name: str) -> sam2_spec.Spec:
    """The numbers of the tracker, in SAM 2's form.

    Args:
        spec: The checkpoint's numbers.
        name: What to call it in an error.

    Raises:
        UnsupportedError: The checkpoint has no tracker.
    """
    if spec.tracker is None:
        raise UnsupportedError(
            f"{name} is a detector alone: it takes words and examples, no clicks",
            "name one whose model_type is sam3_video",
        )
    # transformers gives its own size to the tracker whatever the prompt encoder's config says.
    prompts = {
        **(spec.tracker.get("prompt_encoder_config") or {}),
        "image_size": spec.side,
        "patch_size": spec.side // spec.cells,
    }
    about = {"max_cond_frame_num": 4, **spec.tracker, "prompt_encoder_config": prompts}
    return sam2_spec.of(about, True, spec.processor, name=name)
