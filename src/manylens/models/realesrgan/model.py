"""Upscaling by four, tile by tile, so that memory does not grow with the picture."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from manylens.errors import MediaError
from manylens.media import Image
from manylens.models import network
from manylens.models.base import Model
from manylens.models.realesrgan import graphs, ncnn
from manylens.models.realesrgan.tiles import windows
from manylens.runtime.context import Context
from manylens.runtime.engines import EngineSettings
from manylens.tasks import Request, UpscaleRequest
from manylens.tasks.results import Picture

if TYPE_CHECKING:
    import torch

    from manylens.catalog import Row

SCALE = 4
"""What the networks were trained for; twice is four times and a mean over 2 x 2 pixels."""

SIDE = 128
"""Side of a tile in pixels. The widest layer then takes 67 MB, and the network at most about 350 MB."""

MARGIN = 18
"""Pixels around a tile that it sees and does not keep. The 18 layers of the video network see no further, so its tiles
are exactly the whole; the deep network's differ from the whole by less than what an eye sees (see the tests)."""

LARGEST = 1 << 27
"""Pixels of the largest picture that is made: 134 megapixels, 403 MB."""


class RealEsrgan(Model):
    """Serves ``upscale``. What is sharp is not thereby true: details are invented."""

    def __init__(self, row: Row, files: Mapping[str, Path], settings: EngineSettings) -> None:
        super().__init__(row, files, settings)
        self._loading = threading.Lock()
        self._net: network.Network | None = None

    def run(self, requests: Sequence[Request], ctx: Context) -> Iterator[Picture]:
        """Yield each picture with ``scale`` times the pixels along each side.

        Raises:
            MediaError: The result would be larger than :data:`LARGEST`.
        """
        for request in requests:
            assert isinstance(request, UpscaleRequest)
            ctx.check()
            check_size(request.image, request.scale)
            made = enlarged(request.image.array, self._loaded(), scale=request.scale, ctx=ctx)
            ctx.notes.setdefault("notes", []).append(
                "its details are made up to look sharp: compare with the original before trusting them"
            )
            yield Picture(Image.of(made))

    def probe(self) -> Callable[[], np.ndarray]:
        """One tile of noise; see :meth:`manylens.models.base.Model.probe`. Gives its pixels."""
        noise = np.random.default_rng(0).random((1, 3, 64, 64), dtype=np.float32)
        return lambda: np.moveaxis(self._loaded()(noise)[0], 1, -1)

    def _loaded(self) -> network.Network:
        with self._loading:
            if self._net is None:
                self._net = network.build(self._blueprint(), self.settings, self.row.weights_hash)
            return self._net

    def _blueprint(self) -> network.Blueprint:
        def layers() -> list[ncnn.Layer]:
            return ncnn.read(self.files["model.param"], self.files["model.bin"])

        def example() -> Sequence[torch.Tensor]:
            import torch

            return (torch.zeros(1, 3, 32, 32),)

        return network.Blueprint(
            name="upscaler",
            module=lambda: graphs.torch_module(layers()),
            example=example,
            inputs=("image",),
            outputs=("picture",),
            graph=lambda: graphs.openvino_graph(layers()),
        )

    def close(self) -> None:
        """Give the network's memory back."""
        if self._net is not None:
            self._net.close()
            self._net = None


def check_size(image: Image, scale: int) -> None:
    """Refuse a picture whose enlargement would not fit.

    Raises:
        MediaError: Says how large it may be.
    """
    width, height = image.width * scale, image.height * scale
    if width * height > LARGEST:
        raise MediaError(
            f"{image.name}: {scale} times {image.width} x {image.height} is {width * height / 1e6:,.0f} megapixels, "
            f"the most is {LARGEST / 1e6:.0f}",
            "crop it, or upscale by 2" if scale > 2 and width * height / 4 <= LARGEST else "crop it",
        )


def enlarged(
    rgb: np.ndarray,
    net: Callable[[np.ndarray], Sequence[np.ndarray]],
    *,
    scale: int = SCALE,
    side: int = SIDE,
    margin: int = MARGIN,
    ctx: Context | None = None,
) -> np.ndarray:
    """A picture enlarged tile by tile.

    Args:
        rgb: uint8 ``(H, W, 3)``.
        net: float32 ``(1, 3, h, w)`` in 0..1 to the same, four times as wide and high.
        scale: 4, or 2: then each 2 x 2 pixels of the fourfold picture become their mean.
        side: Of a tile in pixels, its margins included.
        margin: What a tile sees around what it keeps, in pixels.
        ctx: Stopped and told of progress after each tile.

    Returns:
        uint8 ``(scale * H, scale * W, 3)``.
    """
    ctx = ctx or Context()
    height, width = rgb.shape[:2]
    made = np.empty((height * scale, width * scale, 3), np.uint8)
    tiles = [(y, x) for y in windows(height, side, margin) for x in windows(width, side, margin)]
    for done, (y, x) in enumerate(tiles, 1):
        ctx.check()
        seen = rgb[y.start : y.stop, x.start : x.stop].astype(np.float32) / 255
        tile = np.asarray(net(np.ascontiguousarray(seen.transpose(2, 0, 1)[None]))[0][0])
        rows, columns = (
            slice((part.kept_from - part.start) * SCALE, (part.kept_to - part.start) * SCALE) for part in (y, x)
        )
        kept = _reduced(tile[:, rows, columns], SCALE // scale)
        made[y.kept_from * scale : y.kept_to * scale, x.kept_from * scale : x.kept_to * scale] = (
            np.rint(kept.clip(0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
        )
        ctx.progress(done / len(tiles), f"tile {done} of {len(tiles)}")
    return made


def _reduced(planes: Any, by: int) -> np.ndarray:
    """``(C, H, W)`` with each square of ``by`` pixels as its mean."""
    if by == 1:
        return np.asarray(planes)
    channels, height, width = planes.shape
    return np.asarray(planes.clip(0, 1).reshape(channels, height // by, by, width // by, by).mean(axis=(2, 4)))
