"""Encoders as folders in the hub's format: new ones to begin from, and trained ones to keep."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import nn

from manylens.errors import OutputError, UnsupportedError
from manylens.media.files import atomic_write
from manylens.models.base import Trainable
from manylens.models.checkpoint import quiet
from manylens.models.dino.plan import KINDS
from manylens.models.pixels import IMAGENET_MEAN, IMAGENET_STD
from manylens.training.errors import TrainError
from manylens.training.selfsupervised.opening import plain, without_head
from manylens.training.selfsupervised.options import Options
from manylens.training.selfsupervised.towers import Tower, Vit

SIZES = {"vit-tiny": (192, 12, 3), "vit-small": (384, 12, 6), "vit-base": (768, 12, 12)}
"""Width, blocks and heads by name (Touvron et al., 2021)."""

_CLASSES = {"vit": ("ViTConfig", "ViTModel"), "dinov2": ("Dinov2Config", "Dinov2Model")}


class ScratchOptions(Options):
    """A new vision transformer.

    Attributes:
        size: ``vit-tiny``, ``vit-small`` or ``vit-base``.
        kind: ``dinov2``, whose patches can be masked and whose blocks scale what they add, or ``vit``.
        side: Of its pictures in pixels, whole patches; it takes others too.
        patch: Side of a patch in pixels.
        depth: How many blocks, where not as ``size`` says.
        drop_path: Share of blocks passed over at random, for each picture; ``dinov2`` only.
    """

    size: str = "vit-tiny"
    kind: str = "dinov2"
    side: int = Field(default=224, ge=4)
    patch: int = Field(default=16, ge=2)
    depth: int | None = Field(default=None, ge=1)
    drop_path: float = Field(default=0.0, ge=0, lt=1)


def fresh(options: ScratchOptions, seed: int = 0) -> Any:
    """A network of new weights, float32; the same for the same options and seed.

    Raises:
        TrainError: There is no such size or kind, or the side is not whole patches.
    """
    import transformers

    for key, given, known in (("size", options.size, SIZES), ("kind", options.kind, _CLASSES)):
        if given not in known:
            raise TrainError(f"{key} {given!r}: there is none of that name", f"name one of {', '.join(known)}")
    if options.side % options.patch:
        raise TrainError(
            f"side {options.side}: is not a multiple of the patch's {options.patch} pixels",
            f"give {max(options.side // options.patch, 1) * options.patch}",
        )
    width, depth, heads = SIZES[options.size]
    shape = {
        "hidden_size": width,
        "num_hidden_layers": options.depth or depth,
        "num_attention_heads": heads,
        "image_size": options.side,
        "patch_size": options.patch,
        "layer_norm_eps": 1e-6,
    }
    config, network = (getattr(transformers, name) for name in _CLASSES[options.kind])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if options.kind == "vit":
            shape["intermediate_size"] = 4 * width
            return network(config(**shape), add_pooling_layer=False, use_mask_token=True)
        return network(config(**shape, mlp_ratio=4, drop_path_rate=options.drop_path))


def scratch(folder: Path, options: ScratchOptions | None = None, seed: int = 0) -> Path:
    """Write a new network as a folder that any ``--model`` takes; see :func:`fresh`."""
    options = options or ScratchOptions()
    return save(fresh(options, seed), folder, options.side)


def save(
    what: Trainable | nn.Module,
    folder: Path,
    side: int,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Path:
    """Write an encoder as a folder in the hub's format: the weights, how it is built, how pictures come to it.

    Args:
        what: An opened model, a tower, or a network of transformers; a classifier on it is left.
        folder: Made where it is not there.
        side: Of the squares that pictures are resized to, their aspect not kept.
        mean: What is taken from each channel of pixels in 0..1; of an opened model it is its own.
        std: What the rest is divided by; likewise.

    Raises:
        UnsupportedError: It is no vision transformer of transformers.
        OutputError: The folder cannot be written.
    """
    if isinstance(what, Trainable):
        mean, std = what.mean or mean, what.std or std
    model = _network(what)
    size = {"height": side, "width": side}
    prepared = {
        "image_processor_type": "ViTImageProcessor" if model.config.model_type == "vit" else "BitImageProcessor",
        "do_resize": True,
        "size": size,
        "do_center_crop": False,
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [float(one) for one in mean],
        "image_std": [float(one) for one in std],
    }
    atomic_write(folder / "preprocessor_config.json", json.dumps(prepared, indent=2).encode())
    from safetensors import SafetensorError

    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".part-") as name, quiet():
            # By transformers itself: it knows the names that each kind's tensors have in files.
            model.save_pretrained(name, max_shard_size="100GB")
            # The weights come last: a folder without them is seen to be unfinished.
            for file in ("config.json", "model.safetensors"):
                Path(name, file).replace(folder / file)
    except (OSError, SafetensorError) as error:
        raise OutputError(
            f"{folder}: cannot be written ({error})", "free some space or choose another folder"
        ) from error
    return folder


def _network(what: Trainable | nn.Module) -> Any:
    if isinstance(what, Vit):
        return what.model
    module: Any = what.module if isinstance(what, Trainable) else what
    if isinstance(module, Tower) or getattr(getattr(module, "config", None), "model_type", None) not in KINDS:
        raise UnsupportedError(
            f"{type(module).__name__}: is no vision transformer that the hub's format is written of here",
            f"the kinds are {', '.join(KINDS)}",
        )
    return plain(what) if isinstance(what, Trainable) else without_head(module)
