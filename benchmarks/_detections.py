"""Made-up detections that look like COCO's: objects of many classes and sizes, and a detector that is right at times."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from manylens.data.records import Category, Record
    from manylens.evaluation.measure import Regions

WIDTH, HEIGHT = 640, 480
_OBJECTS_OF_AN_IMAGE = 7.3  # COCO's mean
FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")  # as COCO lists them


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
