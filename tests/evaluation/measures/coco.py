"""Random data sets in COCO's form with pycocotools as the oracle, and the same as records and regions of ours."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from manylens.data.records import Annotation, Category, Record
from manylens.evaluation.measure import Regions

HEIGHT, WIDTH = 120, 160
NAMES = ("cat", "dog", "never seen", "never found")
CATEGORIES = tuple(Category(i + 1, name) for i, name in enumerate(NAMES))
NOT_JUDGED = 1e11  # an area out of every range: how pycocotools is told to ignore an object that is no crowd


@dataclass(frozen=True)
class Shape:
    box: tuple[float, float, float, float]
    mask: dict[str, Any]


@dataclass(frozen=True)
class Thing:
    image: int
    name: str
    shape: Shape
    score: float = 0.0
    crowd: bool = False
    ignore: bool = False
    area: float | None = None


@dataclass(frozen=True)
class Made:
    """A data set: which images there are, what is in them and what was found."""

    images: tuple[int, ...]
    truth: tuple[Thing, ...]
    found: tuple[Thing, ...]

    def pairs(self, kind: str) -> list[tuple[Record, Regions]]:
        return [
            (
                Record(str(image), Path("none"), WIDTH, HEIGHT, annotations=tuple(self._annotations(image, kind))),
                self._regions(image, kind),
            )
            for image in self.images
        ]

    def _annotations(self, image: int, kind: str) -> list[Annotation]:
        return [
            Annotation(
                f"{image}/{i}",
                one.name,
                box=one.shape.box if kind == "box" else None,
                mask=one.shape.mask if kind == "mask" else None,
                area=one.area,
                crowd=one.crowd,
                ignore=one.ignore,
            )
            for i, one in enumerate(self.truth)
            if one.image == image
        ]

    def _regions(self, image: int, kind: str) -> Regions:
        here = [one for one in self.found if one.image == image]
        return Regions(
            [one.name for one in here],
            np.array([one.score for one in here]),
            np.array([one.shape.box for one in here], float).reshape(-1, 4) if kind == "box" else None,
            [one.shape.mask for one in here] if kind == "mask" else None,
        )

    def oracle(self, kind: str) -> COCOeval:
        """pycocotools after ``summarize``."""
        with contextlib.redirect_stdout(io.StringIO()):
            judge = COCOeval(self._coco(self.truth, kind), self._coco(self.found, kind), _KINDS[kind])
            judge.evaluate()
            judge.accumulate()
            judge.summarize()
        return judge

    def _coco(self, things: tuple[Thing, ...], kind: str) -> COCO:
        coco = COCO()
        coco.dataset = {
            "images": [{"id": image} for image in self.images],
            "categories": [{"id": one.id, "name": one.name} for one in CATEGORIES],
            "annotations": [
                {
                    "id": i + 1,
                    "image_id": one.image,
                    "category_id": NAMES.index(one.name) + 1,
                    "bbox": _xywh(one.shape.box),
                    "segmentation": one.shape.mask,
                    "area": NOT_JUDGED if one.ignore else _area(one, kind),
                    "iscrowd": int(one.crowd),
                    "score": one.score,
                }
                for i, one in enumerate(things)
            ],
        }
        with contextlib.redirect_stdout(io.StringIO()):
            coco.createIndex()
        for one in coco.dataset["images"]:
            one.update(height=HEIGHT, width=WIDTH)
        return coco


_KINDS = {"box": "bbox", "mask": "segm"}


def expected(judge: COCOeval) -> dict[str, float]:
    """All figures by our names; NaN where pycocotools says -1."""
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
    figures = dict(zip(names, judge.stats, strict=True))
    precision = judge.eval["precision"][:, :, :, 0, 2]
    figures |= {f"AP/{name}": precision[:, :, k].mean() for k, name in enumerate(NAMES)}
    figures |= {f"AP50/{name}": precision[0, :, k].mean() for k, name in enumerate(NAMES)}
    return {name: np.nan if value < 0 else float(value) for name, value in figures.items()}


def made(seed: int, *, ties: bool = False, images: int = 8) -> Made:
    """Draw one: crowds, ignored objects, images with nothing in them, small to large, many exact overlaps."""
    rng = np.random.default_rng(seed)
    truth = [
        Thing(
            int(image),
            str(rng.choice(["cat", "dog", "never found"])),
            shape := _shape(rng),
            crowd=bool(rng.random() < 0.12),
            ignore=bool(rng.random() < 0.12),
            area=None if rng.random() < 0.5 else float(rle.area(shape.mask)) * 0.8,
        )
        for image in rng.integers(0, images, rng.integers(1, 4 * images))
    ]
    found = []
    for _ in range(int(rng.integers(0, 8 * images))):
        near = truth[rng.integers(len(truth))]
        hit = rng.random() < 0.7
        found.append(
            Thing(
                near.image if hit else int(rng.integers(images)),
                near.name if hit and near.name != "never found" else str(rng.choice(["cat", "dog", "never seen"])),
                _moved(rng, near.shape) if hit else _shape(rng),
                score=float(rng.integers(5) / 5 if ties else rng.random()),
            )
        )
    return Made(tuple(range(images)), tuple(truth), tuple(found))


def repeated(data: Made, counts: list[int]) -> Made:
    """Each image as often as said, under numbers of their own."""
    copies = {image: [image * 100 + i for i in range(count)] for image, count in zip(data.images, counts, strict=True)}
    again = lambda things: tuple(Thing(**{**vars(one), "image": n}) for one in things for n in copies[one.image])  # noqa: E731
    return Made(tuple(n for image in data.images for n in copies[image]), again(data.truth), again(data.found))


def _shape(rng: np.random.Generator) -> Shape:
    width, height = rng.choice([8, 20, 32, 60, 110], 2)
    x, y = int(rng.integers(0, WIDTH - width + 1)), int(rng.integers(0, HEIGHT - height + 1))
    return _of(rng, x, y, int(width), int(height))


def _moved(rng: np.random.Generator, shape: Shape) -> Shape:
    x0, y0, x1, y1 = (int(value) for value in shape.box)
    x, y = min(max(x0 + int(rng.integers(-3, 4)), 0), WIDTH - 4), min(max(y0 + int(rng.integers(-3, 4)), 0), HEIGHT - 4)
    width, height = (max(side + int(rng.integers(-4, 5)), 4) for side in (x1 - x0, y1 - y0))
    return _of(rng, x, y, min(width, WIDTH - x), min(height, HEIGHT - y))


def _of(rng: np.random.Generator, x: int, y: int, width: int, height: int) -> Shape:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[y : y + height, x : x + width] = 1
    mask[y : y + height // 3, x : x + width // 3] = rng.random() < 0.7
    coded = rle.encode(mask)
    return Shape((x, y, x + width, y + height), {"size": coded["size"], "counts": coded["counts"].decode()})


def _xywh(box: tuple[float, float, float, float]) -> list[float]:
    x0, y0, x1, y1 = box
    return [x0, y0, x1 - x0, y1 - y0]


def _area(one: Thing, kind: str) -> float:
    if one.area is not None:
        return one.area
    x0, y0, x1, y1 = one.shape.box
    return float((x1 - x0) * (y1 - y0) if kind == "box" else rle.area(one.shape.mask))
