"""Pictures of discs and bars with their masks, and the registries with this recipe in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pil

from manylens.data import Dataset
from manylens.data.records import Annotation, Category, Record
from manylens.media import to_rle

WIDTH, HEIGHT = 72, 56


@pytest.fixture(scope="session")
def things(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Ten pictures with a disc and a bar each; the last two are to validate by."""
    root = tmp_path_factory.mktemp("things")
    random = np.random.default_rng(0)
    down, across = np.mgrid[:HEIGHT, :WIDTH]
    records = []
    for number in range(10):
        rgb = random.normal(60, 8, (HEIGHT, WIDTH, 3))
        x, y, radius = random.integers(14, 26), random.integers(16, 40), random.integers(9, 13)
        disc = (across - x) ** 2 + (down - y) ** 2 < radius**2
        left, top = random.integers(40, 50), random.integers(5, 25)
        bar = (across >= left) & (across < left + 18) & (down >= top) & (down < top + 22)
        annotations = []
        for name, mask, colour in (("disc", disc, (220, 60, 40)), ("bar", bar, (40, 200, 90))):
            rgb[mask] = np.array(colour) + random.normal(0, 8, (int(mask.sum()), 3))
            annotations.append(Annotation(f"{number}-{name}", name, mask=to_rle(mask)))
        path = root / f"{number}.png"
        Pil.fromarray(rgb.clip(0, 255).astype(np.uint8)).save(path)
        split = "val" if number >= 8 else "train"
        records.append(Record(str(number), path, WIDTH, HEIGHT, split=split, annotations=tuple(annotations)))
    return Dataset.of(records, [Category(1, "disc"), Category(2, "bar")], name="things")


@pytest.fixture(scope="session")
def picture(things: Dataset) -> Path:
    """A picture of the validation split."""
    return next(iter(things.select(split="val"))).path
