"""Pictures of discs and bars with their masks, and the registries with this recipe in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pil

from manylens import models
from manylens.catalog import families
from manylens.data import Dataset
from manylens.data.records import Annotation, Category, Record
from manylens.media import to_rle
from manylens.models.adapted import heads
from manylens.training import recipes

WIDTH, HEIGHT = 72, 56


@pytest.fixture
def wired(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe and its model, where the tables do not have them yet."""
    known = recipes.Known
    for name, place in (("promptable", "promptable:Promptable"), ("sam", "sam:Sam")):
        if name not in recipes.RECIPES:
            monkeypatch.setitem(recipes.RECIPES, name, known("segment", place, "masks for clicks and boxes"))
    if "promptable" not in heads.HEADS:
        monkeypatch.setitem(heads.HEADS, "promptable", "promptable:Promptable")
    if "adapted-promptable" not in models.FAMILIES:
        place = "manylens.models.adapted.promptable:AdaptedPromptable"
        monkeypatch.setitem(models.FAMILIES, "adapted-promptable", place)
        family = families.Family(
            name="adapted-promptable",
            model_types=("manylens-adapted",),
            architectures=("AdaptedPromptable",),
            pipelines=(),
            tasks={"segment": frozenset({"points", "box", "mask", "everything"})},
            engines=("openvino", "torch"),
        )
        before = families.families()
        monkeypatch.setattr(families, "families", lambda: (family, *before))


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
