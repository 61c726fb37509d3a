"""A model whose explanation is known: it looks at the top left quarter of a picture and nowhere else."""

from __future__ import annotations

import numpy as np
import torch

from manylens.media import Image
from manylens.models.base import Model, Trainable
from manylens.tasks import Classification, Label
from manylens.tasks.results import Caption, Embedding, Match, detections

FAMILY = "tests.audit.explain.fakes:Corner"
SIDE = 32
LABELS = ("tabby", "beagle", "Egyptian cat")


class Corner(Model):
    """ "tabby" is as likely as the top left quarter is bright; the other two share the rest."""

    most = 0

    def run(self, requests, ctx):
        Corner.most = max(Corner.most, len(requests))
        for asked in requests:
            bright = brightness(asked.image)
            match asked.task:
                case "classify":
                    scores = (bright, 0.75 * (1 - bright), 0.25 * (1 - bright))
                    order = np.argsort(scores)[::-1]
                    yield Classification(tuple(Label(LABELS[i], float(scores[i])) for i in order))
                case "embed":
                    yield Embedding(vector=np.array([np.cos(bright), np.sin(bright)], np.float32), space="corner")
                case "detect":
                    width, height = asked.image.size
                    found = [[0, 0, width / 2, height / 2]] if bright > 0.05 else np.zeros((0, 4))
                    yield detections(found, [bright] * len(found), names=["lamp"] * len(found))
                case "match":
                    yield Match(bright, "probability")
                case "caption":
                    yield Caption("a picture")


class OpenCorner(Corner):
    """The same with a torch form."""

    def trainable(self):
        return network(seed=0)


def brightness(image: Image) -> float:
    rgb = image.array
    return float(rgb[: rgb.shape[0] // 2, : rgb.shape[1] // 2].mean() / 255)


class Net(torch.nn.Module):
    """Two convolutions, and a head that reads the mean of the maps' top left quarter."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.second = torch.nn.Sequential(torch.nn.BatchNorm2d(8), torch.nn.Conv2d(8, 16, 3, padding=1, stride=2))
        self.last = torch.nn.ReLU()
        self.head = torch.nn.Linear(16, len(LABELS))

    def forward(self, pixels):
        maps = self.last(self.second(self.first(pixels).relu()))
        half = maps.shape[-1] // 2
        return self.head(maps[..., :half, :half].mean(dim=(2, 3)))


def network(seed: int) -> Trainable:
    torch.manual_seed(seed)
    net = Net().eval()

    def preprocess(images):
        squares = [torch.from_numpy(image.array.copy()).permute(2, 0, 1).float() / 255 for image in images]
        return torch.stack([torch.nn.functional.interpolate(s[None], (SIDE, SIDE))[0] for s in squares])

    return Trainable(
        net,
        {"head": net.head},
        [net.first, net.second],
        (),
        preprocess,
        lambda pixels: {"logits": net(pixels)},
        {"block.0": net.first, "block.1": net.second, "features": net.last},
        labels=LABELS,
    )


def picture(seed: int = 0, height: int = 48, width: int = 64) -> Image:
    """Noise with a bright top left quarter."""
    rgb = np.random.default_rng(seed).integers(0, 90, (height, width, 3), dtype=np.uint8)
    rgb[: height // 2, : width // 2] += 150
    return Image.of(rgb)
