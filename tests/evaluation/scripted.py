"""A model whose answers a test scripts, behind a real session; and small data sets made of rectangles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import PIL.Image

from manylens.data.records import Annotation, Record
from manylens.media import to_rle
from manylens.models.base import Model
from manylens.tasks import detections
from tests.session import fakes

FAMILY = "tests.evaluation.scripted:Scripted"
SEGMENT = "segment = ['points', 'box', 'mask']"


class Scripted(Model):
    """Answers each request with what ``answer`` makes of it; keeps the requests."""

    batch_size = 4
    answer: ClassVar[Callable[[Any], Any]]
    asked: ClassVar[list[Any]] = []

    def run(self, requests, ctx):
        for request in requests:
            ctx.check()
            Scripted.asked.append(request)
            yield Scripted.answer(request)


def row(name="scripted", tasks=SEGMENT):
    """A catalog row of the scripted model."""
    return fakes.row(name, tasks=tasks, family="scripted", uses=tasks.split(" ")[0])


def rectangle(size: tuple[int, int], box: tuple[int, int, int, int]) -> np.ndarray:
    """Bool ``(H, W)``; size is ``(width, height)``."""
    mask = np.zeros((size[1], size[0]), bool)
    x0, y0, x1, y1 = box
    mask[y0:y1, x0:x1] = True
    return mask


def annotation(id: str, mask: np.ndarray, category: str = "", **rest: Any) -> Annotation:
    return Annotation(id, category, mask=dict(to_rle(mask)), area=float(mask.sum()), **rest)


def picture(folder: Path, name: str, size: tuple[int, int] = (40, 30), seed: int = 0) -> Path:
    path = folder / f"{name}.png"
    pixels = np.random.default_rng([seed, *name.encode()]).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(path)
    return path


def record(folder: Path, name: str, *annotations: Annotation, size: tuple[int, int] = (40, 30), **rest: Any) -> Record:
    return Record(name, picture(folder, name, size), size[0], size[1], annotations=annotations, **rest)


def answered(masks: list[list[np.ndarray]], size: tuple[int, int]) -> Any:
    """Detections of one list of masks for each prompt, best first."""
    flat = [mask for group in masks for mask in group]
    stacked = np.array(flat, bool).reshape(-1, size[1], size[0])
    scores = [0.9 - 0.1 * i for group in masks for i in range(len(group))]
    objects = [number for number, group in enumerate(masks) for _ in group]
    return detections(np.zeros((len(flat), 4)), scores, masks=stacked, objects=objects)
