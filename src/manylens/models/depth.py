"""Depth Anything (Yang et al., 2024) and DPT (Ranftl et al., 2021): how far away each pixel is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from manylens.errors import UnsupportedError
from manylens.media import Image
from manylens.models import checkpoint
from manylens.models.base import Model, Trainable
from manylens.models.network import Blueprint, Sizes
from manylens.models.processor import Processor
from manylens.runtime.context import Context
from manylens.runtime.engines import EngineSettings
from manylens.runtime.store import Key
from manylens.tasks import Depth, DepthRequest, Request

if TYPE_CHECKING:
    import torch

    from manylens.catalog import Row

_CLASSES = {"depth_anything": "DepthAnythingForDepthEstimation", "dpt": "DPTForDepthEstimation"}


class DepthModel(Model):
    """Serves ``depth``: a map at the picture's size, relative or in metres as the checkpoint's config says.

    Relative maps of these families are inverse depth, known up to scale and shift: larger is nearer, and the result
    says so. The network's map is kept; a second call only enlarges it.
    """

    def __init__(self, row: Row, files: Mapping[str, Path], settings: EngineSettings) -> None:
        super().__init__(row, files, settings)
        self._hash = checkpoint.weights_id(row, files)
        self._config = checkpoint.config(files, row.id)
        self.kind: str = self._config["model_type"]
        self._prepare = checkpoint.preprocessing(files, row.id)
        size = checkpoint.sides(self._prepare, row.id, {"height": 384, "width": 384})
        if not {"height", "width"} <= size.keys() or self._prepare.get("do_pad"):
            asked = "pads pictures" if self._prepare.get("do_pad") else f"resizes to {size}"
            raise UnsupportedError(f"{row.id}: its preprocessor_config.json {asked}, which is not known here")
        self._size = (size["width"], size["height"])
        self._multiple = int(self._prepare.get("ensure_multiple_of", 1))
        if self._multiple < 1:
            raise UnsupportedError(f"{row.id}: its preprocessor_config.json makes sides multiples of {self._multiple}")
        halves = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 3}
        self.processor = Processor.of({**halves, **self._prepare, "do_resize": False}, row.id, 0)
        self._networks = Sizes(self._blueprint, settings, self._hash)

    @property
    def metric(self) -> bool:
        """Whether the map is in metres: Depth Anything's config says so; DPT on DINOv2 was trained on metres."""
        if self.kind == "depth_anything":
            return bool(self._config.get("depth_estimation_type") == "metric")
        return (self._config.get("backbone_config") or {}).get("model_type") == "dinov2"

    def run(self, requests: Sequence[Request], ctx: Context) -> Iterator[Depth]:
        """Yield a map float32 ``(H, W)`` for each picture."""
        for request in requests:
            assert isinstance(request, DepthRequest)
            ctx.check()
            settings, version = self.settings, f"depth-{self.row.preprocessing}"
            key = Key(request.image.id, self._hash, version, "map", settings.engine, settings.precision)
            arrays, hit = ctx.store.get_or_compute(key, partial(self._encode, request.image), check=ctx.check)
            ctx.notes["cache"] = hit or "miss"
            width, height = request.image.size
            full = cv2.resize(arrays["map"], (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width)
            yield Depth(full, "metric" if self.metric else "relative", inverse=not self.metric)

    def _encode(self, image: Image) -> dict[str, np.ndarray]:
        return {"map": self.raw(image)}

    def raw(self, image: Image) -> np.ndarray:
        """The network's own map, float32 ``(h, w)``."""
        planes = self.planes(image)[None]
        return self._networks.of(planes.shape[-1], planes.shape[-2])(planes)[0][0]

    def planes(self, image: Image) -> np.ndarray:
        """A picture as the network's float32 ``(3, h, w)``."""
        size = self._resized(image.size) if self._prepare.get("do_resize", True) else image.size
        sized = replace(self.processor, exact=size)
        return sized.normalised(sized.pixels(image.array))

    def trainable(self) -> Trainable:
        """The whole network as a torch module; ``forward`` gives ``depth`` ``(B, h, w)``."""
        model = self._module().requires_grad_(True)

        def preprocess(images: Sequence[Image]) -> torch.Tensor:
            import torch

            return torch.from_numpy(np.stack([self.planes(image) for image in images]))

        encoder = getattr(model, "backbone", None) or model.dpt
        return Trainable(
            model,
            {"encoder": encoder, "decoder": model.neck, "head": model.head},
            list(next(part for name, part in encoder.named_modules() if name.endswith(("encoder.layer", ".layers")))),
            ("query", "key", "value", "q_proj", "k_proj", "v_proj", "fc1", "fc2"),
            preprocess,
            lambda pixels: {"depth": model(pixel_values=pixels).predicted_depth},
        )

    def probe(self) -> Callable[[], np.ndarray]:
        """See :meth:`manylens.models.base.Model.probe`; gives the map of a fixed picture."""
        image = Image.of(np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8))
        return lambda: self.raw(image)

    def close(self) -> None:
        """Give the networks' memory back."""
        self._networks.close()

    def _resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """``(width, height)`` for the network: the side that changes least sets the scale, where aspect is kept."""
        multiple = self._multiple
        scales = [wanted / given for wanted, given in zip(self._size, size, strict=True)]
        if self._prepare.get("keep_aspect_ratio", False):
            scales = [scales[0] if abs(1 - scales[0]) < abs(1 - scales[1]) else scales[1]] * 2
        width, height = (
            max(1, round(scale * side / multiple)) * multiple for scale, side in zip(scales, size, strict=True)
        )
        return width, height

    def _module(self) -> Any:
        import transformers

        return checkpoint.load(getattr(transformers, _CLASSES[self.kind]), self.files, self.row.id)

    def _blueprint(self, width: int, height: int) -> Blueprint:
        def module() -> torch.nn.Module:
            from manylens.models.network import wrapped

            return wrapped(self._module(), lambda model, pixels: model(pixel_values=pixels).predicted_depth)

        def example() -> list[torch.Tensor]:
            import torch

            return [torch.zeros((1, 3, height, width))]

        return Blueprint("depth", module, example, ("pixels",), ("map",), {"pixels": (1, 3, height, width)})
