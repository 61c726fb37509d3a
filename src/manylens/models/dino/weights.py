"""The weights of a DINOv2-like ViT under one set of names, from an ONNX file or from a folder in the hub's format."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from manylens.errors import UnsupportedError, WeightsError
from manylens.models.wire import fields, mapped

# Older checkpoints name the parts of attention otherwise than transformers does now.
_RENAMED = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}
_OLD_NAME = re.compile("|".join(map(re.escape, _RENAMED)))


@dataclass(frozen=True)
class Taps:
    """Where a network is read.

    Attributes:
        vector: Block (from 0) whose class token stands for the picture.
        dense: Block (from 0) whose patch tokens stand for the patches.
        normed: Whether the final layer norm goes over them; it belongs to the last block.
        centred: Whether the mean over pictures is taken from the vector.
    """

    vector: int
    dense: int
    normed: bool = False
    centred: bool = False

    @property
    def last(self) -> int:
        """The last block that has to run."""
        return max(self.vector, self.dense)


# The embedded ViT was tuned for saliency, which bent its last blocks. On crops of photographs (find the other crop of
# the same one) block 9's class token is right 85 % of the time, the last one's 58 %; by class it is the best, too.
FOCUS_TAPS = Taps(vector=9, dense=8, centred=True)


@dataclass(frozen=True)
class Vit:
    """A network's weights and shape.

    Attributes:
        arrays: float32 arrays by the names of ``transformers.Dinov2Model``; matrices are ``(out, in)``.
        width: Channels.
        depth: Blocks.
        heads: Attention heads.
        patch: Side of a patch in pixels.
        epsilon: Of the layer norms.
        taps: Where it is read.
    """

    arrays: Mapping[str, np.ndarray]
    width: int
    depth: int
    heads: int
    patch: int
    epsilon: float
    taps: Taps

    @property
    def grid(self) -> int:
        """Side of the grid of position embeddings."""
        return round((self.arrays["embeddings.position_embeddings"].shape[1] - 1) ** 0.5)

    def positions(self, rows: int, columns: int) -> np.ndarray:
        """Position embeddings for another grid, resized as torch does (bicubic): ``(1 + rows * columns, D)``."""
        table = self.arrays["embeddings.position_embeddings"][0]
        old = table[1:].reshape(self.grid, self.grid, -1)
        new = np.einsum("yr,xc,rcd->yxd", _bicubic(self.grid, rows), _bicubic(self.grid, columns), old)
        return np.concatenate([table[:1], new.reshape(rows * columns, -1)]).astype(np.float32)


def _bicubic(old: int, new: int) -> np.ndarray:
    """The matrix ``(new, old)`` of a bicubic resize (a = -0.75, half-pixel centres, edges repeated)."""
    if old == new:
        return np.eye(old)
    centre = (np.arange(new) + 0.5) * old / new - 0.5
    matrix = np.zeros((new, old))
    for step in range(-1, 3):
        source = np.floor(centre).astype(int) + step
        distance = np.abs(centre - source)
        near = (1.25 * distance - 2.25) * distance**2 + 1
        far = -0.75 * (((distance - 5) * distance + 8) * distance - 4)
        np.add.at(matrix, (np.arange(new), np.clip(source, 0, old - 1)), np.where(distance <= 1, near, far))
    return matrix


def read(files: Mapping[str, Path]) -> Vit:
    """The weights of a checkpoint.

    Args:
        files: ``vit_s_focus.onnx``, or ``config.json`` and ``model.safetensors``.

    Raises:
        WeightsError: A file is missing or is not what it should be.
        UnsupportedError: The checkpoint is of another kind of network.
    """
    onnx = next((path for name, path in files.items() if name.endswith(".onnx")), None)
    if onnx is not None:
        return _read_onnx(onnx)
    for name in ("config.json", "model.safetensors"):
        if name not in files:
            raise WeightsError(f"{name}: not among the checkpoint's files", "give a folder in the hub's format")
    return _read_folder(json.loads(files["config.json"].read_text(encoding="utf-8")), files["model.safetensors"])


def _read_folder(config: Mapping[str, Any], path: Path) -> Vit:
    from safetensors.numpy import load_file

    kind = config.get("model_type")
    if kind != "dinov2" or config.get("use_swiglu_ffn"):
        raise UnsupportedError(
            f"{kind or 'checkpoint'}: this kind of network is not read yet", "name a DINOv2 (small, base or large)"
        )
    arrays = {_name(name.removeprefix("dinov2.")): array for name, array in load_file(path).items()}
    depth = config["num_hidden_layers"]
    taps = Taps(vector=depth - 1, dense=depth - 1, normed=True)
    heads, patch = config["num_attention_heads"], config["patch_size"]
    return Vit(arrays, config["hidden_size"], depth, heads, patch, config.get("layer_norm_eps", 1e-6), taps)


def _read_onnx(path: Path) -> Vit:
    """The backbone of the exported saliency network; its decoder is left.

    Linear layers have no names of their own in the file (``onnx::MatMul_1966``): the node that uses one names it.
    """
    try:
        graph = next(value for number, value in fields(mapped(path)) if number == 7)
        tensors = dict(_tensor(value) for number, value in fields(graph) if number == 5)
        nodes = [_node(value) for number, value in fields(graph) if number == 1]
        arrays = {_name(name[9:]): array for name, array in tensors.items() if name.startswith("backbone.")}
        for name, inputs in nodes:
            if name.startswith("/backbone/") and name.endswith("/MatMul") and inputs[-1] in tensors:
                arrays[_name(name[10:-7].replace("/", ".") + ".weight")] = tensors[inputs[-1]].T
        class_place = next(array for name, array in tensors.items() if name.startswith("onnx::Concat_"))
        places = next(array for name, array in tensors.items() if name.startswith("onnx::Reshape_"))
        arrays["embeddings.position_embeddings"] = np.concatenate([class_place, places], axis=1)
        kernel = arrays["embeddings.patch_embeddings.projection.weight"]
    except (ValueError, KeyError, IndexError, StopIteration) as error:
        raise WeightsError(f"{path.name}: not the ViT that it should be", "pull the model again") from error
    depth = len({name for name in arrays if name.endswith(".norm1.weight")})
    return Vit(arrays, kernel.shape[0], depth, kernel.shape[0] // 64, kernel.shape[-1], 1e-6, FOCUS_TAPS)


def _tensor(data: memoryview) -> tuple[str, np.ndarray]:
    dims, name, raw = [], "", memoryview(b"")
    for number, value in fields(data):
        if number == 1:
            dims.append(value)
        elif number == 8:
            name = bytes(value).decode()
        elif number == 9:
            raw = value
    size = int(np.prod(dims))
    wanted = name.startswith(("backbone.", "onnx::")) and len(raw) == 4 * size
    return name, np.frombuffer(raw, np.float32).reshape(dims) if wanted else np.empty(0, np.float32)


def _node(data: memoryview) -> tuple[str, list[str]]:
    name, inputs = "", []
    for number, value in fields(data):
        if number == 1:
            inputs.append(bytes(value).decode())
        elif number == 3:
            name = bytes(value).decode()
    return name, inputs


def _name(name: str) -> str:
    return _OLD_NAME.sub(lambda match: _RENAMED[match[0]], name)
