"""Encoders of the training-free segmenter: ViT patch features and HED edges, both run by OpenVINO.

Both graphs are compiled once with dynamic height and width, so a picture of a new shape costs no recompilation.
Nothing here imports torch: the ViT is read from its ONNX file and cut at the wanted block, HED is built
operator by operator from its Keras ``.weights.h5`` file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np

from manylens.runtime.engines import EngineSettings, Precision, compile

PATCH = 14
IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)
CAFFE_MEAN_BGR = np.array([104.00699, 116.66877, 122.67892], np.float32)


def fit_size(height: int, width: int, long_side: int, multiple: int) -> tuple[int, int]:
    """Size (height, width) with ``long_side`` on the longer side, aspect kept, rounded to ``multiple``, not zero."""
    scale = long_side / max(height, width)
    return (
        max(multiple, round(height * scale / multiple) * multiple),
        max(multiple, round(width * scale / multiple) * multiple),
    )


def _resize(rgb: np.ndarray, height: int, width: int) -> np.ndarray:
    shrinks = height < rgb.shape[0] or width < rgb.shape[1]
    return cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


class PatchEncoder:
    """Patch features of a DINOv2-like ViT (Oquab et al., 2023) in ONNX, cut after some of its blocks.

    Args:
        path: the ONNX file.
        blocks: 0-based indices of the blocks to return, features concatenated in this order.
        long_side: the longer side is resized to about this many pixels (aspect kept, multiples of 14).
        precision: 'f32' or 'bf16', always pinned.
        threads: CPU threads.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        blocks: Sequence[int] = (8,),
        long_side: int = 518,
        precision: Precision = "f32",
        threads: int = 2,
    ) -> None:
        self._compiled = compile(
            path,
            EngineSettings(precision=precision, threads=threads),
            outputs=[f"/backbone/encoder/layer.{block}/Add_1_output_0" for block in blocks] + self._heads,
            reshape=[1, 3, -1, -1],
        )
        self._blocks = len(blocks)
        self.long_side = long_side

    _heads: ClassVar[list[str]] = []

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """Encode ``rgb`` (H, W, 3) uint8 to float32 (gh, gw, C): one feature a patch of about H/gh x W/gw pixels."""
        return self._run(rgb)[0]

    def _run(self, rgb: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """The features, and what the heads give."""
        height, width = fit_size(rgb.shape[0], rgb.shape[1], self.long_side, PATCH)
        x = (_resize(rgb, height, width).astype(np.float32) / 255.0 - IMAGENET_MEAN) / IMAGENET_STD
        results = self._compiled(x.transpose(2, 0, 1)[None])
        grid = (height // PATCH, width // PATCH)
        tokens = [tokens[0, 1:].reshape(*grid, -1) for tokens in results[: self._blocks]]
        return np.ascontiguousarray(np.concatenate(tokens, axis=-1), np.float32), results[self._blocks :]

    def close(self) -> None:
        """Give the network's memory back."""
        self._compiled.close()


class SalientPatchEncoder(PatchEncoder):
    """As `PatchEncoder`, with the saliency map of the network's own head from the same run."""

    _heads: ClassVar[list[str]] = ["output_importance"]

    def encode(self, rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Patch features float32 (gh, gw, C) and saliency float32 (h, w) in 0..1 of ``rgb`` (H, W, 3) uint8.

        The saliency is about even over a thing and steps at its outline, also between things that are not salient.
        """
        patches, (saliency,) = self._run(rgb)
        return patches, np.array(saliency[0, 0], np.float32)


class EdgeEncoder:
    """Holistically-nested edge detection (Xie & Tu, ICCV 2015), built as an OpenVINO graph from Keras weights.

    Args:
        path: the ``.weights.h5`` file (VGG16 in blocks ``block1..5``, heads ``dsn1..5``, ``fuse``).
        long_side: pictures whose longer side is above this many pixels are resized down to it, never up.
        precision: 'f32' or 'bf16', always pinned.
        threads: CPU threads.
    """

    def __init__(
        self, path: str | Path, *, long_side: int = 480, precision: Precision = "f32", threads: int = 2
    ) -> None:
        settings = EngineSettings(precision=precision, threads=threads)
        self._compiled = compile(_hed_graph(path), settings, identity=f"hed {Path(path).resolve()}")
        self.long_side = long_side

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """Boundary probability of ``rgb`` (H, W, 3) uint8: float32 (h, w) in 0..1, h and w at most ``long_side``."""
        long_side = min(self.long_side, max(rgb.shape[:2]))
        height, width = fit_size(rgb.shape[0], rgb.shape[1], long_side, 1)
        # Five poolings: below 32 px a side the deepest map would be empty.
        x = _resize(rgb, max(height, 32), max(width, 32))[..., ::-1].astype(np.float32) - CAFFE_MEAN_BGR
        return np.array(self._compiled(x.transpose(2, 0, 1)[None])[0][0, 0], np.float32)

    def close(self) -> None:
        """Give the network's memory back."""
        self._compiled.close()


def _hed_graph(path: str | Path) -> Any:
    """The HED network as an ``openvino.Model``: (1, 3, H, W) BGR minus mean to (1, 1, H, W) probability."""
    import h5py
    import openvino as ov
    from openvino import opset13 as op

    with h5py.File(path, "r") as file:

        def weights(name: str) -> tuple[np.ndarray, np.ndarray]:
            kernel, bias = file[f"{name}/vars/0"][()], file[f"{name}/vars/1"][()]
            return np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)), bias.reshape(1, -1, 1, 1)

        def conv(x: Any, name: str) -> Any:
            kernel, bias = weights(name)
            pad = kernel.shape[2] // 2
            y = op.convolution(x, op.constant(kernel), [1, 1], [pad, pad], [pad, pad], [1, 1])
            return op.add(y, op.constant(bias))

        image = op.parameter([1, 3, -1, -1], np.float32, name="image")
        size = op.gather(op.shape_of(image, "i32"), op.constant([2, 3], np.int32), op.constant(0, np.int32))
        x: Any = image
        sides = []
        for block, depth in enumerate((2, 2, 3, 3, 3), start=1):
            if block > 1:
                # Keras' padding="same" is ceil mode with the extra row and column at the far side.
                x = op.max_pool(x, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2], "ceil", "explicit").output(0)
            for i in range(depth):
                x = op.relu(conv(x, f"block{block}/layers/conv2d" + (f"_{i}" if i else "")))
            side = conv(x, f"dsn{block}")
            if block > 1:
                side = op.interpolate(
                    side,
                    size,
                    "linear_onnx",
                    "sizes",
                    coordinate_transformation_mode="half_pixel",
                    axes=op.constant([2, 3], np.int32),
                )
            sides.append(side)
        fused = op.sigmoid(conv(op.concat(sides, axis=1), "fuse"))
    return ov.Model([fused], [image], "hed")
