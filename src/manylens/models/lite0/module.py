"""EfficientNet-Lite0 as a torch module; parameters are named as in the published checkpoint.

The "lite" networks leave out squeeze-and-excite, keep stem and head at their width, and clip activations at 6. Their
convolutions pad as TensorFlow's ``SAME`` does: where one pixel is left over it goes right and below.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from manylens.errors import WeightsError
from manylens.models.base import Trainable
from manylens.models.imagenet import square
from manylens.models.lite0.model import SIDE

if TYPE_CHECKING:
    from manylens.media import Image

# repeats, kernel, stride, expansion, channels out: table 1 of the paper, unscaled
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM, _HEAD, _LABELS = 32, 1280, 1000
_EPSILON = 1e-3


class _SameConv(nn.Conv2d):
    """A convolution without bias whose output has ``ceil(size / stride)`` pixels."""

    def __init__(self, inside: int, outside: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inside, outside, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        rows, columns = (max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in x.shape[-2:])
        x = functional.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        return super().forward(x)


class _Block(nn.Module):
    """An inverted bottleneck: wider, along the picture, narrower; with a way past it where the shape stays."""

    def __init__(self, inside: int, outside: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inside * expansion
        self._expands, self._skips = expansion > 1, stride == 1 and inside == outside
        if self._expands:
            self._expand_conv = _SameConv(inside, wide, 1)
            self._bn0 = nn.BatchNorm2d(wide, eps=_EPSILON)
        self._depthwise_conv = _SameConv(wide, wide, kernel, stride, groups=wide)
        self._bn1 = nn.BatchNorm2d(wide, eps=_EPSILON)
        self._project_conv = _SameConv(wide, outside, 1)
        self._bn2 = nn.BatchNorm2d(outside, eps=_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu6(self._bn0(self._expand_conv(x))) if self._expands else x
        y = functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self._skips else y


class Lite0Net(nn.Module):
    """Pixels ``(B, 3, H, W)`` to logits ``(B, 1000)``."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = _SameConv(3, _STEM, 3, 2)
        self._bn0 = nn.BatchNorm2d(_STEM, eps=_EPSILON)
        self._blocks = nn.ModuleList()
        inside = _STEM
        for repeats, kernel, stride, expansion, outside in _STAGES:
            for number in range(repeats):
                self._blocks.append(_Block(inside, outside, kernel, stride if number == 0 else 1, expansion))
                inside = outside
        self._conv_head = _SameConv(inside, _HEAD, 1)
        self._bn1 = nn.BatchNorm2d(_HEAD, eps=_EPSILON)
        self._last = nn.ReLU6()
        self._fc = nn.Linear(_HEAD, _LABELS)

    def maps(self, pixels: Tensor) -> Tensor:
        """The last maps before they are pooled, ``(B, 1280, H / 32, W / 32)``."""
        x = functional.relu6(self._bn0(self._conv_stem(pixels)))
        for block in self._blocks:
            x = block(x)
        return self._last(self._bn1(self._conv_head(x)))

    def forward(self, pixels: Tensor) -> Tensor:
        """See the class."""
        return self._fc(self.maps(pixels).mean(dim=(2, 3)))


def load(path: Path) -> Lite0Net:
    """The network with its weights, in evaluation mode.

    Raises:
        WeightsError: The file is not the checkpoint that it should be.
    """
    net = Lite0Net()
    try:
        net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True), strict=True)
    except Exception as error:  # the reader fails in many ways on a broken file, with errors of no common kind
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise WeightsError(f"{path.name}: not the network that it should be ({reason[0]})", "pull it again") from error
    return net.eval()


def normalised(squares: np.ndarray) -> Tensor:
    """uint8 ``(N, S, S, 3)`` to the network's float32 ``(N, 3, S, S)``."""
    pixels = torch.from_numpy(np.ascontiguousarray(squares)).permute(0, 3, 1, 2)
    return (pixels.float() - 127) / 128


def trainable(path: Path, labels: Sequence[str]) -> Trainable:
    """A copy of the network of its own, opened for training and explanation."""
    net = load(path)

    def preprocess(images: Sequence[Image]) -> Tensor:
        return normalised(np.stack([square(image.array, SIDE) for image in images]))

    def forward(pixels: Tensor) -> dict[str, Tensor]:
        maps = net.maps(pixels)
        pooled = maps.mean(dim=(2, 3))
        return {
            "logits": net._fc(pooled),
            "vector": pooled,
            "image": functional.normalize(pooled, dim=-1),
            "dense": maps.permute(0, 2, 3, 1),
        }

    blocks = list(net._blocks)
    taps: dict[str, nn.Module] = {f"block.{i}": block for i, block in enumerate(blocks)}
    taps["features"] = net._last
    targets = ("_expand_conv", "_project_conv", "_conv_head", "_fc")
    parts = {"encoder": net, "head": net._fc}
    return Trainable(
        net,
        parts,
        blocks,
        targets,
        preprocess,
        forward,
        taps,
        labels=tuple(labels),
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
        side=SIDE,
    )
