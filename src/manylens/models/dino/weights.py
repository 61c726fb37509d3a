"""The weights of a vision transformer under one set of names, from an ONNX file or a folder in the hub's format."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from manylens.errors import WeightsError
from manylens.models import checkpoint
from manylens.models.dino.plan import Plan, Taps, plan
from manylens.models.wire import fields, mapped

# The embedded ViT was tuned for saliency, which bent its last blocks. On crops of photographs (find the other crop of
# the same one) block 9's class token is right 85 % of the time, the last one's 58 %; by class it is the best, too.
FOCUS_TAPS = Taps(vector=9, dense=8, centred=True)

# From the names of each kind, old and new, to those that the graph has; each step that fits is taken.
_RENAMED = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"^(?:vit|dinov2|dinov2_with_registers)\.", ""),
        (r"^(?:layers|encoder\.layer|model\.layer)\.", "blocks."),
        (r"^embeddings\.patch_embeddings\.(?:projection\.)?", "patches."),
        (r"^embeddings\.", ""),
        (r"^layernorm\.", "norm."),
        (r"\.layernorm_before\.", ".norm1."),
        (r"\.layernorm_after\.", ".norm2."),
        (r"\.attention\.attention\.(query|key|value)\.", lambda found: f".attention.{found[1][0]}_proj."),
        (r"\.attention\.output\.dense\.", ".attention.o_proj."),
        (r"\.mlp\.(?:fc1|up_proj)\.", ".mlp.up."),
        (r"\.mlp\.(?:fc2|down_proj)\.", ".mlp.down."),
        (r"\.mlp\.gate_proj\.", ".mlp.gate."),
        (r"\.layer_scale([12])\.lambda1$", r".scale\1"),
    )
)


@dataclass(frozen=True, eq=False)
class Vit:
    """A network.

    Attributes:
        plan: Its shape.
        arrays: float32 arrays by our names, such as ``blocks.0.attention.q_proj.weight``; matrices are ``(out, in)``.
    """

    plan: Plan
    arrays: Mapping[str, np.ndarray]


def named(name: str) -> str:
    """The name here of a parameter of any kind of network, by its name in transformers or in an older checkpoint."""
    for pattern, new in _RENAMED:
        name = pattern.sub(new, name)
    return name


def shape(files: Mapping[str, Path], name: str) -> Plan:
    """The shape of a checkpoint's network, without its weights.

    Raises:
        WeightsError: A file is missing or is not what it should be.
        UnsupportedError: The checkpoint is of another kind of network.
    """
    if exported(files) is not None:
        return read(files, name).plan
    return plan(checkpoint.config(files, name), name)


def read(files: Mapping[str, Path], name: str = "vision transformer") -> Vit:
    """The weights of a checkpoint.

    Args:
        files: ``vit_s_focus.onnx``, or those of a folder in the hub's format.
        name: What to call the checkpoint in an error.

    Raises:
        WeightsError: A file is missing or is not what it should be.
        UnsupportedError: The checkpoint is of another kind of network.
    """
    onnx = exported(files)
    if onnx is not None:
        return _read_onnx(onnx)
    from manylens.models.dino.module import load

    state = load(files, name).state_dict()
    return Vit(shape(files, name), {named(key): tensor.numpy() for key, tensor in state.items()})


def exported(files: Mapping[str, Path]) -> Path | None:
    """The ONNX file among a checkpoint's files, or None."""
    return next((path for name, path in files.items() if name.endswith(".onnx")), None)


def _read_onnx(path: Path) -> Vit:
    """The backbone of the exported saliency network; its decoder is left.

    Linear layers have no names of their own in the file (``onnx::MatMul_1966``): the node that uses one names it.
    """
    try:
        graph = next(value for number, value in fields(mapped(path)) if number == 7)
        tensors = dict(_tensor(value) for number, value in fields(graph) if number == 5)
        nodes = [_node(value) for number, value in fields(graph) if number == 1]
        arrays = {named(name[9:]): array for name, array in tensors.items() if name.startswith("backbone.")}
        for name, inputs in nodes:
            if name.startswith("/backbone/") and name.endswith("/MatMul") and inputs[-1] in tensors:
                arrays[named(name[10:-7].replace("/", ".") + ".weight")] = tensors[inputs[-1]].T
        class_place = next(array for name, array in tensors.items() if name.startswith("onnx::Concat_"))
        places = next(array for name, array in tensors.items() if name.startswith("onnx::Reshape_"))
        arrays["position_embeddings"] = np.concatenate([class_place, places], axis=1)
        kernel = arrays["patches.weight"]
    except (ValueError, KeyError, IndexError, StopIteration) as error:
        raise WeightsError(f"{path.name}: not the ViT that it should be", "pull the model again") from error
    depth = len({name for name in arrays if name.endswith(".norm1.weight")})
    # Only pre-training uses the mask token, which the exported network does not have.
    arrays["mask_token"] = np.zeros((1, kernel.shape[0]), np.float32)
    about = Plan(
        kind="dinov2",
        width=kernel.shape[0],
        depth=depth,
        heads=kernel.shape[0] // 64,
        patch=kernel.shape[-1],
        epsilon=1e-6,
        taps=FOCUS_TAPS,
        grid=round((arrays["position_embeddings"].shape[1] - 1) ** 0.5),
    )
    return Vit(about, arrays)


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
