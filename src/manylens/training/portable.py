"""What of a model runs elsewhere: its networks, what goes into them, and what their numbers mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from manylens.errors import UnsupportedError
from manylens.models import checkpoint
from manylens.models.adapted.encoding import blueprint
from manylens.models.adapted.ensemble import MEMBERS
from manylens.models.adapted.finders import Finders
from manylens.models.adapted.model import AdaptedModel
from manylens.models.adapted.picture import PREPROCESSING, square
from manylens.models.network import Blueprint, wrapped

if TYPE_CHECKING:
    from manylens.media import Image
    from manylens.models.base import Model, Trainable

SQUARES = "squares"
"""The input of every network that sees pictures: uint8 ``(batch, side, side, 3)``, RGB."""

Arrays = Sequence[np.ndarray]

_MEANINGS: dict[str, str] = {
    "logits": "(batch, labels): the softmax of a row is the chance of each label",
    "maps": "(batch, labels, h, w): enlarged to the picture (bilinear), the largest names each pixel's label",
    "classes": "(batch, queries, labels + 1): the softmax is the chance of each label, the last for no object",
    "masks": "(batch, queries, h, w): enlarged to the picture, above 0 is the region of the query",
    "scores": "(batch, places, labels): the sigmoid is the chance of each label",
    "boxes": "(batch, places, 4): x0, y0, x1, y1 in pixels of the square; of boxes of one label that overlap by more "
    "than 0.6, the one with the highest score counts",
    "vector": "(batch, width): the vector of the picture, of length 1, as 'manylens embed' gives it",
    "dense": "(batch, h, w, width): a vector for each patch, not of length 1",
    "picture": "(1, width, h, w): what the decoder needs of a picture",
    "keys": "(1, width, h, w): likewise",
    "low_res": "(prompts, 4, h, w): masks, above 0 within; the first for a clear prompt, three for one that is not",
    "iou": "(prompts, 4): the IoU that each mask is thought to have",
}

_INPUTS: dict[str, str] = {
    SQUARES: "RGB pictures, upright, each resized to the square",
    "points": "(prompts, points, 2): x and y of clicks in pixels of the square",
    "labels": "(prompts, points): 1 object, 0 background, 2 and 3 the corners of a box, -1 none",
}


@dataclass(frozen=True)
class Part:
    """One network of a model.

    Attributes:
        name: Of the part; the file's name begins with it.
        blueprint: Of it; its module is in evaluation mode.
        samples: Makes inputs to compare answers on, of more than one batch size, from squares ``(n, side, side, 3)``.
        maps: Whether its ``logits`` are of pixels.
    """

    name: str
    blueprint: Blueprint
    samples: Callable[[np.ndarray], Iterator[Arrays]]
    maps: bool = False

    def says(self, name: str) -> str:
        """What an input or output is, in a line."""
        if name in self.blueprint.inputs:
            return _INPUTS.get(name) or _MEANINGS.get(name, "")
        return _MEANINGS.get("maps" if self.maps and name == "logits" else name, "")


@dataclass(frozen=True)
class Portable:
    """What is exported of a model.

    Attributes:
        parts: Its networks.
        side: Of the squares in pixels.
        squares: Pictures as uint8 ``(n, side, side, 3)``.
        preprocessing: How these are made, for whoever runs the network elsewhere.
        labels: Names of the classes.
        about: What else is to be known: architecture, head, base, details.
    """

    parts: tuple[Part, ...]
    side: int
    squares: Callable[[Sequence[Image]], np.ndarray]
    preprocessing: Mapping[str, Any]
    labels: tuple[str, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)


def of(model: Model) -> Portable:
    """The networks of a loaded model.

    Args:
        model: On the torch engine.

    Raises:
        UnsupportedError: It has none that takes squares.
    """
    if isinstance(model, AdaptedModel):
        return _of_adapted(model)
    opened = model.trainable()
    if not (opened.mean and opened.side):
        raise UnsupportedError(
            f"{model.row.id}: prepares pictures in a way of its own, which cannot be exported",
            "name a model of 'manylens train', or a vision transformer",
        )
    return _of_encoder(model, opened)


def _of_adapted(model: AdaptedModel) -> Portable:
    if isinstance(model, Finders):
        member = Path(model.row.id) / MEMBERS / model.members[0].name
        raise UnsupportedError(
            f"{model.row.id}: fuses the objects that {len(model.members)} models find, which no one network does",
            f"export its members, such as {member}, or train with --ensemble soup",
        )
    spec = model.spec
    network = model.module()
    if hasattr(getattr(network, "head", None), "decode"):
        parts: tuple[Part, ...] = tuple(_promptable(network, spec.side))
    else:
        drawn = blueprint(f"model {spec.head}", lambda: network, model.outputs, spec.side)
        parts = (Part("model", drawn, _batches, "Segmenter" in spec.architecture),)
    return Portable(
        parts,
        spec.side,
        lambda images: np.stack([square(image.array, spec.side) for image in images]),
        _as_square(spec.side),
        spec.labels,
        {
            "architecture": spec.architecture,
            "head": spec.head,
            "stuff": list(spec.stuff),
            "details": dict(spec.details),
            "base": {"id": _public(spec.base.id), "licence": spec.base.licence, "licence_note": spec.base.licence_note},
        },
    )


def _of_encoder(model: Model, opened: Trainable) -> Portable:
    """A checkpoint that embeds, and may name classes too."""
    network = _Encoder(opened).eval().requires_grad_(False)
    with torch.no_grad():
        outputs = tuple(network(torch.zeros(1, 3, opened.side, opened.side)))
    if not {"vector", "logits"} & set(outputs):
        raise UnsupportedError(
            f"{model.row.id}: answers prompts in a way of its family's own, which is not exported",
            "train with recipe=promptable, whose model is",
        )
    known = checkpoint.PREPROCESSOR in model.files or checkpoint.PROCESSOR in model.files
    prepared: Mapping[str, Any] = _as_square(opened.side)
    if known:
        prepared = {
            "as": f"the checkpoint's {checkpoint.PREPROCESSOR} says, without its do_rescale and do_normalize: "
            "these are inside the network",
            "values": checkpoint.preprocessing(model.files, model.row.id),
        }
    mean, std = (torch.tensor(one).view(1, 3, 1, 1) for one in (opened.mean, opened.std))

    def squares(images: Sequence[Image]) -> np.ndarray:
        levels = (opened.preprocess(images) * std + mean) * 255
        return levels.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()

    drawn = blueprint("model encoder", lambda: network, outputs, opened.side)
    return Portable(
        (Part("model", drawn, _batches),), opened.side, squares, prepared, opened.labels, {"family": model.row.family}
    )


def _promptable(network: Any, side: int) -> Iterator[Part]:
    """Two networks as SAM has them: a picture is encoded once, and asked of as often as one likes."""
    from manylens.models.adapted.heads.promptable import Embedding, Prompts

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, pixels: Tensor) -> dict[str, Tensor]:
            return self.network.head.embed(self.network.backbone(pixels))._asdict()

    def decode(head: Any, *given: Tensor) -> tuple[Tensor, Tensor]:
        picture, keys, points, labels = given
        prompts = Prompts(points, labels, torch.zeros_like(labels[:, 0]))
        found = head.decode(Embedding(picture, keys), (side, side), prompts)
        return found["masks"], found["iou"]

    encoder = blueprint("encoder", Encoder, ("picture", "keys"), side)
    yield Part("encoder", encoder, _batches)

    def maps(squares: np.ndarray) -> list[Tensor]:
        with torch.no_grad():
            return list(encoder.module()(torch.from_numpy(squares[:1])))

    def example() -> list[Tensor]:
        points = torch.tensor([[[3.0, 4.0], [9.0, 8.0], [0.0, 0.0]]] * 2)
        return [*maps(np.zeros((1, side, side, 3), np.uint8)), points, torch.tensor([[1, 0, -1], [2, 3, 1]])]

    def samples(squares: np.ndarray) -> Iterator[Arrays]:
        shown = [one.numpy() for one in maps(squares)]
        random = np.random.default_rng(0)
        for prompts, points in ((1, 1), (5, 2)):
            places = random.uniform(0, side, (prompts, points, 2)).astype(np.float32)
            yield [*shown, places, np.ones((prompts, points), np.int64)]

    inputs = ("picture", "keys", "points", "labels")
    shapes = {"points": (-1, -1, 2), "labels": (-1, -1)}
    drawn = Blueprint("decoder", lambda: wrapped(network.head, decode), example, inputs, ("low_res", "iou"), shapes)
    yield Part("decoder", drawn, samples)


class _Encoder(nn.Module):
    """Pixels in 0..1 to what a user of an encoder wants of it, by name."""

    mean: Tensor
    std: Tensor

    def __init__(self, opened: Trainable) -> None:
        super().__init__()
        self.module = opened.module
        self._opened: Any = (opened,)  # in a tuple, so that torch does not look for modules in it
        self.register_buffer("mean", torch.tensor(opened.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(opened.std).view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        found = self._opened[0].forward((pixels - self.mean) / self.std)
        kept = {"vector": found.get("image"), "dense": found.get("dense"), "logits": found.get("logits")}
        return {name: one for name, one in kept.items() if one is not None}


def _batches(squares: np.ndarray) -> Iterator[Arrays]:
    """One picture, then all: a batch that the network was not traced with."""
    yield [squares[:1]]
    yield [squares]


def _as_square(side: int) -> dict[str, Any]:
    return {
        "version": PREPROCESSING,
        "size": [side, side],
        "keep_aspect": False,
        "upright": "by EXIF",
        "interpolation": "area where the longer side shrinks, else bicubic (OpenCV's INTER_AREA and INTER_CUBIC)",
        "normalisation": "inside the network",
    }


def _public(id: str) -> str:
    """A name that says nothing of this machine."""
    return Path(id).name if Path(id).is_absolute() else id
