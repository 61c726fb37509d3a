"""Tiny pictures of discs and bars, and a fixed random convolution that stands in for an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from manylens.data.records import Annotation, Category, Record
from manylens.media import to_rle

NAMES = ("disc", "bar")
CATEGORIES = tuple(Category(i, name) for i, name in enumerate(NAMES, 1))
COLOURS = np.array([[220, 60, 40], [40, 80, 230]], np.uint8)
SIDE = 64


def picture(seed: int, side: int = SIDE, most: int = 3) -> tuple[np.ndarray, list[tuple[int, np.ndarray]]]:
    """A square uint8 ``(side, side, 3)`` and its objects: class and mask, which do not overlap."""
    random = np.random.default_rng(seed)
    pixels = random.integers(90, 130, (side, side, 3)).astype(np.uint8)
    y, x = np.mgrid[:side, :side] + 0.5
    taken = np.zeros((side, side), bool)
    found: list[tuple[int, np.ndarray]] = []
    for number in range(200):
        kind = int(random.integers(2)) if number else 0
        at, reach = random.uniform(0.15, 0.85, 2) * side, random.uniform(0.1, 0.2) * side
        high = reach if kind == 0 else reach * 0.5
        inside = ((x - at[0]) / reach) ** 2 + ((y - at[1]) / high) ** 2 < 1
        if kind == 1:
            inside = (abs(x - at[0]) < reach) & (abs(y - at[1]) < high)
        if (inside & taken).any() or inside.sum() < 30:
            continue
        taken |= inside
        pixels[inside] = COLOURS[kind]
        found.append((kind, inside))
        if len(found) == most:
            break
    return pixels, found


def records(count: int, folder: Path, side: int = SIDE, names: Sequence[str] = NAMES) -> list[Record]:
    """Records of such pictures, their files written."""
    import PIL.Image

    made = []
    for number in range(count):
        pixels, found = picture(number, side)
        path = folder / f"{number}.png"
        PIL.Image.fromarray(pixels).save(path)
        annotations = tuple(
            Annotation(f"{number}/{i}", names[kind], mask=to_rle(mask), area=float(mask.sum()))
            for i, (kind, mask) in enumerate(found)
        )
        made.append(Record(str(number), path, side, side, "train", annotations=annotations))
    return made


class Encoder(torch.nn.Module):
    """Features on a grid of an eighth of the side, from random convolutions."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.one, self.two = torch.nn.Conv2d(3, 32, 4, 4), torch.nn.Conv2d(32, width, 3, 2, 1)
        self.widths = {"dense": width, "block.0": width, "block.1": width, "block.2": width, "block.3": width}
        self.requires_grad_(False)

    def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        found = self.two(torch.relu(self.one((pixels - 0.5) * 4))).permute(0, 2, 3, 1)
        return dict.fromkeys(self.widths, found)


def tensor(squares: np.ndarray) -> torch.Tensor:
    """Squares uint8 ``(n, side, side, 3)`` as pixels."""
    return torch.from_numpy(squares).permute(0, 3, 1, 2).float() / 255
