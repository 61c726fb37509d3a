"""One evaluation of instance masks in a process of its own, for :mod:`benchmarks.mask_memory`: prints figures."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._detections import HEIGHT, WIDTH, Reference

CLASSES, OBJECTS = 20, 10


def pictures(images: int, seed: int = 0) -> Iterator[list[dict[str, Any]]]:
    """For each picture its objects: class, true RLE, and a predicted RLE with its score."""
    from hotcoco import mask as rle

    rng = np.random.default_rng(seed)
    turn = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    for _ in range(images):
        rows = []
        for _ in range(OBJECTS):
            centre, radius = rng.uniform([80, 60], [WIDTH - 80, HEIGHT - 60]), rng.uniform(10, 110)
            waves = 1 + 0.15 * np.sin(5 * turn + rng.uniform(0, 6)) + 0.05 * rng.normal(size=turn.size)
            outline = centre + radius * waves[:, None] * np.stack([np.cos(turn), np.sin(turn)], axis=1)
            near = outline + radius * rng.normal(0, 0.15, 2) + rng.normal(0, 0.03 * radius, outline.shape)
            drawn = [
                rle.fr_poly(line.clip(0, [WIDTH, HEIGHT]).ravel().tolist(), HEIGHT, WIDTH) for line in (outline, near)
            ]
            truth, found = ({"size": [HEIGHT, WIDTH], "counts": one["counts"].decode()} for one in drawn)
            score = float(rng.uniform())
            rows.append({"class": int(rng.integers(CLASSES)), "truth": truth, "found": found, "score": score})
        yield rows


def ours(images: int) -> dict[str, float]:
    """Stream them through the measure."""
    from manylens.data.records import Annotation, Category, Record
    from manylens.evaluation.measure import Regions
    from manylens.evaluation.measures.detection import Detection
    from manylens.evaluation.measures.detection_tally import FIGURES

    measure = Detection([Category(k, f"class {k}") for k in range(CLASSES)], kind="mask")
    for number, rows in enumerate(pictures(images)):
        names = [f"class {row['class']}" for row in rows]
        objects = tuple(
            Annotation(f"{number}/{i}", name, mask=row["truth"])
            for i, (name, row) in enumerate(zip(names, rows, strict=True))
        )
        regions = Regions(names, np.array([row["score"] for row in rows]), masks=[row["found"] for row in rows])
        measure.add(Record(str(number), Path("none"), WIDTH, HEIGHT, annotations=objects), regions)
    figures = measure.tally().all()
    return {name: figures[name] for name in FIGURES}


def pycocotools(images: int) -> dict[str, float]:
    """Gather them, then evaluate."""
    from pycocotools import mask as rle

    from manylens.evaluation.measures.detection_tally import FIGURES

    annotations: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for number, rows in enumerate(pictures(images)):
        for row in rows:
            one = {"image_id": number, "category_id": row["class"]}
            shape = {"segmentation": row["truth"], "area": float(rle.area(row["truth"])), "iscrowd": 0}
            annotations.append(one | shape | {"id": len(annotations) + 1})
            found.append(one | {"segmentation": row["found"], "score": row["score"]})
    truth = {
        "images": [{"id": number, "width": WIDTH, "height": HEIGHT} for number in range(images)],
        "categories": [{"id": k, "name": f"class {k}"} for k in range(CLASSES)],
        "annotations": annotations,
    }
    return dict(zip(FIGURES, Reference(truth, found, "segm").figures().tolist(), strict=True))


def supervision(images: int) -> dict[str, float]:
    """Decode them, as its metric takes dense masks."""
    import supervision as sv
    from hotcoco import mask as rle
    from supervision.metrics import MeanAveragePrecision, MetricTarget

    metric = MeanAveragePrecision(metric_target=MetricTarget.MASKS)
    for rows in pictures(images):
        kinds = np.array([row["class"] for row in rows])
        sides = []
        for side in ("found", "truth"):
            masks = np.stack([rle.decode(row[side]).astype(bool) for row in rows])
            scores = np.array([row["score"] for row in rows]) if side == "found" else None
            sides.append(sv.Detections(sv.mask_to_xyxy(masks), mask=masks, class_id=kinds, confidence=scores))
        metric.update([sides[0]], [sides[1]])
    return {"AP": float(metric.compute().map50_95)}


def main() -> None:
    """Evaluate and print a JSON line; ``before`` is the resident memory once everything is imported."""
    import psutil

    told = json.loads(sys.argv[1])
    judge = {"ours": ours, "pycocotools": pycocotools, "supervision": supervision}[told["who"]]
    judge(1)
    before = psutil.Process().memory_info().rss
    start = time.perf_counter()
    figures = judge(told["images"])
    print(json.dumps({"figures": figures, "seconds": time.perf_counter() - start, "before": before}))


if __name__ == "__main__":
    main()
