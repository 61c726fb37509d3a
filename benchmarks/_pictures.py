"""Pictures to measure on: seeded crops of the example photographs, and the regions that people drew on photographs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks._harness import ROOT

EXAMPLES = ROOT / "examples"
_LEAST_SHARE = 0.6


def crops(folder: Path, count: int, *, seed: int = 0, size: tuple[int, int] = (640, 480)) -> list[Path]:
    """JPEG files of crops of the examples, no two alike.

    Args:
        folder: Where they go.
        count: How many.
        seed: Of the crops.
        size: ``(width, height)`` of each in pixels.
    """
    from PIL import Image

    rng = np.random.default_rng(seed)
    sources = [
        Image.open(path).convert("RGB") for path in sorted(EXAMPLES.iterdir()) if path.suffix in {".jpg", ".png"}
    ]
    files = []
    for number in range(count):
        source = sources[number % len(sources)]
        # The largest box of the wanted shape, made smaller, somewhere in the picture.
        scale = rng.uniform(_LEAST_SHARE, 1) * min(source.width / size[0], source.height / size[1])
        width, height = size[0] * scale, size[1] * scale
        x, y = rng.uniform(0, source.width - width), rng.uniform(0, source.height - height)
        picture = source.resize(size, Image.Resampling.BICUBIC, box=(x, y, x + width, y + height))
        if rng.random() < 0.5:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        files.append(folder / f"{number:04}.jpg")
        picture.save(files[-1], quality=90)
    return files


@dataclass(frozen=True, eq=False)
class Region:
    """A region that a person drew.

    Attributes:
        image: The photograph.
        mask: bool ``(H, W)``.
        click: ``(x, y)`` well inside, in pixels.
        box: ``xyxy`` in pixels, max exclusive.
    """

    image: Path
    mask: np.ndarray
    click: tuple[float, float]
    box: tuple[float, float, float, float]


def regions(folder: Path | None) -> Iterator[Region]:
    """The regions of ``regions.json`` (COCO instances with a ``click`` each), picture by picture.

    Args:
        folder: Holds ``regions.json`` and the pictures that it names; None for those of the examples.
    """
    from pycocotools import mask as coco

    home = folder if folder is not None else EXAMPLES
    body = json.loads((home / "regions.json").read_text(encoding="utf-8"))
    images = {image["id"]: image for image in body["images"]}
    for row in sorted(body["annotations"], key=lambda row: row["image_id"]):
        image = images[row["image_id"]]
        outline = row["segmentation"]
        if isinstance(outline, list):
            parts = [np.asarray(part, dtype=float).tolist() for part in outline]
            outline = coco.merge(coco.frPyObjects(parts, image["height"], image["width"]))
        x, y, width, height = row["bbox"]
        yield Region(
            image=(folder if folder is not None else EXAMPLES) / image["file_name"],
            mask=coco.decode(outline).astype(bool),
            click=(row["click"][0], row["click"][1]),
            box=(x, y, x + width, y + height),
        )


def iou(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two masks bool ``(H, W)``; 1 for two empty ones."""
    union = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / union if union else 1.0
