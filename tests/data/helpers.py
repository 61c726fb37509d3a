"""Small data sets for the tests."""

from pathlib import Path

import numpy as np
import PIL.Image

from manylens.data import Annotation, Category, Record, rle

CATEGORIES = (Category(1, "cat", supercategory="animal"), Category(7, "grass", is_thing=False))
MASK = rle.packed({"size": [10, 20], "counts": [0, 10, 190]})  # the first column


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (20, 10)) -> Path:
    """A PNG of that ``(width, height)`` that no other seed gives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(path)
    return path


def record(i: int, **changes) -> Record:
    """A record with two annotations and columns of every type."""
    fields = {
        "id": f"img{i}",
        "path": Path(f"pictures/{i}.png"),
        "width": 20,
        "height": 10,
        "split": "val" if i % 4 == 0 else "train",
        "label": "cat" if i % 2 else "",
        "annotations": (
            Annotation(f"a{i}", "cat", (1.0, 2.0, 5.5, 6.0), None, 18.0, columns={"text": f"t{i}"}),
            Annotation(f"b{i}", "grass", None, MASK, 10.0, crowd=True, ignore=True, columns={"answers": ["x", "y"]}),
        ),
        "columns": {"site": f"s{i % 3}", "age": i, "score": i / 4, "checked": i % 2 == 0, "captions": [f"c{i}", "d"]},
    }
    return Record(**{**fields, **changes})


def records(count: int) -> list[Record]:
    return [record(i) for i in range(count)]
