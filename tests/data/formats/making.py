"""What the tests of the formats share: pictures on disk, random records, and writing and reading again."""

from pathlib import Path

import numpy as np
import PIL.Image
from hypothesis import strategies as st

from manylens.data import formats
from manylens.data.dataset import Dataset
from manylens.data.problems import Problems
from manylens.data.records import Annotation, Category, Record
from manylens.media import bounds, to_rle

WIDTH, HEIGHT = 7, 5

# Words that files and folders can be named by, with blanks, dots, quotes, commas and other scripts in them.
words = st.text(st.sampled_from("ab Zü字.,;'\"#%|{}[]"), min_size=1, max_size=6).filter(
    lambda word: word == word.strip() and not word.startswith(".") and not word.endswith(".")
)
masks = (
    st.lists(st.booleans(), min_size=WIDTH * HEIGHT, max_size=WIDTH * HEIGHT)
    .filter(any)
    .map(lambda on: np.array(on).reshape(HEIGHT, WIDTH))
)


def picture(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", size, "gray").save(path)
    return path


def label_png(path: Path, values, mode: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = PIL.Image.fromarray(np.asarray(values))
    if mode == "P":
        image = PIL.Image.fromarray(np.asarray(values), "L")
        image.putpalette(list(range(256)) * 3)
    image.save(path)
    return path


def rle(on) -> dict:
    return dict(to_rle(np.asarray(on)))


def part(id: str, on=None, **fields) -> Annotation:
    """An annotation with what is checked and mended filled in."""
    if on is None:
        return Annotation(id, **fields)
    x0, y0, x1, y1 = bounds(np.asarray(on))
    fields = {"box": (float(x0), float(y0), float(x1), float(y1)), "area": float(np.sum(on))} | fields
    return Annotation(id, mask=rle(on), **fields)


def read(name: str, source: Path, images: Path | None = None, strict: bool = False):
    """Categories, records and problems."""
    problems = Problems(strict=strict)
    found = formats.get(name).read(source, images, problems)
    return found.categories, list(found.records), problems


def again(name: str, records: list[Record], categories: tuple[Category, ...], target: Path):
    """Write records, and read what was written."""
    written = formats.get(name).write(Dataset.of(records, categories, name="made"), target)
    found, back, problems = read(name, written)
    assert not len(problems), list(problems)
    return found, back
