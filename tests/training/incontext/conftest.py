"""A tiny SegGPT, the recipe in its table, and pictures of discs and bars."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pil
from transformers import SegGptConfig, SegGptForImageSegmentation

from manylens.data import Dataset
from manylens.data.records import Annotation, Category, Record
from manylens.media import to_rle
from tests.models.hub import kit
from tests.models.hub.test_seggpt import CONFIG, PROCESSOR, SIDE


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_seggpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = kit.noisy(SegGptForImageSegmentation(SegGptConfig(**CONFIG)), seed=1)
    return kit.save(model, tmp_path_factory.mktemp("seggpt"), preprocessor_config=PROCESSOR)


@pytest.fixture(scope="session")
def things(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Nine pictures, the last three to validate by: a disc in the first of each three, a bar in the second, both in the
    third, which has a crowd too.
    """
    root = tmp_path_factory.mktemp("things")
    random = np.random.default_rng(0)
    down, across = np.mgrid[:SIDE, :SIDE]
    records = []
    for number in range(9):
        rgb = random.normal(60, 8, (SIDE, SIDE, 3))
        disc = (across - random.integers(7, 12)) ** 2 + (down - random.integers(8, 24)) ** 2 < random.integers(30, 50)
        left, top = random.integers(18, 22), random.integers(2, 10)
        bar = (across >= left) & (across < left + 9) & (down >= top) & (down < top + 14)
        crowd = (down >= 28) & (across >= 18)
        named = {"disc": disc, "bar": bar, "crowd": crowd}
        shown = (("disc",), ("bar",), ("disc", "bar", "crowd"))[number % 3]
        colours = {"disc": (220, 60, 40), "bar": (40, 200, 90), "crowd": (40, 90, 200)}
        annotations = []
        for name in shown:
            rgb[named[name]] = colours[name]
            category = "disc" if name == "crowd" else name
            rle = to_rle(named[name])
            annotations.append(Annotation(f"{number}-{name}", category, mask=rle, crowd=name == "crowd"))
        path = root / f"{number}.png"
        Pil.fromarray(rgb.clip(0, 255).astype(np.uint8)).save(path)
        split = "val" if number >= 6 else "train"
        records.append(Record(str(number), path, SIDE, SIDE, split=split, annotations=tuple(annotations)))
    return Dataset.of(records, [Category(1, "disc"), Category(2, "bar")], name="things")
