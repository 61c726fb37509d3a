"""Made-up detections that look like COCO's: objects of many classes and sizes, and a detector that is often right."""

from __future__ import annotations

import contextlib
import io
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from manylens.data.records import Annotation, Category, Record
from manylens.evaluation.measure import Regions

WIDTH, HEIGHT = 640, 480
_OBJECTS_OF_AN_IMAGE = 7.3  # COCO's mean


@dataclass(frozen=True)
class MadeUp:
    """A data set with predictions, as COCO's own tools take them.

    Attributes:
        truth: A COCO data set.
        found: COCO results.
    """

    truth: dict[str, Any]
    found: list[dict[str, Any]]

    @staticmethod
    def of(images: int, detections: int, classes: int, seed: int = 0) -> MadeUp:
        """Draw objects (one in a hundred is a crowd); two detections in three are an object, moved a little."""
        rng = np.random.default_rng(seed)
        frequency = rng.dirichlet(np.full(classes, 2.0))
        count = int(images * _OBJECTS_OF_AN_IMAGE)
        image = np.sort(rng.integers(0, images, count))
        category = rng.choice(classes, count, p=frequency)
        size = np.exp(rng.normal(4.2, 0.9, (count, 2))).clip(4, 400)
        corner = rng.uniform(0, 1, (count, 2)) * np.maximum([WIDTH, HEIGHT] - size, 1)
        boxes = np.hstack([corner, size]).astype(np.float32).astype(float)
        truth = {
            "images": [{"id": i, "width": WIDTH, "height": HEIGHT} for i in range(images)],
            "categories": [{"id": k, "name": f"class {k}"} for k in range(classes)],
            "annotations": [
                {
                    "id": i + 1,
                    "image_id": int(image[i]),
                    "category_id": int(category[i]),
                    "bbox": boxes[i].tolist(),
                    "area": float(boxes[i, 2] * boxes[i, 3]) * 0.7,
                    "iscrowd": int(rng.random() < 0.01),
                }
                for i in range(count)
            ],
        }
        hit = rng.random(detections) < 2 / 3
        of = rng.integers(0, count, detections)
        where = np.where(hit, image[of], rng.integers(0, images, detections))
        what = np.where(
            hit & (rng.random(detections) < 0.9), category[of], rng.choice(classes, detections, p=frequency)
        )
        moved = np.exp(rng.normal(0, 0.12, (detections, 4)))
        near = np.hstack([boxes[of, :2] + boxes[of, 2:] * (moved[:, :2] - 1), boxes[of, 2:] * moved[:, 2:]])
        guess = np.hstack([rng.uniform(0, 300, (detections, 2)), np.exp(rng.normal(4.2, 0.9, (detections, 2)))])
        drawn = np.where(hit[:, None], near, guess).astype(np.float32)
        score = np.where(hit, rng.beta(3, 2, detections), rng.beta(1, 4, detections)).astype(np.float32)
        order = np.argsort(where, kind="stable")
        found = [
            {
                "image_id": int(where[i]),
                "category_id": int(what[i]),
                "bbox": drawn[i].astype(float).tolist(),
                "score": float(score[i]),
            }
            for i in order
        ]
        return MadeUp(truth, found)

    @property
    def categories(self) -> list[Category]:
        """The same as ours."""
        return [Category(one["id"], one["name"]) for one in self.truth["categories"]]

    def pairs(self) -> list[tuple[Record, Regions]]:
        """Each picture with its predictions, as a measure of ours takes them."""
        names = {one.id: one.name for one in self.categories}
        objects: defaultdict[int, list[Annotation]] = defaultdict(list)
        for one in self.truth["annotations"]:
            x, y, width, height = one["bbox"]
            box = (x, y, x + width, y + height)
            objects[one["image_id"]].append(
                Annotation(str(one["id"]), names[one["category_id"]], box, area=one["area"], crowd=bool(one["iscrowd"]))
            )
        found: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
        for one in self.found:
            found[one["image_id"]].append(one)
        pairs = []
        for one in self.truth["images"]:
            rows = found[one["id"]]
            boxes = np.array([row["bbox"] for row in rows]).reshape(-1, 4)
            boxes[:, 2:] += boxes[:, :2]
            regions = Regions(
                [names[row["category_id"]] for row in rows], np.array([row["score"] for row in rows]), boxes
            )
            pairs.append(
                (
                    Record(
                        str(one["id"]),
                        Path("none"),
                        one["width"],
                        one["height"],
                        annotations=tuple(objects[one["id"]]),
                    ),
                    regions,
                )
            )
        return pairs


class Reference:
    """pycocotools on COCO data: loaded once, evaluated as often as asked.

    Args:
        truth: A COCO data set; changed by pycocotools.
        found: COCO results; likewise.
        kind: ``bbox`` or ``segm``.
    """

    def __init__(self, truth: dict[str, Any], found: list[dict[str, Any]], kind: str = "bbox") -> None:
        from pycocotools.coco import COCO

        self._kind, self._truth = kind, COCO()
        self._truth.dataset = truth
        with contextlib.redirect_stdout(io.StringIO()):
            self._truth.createIndex()
            self._found = self._truth.loadRes(found)

    def figures(self) -> np.ndarray:
        """The twelve figures; NaN where pycocotools says -1."""
        from pycocotools.cocoeval import COCOeval

        with contextlib.redirect_stdout(io.StringIO()):
            judge = COCOeval(self._truth, self._found, self._kind)
            judge.evaluate()
            judge.accumulate()
            judge.summarize()
        return np.where(judge.stats < 0, np.nan, judge.stats)
