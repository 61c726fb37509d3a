"""What a vision transformer is made of, read from a checkpoint's ``config.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from manylens.errors import UnsupportedError, WeightsError

KINDS = ("vit", "dinov2", "dinov2_with_registers", "dinov3_vit")
"""Values of ``model_type`` that are read; ``vit`` is also what DINO's checkpoints say."""

_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh", "silu": "silu", "relu": "relu"}
_USUAL: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "image_size": 224,
    "patch_size": 16,
    "num_channels": 3,
}
# What transformers takes where a config leaves it out; written down, since its config classes import torch.
DEFAULTS: dict[str, dict[str, Any]] = {
    "vit": _USUAL | {"layer_norm_eps": 1e-12},
    "dinov2": _USUAL | {"patch_size": 14, "use_swiglu_ffn": False},
    "dinov2_with_registers": _USUAL | {"use_swiglu_ffn": False, "num_register_tokens": 4},
    "dinov3_vit": _USUAL
    | {
        "hidden_size": 384,
        "num_attention_heads": 6,
        "layer_norm_eps": 1e-5,
        "rope_theta": 100.0,
        "use_gated_mlp": False,
        "num_register_tokens": 0,
    },
}
_CLASSIFIERS: dict[str, Literal["", "token", "both"]] = {
    "ViTForImageClassification": "token",
    "Dinov2ForImageClassification": "both",
    "Dinov2WithRegistersForImageClassification": "both",
}


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


@dataclass(frozen=True)
class Plan:
    """The shape of a network.

    Attributes:
        kind: One of :data:`KINDS`.
        width: Channels.
        depth: Blocks.
        heads: Attention heads.
        patch: Side of a patch in pixels.
        epsilon: Of the layer norms.
        taps: Where it is read.
        grid: Side of the table of learned positions; 0 where positions are rotations.
        antialiased: Whether that table is resized with antialiasing.
        theta: Base of the periods of rotary positions; None where positions are learned.
        registers: Tokens between the class token and the patches.
        activation: ``gelu``, ``tanh`` (the approximate GELU), ``silu`` or ``relu``.
        gated: Whether a gate goes over the hidden channels of each MLP.
        head: What the classifier reads: ``token``, ``both`` (the class token and the mean patch), or "" for none.
        labels: Names of the classes.
        several: Whether its classes are no choice of one: a picture may be of many, or of a degree.
    """

    kind: str
    width: int
    depth: int
    heads: int
    patch: int
    epsilon: float
    taps: Taps
    grid: int = 0
    antialiased: bool = False
    theta: float | None = None
    registers: int = 0
    activation: str = "gelu"
    gated: bool = False
    head: Literal["", "token", "both"] = ""
    labels: tuple[str, ...] = ()
    several: bool = False

    @property
    def fractions(self) -> bool:
        """Whether its pictures come with fractions of a level: its own processor resizes without rounding."""
        return self.kind == "dinov3_vit"

    @property
    def prefix(self) -> int:
        """Tokens before the patches."""
        return 1 + self.registers


def plan(config: Mapping[str, Any], name: str) -> Plan:
    """Read a config; what it leaves out is as in transformers.

    Args:
        config: A ``config.json``.
        name: What to call the checkpoint in an error.

    Raises:
        UnsupportedError: It is of another kind of network, or asks for a part that is not known here.
        WeightsError: A value is not what it should be.
    """
    kind = config.get("model_type")
    if kind not in KINDS:
        raise UnsupportedError(
            f"{name}: {kind or 'no model_type'}: this kind of network is not read here",
            f"the kinds that are read are {', '.join(KINDS)}",
        )
    full = DEFAULTS[kind] | dict(config)
    try:
        depth, rotary = int(full["num_hidden_layers"]), kind == "dinov3_vit"
        swiglu = bool(full.get("use_swiglu_ffn"))
        # The gate of DINOv2's giant is a SiLU whatever the config says.
        activation = "silu" if swiglu else full["hidden_act"]
        patch = _square(full["patch_size"], "patch_size", name)
        built = [_CLASSIFIERS[one] for one in full.get("architectures") or () if one in _CLASSIFIERS]
        head = built[0] if built else ""
        found = Plan(
            kind=kind,
            width=int(full["hidden_size"]),
            depth=depth,
            heads=int(full["num_attention_heads"]),
            patch=patch,
            epsilon=float(full["layer_norm_eps"]),
            taps=Taps(vector=depth - 1, dense=depth - 1, normed=True),
            grid=0 if rotary else _square(full["image_size"], "image_size", name) // patch,
            antialiased=kind == "dinov2_with_registers",
            theta=float(full["rope_theta"]) if rotary else None,
            registers=int(full.get("num_register_tokens", 0)),
            activation=_ACTIVATIONS.get(activation, ""),
            gated=swiglu or bool(full.get("use_gated_mlp")),
            head=head,
            labels=_labels(full) if head else (),
            several=full.get("problem_type") in ("multi_label_classification", "regression"),
        )
        counts = (found.width, found.depth, found.heads, found.patch, 1 if rotary else found.grid)
        whole = found.width % found.heads == 0 and min(counts) > 0 and found.registers >= 0
    except (TypeError, ValueError, KeyError, ZeroDivisionError) as error:
        raise WeightsError(
            f"{name}: its config.json holds what is no number ({error})", "fetch the checkpoint again"
        ) from error
    if not found.activation or full["num_channels"] != 3:
        asked = f"hidden_act {activation!r}" if not found.activation else f"{full['num_channels']} channels"
        raise UnsupportedError(f"{name}: its config asks for {asked}, which is not known here")
    if not whole:
        raise WeightsError(
            f"{name}: its config.json describes no network ({found.width} channels, {found.heads} heads, "
            f"{found.depth} blocks)",
            "fetch the checkpoint again",
        )
    return found


def _square(value: Any, field: str, name: str) -> int:
    sides = {int(side) for side in (value if isinstance(value, list | tuple) else [value])}
    if len(sides) != 1:
        raise UnsupportedError(f"{name}: its config has a {field} of {value}, and only squares are known here")
    return sides.pop()


def _labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the classes in the order of their numbers."""
    names = config.get("id2label") or {number: f"LABEL_{number}" for number in range(config.get("num_labels", 2))}
    return tuple(str(name) for _, name in sorted(names.items(), key=lambda pair: int(pair[0])))
