"""The folder of an adapted model: what it is of, what was changed, and its head; written, read, put together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from manylens.errors import OutputError, WeightsError
from manylens.models import checkpoint
from manylens.models.adapted import heads
from manylens.models.adapted.backbone import Backbone

if TYPE_CHECKING:
    from manylens.models.base import Trainable

MODEL_TYPE = "manylens-adapted"
WEIGHTS = "model.safetensors"
_FORMAT = 1
_HEAD, _ENCODER = "head.", "encoder."


@dataclass(frozen=True)
class Base:
    """The model that was adapted.

    Attributes:
        id: A catalog id, a hub id or a folder.
        weights: Hash of its weights: another checkpoint of the same name is refused.
        licence: Its licence.
        licence_note: Where that is known from.
    """

    id: str
    weights: str
    licence: str = ""
    licence_note: str = ""


@dataclass(frozen=True)
class Spec:
    """What an adapted model is, without its weights.

    Attributes:
        architecture: ``AdaptedClassifier``, ``AdaptedSegmenter``, ``AdaptedMasks``, ``AdaptedDetector``,
            ``AdaptedPromptable``, ``AdaptedEmbedder``: what it can do.
        base: What it was adapted from.
        side: Side in pixels of the squares that it takes.
        head: Name of the head; see :data:`manylens.models.adapted.heads.HEADS`.
        options: Of the head.
        labels: Names of the classes.
        stuff: Those of them that are not counted.
        details: Anything else that the architecture wants to know.
    """

    architecture: str
    base: Base
    side: int
    head: str
    options: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    stuff: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As ``config.json`` has it."""
        values = asdict(self)
        architecture = values.pop("architecture")
        return {"model_type": MODEL_TYPE, "architectures": [architecture], "format": _FORMAT, **values}

    @classmethod
    def read(cls, files: Mapping[str, Path], name: str) -> Spec:
        """Read it from a folder's ``config.json``.

        Raises:
            WeightsError: It is of a later version, or a value is missing.
        """
        values = checkpoint.config(files, name)
        if values.get("format") != _FORMAT:
            raise WeightsError(f"{name}: its format is {values.get('format')}, not {_FORMAT}", "update manylens")
        try:
            return cls(
                architecture=values["architectures"][0],
                base=Base(**values["base"]),
                side=int(values["side"]),
                head=values["head"],
                options={key: tuple(v) if isinstance(v, list) else v for key, v in values["options"].items()},
                labels=tuple(values["labels"]),
                stuff=tuple(values["stuff"]),
                details=values["details"],
            )
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise WeightsError(f"{name}: its config.json lacks something ({error})", "train it again") from error


class Adapted(nn.Module):
    """An encoder with a head: pixels ``(B, 3, H, W)`` in 0..1 to what the head gives."""

    def __init__(self, backbone: Backbone, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """See the head."""
        size = (pixels.shape[-2], pixels.shape[-1])
        return self.head(self.backbone(pixels), size)


def write(folder: Path, spec: Spec, head: Mapping[str, Tensor], encoder: Mapping[str, Tensor]) -> None:
    """Write a model's folder.

    Args:
        folder: Exists.
        spec: What it is.
        head: State of the head.
        encoder: Those tensors of the base model's module that differ from the base's own, by name.

    Raises:
        OutputError: It cannot be written.
    """
    from safetensors.torch import save

    from manylens.runtime.paths import replacing

    state = {f"{_HEAD}{name}": one for name, one in head.items()}
    state |= {f"{_ENCODER}{name}": one for name, one in encoder.items()}
    content = {name: one.detach().cpu().contiguous().clone() for name, one in state.items()}
    try:
        with replacing(folder / WEIGHTS) as file:
            file.write(save(content, {"format": "pt"}))
        with replacing(folder / checkpoint.CONFIG) as file:
            file.write(json.dumps(spec.to_json(), indent=1, ensure_ascii=False).encode())
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written ({error.strerror or error})", "make room, and try again"
        ) from error


def assemble(spec: Spec, base: Trainable, files: Mapping[str, Path], name: str) -> Adapted:
    """The network of a folder: the base's with what was changed, and the head.

    Args:
        spec: Of the folder.
        base: The base model, opened; its module is changed.
        files: Of the folder.
        name: What to call it in an error.

    Raises:
        WeightsError: A tensor is missing, left over or of another shape.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    needs = _needs(spec)
    backbone = Backbone(base, needs)
    head = heads.build(spec.head, backbone.widths, len(spec.labels), spec.options)
    try:
        state = load_file(files[WEIGHTS])
    except (KeyError, OSError, SafetensorError) as error:
        raise WeightsError(f"{name}: its {WEIGHTS} cannot be read ({error})", "train it again") from error
    changed = {key.removeprefix(_ENCODER): one for key, one in state.items() if key.startswith(_ENCODER)}
    try:
        head.load_state_dict({key.removeprefix(_HEAD): one for key, one in state.items() if key.startswith(_HEAD)})
        unknown = backbone.encoder.load_state_dict(changed, strict=False).unexpected_keys
    except RuntimeError as error:
        raise WeightsError(f"{name}: {str(error).splitlines()[-1].strip()}", "train it again") from error
    if unknown:
        raise WeightsError(f"{name}: its base model has no {unknown[0]}", "train it again")
    return Adapted(backbone, head).eval().requires_grad_(False)


def _needs(spec: Spec) -> Sequence[str]:
    """Features that a head wants, before there is one."""
    return tuple(spec.details["needs"])


def differing(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a base model that a training changed.

    Args:
        before: State of the base model as it was.
        after: State now, under the same names.
    """
    return {name: one for name, one in after.items() if name in before and not torch.equal(before[name], one.cpu())}
